"""KL(N(μ, σ²) ‖ N(μp, σp²))."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from vae_fast.reference.densities import (
    broadcast_shape,
    compute_dtype,
    grad_like,
    reduce,
    together,
    unmasked,
    upstream,
)
from vae_fast.reference.formulas import (
    by_raw,
    corrected,
    half_expm1,
    half_expm1_minus,
    standardised,
    wide_product,
)
from vae_fast.scale import LOGVAR, Scale, difference
from vae_fast.wide import Wide


class _LogRatio(NamedTuple):
    """d = log σ² − log σp², ½d (finite where d overflows), d's rounding error (None: none); and ½e^d where σ is no
    exponential, and so nearer to the arguments than d."""

    d: Tensor
    half: Tensor
    error: Tensor | None
    grown: Wide | None


def _log_ratio(r: Tensor, prior_r: Tensor | None, scale: Scale) -> _LogRatio:
    if prior_r is None:
        half = scale.log_sigma(r)
        if scale.logarithmic:
            return _LogRatio(scale.log_var(r), half, None, None)
        return _LogRatio(2.0 * half, half, None, scale.wide_var(r).half())
    if scale.logarithmic:
        d, error = difference(r, prior_r)
        half = 0.5 * r - 0.5 * prior_r
        if scale.kind == LOGVAR:
            return _LogRatio(d, half, error, None)
        # Where d overflows to infinity, any half of it will do that does not.
        return _LogRatio(2.0 * d, torch.where(d == math.inf, half, d), 2.0 * error, None)
    ratio = scale.var_ratio(r, prior_r)
    square = ratio.narrow()
    far = scale.log_sigma(r) - scale.log_sigma(prior_r)
    # Nearer than the difference of two logarithms where the ratio is an ordinary number.
    ordinary = (square.detach() > 1e-30) & (square.detach() < 1e30)
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


def _terms(means: Tensor, r: Tensor, prior_r: Tensor | None, scale: Scale) -> Tensor:
    """½((μ − μp)²/σp² + e^d − 1 − d), element by element."""
    spread = _spread(_log_ratio(r, prior_r, scale))
    half_square = (0.5 * means) * means if prior_r is None else standardised(means, scale, prior_r).half_square
    return half_square + spread


def _free(term: Tensor, free_bits: float | None) -> Tensor:
    return term if free_bits is None else torch.where(term <= free_bits, free_bits, term)


def _arguments(mu, logvar, prior_mu, prior_logvar, weight, scale: Scale) -> tuple[Tensor, Tensor, Tensor | None]:
    """μ − μp, r, and the prior's r (None where σp = 1): in compute dtype, masked and clamped."""
    dtype = compute_dtype(mu.dtype)
    dm = unmasked(weight, mu.to(dtype))
    if prior_mu is not None:
        dm = dm - unmasked(weight, prior_mu.to(dtype))
    r = scale.clamp(unmasked(weight, logvar.to(dtype), 1.0))
    if prior_logvar is None:
        return dm, r, None
    return dm, r, scale.clamp(unmasked(weight, prior_logvar.to(dtype), 1.0))


def gaussian_kl_fwd(
    mu,
    logvar,
    prior_mu,
    prior_logvar,
    weight,
    event_ndim,
    reduction,
    scale,
    free_bits,
    param,
    param_eps,
    low,
    high,
    need_dmu,
    need_dlogvar,
    need_dprior_mu,
    need_dprior_logvar,
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
    """Σ w·max(KL, free_bits), and its gradients for an upstream gradient of 1 where asked for."""
    args = (mu, logvar, prior_mu, prior_logvar, weight)
    form = Scale(param, param_eps, low, high)
    means, r, prior_r = _arguments(*args, form)
    terms = _free(_terms(means, r, prior_r, form), free_bits)
    kl = reduce(terms, weight, event_ndim, reduction, scale)
    needs = (need_dmu, need_dlogvar, need_dprior_mu, need_dprior_logvar)
    options = (event_ndim, reduction, scale, free_bits, param, param_eps, low, high)
    return (kl, *gaussian_kl_bwd(torch.ones_like(kl), *args, *options, *needs))


def gaussian_kl_bwd(
    dkl,
    mu,
    logvar,
    prior_mu,
    prior_logvar,
    weight,
    event_ndim,
    reduction,
    scale,
    free_bits,
    param,
    param_eps,
    low,
    high,
    need_dmu,
    need_dlogvar,
    need_dprior_mu,
    need_dprior_logvar,
    packed=None,
    packed_dim=0,
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
    """dμ = (μ − μp)/σp² = −dμp; d log σ² = ½ expm1(d); d log σp² = −½((μ − μp)²/σp² + expm1(d))."""
    if not (need_dmu or need_dlogvar or need_dprior_mu or need_dprior_logvar):
        return None, None, None, None
    form = Scale(param, param_eps, low, high)
    means, r, prior_r = _arguments(mu, logvar, prior_mu, prior_logvar, weight, form)
    shape = broadcast_shape(mu, logvar, prior_mu, prior_logvar, weight)
    g = upstream(dkl.to(r.dtype), shape, weight, event_ndim, reduction, scale)
    if free_bits is not None:
        g = torch.where(_terms(means, r, prior_r, form) <= free_bits, 0.0, g)
    ratio = _log_ratio(r, prior_r, form)
    dlog_var = _growth(ratio)
    dmean, dprior_raw = means, None
    if prior_r is not None:
        standard = standardised(means, form, prior_r)
        dmean = standard.slope
        if ratio.grown is None or standard.wide is None:
            dprior = by_raw(standard.half_square + dlog_var, None, form, prior_r)
        else:
            slope, beyond = form.wide_dlog_var(prior_r), form.var_ratio_slope(r, prior_r).half()
            dprior = standard.wide.times(slope).plus(wide_product(dlog_var, slope, beyond)).narrow()
        dprior_raw = form.inside(prior_logvar.to(r.dtype), -(g * dprior))
    draw = form.inside(logvar.to(r.dtype), g * by_raw(dlog_var, ratio.grown, form, r))
    grads = grad_like(need_dmu, mu, g * dmean), grad_like(need_dlogvar, logvar, draw)
    return (
        *together(*grads, packed, packed_dim),
        grad_like(need_dprior_mu, prior_mu, -(g * dmean)),
        grad_like(need_dprior_logvar, prior_logvar, dprior_raw),
    )
