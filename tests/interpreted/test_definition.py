"""The Triton kernels against the definition, at tiles of several sizes."""

import math
import os

import pytest
from hypothesis import assume, given, settings

from helpers import definition
from vae_fast.triton_kernels import launch


@pytest.mark.parametrize("tile_bytes", (128, 512, 4096))
@settings(max_examples=int(os.environ.get("VAE_FAST_TEST_CASES", "12")))
@given(case=definition.cases())
def test_like_the_definition(tile_bytes, case):
    # So many programs that a case takes about a second.
    elements = math.prod(case.shape) * math.prod(case.options.get("sample_shape", ()))
    assume(elements * case.tensors[0].element_size() <= 16 * tile_bytes)
    before, launch.tile_bytes = launch.tile_bytes, tile_bytes
    try:
        definition.check(case, "triton")
    finally:
        launch.tile_bytes = before
