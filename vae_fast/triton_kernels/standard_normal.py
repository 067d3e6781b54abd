"""The noise ε by itself."""

from __future__ import annotations

import math
from typing import Any

import torch
import triton.language as tl
from torch import Tensor

from vae_fast.operators import Wanted
from vae_fast.triton_kernels import launch
from vae_fast.triton_kernels.kernel import kernel
from vae_fast.triton_kernels.layout import ACCESS_BYTES, ceil_div, tile_of
from vae_fast.triton_kernels.noise import NORMALS, NORMALS_OF_COUNTER, normals
from vae_fast.triton_kernels.noise_tiles import key_of
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
        column = column - (first & (NORMALS_OF_COUNTER - 1)).to(tl.int32)
        mask = (start + column >= 0) & (start + column < columns * VEC)
    noise = normals(first + start, first_sample + draw, key_of(seed, seed_tensor), BLOCK, LANES)
    tl.store(out + draw * (columns * VEC) + start + column, narrow(noise, out.dtype.element_ty), mask=mask)


def standard_normal_fwd(options: Any, wanted: Wanted) -> Tensor:
    sample_shape, shape, dtype = options.sample_shape, options.shape, options.dtype
    out = torch.empty((*sample_shape, *shape), dtype=dtype, device=options.device)
    if out.numel() == 0:
        return out
    draws, columns = math.prod(sample_shape), math.prod(shape)
    aligned = options.offset % NORMALS == 0
    vec = ACCESS_BYTES // dtype.itemsize
    vec = vec if aligned and columns % vec == 0 else 1
    block = tile_of(launch.tile_bytes, dtype.itemsize)
    column_tiles = ceil_div(columns if aligned else columns + NORMALS - 1, block)
    noise = (options.seed, options.seed_tensor, options.offset, options.first_sample)
    args = (out, *noise, columns // vec, column_tiles)
    lanes = ACCESS_BYTES // dtype.itemsize if dtype.itemsize == torch.float16.itemsize else NORMALS
    constants = {"ALIGNED": aligned, "LANES": lanes, "BLOCK": block, "VEC": vec}
    registers = launch.FEW_REGISTERS if vec > 1 else launch.ALL_REGISTERS
    launch.run(_kernel, draws * column_tiles, out.device, args, constants, registers)
    return out
