"""Scalar formulas of more than one operator, in the form that keeps their accuracy at both ends."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vae_fast.scale import Scale


def _largest_exponent(x: Tensor) -> float:
    """A bound below which e^x and its backward stay finite, in float64 and in float32."""
    return 700.0 if x.dtype == torch.float64 else 85.0


def _half_exp(x: Tensor) -> Tensor:
    """½e^x for x so large that x − 1 is exact, also where e^x is infinite; one exponential, whose error stays one."""
    return (0.5 * math.e) * torch.exp(x - 1.0)


def half_expm1_minus(x: Tensor, root: Tensor | None = None) -> Tensor:
    """½(e^x − 1 − x): by its series near 0, where the differences cancel; finite whenever the result is.

    ``root`` is e^(x/2) where that is known better than x: x = 2 log σ has an error that e^x would magnify.
    """
    # Below 1.15 the difference may lie two binades under e^x − 1, whose unit is then four of its own; beyond, one.
    small = (x >= -1.0) & (x <= 1.25)
    near = torch.where(small, x, 0.0)
    # Enough terms for |x| ≤ 1.25: in float64 the first one left out is 2e-18 of the sum. Made here: a compiler
    # takes a module's float for an input, which a second autograd.Function in the same graph cannot share.
    terms = [1.0 / math.factorial(k) for k in range(2, 21 if x.dtype == torch.float64 else 13)]
    series = near * terms[-1] + terms[-2]
    for c in reversed(terms[:-2]):
        series = series * near + c
    near = (0.5 * near) * near * series
    if root is not None:
        return torch.where(small, near, (0.5 * root) * root - (0.5 * x + 0.5))
    below, large = x < -1.0, x > _largest_exponent(x)
    middle = torch.where(small | below | large, 2.0, x)
    far = 0.5 * (torch.expm1(middle) - middle)
    # 1 + x is exact where it matters.
    far = torch.where(below, 0.5 * (torch.exp(torch.where(below, x, 0.0)) - (1.0 + x)), far)
    return torch.where(small, near, torch.where(large, _half_exp(torch.where(large, x, 0.0)) - 0.5 * x, far))


def half_expm1(x: Tensor, root: Tensor | None = None) -> Tensor:
    """½(e^x − 1), the derivative of ``half_expm1_minus``; finite whenever the result is."""
    if root is not None:
        small = x.abs() <= 1.0
        return torch.where(small, 0.5 * torch.expm1(torch.where(small, x, 0.0)), (0.5 * root) * root - 0.5)
    below, large = x < -1.0, x > _largest_exponent(x)
    middle = 0.5 * torch.expm1(torch.where(below | large, 0.0, x))
    # Below, e^x − 1 rounds once where expm1 may be a unit off.
    far = torch.where(below, 0.5 * (torch.exp(torch.where(below, x, 0.0)) - 1.0), middle)
    return torch.where(large, _half_exp(torch.where(large, x, 0.0)), far)


def logistic(y: Tensor) -> Tensor:
    """σ(y) = 1/(1 + e^−y), from e^y itself where that is small: e^−y overflows before σ is 0."""
    below = y < -_largest_exponent(y)
    e = torch.exp(torch.where(below, y, 0.0))
    return torch.where(below, e / (1.0 + e), torch.sigmoid(y))


def difference(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """a − b rounded, and its rounding error (Knuth's two-sum); 0 for an infinite difference."""
    d = a - b
    a, b, rounded = a.detach(), b.detach(), d.detach()
    b_part = a - rounded
    error = (a - (rounded + b_part)) + (b_part - b)
    return d, torch.where(torch.isfinite(rounded), error, 0.0)


def corrected(value: Tensor, error: Tensor, slope: Tensor) -> Tensor:
    """value + error·slope, a first-order correction; an infinite value needs none."""
    return torch.where((error == 0) | torch.isinf(value), value, value + error * slope)


def standardised(difference: Tensor, scale: Scale, r: Tensor) -> tuple[Tensor, Tensor]:
    """(½(difference/σ)², difference/σ²), finite whenever they are; a difference of 0 gives 0 whatever σ.

    By 1/σ² where that is an ordinary number, in two steps of 1/σ where it is not.
    """
    ordinary = scale.log_var(r).detach().abs() < _largest_exponent(r)
    slope = difference * scale.inv_var(torch.where(ordinary, r, 1.0))
    inv_sigma = scale.inv_sigma(torch.where(ordinary, 1.0, r))
    inv_sigma = torch.where((difference == 0) & torch.isinf(inv_sigma), 0.0, inv_sigma)
    t = difference * inv_sigma
    half_square = torch.where(ordinary, (0.5 * difference) * slope, (0.5 * t) * t)
    return half_square, torch.where(ordinary, slope, t * inv_sigma)
