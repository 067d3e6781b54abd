"""Numbers m·4ⁿ beyond the exponents of their dtype, in differentiable PyTorch.

σ² and 1/σ² of an extreme σ, and what they are multiplied by, overflow or underflow where the product of all is an
ordinary number. Here only the last step, ``narrow``, rounds to the dtype's range.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Wide(NamedTuple):
    """m·4ⁿ, |m| within a few powers of two of 1 (or 0, infinite, NaN), n integral."""

    m: Tensor
    n: Tensor

    def times(self, other: Wide) -> Wide:
        return Wide(self.m * other.m, self.n + other.n)

    def over(self, other: Wide) -> Wide:
        return Wide(self.m / other.m, self.n - other.n)

    def plus(self, other: Wide) -> Wide:
        n = torch.maximum(self.n, other.n)
        # What is smaller by 2⁻¹²⁰ is nothing beside the other.
        one, two = (v.m * torch.exp2(torch.clamp(2.0 * (v.n - n), min=-120.0)) for v in (self, other))
        return Wide(one + two, n)

    def half(self) -> Wide:
        return Wide(0.5 * self.m, self.n)

    def narrow(self) -> Tensor:
        """The number in its dtype: rounded once, infinite or 0 where it is beyond."""
        limit = 1000.0 if self.m.dtype == torch.float64 else 126.0
        root = torch.exp2(torch.clamp(self.n, -limit, limit))
        return (self.m * root) * root


def wide(x: Tensor) -> Wide:
    limit = 540.0 if x.dtype == torch.float64 else 75.0
    n = torch.clamp(torch.round(0.5 * torch.log2(x.detach().abs())), -limit, limit)
    root = torch.exp2(-n)
    return Wide((x * root) * root, n)


def split_exp(a: Tensor) -> Wide:
    """e^a of a finite a, up to ±3000 (350 in float32)."""
    n = torch.round(a.detach() * 0.7213475204444817)
    # 2n ln 2 in two parts, the first one short enough for n times it to be exact.
    double = a.dtype == torch.float64
    high, low = (
        (1.3862943611165974, 3.2931899165794163e-12) if double else (1.38629150390625, 2.857213530660374e-06)
    )
    return Wide(torch.exp(torch.sub(torch.sub(a, n, alpha=high), n, alpha=low)), n)


def wide_exp(a: Tensor) -> Wide:
    """e^a; 0 and infinity from where no product that it is a factor of is an ordinary number."""
    limit = 3000.0 if a.dtype == torch.float64 else 350.0
    e = split_exp(torch.clamp(a, -limit, limit))
    return Wide(torch.where(a > limit, math.inf, torch.where(a < -limit, 0.0, e.m)), e.n)


def either(condition: Tensor, one: Wide, other: Wide) -> Wide:
    return Wide(torch.where(condition, one.m, other.m), torch.where(condition, one.n, other.n))


def half_exp(a: Tensor) -> Tensor:
    """½e^a, finite wherever it is."""
    # The last multiple of 1/32 whose exponential is finite: taken off exactly.
    top = 709.78125 if a.dtype == torch.float64 else 88.71875
    over = a > top
    e = torch.exp(torch.where(over, a - top, a))
    return torch.where(over, e * (0.5 * math.exp(top)), 0.5 * e)
