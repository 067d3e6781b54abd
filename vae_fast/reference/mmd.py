"""The squared maximum mean discrepancy of two sets of points: in blocks of points, and whole.

    MMD² = mean k(x, x′) + mean k(y, y′) − 2 mean k(x, y)        k = Σ_s c_s/(c_s + d²)  or  e^(−d²/c)

x is [n, D], y [m, D]; d² is the squared distance, of differences. Unbiased, the first two means leave out the pairs
of a point and itself, of which each constant's kernel is 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

# Differences of a block: on a CPU so that it stays in a core's cache.
_TERMS = {"cpu": 1 << 16}
_TERMS_ELSEWHERE = 1 << 22


def whole(x: Tensor, y: Tensor, constants: Sequence[float], exponential: bool, unbiased: bool) -> Tensor:
    """MMD² of PyTorch's own operations, on the whole tables of differences."""

    def mean(a: Tensor, b: Tensor) -> Tensor:
        values, _ = _kernel(((a.unsqueeze(1) - b) ** 2).sum(-1), constants, exponential)
        if a is b and unbiased:
            return (values.sum() - _of_themselves(a, constants, exponential)) / (len(a) * (len(a) - 1))
        return values.mean()

    return mean(x, x) + mean(y, y) - 2 * mean(x, y)


def mmd_fwd(
    x: Tensor,
    y: Tensor,
    constants: Sequence[float],
    exponential: bool,
    unbiased: bool,
    need_dx: bool,
    need_dy: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """MMD² and its gradients by x and y; [0] where one is not wanted. Sums over pairs are in float64."""
    value = torch.zeros((), dtype=torch.float64, device=x.device)
    dx, dy = (torch.zeros_like(t) if need else t.new_empty(0) for t, need in ((x, need_dx), (y, need_dy)))
    for a, b, factor in ((x, x, 1.0), (y, y, 1.0), (x, y, -2.0)):
        itself = a is b
        pairs = len(a) * (len(a) - 1) if itself and unbiased else len(a) * len(b)
        total = value.new_zeros(())
        if itself and unbiased:
            total -= _of_themselves(a, constants, exponential)
        for at in _blocks(a, b):
            difference = a[at].unsqueeze(1) - b
            values, slopes = _kernel((difference * difference).sum(-1), constants, exponential)
            total = total + values.sum(dtype=torch.float64)
            # A slope of 0 is none of an infinite distance.
            wide = slopes.unsqueeze(-1)
            by = torch.where(wide == 0, wide, wide * difference) * (factor / pairs)
            if need_dx and a is x:
                dx[at] -= by.sum(1) * (2 if itself else 1)
            if need_dy and itself and a is y:
                dy[at] -= 2 * by.sum(1)
            if need_dy and not itself:
                dy += by.sum(0)
        value = value + factor * total / pairs
    return value.to(x.dtype), dx, dy


def _kernel(square: Tensor, constants: Sequence[float], exponential: bool) -> tuple[Tensor, Tensor]:
    """k at d², and −2 times its derivative by d²."""
    if exponential:
        values = torch.exp(-square / constants[0])
        return values, values * (2 / constants[0])
    values = slopes = torch.zeros_like(square)
    for c in constants:
        over = 1 / (c + square)
        values, slopes = values + c * over, slopes + 2 * c * over * over
    return values, slopes


def _of_themselves(points: Tensor, constants: Sequence[float], exponential: bool) -> float:
    return float(len(points) * (1 if exponential else len(constants)))


def _blocks(a: Tensor, b: Tensor) -> Iterator[slice]:
    rows = max(1, _TERMS.get(a.device.type, _TERMS_ELSEWHERE) // max(1, b.numel()))
    for first in range(0, len(a), rows):
        yield slice(first, first + rows)
