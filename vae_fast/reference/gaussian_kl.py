"""KL(N(μ, σ²) ‖ N(μp, σp²))."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

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
from vae_fast.reference.formulas import (
    by_raw,
    corrected,
    half_expm1,
    half_expm1_minus,
    standardised,
    wide_product,
)
from vae_fast.sigma import LOGVAR, SigmaForm, difference
from vae_fast.wide import Wide


class _LogRatio(NamedTuple):
    """d = log σ² − log σp², ½d (finite where d overflows), d's rounding error (None: none); and ½e^d where σ is no
    exponential, and so nearer to the arguments than d."""

    d: Tensor
    half: Tensor
    error: Tensor | None
    grown: Wide | None


class _Forms(NamedTuple):
    """What the posterior's second argument is, and the prior's."""

    own: SigmaForm
    prior: SigmaForm


def _log_ratio(r: Tensor, prior_r: Tensor | None, forms: _Forms) -> _LogRatio:
    form, prior = forms
    if prior_r is None:
        half = form.log_sigma(r)
        if form.logarithmic:
            return _LogRatio(form.log_var(r), half, None, None)
        return _LogRatio(2.0 * half, half, None, form.wide_var(r).half())
    if form.logarithmic and prior.logarithmic:
        if form.kind == prior.kind == LOGVAR:
            d, error = difference(r, prior_r)
            return _LogRatio(d, 0.5 * r - 0.5 * prior_r, error, None)
        size, prior_size = form.log_sigma(r), prior.log_sigma(prior_r)
        d, error = difference(size, prior_size)
        # Where d overflows to infinity, any half of it will do that does not.
        half = torch.where(d == math.inf, 0.5 * size - 0.5 * prior_size, d)
        return _LogRatio(2.0 * d, half, 2.0 * error, None)
    ratio = form.var_ratio(r, prior, prior_r)
    square = ratio.narrow()
    size, prior_size = form.log_sigma(r), prior.log_sigma(prior_r)
    far = size - prior_size
    # Nearer than the difference of two logarithms where the ratio is an ordinary number; of unlike forms not where
    # both are small, of which one may be exact.
    ordinary = (square.detach() > 1e-30) & (square.detach() < 1e30)
    if (form.kind, form.eps) != (prior.kind, prior.eps):
        ordinary = ordinary & ((size.detach().abs() > 1.0) | (prior_size.detach().abs() > 1.0))
    half = torch.where(ordinary, 0.5 * torch.log(torch.where(ordinary, square, 1.0)), far)
    return _LogRatio(2.0 * half, half, None, ratio.half())


def _spread(ratio: _LogRatio) -> Tensor:
    """½(e^d − 1 − d)."""
    spread = half_expm1_minus(ratio.d, ratio.half, None if ratio.grown is None else ratio.grown.narrow())
    return spread if ratio.error is None else corrected(spread, ratio.error, half_expm1(ratio.d))


def _growth(ratio: _LogRatio) -> Tensor:
    """½(e^d − 1)."""
    growth = half_expm1(ratio.d, None if ratio.grown is None else ratio.grown.narrow())
    return growth if ratio.error is None else corrected(growth, ratio.error, growth + 0.5)


def _terms(means: Tensor, r: Tensor, prior_r: Tensor | None, forms: _Forms) -> Tensor:
    """½((μ − μp)²/σp² + e^d − 1 − d), element by element."""
    spread = _spread(_log_ratio(r, prior_r, forms))
    half_square = (
        (0.5 * means) * means if prior_r is None else standardised(means, forms.prior, prior_r).half_square
    )
    return half_square + spread


def _by_raw(growth: Tensor, grown_slope: Wide | None, form: SigmaForm, r: Tensor) -> Tensor:
    """growth·d log σ²/dr; ``grown_slope`` is e^d times that, where σ is no exponential."""
    if grown_slope is None:
        return by_raw(growth, None, form, r)
    return wide_product(growth, form.wide_dlog_var(r), grown_slope.half()).narrow()


def _free(term: Tensor, free_bits: float | None) -> Tensor:
    return term if free_bits is None else torch.where(term <= free_bits, free_bits, term)


def _arguments(args, mask, forms: _Forms, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor | None]:
    """μ − μp, r, and the prior's r (None where σp = 1): in ``dtype``, masked and clamped."""
    mu, logvar, prior_mu, prior_logvar = masked("gaussian_kl", mask, args, dtype)
    dm = mu if prior_mu is None else mu - prior_mu
    return dm, forms.own.clamp(logvar), None if prior_logvar is None else forms.prior.clamp(prior_logvar)


