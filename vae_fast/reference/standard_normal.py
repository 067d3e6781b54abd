"""The noise ε as an operator."""

from __future__ import annotations

import torch
from torch import Tensor

from vae_fast import noise


def standard_normal_fwd(sample_shape, shape, seed, seed_tensor, offset, first_sample, dtype, device) -> Tensor:
    """ε of noise.py, of shape sample_shape + shape: float32 normals, then widened or rounded to ``dtype``."""
    args = (sample_shape, shape, seed, seed_tensor, offset, first_sample, device)
    # One opaque operator to a compiler, which may fuse multiply-adds and so change bits.
    draw = torch.ops.vae_fast.reference_normals if torch.compiler.is_compiling() else noise.normals
    return draw(*args).to(dtype)
