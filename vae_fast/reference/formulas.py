"""Scalar formulas of more than one operator, in the form that keeps their accuracy at both ends."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from vae_fast.sigma import LOGVAR, SigmaForm
from vae_fast.wide import Wide, either, half_exp, split_exp, wide

# Where e^x is so large that expm1, whose range ends below that of ½e^x, is not needed.
_FAR = 40.0


def _largest_exponent(x: Tensor) -> float:
    """A bound below which e^x and its backward stay finite, in float64 and in float32."""
    return 700.0 if x.dtype == torch.float64 else 85.0


def half_expm1_minus(x: Tensor, half: Tensor | None = None, grown: Tensor | None = None) -> Tensor:
    """½(e^x − 1 − x): by its series near 0, where the differences cancel; finite whenever the result is.

    ``half`` is ½x, which may be finite where x is not. ``grown`` is ½e^x where that is known better than x, whose
    error the exponential would magnify.
    """
    half = 0.5 * x if half is None else half
    # Up to where a unit of e^x − 1 is two of the result: between log 3 and 1.146 it would be four.
    small = (x >= -1.0) & (x <= 1.25)
    near = torch.where(small, x, 0.0)
    # Enough terms: in float64 the first one left out is 1.25²⁰/22!, 8e-20 of the sum. Made here: a compiler
    # takes a module's float for an input, which a second autograd.Function in the same graph cannot share.
    terms = [1.0 / math.factorial(k) for k in range(2, 22 if x.dtype == torch.float64 else 14)]
    series = near * terms[-1] + terms[-2]
    for c in reversed(terms[:-2]):
        series = series * near + c
    near = (0.5 * near) * near * series
    if grown is not None:
        return torch.where(small, near, grown - (half + 0.5))
    far = (x < -1.0) | (x > _FAR)
    middle = torch.where(small | far, 2.0, x)
    # 1 + x is exact where it matters.
    between = 0.5 * (torch.expm1(middle) - middle)
    return torch.where(small, near, torch.where(far, half_exp(torch.where(far, x, 0.0)) - (0.5 + half), between))


def half_expm1(x: Tensor, grown: Tensor | None = None) -> Tensor:
    """½(e^x − 1), the derivative of ``half_expm1_minus``; finite whenever the result is."""
    if grown is not None:
        small = x.abs() <= 1.0
        return torch.where(small, 0.5 * torch.expm1(torch.where(small, x, 0.0)), grown - 0.5)
    # Far out e^x − 1 rounds once where expm1 may be a unit off.
    far = (x < -1.0) | (x > _FAR)
    between = 0.5 * torch.expm1(torch.where(far, 0.0, x))
    return torch.where(far, half_exp(torch.where(far, x, 0.0)) - 0.5, between)


def logistic(y: Tensor) -> Tensor:
    """σ(y) = 1/(1 + e^−y), from e^y itself where that is small: e^−y overflows before σ is 0."""
    below = y < -_largest_exponent(y)
    e = torch.exp(torch.where(below, y, 0.0))
    return torch.where(below, e / (1.0 + e), torch.sigmoid(y))


def exp_of_magnitude(y: Tensor) -> Tensor:
    """e^−|y|, of which the derivatives at 0 are those from above."""
    return torch.exp(torch.where(y < 0, y, -y))


def softplus(y: Tensor) -> Tensor:
    """log(1 + e^y), and −log σ(−y).

    Not by PyTorch's softplus and logsigmoid: these have other bits at the ends of what each thread computes, and
    logsigmoid goes through the pool of threads at any size, which hangs in a forked child.
    """
    return torch.where(y < 0, 0.0, y) + torch.log1p(exp_of_magnitude(y))


def log_softmax(y: Tensor, event_ndim: int) -> Tensor:
    """Over the event dims. PyTorch's log_softmax and softmax hang in a forked child, as logsigmoid does."""
    dims = tuple(range(-event_ndim, 0))
    # Of no elements there is no largest one.
    top = y.detach().amax(dims, keepdim=True) if y.numel() else 0.0
    # In float64, since PyTorch's order of a long sum is not ours.
    total = torch.exp(y - top).sum(dims, keepdim=True, dtype=torch.float64)
    return (y - top) - torch.log(total).to(y.dtype)


def corrected(value: Tensor, error: Tensor, slope: Tensor) -> Tensor:
    """value + error·slope, a first-order correction; an infinite value needs none."""
    return torch.where((error == 0) | torch.isinf(value), value, value + error * slope)


class Standardised(NamedTuple):
    """½(difference/σ)² and difference/σ²; the first one beyond its dtype's range too where σ is no exponential."""

    half_square: Tensor
    slope: Tensor
    wide: Wide | None


def standardised(difference: Tensor, form: SigmaForm, r: Tensor) -> Standardised:
    """Finite whenever they are; a difference of 0 gives 0 whatever σ."""
    if not form.logarithmic:
        var, d = form.wide_var(r), wide(difference)
        none = (difference == 0) & ~var.m.isnan()
        square = d.times(d).over(var).half()
        # A 0 is smaller than any number that it is added to.
        square = Wide(torch.where(none, 0.0, square.m), torch.where(none, -math.inf, square.n))
        return Standardised(square.narrow(), torch.where(none, 0.0, d.over(var).narrow()), square)
    # By 1/σ² where that is an ordinary number, in two steps of 1/σ where it is not.
    ordinary = form.log_var(r).detach().abs() < _largest_exponent(r)
    slope = difference * form.inv_var(torch.where(ordinary, r, 1.0))
    # Up to where the results are beyond the dtype whatever the difference; and the power of two in two steps too:
    # no part of a product is to overflow that the product does not.
    limit = 1400.0 if r.dtype == torch.float64 else 175.0
    size = form.log_sigma(torch.where(ordinary, 1.0, r))
    inverse = split_exp(torch.clamp(-size, -limit, limit))
    root, m = torch.exp2(inverse.n), torch.where(size == math.inf, 0.0, inverse.m)
    t = ((difference * root) * m) * root
    half_square = torch.where(ordinary, (0.5 * difference) * slope, (0.5 * t) * t)
    return Standardised(half_square, torch.where(ordinary, slope, ((t * root) * m) * root), None)


def by_raw(growth: Tensor, beyond: Wide | None, form: SigmaForm, r: Tensor) -> Tensor:
    """growth·d log σ²/dr, finite whenever it is; ``beyond`` is growth where that is no ordinary number."""
    if beyond is None:
        return growth if form.kind == LOGVAR else 2.0 * growth
    slope = form.wide_dlog_var(r)
    return wide_product(growth, slope, beyond.times(slope)).narrow()


def wide_product(growth: Tensor, slope: Wide, beyond: Wide) -> Wide:
    """growth·slope, or ``beyond`` where growth is no ordinary number."""
    far = growth.detach().abs() >= (1e300 if growth.dtype == torch.float64 else 1e30)
    return either(far, beyond, wide(torch.where(far, 1.0, growth)).times(slope))
