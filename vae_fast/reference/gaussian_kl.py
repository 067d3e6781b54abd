"""KL(N(μ, σ²) ‖ N(μp, σp²))."""

from __future__ import annotations

import torch
from torch import Tensor

from vae_fast.reference.densities import (
    arithmetic_dtype,
    broadcast_shape,
    compute_dtype,
    grad_like,
    promoted_dtype,
    reduce,
    together,
    unmasked,
    upstream,
    weighted,
)
from vae_fast.reference.formulas import corrected, difference, half_expm1, half_expm1_minus, standardised
from vae_fast.scale import Scale


def _log_ratio(r: Tensor, prior_r: Tensor | None, scale: Scale) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """d = log σ² − log σp², its rounding error (None: none), and σ/σp where that is nearer to the arguments."""
    log_var = scale.log_var(r)
    if prior_r is None:
        return log_var, None, None if scale.logarithmic else scale.sigma(r)
    d, error = difference(log_var, scale.log_var(prior_r))
    return (d, error, None) if scale.logarithmic else (d, None, scale.sigma(r) * scale.inv_sigma(prior_r))


def _terms(means: Tensor, r: Tensor, prior_r: Tensor | None, scale: Scale) -> Tensor:
    """½((μ − μp)²/σp² + e^d − 1 − d), element by element."""
    d, error, ratio = _log_ratio(r, prior_r, scale)
    spread = half_expm1_minus(d, ratio)
    if error is not None:
        spread = corrected(spread, error, half_expm1(d))
    half_square = (0.5 * means) * means if prior_r is None else standardised(means, scale, prior_r)[0]
    return half_square + spread


def _free(term: Tensor, free_bits: float | None) -> Tensor:
    return term if free_bits is None else torch.where(term <= free_bits, free_bits, term)


def _dtypes(mu, logvar, prior_mu, prior_logvar, weight) -> tuple[torch.dtype, torch.dtype]:
    """The dtype computed in, and that of the result."""
    parameters = (mu, logvar, prior_mu, prior_logvar)
    promoted = promoted_dtype(*parameters)
    return arithmetic_dtype(promoted, *parameters, weight), compute_dtype(promoted)


def _arguments(
    mu, logvar, prior_mu, prior_logvar, mask, scale: Scale, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor | None]:
    """μ − μp, r, and the prior's r (None where σp = 1): in ``dtype``, masked and clamped."""
    dm = unmasked(mask, mu.to(dtype))
    if prior_mu is not None:
        dm = dm - unmasked(mask, prior_mu.to(dtype))
    r = scale.clamp(unmasked(mask, logvar.to(dtype), 1.0))
    if prior_logvar is None:
        return dm, r, None
    return dm, r, scale.clamp(unmasked(mask, prior_logvar.to(dtype), 1.0))


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
    args = (mu, logvar, prior_mu, prior_logvar)
    form = Scale(param, param_eps, low, high)
    dtype, result = _dtypes(*args, weight)

    def terms(mask):
        return (_free(_terms(*_arguments(*args, mask, form, dtype), form), free_bits),)

    (term,) = weighted(weight, terms)
    kl = reduce(term, event_ndim, reduction, scale).to(result)
    needs = (need_dmu, need_dlogvar, need_dprior_mu, need_dprior_logvar, False)
    options = (event_ndim, reduction, scale, free_bits, param, param_eps, low, high)
    return (kl, *gaussian_kl_bwd(torch.ones_like(kl), *args, weight, *options, *needs)[:4])


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
    need_dweight,
    packed=None,
    packed_dim=0,
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
    """dμ = (μ − μp)/σp² = −dμp; d log σ² = ½ expm1(d); d log σp² = −½((μ − μp)²/σp² + expm1(d)).

    dw = max(KL, free_bits), of the operands as they are.
    """
    if not (need_dmu or need_dlogvar or need_dprior_mu or need_dprior_logvar or need_dweight):
        return None, None, None, None, None
    args = (mu, logvar, prior_mu, prior_logvar)
    form = Scale(param, param_eps, low, high)
    dtype, _ = _dtypes(*args, weight)
    shape = broadcast_shape(*args, weight)
    g = upstream(dkl.to(dtype), shape, event_ndim, reduction, scale)

    def slopes(mask):
        means, r, prior_r = _arguments(*args, mask, form, dtype)
        free = g
        if free_bits is not None:
            free = torch.where(_terms(means, r, prior_r, form) <= free_bits, 0.0, g)
        d, error, ratio = _log_ratio(r, prior_r, form)
        dlog_var = half_expm1(d, ratio)
        if error is not None:
            dlog_var = corrected(dlog_var, error, dlog_var + 0.5)
        draw = form.inside(logvar.to(dtype), free * dlog_var * form.dlog_var(r))
        if prior_r is None:
            return free * means, draw
        half_square, dmean = standardised(means, form, prior_r)
        dprior_log_var = -(half_square + dlog_var)
        dprior_raw = form.inside(prior_logvar.to(dtype), free * dprior_log_var * form.dlog_var(prior_r))
        return free * dmean, draw, dprior_raw

    dmean, draw, *dprior_raw = weighted(weight, slopes)
    dweight = None
    if need_dweight:
        dweight = g * _free(_terms(*_arguments(*args, None, form, dtype), form), free_bits)
    grads = grad_like(need_dmu, mu, dmean), grad_like(need_dlogvar, logvar, draw)
    return (
        *together(*grads, packed, packed_dim),
        grad_like(need_dprior_mu, prior_mu, -dmean),
        grad_like(need_dprior_logvar, prior_logvar, dprior_raw[0] if dprior_raw else None),
        grad_like(need_dweight, weight, dweight),
    )
