"""log p(x|z) of a Gaussian with a diagonal covariance."""

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
from vae_fast.reference.formulas import Standardised, by_raw, standardised
from vae_fast.scale import Scale


def _dtypes(mean, logvar, x, weight) -> tuple[torch.dtype, torch.dtype]:
    """The dtype computed in, and that of the result."""
    promoted = promoted_dtype(mean, logvar)
    return arithmetic_dtype(promoted, mean, logvar, x, weight), compute_dtype(promoted)


def _gaussian_arguments(mean, logvar, x, mask, x_scale, scale, dtype) -> tuple[Standardised, Tensor]:
    """x − m in units of σ, and the clamped raw scale, in ``dtype`` and masked."""
    value = x.to(dtype) if x_scale == 1.0 else x.to(dtype) * x_scale
    r = scale.clamp(unmasked(mask, logvar.to(dtype), 1.0))
    difference = unmasked(mask, value - mean.to(dtype))
    return standardised(difference, scale, r), r


def _terms(standard: Standardised, r: Tensor, form: Scale) -> Tensor:
    # The number is ½ log 2π: written out, since a compiler takes a module's float for an input.
    return -(standard.half_square + (form.log_sigma(r) + 0.9189385332046727))


def gaussian_log_prob_fwd(
    mean,
    logvar,
    x,
    weight,
    event_ndim,
    reduction,
    scale,
    x_scale,
    param,
    param_eps,
    low,
    high,
    need_dmean,
    need_dlogvar,
    need_dx,
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """−½ Σ w·(log σ² + ((x·x_scale − m)/σ)² + log 2π); gradients as gaussian_kl_fwd."""
    form = Scale(param, param_eps, low, high)
    dtype, result = _dtypes(mean, logvar, x, weight)

    def terms(mask):
        return (_terms(*_gaussian_arguments(mean, logvar, x, mask, x_scale, form, dtype), form),)

    (term,) = weighted(weight, terms)
    log_prob = reduce(term, event_ndim, reduction, scale).to(result)
    options = (event_ndim, reduction, scale, x_scale, param, param_eps, low, high)
    needs = (need_dmean, need_dlogvar, need_dx, False)
    one = torch.ones_like(log_prob)
    return (log_prob, *gaussian_log_prob_bwd(one, mean, logvar, x, weight, *options, *needs)[:3])


def gaussian_log_prob_bwd(
    dlog_prob,
    mean,
    logvar,
    x,
    weight,
    event_ndim,
    reduction,
    scale,
    x_scale,
    param,
    param_eps,
    low,
    high,
    need_dmean,
    need_dlogvar,
    need_dx,
    need_dweight,
    packed=None,
    packed_dim=0,
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
    """dm = (x − m)/σ² = −dx/x_scale; d log σ² = ½(((x − m)/σ)² − 1); dw = the term of the operands as they are."""
    if not (need_dmean or need_dlogvar or need_dx or need_dweight):
        return None, None, None, None
    form = Scale(param, param_eps, low, high)
    dtype, _ = _dtypes(mean, logvar, x, weight)
    shape = broadcast_shape(mean, logvar, x, weight)
    g = upstream(dlog_prob.to(dtype), shape, event_ndim, reduction, scale)

    def slopes(mask):
        standard, r = _gaussian_arguments(mean, logvar, x, mask, x_scale, form, dtype)
        draw = form.inside(logvar.to(dtype), g * by_raw(standard.half_square - 0.5, standard.wide, form, r))
        return g * standard.slope, draw

    dmean, draw = weighted(weight, slopes)
    if weight is not None:
        # No weight, infinite or NaN, gives a bound a slope.
        draw = form.inside(logvar.to(dtype), draw)
    dx = -dmean if x_scale == 1.0 else -dmean * x_scale
    dweight = None
    if need_dweight:
        dweight = g * _terms(*_gaussian_arguments(mean, logvar, x, None, x_scale, form, dtype), form)
    grads = grad_like(need_dmean, mean, dmean), grad_like(need_dlogvar, logvar, draw)
    return (
        *together(*grads, packed, packed_dim),
        grad_like(need_dx, x, dx),
        grad_like(need_dweight, weight, dweight),
    )
