"""The squared maximum mean discrepancy of two sets of points, and its gradients, without a table of pairs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from vae_fast.triton_kernels import launch, pairs
from vae_fast.triton_kernels.arithmetic import divide
from vae_fast.triton_kernels.kernel import kernel
from vae_fast.triton_kernels.lean import exp_over
from vae_fast.triton_kernels.pairs import along, place

# Constants of a launch; where there are more, the kernel is a sum of several.
_CONSTANTS = 8


@triton.jit
def _difference(x, y, n, m, dims, i, j, d):
    """x_i − y_j; 0 where there is none."""
    of_x, of_y = (i < n) & (d < dims), (j < m) & (d < dims)
    difference = tl.load(x + i * dims + d, mask=of_x, other=0.0) - tl.load(y + j * dims + d, mask=of_y, other=0.0)
    return tl.where(of_x & of_y, difference, 0.0)


@triton.jit
def _number(value, T: tl.constexpr):
    return (tl.full((), 1.0, tl.float64) * value).to(T)


@triton.jit
def _add_scale(value, slope, square, rate, T: tl.constexpr):
    own = _number(rate, T)
    one = tl.full(square.shape, 1.0, T)
    over = divide(one, tl.fma(square, own, one))
    return value + over, tl.fma(over * (own + own), over, slope)


@kernel
def _mean(
    x,
    y,
    values,
    slopes,
    n: tl.int64,
    m: tl.int64,
    dims: tl.int64,
    chunks: tl.int64,
    each: tl.int64,
    of_value: tl.float64,
    of_slope: tl.float64,
    rate0: tl.float64,
    rate1: tl.float64,
    rate2: tl.float64,
    rate3: tl.float64,
    rate4: tl.float64,
    rate5: tl.float64,
    rate6: tl.float64,
    rate7: tl.float64,
    COUNT: tl.constexpr,
    EXPONENTIAL: tl.constexpr,
    WITHOUT: tl.constexpr,
    BLOCK_OWNERS: tl.constexpr,
    BLOCK_OTHERS: tl.constexpr,
    BLOCK_DIMS: tl.constexpr,
):
    """Sums of the kernel, a program's, and of its derivative by x, [part, point, dim]; the rates are 1/c.

    WITHOUT: x and y are one set, whose pairs of a point and itself are left out.
    """
    T: tl.constexpr = x.dtype.element_ty
    rates = (rate0, rate1, rate2, rate3, rate4, rate5, rate6, rate7)
    point, dim, chunk, part, first, end = place(n, chunks, each, BLOCK_OWNERS, BLOCK_OTHERS, BLOCK_DIMS)
    i, d = along(point, BLOCK_OWNERS, 0), along(dim, BLOCK_DIMS, 2)
    total = tl.zeros((), tl.float64)
    sums = tl.zeros((BLOCK_OWNERS, 1, BLOCK_DIMS), tl.float64)
    for start in range(first, tl.minimum(end, m), BLOCK_OTHERS):
        j = along(start, BLOCK_OTHERS, 1)
        square = tl.zeros((BLOCK_OWNERS, BLOCK_OTHERS, 1), T)
        for other_dim in range(0, dims, BLOCK_DIMS):
            difference = _difference(x, y, n, m, dims, i, j, along(other_dim, BLOCK_DIMS, 2))
            square += tl.sum(difference * difference, 2, keep_dims=True)
        if EXPONENTIAL:
            rate = _number(rate0, T)
            value = exp_over(-square * rate, 1)
            slope = value * (rate + rate)
        else:
            value, slope = tl.zeros_like(square), tl.zeros_like(square)
            for s in tl.static_range(COUNT):
                value, slope = _add_scale(value, slope, square, rates[s], T)
        there = (i < n) & (j < m)
        if WITHOUT:
            there &= i != j
        value, slope = tl.where(there, value, 0.0), tl.where(there, slope, 0.0)
        total += tl.sum(tl.sum(tl.sum(value, 2), 1), 0).to(tl.float64)
        if slopes is not None:
            by = slope * _difference(x, y, n, m, dims, i, j, d)
            # A slope of 0 is none of an infinite distance.
            sums -= tl.sum(tl.where(slope == 0.0, 0.0, by), 1, keep_dims=True).to(tl.float64)
    # Every chunk of dims has made the same values.
    tl.store(values + tl.program_id(0), tl.where(chunk == 0, total * of_value, 0.0))
    if slopes is not None:
        tl.store(slopes + (part * n + i) * dims + d, sums * of_slope, mask=(i < n) & (d < dims))


def mmd_fwd(
    x: Tensor,
    y: Tensor,
    constants: Sequence[float],
    exponential: bool,
    unbiased: bool,
    need_dx: bool,
    need_dy: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """MMD² and its gradients by x and y; [0] where one is not wanted."""
    _check(x, y, constants, exponential)
    sets, needs = (x.contiguous(), y.contiguous()), (need_dx, need_dy)
    # (of, with, factor, whether it is of the value)
    means = [(0, 0, 1.0, True), (1, 1, 1.0, True), (0, 1, -2.0, True), *([(1, 0, -2.0, False)] if need_dy else [])]
    values: list[Tensor] = []
    slopes: tuple[list[Tensor], list[Tensor]] = ([], [])
    for first in range(0, len(constants), _CONSTANTS):
        rates = [1 / c for c in constants[first : first + _CONSTANTS]]
        for of, other, factor, of_value in means:
            a, b = sets[of], sets[other]
            itself = of == other
            pairs_of = len(a) * (len(a) - 1) if itself and unbiased else len(a) * len(b)
            weight = factor / pairs_of if pairs_of else 0.0
            tiles = pairs.tiles(len(a), len(b), a.shape[1], a.dtype)
            values.append(pairs.partials((tiles.programs,), a))
            if needs[of]:
                slopes[of].append(pairs.partials((tiles.parts, *a.shape), a))
            # Of a set with itself each point is in two places.
            numbers = (weight if of_value else 0.0, (2 if itself else 1) * weight, *rates)
            args = (a, b, values[-1], slopes[of][-1] if needs[of] else None, len(a), len(b), a.shape[1])
            padded = (*args, tiles.chunks, tiles.each, *numbers, *[1.0] * (_CONSTANTS - len(rates)))
            options = {"COUNT": len(rates), "EXPONENTIAL": exponential, "WITHOUT": itself and unbiased}
            if tiles.programs:
                launch.run(_mean, tiles.programs, a.device, padded, {**options, **tiles.constants})
    value = x.new_empty(())
    _add_up(values, value)
    dx, dy = (torch.empty_like(t) if need else t.new_empty(0) for t, need in zip(sets, needs, strict=True))
    for tables, out in zip(slopes, (dx, dy), strict=True):
        _add_up(tables, out)
    return value, dx, dy


def _check(x: Tensor, y: Tensor, constants: Sequence[float], exponential: bool) -> None:
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise ValueError(f"x and y must be [points, dims], got {tuple(x.shape)} and {tuple(y.shape)}")
    if x.dtype not in (torch.float32, torch.float64) or y.dtype != x.dtype or y.device != x.device:
        raise ValueError(f"x and y must be float32 or float64 of one device, got {x.dtype} and {y.dtype}")
    if len(constants) != 1 if exponential else not constants:
        raise ValueError(f"constants must be {'one number' if exponential else 'a number at least'}")


def _add_up(tables: list[Tensor], out: Tensor) -> None:
    if tables and out.numel():
        table = torch.cat(tables)
        launch.join(table, table.numel() // out.numel(), out)
