"""log p(x|z) of Student's t."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from vae_fast.reference.counts import growth, polynomial
from vae_fast.reference.densities import (
    broadcast_shape,
    dtypes,
    gradients,
    masked,
    reduce,
    upstream,
    weighted,
    with_gradients,
)
from vae_fast.reference.scale import Scale
from vae_fast.wide import wide

_OP = "student_t_log_prob"
# Below it the series is taken of so much more.
_SERIES_FROM, _STEPS = 12.0, 8


def _series(dtype: torch.dtype) -> list[float]:
    """−2(1 − 4⁻ᵏ)B₂ₖ/(2k(2k − 1)), of log Γ(a + ½) − log Γ(a) − ½log a in odd powers of 1/a."""
    # Made here: a compiler takes a module's float for an input.
    terms = [-1 / 8, 1 / 192, -1 / 640, 17 / 14336, -31 / 18432, 691 / 180224, -5461 / 425984]
    terms += [929569 / 15728640, -3202291 / 8912896, 221930581 / 79691776]
    return terms if dtype == torch.float64 else terms[:4]


def _half_step(a: Tensor) -> tuple[Tensor, Tensor]:
    """log Γ(a + ½) − log Γ(a) − ½log a, and its derivative, for a > 0 up to ∞ (csrc/location_scale.h)."""
    small = a < _SERIES_FROM
    terms, inverse = _series(a.dtype), 1.0 / torch.where(small, a + _STEPS, a)
    square = inverse * inverse
    value = inverse * polynomial(square, terms)
    slope = square * polynomial(square, [-(2 * k + 1) * c for k, c in enumerate(terms)])
    near = torch.where(small, a, 1.0)
    grown = steepness = torch.zeros_like(near)
    for k in range(_STEPS):
        start = near + k
        d = 0.25 / (start * (start + 1.0))
        grown = grown + d * (grown + 1.0)
        steepness = steepness + d / (start + 0.5)
    less = 0.5 * torch.log1p(grown)
    return torch.where(small, value - less, value), torch.where(small, slope + steepness, slope)


class _Term(NamedTuple):
    """Of one element: its density, and its derivatives by ν, loc and σ's parameter."""

    log_prob: Tensor
    ddf: Tensor
    dloc: Tensor
    dsigma: Tensor


def _term(args, mask: Tensor | None, options, dtype: torch.dtype) -> _Term:
    loc, raw, df, x = masked(_OP, mask, args, dtype)
    difference, sigma = (x if options.x_scale == 1.0 else x * options.x_scale) - loc, Scale.of(raw, options)
    big, nothing = (2.0**1000, 2.0**-54) if dtype == torch.float64 else (2.0**100, 2.0**-25)
    inverse = 1.0 / df
    more, y = 1.0 + inverse, sigma.under(difference)
    # ((x − loc)/σ)²/ν: far out by logarithms alone; where it is nothing beside 1, as for ν = ∞, by its first power.
    w = (y / df) * y
    far, inside = w >= big, w < big
    some = (w >= nothing) & inside
    between, degrees = torch.where(far, 1.0, w), torch.where(some | far, df, 1.0)
    log, excess, share = growth(between)
    rest = torch.where(some, 1.0 / (1.0 + between), 1.0)
    far_log = torch.log(torch.where(far, difference.abs(), 1.0)) - torch.where(far, sigma.log(), 0.0)
    far_log = 2.0 * far_log - torch.log(degrees)
    near_y = torch.where(far, 0.0, y)
    slope_by_y = torch.where(some, near_y / (degrees + near_y * near_y) * (degrees + 1.0), more * near_y)
    square = slope_by_y * near_y
    of_log = 0.5 * (degrees + 1.0) * torch.where(far, far_log, log)
    loss = torch.where(some | far, of_log, more * near_y * 0.5 * near_y)
    large = w >= 1.0
    share = torch.where(far, 1.0, share)
    pull = torch.where(large, degrees * share - torch.where(far, 0.0, rest), square - 1.0)
    excess = torch.where(far, far_log - 1.0, excess)
    value, slope = _half_step(0.5 * df)
    ddf = torch.where(inverse == 0, 0.0, 0.5 * ((slope - excess) + share * inverse))
    # The number is ½ log 2π.
    log_prob = ((value - 0.9189385332046727) - sigma.log()) - loss
    # Of a y that is subnormal where all of it is not.
    faint = (y.detach().abs() < (2.0**-969 if dtype == torch.float64 else 2.0**-102)) & (difference != 0)
    square_of_scale = sigma.wide().times(sigma.wide())
    faint_slope = wide(torch.where(faint, difference, 1.0)).times(wide(more)).over(square_of_scale).narrow()
    dloc = torch.where(faint, faint_slope, sigma.under(slope_by_y))
    dloc = torch.where(large, (degrees + 1.0) * share / torch.where(large, difference, 1.0), dloc)
    dsigma = sigma.by_raw(pull)
    if not sigma.by_log:
        # A square may be beyond its dtype where its quotient by σ is not.
        dsigma = torch.where(torch.isinf(square) & ~large, dloc * near_y, dsigma)
    return _Term(log_prob, ddf, dloc, dsigma)


def student_t_log_prob_fwd(loc, sigma, df, x, weight, options, wanted) -> tuple[Tensor | None, ...]:
    """Σ w·(log Γ(½(ν + 1)) − log Γ(½ν) − ½log πν − log σ − ½(ν + 1)·log(1 + y²/ν)), y = (x·x_scale − loc)/σ.

    Gradients as gaussian_kl_fwd.
    """
    args = (loc, sigma, df, x)
    dtype, result = dtypes((loc, sigma, df), x, weight)
    (term,) = weighted(weight, lambda mask: (_term(args, mask, options, dtype).log_prob,))
    log_prob = reduce(term, options.event_ndim, options.reduction, options.scale).to(result)
    return with_gradients(log_prob, student_t_log_prob_bwd, (*args, weight), options, wanted)


def student_t_log_prob_bwd(dlog_prob, loc, sigma, df, x, weight, options, wanted) -> tuple[Tensor | None, ...]:
    """dloc = (1 + 1/ν)·y/(σ(1 + w)) = −dx/x_scale, w = y²/ν; d log σ = (ν + 1)·w/(1 + w) − 1.

    dν = ½(d log(Γ(½(ν + 1))/(Γ(½ν)√(½ν)))/d½ν − log(1 + w) + w/(1 + w)·(1 + 1/ν)); dw = the term.
    """
    args, x_scale = (loc, sigma, df, x), options.x_scale
    dtype, _ = dtypes((loc, sigma, df), x, weight)
    g = upstream(dlog_prob.to(dtype), broadcast_shape(*args, weight), options)

    def slopes(mask):
        term = _term(args, mask, options, dtype)
        return g * term.dloc, g * term.dsigma, g * term.ddf

    dloc, dsigma, ddf = weighted(weight, slopes)
    dx = -dloc if x_scale == 1.0 else -dloc * x_scale
    *_, need_dweight = wanted.needs
    dweight = g * _term(args, None, options, dtype).log_prob if need_dweight else None
    return gradients(wanted, (*args, weight), (dloc, dsigma, ddf, dx, dweight))
