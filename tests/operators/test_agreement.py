"""Every backend gives what the reference gives, at lengths where packs, tiles and pieces begin and end."""

import pytest
import torch

import vae_fast as vf
from helpers.behaviour import with_grads
from helpers.cases import CASES, each_case
from helpers.marks import each_backend

pytestmark = each_backend


# Of packs of 4 to 16 numbers, and of tiles of 512.
LENGTHS = (1, 9, 33, 513)


@each_case(among=[case for case in CASES if "weight" not in case.options])
def test_like_the_reference(case, backend):
    """Sums in another order differ by some 1e-6 of Σ|terms|; an element left out by O(1)."""
    if backend == "reference":
        pytest.skip("the reference itself")
    for n in LENGTHS:
        tensors = case.inputs(torch.float32, (3, 2, n))
        got = with_grads(case, *tensors)
        with vf.use_backend("reference"):
            want = with_grads(case, *tensors)
        torch.testing.assert_close(got, want, rtol=1e-5, atol=2e-5)
