"""σ of every parametrisation over all of float32: some of test_scale_range.py, all of it in `make test-triton`."""

import pytest
import torch

import vae_fast as vf
from helpers import unlike_forms, whole_range


@pytest.mark.parametrize(
    ("call", "param", "eps"),
    [(("log_prob", "kl_prior")[k % 2], *form) for k, form in enumerate(whole_range.FORMS[::2])],
    ids=str,
)
def test_whole_range(call, param, eps):
    with vf.use_backend("triton"):
        whole_range.assert_right(whole_range.findings(call, torch.float32, param, eps))


@pytest.mark.parametrize(("own", "prior"), unlike_forms.SOME[::2], ids=str)
def test_unlike_forms(own, prior):
    with vf.use_backend("triton"):
        whole_range.assert_right(unlike_forms.findings(own, prior, torch.float32, 16))
