"""The noise ε as an operator."""

from __future__ import annotations

import torch
from torch import Tensor

from vae_fast import noise, tracing


def standard_normal_fwd(options, wanted) -> Tensor:
    """ε of noise.py, of shape sample_shape + shape: float32 normals, then widened or rounded to ``dtype``."""
    if tracing.traced() and tracing.to_onnx():
        if options.seed is not None:
            raise ValueError(
                "ONNX has no form of seeded noise: leave seed= out, and each run of the exported model draws anew"
            )
        shape = (*options.sample_shape, *options.shape)
        return torch.randn(shape, dtype=options.dtype, device=options.device)
    # One opaque operator to a compiler, which may fuse multiply-adds and so change bits.
    draw = torch.ops.vae_fast.reference_normals if tracing.traced() else noise.normals
    arguments = {name: value for name, value in zip(options._fields, options, strict=True) if name != "dtype"}
    return draw(**arguments).to(options.dtype)
