"""Scalar formulas of more than one operator, in the form that keeps their accuracy at both ends."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Enough terms for |x| ≤ 1 in float64: the first one left out is 1/21!, 8e-20 of the sum.
_EXP_SERIES = tuple(1.0 / math.factorial(k) for k in range(2, 21))


def half_expm1_minus(x: Tensor) -> Tensor:
    """½(e^x − 1 − x): by its series near 0, where the differences cancel; finite whenever the result is."""
    small, large = x.abs() <= 1.0, x > (700.0 if x.dtype == torch.float64 else 85.0)
    near = torch.where(small, x, 0.0)
    terms = _EXP_SERIES if x.dtype == torch.float64 else _EXP_SERIES[:11]
    series = near * terms[-1] + terms[-2]
    for c in reversed(terms[:-2]):
        series = series * near + c
    middle = torch.where(small | large, 2.0, x)
    root = torch.exp(0.5 * torch.where(large, x, 0.0))
    far = torch.where(large, (0.5 * root) * root - 0.5 * x, 0.5 * (torch.expm1(middle) - middle))
    return torch.where(small, (0.5 * near) * near * series, far)


def half_expm1(x: Tensor) -> Tensor:
    """½(e^x − 1), the derivative of ``half_expm1_minus``; finite whenever the result is."""
    large = x > (700.0 if x.dtype == torch.float64 else 85.0)
    root = torch.exp(0.5 * torch.where(large, x, 0.0))
    return torch.where(large, (0.5 * root) * root, 0.5 * torch.expm1(torch.where(large, 0.0, x)))


def difference(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """a − b rounded, and its rounding error (Knuth's two-sum); 0 for an infinite difference."""
    d = a - b
    a, b, rounded = a.detach(), b.detach(), d.detach()
    b_part = a - rounded
    error = (a - (rounded + b_part)) + (b_part - b)
    return d, torch.where(torch.isfinite(rounded), error, 0.0)


def standardised(difference: Tensor, inv_sigma: Tensor) -> tuple[Tensor, Tensor]:
    """(difference/σ, 1/σ), where a difference of 0 gives 0 even if 1/σ overflows."""
    inv_sigma = torch.where((difference == 0) & torch.isinf(inv_sigma), 0.0, inv_sigma)
    return difference * inv_sigma, inv_sigma