def gaussian_kl_fwd(mu, logvar, prior_mu, prior_logvar, weight, options, wanted) -> tuple[Tensor | None, ...]:
    """Σ w·max(KL, free_bits), and its gradients for an upstream gradient of 1 where wanted."""
    args = (mu, logvar, prior_mu, prior_logvar)
    forms = _Forms(SigmaForm.of(options), SigmaForm.of_prior(options))
    dtype, result = dtypes(args, weight)

    def terms(mask):
        return (_free(_terms(*_arguments(args, mask, forms, dtype), forms), options.free_bits),)

    (term,) = weighted(weight, terms)
    kl = reduce(term, options.event_ndim, options.reduction, options.scale).to(result)
    return with_gradients(kl, gaussian_kl_bwd, (*args, weight), options, wanted)


def gaussian_kl_bwd(dkl, mu, logvar, prior_mu, prior_logvar, weight, options, wanted) -> tuple[Tensor | None, ...]:
    """dμ = (μ − μp)/σp² = −dμp; d log σ² = ½ expm1(d); d log σp² = −½((μ − μp)²/σp² + expm1(d)).

    dw = max(KL, free_bits), of the operands as they are.
    """
    args = (mu, logvar, prior_mu, prior_logvar)
    forms, free_bits = _Forms(SigmaForm.of(options), SigmaForm.of_prior(options)), options.free_bits
    form, prior = forms
    dtype, _ = dtypes(args, weight)
    g = upstream(dkl.to(dtype), broadcast_shape(*args, weight), options)

    def slopes(mask):
        means, r, prior_r = _arguments(args, mask, forms, dtype)
        free = g
        if free_bits is not None:
            free = torch.where(_terms(means, r, prior_r, forms) <= free_bits, 0.0, g)
        ratio = _log_ratio(r, prior_r, forms)
        dlog_var = _growth(ratio)
        if prior_r is None:
            draw = form.inside(logvar.to(dtype), free * by_raw(dlog_var, ratio.grown, form, r))
            return free * means, draw
        grown = None if ratio.grown is None else form.var_ratio_slopes(r, prior, prior_r)
        by_own = _by_raw(dlog_var, None if grown is None else grown[0], form, r)
        draw = form.inside(logvar.to(dtype), free * by_own)
        standard = standardised(means, prior, prior_r)
        if grown is None or standard.wide is None:
            dprior = by_raw(standard.half_square + dlog_var, None, prior, prior_r)
        else:
            slope = prior.wide_dlog_var(prior_r)
            dprior = standard.wide.times(slope).plus(wide_product(dlog_var, slope, grown[1].half())).narrow()
        return free * standard.slope, draw, prior.inside(prior_logvar.to(dtype), -(free * dprior))

    dmean, draw, *dprior_raw = weighted(weight, slopes)
    dweight = None
    if weight is not None:
        # No weight, infinite or NaN, gives a bound a slope.
        draw = form.inside(logvar.to(dtype), draw)
        dprior_raw = [prior.inside(prior_logvar.to(dtype), v) for v in dprior_raw]
        *_, need_dweight = wanted.needs
        if free_bits is not None or need_dweight:
            real = _terms(*_arguments(args, None, forms, dtype), forms)
            if free_bits is not None:
                dmean, draw, *dprior_raw = (
                    torch.where(real <= free_bits, 0.0, v) for v in (dmean, draw, *dprior_raw)
                )
            if need_dweight:
                dweight = g * _free(real, free_bits)
    of_prior = (-dmean, *dprior_raw) if dprior_raw else (-dmean, None)
    return gradients(wanted, (*args, weight), (dmean, draw, *of_prior, dweight))
