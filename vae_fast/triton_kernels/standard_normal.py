"""The noise ε by itself."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import triton.language as tl
from torch import Tensor

from vae_fast.triton_kernels import launch
from vae_fast.triton_kernels.kernel import kernel
from vae_fast.triton_kernels.layout import ceil_div, tile_of
from vae_fast.triton_kernels.noise import normals
from vae_fast.triton_kernels.sampling import key_of
from vae_fast.triton_kernels.tiles import narrow


@kernel
def _kernel(
    out,
    seed: tl.int64,
    seed_tensor,
    offset: tl.int64,
    first_sample: tl.int64,
    columns: tl.int64,
    column_tiles: tl.int64,
    ALIGNED: tl.constexpr,
    LANES: tl.constexpr,
    BLOCK: tl.constexpr,
    VEC: tl.constexpr,
):
    program = tl.program_id(0).to(tl.int64)
    draw, start = program // column_tiles, program % column_tiles * BLOCK
    column = tl.arange(0, BLOCK)[None, :]
    first = tl.zeros((1, 1), tl.int64) + offset
    if ALIGNED:
        left = tl.minimum(columns - start // VEC, BLOCK // VEC).to(tl.int32)
        mask = column // VEC < left
    else:
        column = column - (first & 3).to(tl.int32)
        mask = (start + column >= 0) & (start + column < columns * VEC)
    noise = normals(first + start, first_sample + draw, key_of(seed, seed_tensor), BLOCK, LANES)
    tl.store(out + draw * (columns * VEC) + start + column, narrow(noise, out.dtype.element_ty), mask=mask)


def standard_normal_fwd(
    sample_shape: Sequence[int],
    shape: Sequence[int],
    seed: int,
    seed_tensor: Tensor | None,
    offset: int,
    first_sample: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    out = torch.empty((*sample_shape, *shape), dtype=dtype, device=device)
    if out.numel() == 0:
        return out
    draws, columns = math.prod(sample_shape), math.prod(shape)
    aligned = offset % 4 == 0
    vec = 16 // out.element_size()
    vec = vec if aligned and columns % vec == 0 else 1
    block = tile_of(launch.tile_bytes, out.element_size())
    column_tiles = ceil_div(columns if aligned else columns + 3, block)
    args = (out, seed, seed_tensor, offset, first_sample, columns // vec, column_tiles)
    constants = {"ALIGNED": aligned, "LANES": 8 if dtype.itemsize == 2 else 4, "BLOCK": block, "VEC": vec}
    launch.run(_kernel, draws * column_tiles, out.device, args, constants)
    return out
