"""The noise ε by itself."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import triton.language as tl
from torch import Tensor

from vae_fast.operators import Wanted
from vae_fast.triton_kernels import launch
from vae_fast.triton_kernels.kept import Recent
from vae_fast.triton_kernels.kernel import kernel
from vae_fast.triton_kernels.launch import Launch
from vae_fast.triton_kernels.layout import ACCESS_BYTES, ceil_div, tile_of
from vae_fast.triton_kernels.noise import NORMALS, NORMALS_OF_COUNTER, normals
from vae_fast.triton_kernels.noise_tiles import key_of
from vae_fast.triton_kernels.tiles import narrow


@kernel
def _kernel(
    out,
    seed_tensor,
    seed: tl.int64,
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


class _Normals(NamedTuple):
    """What a class of calls shares: its launch, and the row and the tiles that the kernel is told of."""

    launch: Launch
    integers: tuple[int, int]


_kept: Recent[_Normals] = Recent()


def _normals(out: Tensor, draws: int, columns: int, aligned: bool) -> _Normals:
    itemsize = out.dtype.itemsize
    vec = ACCESS_BYTES // itemsize
    vec = vec if aligned and columns % vec == 0 else 1
    block = tile_of(launch.tile_bytes, itemsize)
    column_tiles = ceil_div(columns if aligned else columns + NORMALS - 1, block)
    lanes = ACCESS_BYTES // itemsize if itemsize == torch.float16.itemsize else NORMALS
    constants = {"ALIGNED": aligned, "LANES": lanes, "BLOCK": block, "VEC": vec}
    registers = launch.FEW_REGISTERS if vec > 1 else launch.ALL_REGISTERS
    programs = draws * column_tiles
    return _Normals(Launch(_kernel, programs, out.device, constants, registers), (columns // vec, column_tiles))


def standard_normal_fwd(options: Any, wanted: Wanted) -> Tensor:
    o = options
    out = torch.empty((*o.sample_shape, *o.shape), dtype=o.dtype, device=o.device)
    if out.numel() == 0:
        return out
    draws, columns, aligned = math.prod(o.sample_shape), math.prod(o.shape), o.offset % NORMALS == 0
    seed = None if o.seed_tensor is None else o.seed_tensor.dtype
    key = draws, columns, aligned, o.dtype, out.device, seed, launch.tile_bytes
    found = _kept.find(key) or _kept.keep(key, _normals(out, draws, columns, aligned))
    found.launch((out, o.seed_tensor), (o.seed, o.offset, o.first_sample, *found.integers))
    return out
