"""σ of every parametrisation over all of float32: test_scale_range.py, which `make test-triton` runs whole."""

import pytest
import test_scale_range
import torch

import vae_fast as vf


@pytest.mark.parametrize(("param", "eps"), test_scale_range.FORMS[::2], ids=str)
@pytest.mark.parametrize("call", ["log_prob", "kl_prior"])
def test_whole_range(call, param, eps):
    with vf.use_backend("triton"):
        test_scale_range.assert_right(test_scale_range.findings(call, torch.float32, param, eps))
