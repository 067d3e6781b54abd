"""Tiles of pairs of one set of points with another, and of their dims: [owners, others, dims].

A program owns some points, some of their dims and a part of the others, whose tiles it meets one after another;
within a tile sums are in the dtype computed in, over tiles in float64. Of more dims than a tile has, a program
makes what is a sum over all of them for itself. How this is cut up follows from sizes and dtype alone.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from vae_fast.triton_kernels import launch
from vae_fast.triton_kernels.layout import BUSY, ceil_div, power_of_two
from vae_fast.triton_kernels.lean import exp_over

# Dims of a tile, at most.
MOST_DIMS = 128


class Tiles(NamedTuple):
    """How pairs are cut up: a tile's sizes; chunks of dims; parts of the others, of ``each`` tiles; programs."""

    owners: int
    others: int
    dims: int
    chunks: int
    each: int
    parts: int
    programs: int

    @property
    def constants(self) -> dict[str, int]:
        return {"BLOCK_OWNERS": self.owners, "BLOCK_OTHERS": self.others, "BLOCK_DIMS": self.dims}


@functools.lru_cache(maxsize=1024)
def _tiles(n_owners: int, n_others: int, dims: int, elements: int, alone: bool) -> Tiles:
    width = min(power_of_two(dims), MOST_DIMS, elements)
    pairs = elements // width
    owners = 1 if alone else 1 << (pairs.bit_length() - 1) // 2
    others = min(pairs // owners, elements)
    chunks = max(1, ceil_div(dims, width))
    groups, tiles = ceil_div(n_owners, owners) * chunks, ceil_div(n_others, others)
    each = max(1, ceil_div(tiles, max(1, BUSY // max(1, groups))))
    parts = ceil_div(tiles, each)
    return Tiles(owners, others, width, chunks, each, parts, groups * parts)


def tiles(n_owners: int, n_others: int, dims: int, dtype: torch.dtype, alone: bool = False) -> Tiles:
    """With ``alone`` a tile has one owner, whose others are its own."""
    # Addresses of pairs that share nothing take twice the registers.
    elements = launch.tile_bytes // dtype.itemsize // (2 if alone else 1)
    return _tiles(n_owners, n_others, dims, elements, alone)


def partials(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Sums of parts, float64."""
    return like.new_empty(shape, dtype=torch.float64)


@triton.jit
def place(owners, chunks, each, BLOCK_OWNERS: tl.constexpr, BLOCK_OTHERS: tl.constexpr, BLOCK_DIMS: tl.constexpr):
    """A program's first owner, first dim, chunk, part, and its others from the first to the last tile."""
    program = tl.program_id(0).to(tl.int64)
    groups = (owners + (BLOCK_OWNERS - 1)) // BLOCK_OWNERS
    part = program // (groups * chunks)
    rest = program % (groups * chunks)
    chunk = rest // groups
    first = part * each * BLOCK_OTHERS
    return rest % groups * BLOCK_OWNERS, chunk * BLOCK_DIMS, chunk, part, first, first + each * BLOCK_OTHERS


@triton.jit
def along(first, BLOCK: tl.constexpr, AXIS: tl.constexpr):
    """Numbers from ``first`` on, along an axis of the three."""
    number = first + tl.arange(0, BLOCK)
    if AXIS == 0:
        return number[:, None, None]
    elif AXIS == 1:
        return number[None, :, None]
    else:
        return number[None, None, :]


@triton.jit
def add_exponentials(top, sum, terms):
    """(top, sum) of log Σ exp along the second axis so far, the sum less its largest term's and in float64."""
    most = tl.maximum(top, tl.max(terms, 1, keep_dims=True))
    shift = tl.where(tl.abs(most) < float("inf"), most, 0.0)
    part = tl.sum(exp_over(terms - shift, 1), 1, keep_dims=True).to(tl.float64)
    return most, tl.fma(sum, exp_over(top - shift, 1).to(tl.float64), part)
