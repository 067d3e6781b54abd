"""log p(x|z) of a Gaussian with a diagonal covariance."""

from __future__ import annotations

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
from vae_fast.reference.formulas import Standardised, by_raw, standardised
from vae_fast.scale import Scale


def _gaussian_arguments(mean, logvar, x, weight, x_scale, scale) -> tuple[Standardised, Tensor]:
    """x − m in units of σ, and the clamped raw scale, in compute dtype and masked."""
    dtype = compute_dtype(mean.dtype)
    value = x.to(dtype) if x_scale == 1.0 else x.to(dtype) * x_scale
    r = scale.clamp(unmasked(weight, logvar.to(dtype), 1.0))
    difference = unmasked(weight, value - mean.to(dtype))
    return standardised(difference, scale, r), r


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
    standard, r = _gaussian_arguments(mean, logvar, x, weight, x_scale, form)
    # The number is ½ log 2π: written out, since a compiler takes a module's float for an input.
    terms = -(standard.half_square + (form.log_sigma(r) + 0.9189385332046727))
    log_prob = reduce(terms, weight, event_ndim, reduction, scale)
    options = (event_ndim, reduction, scale, x_scale, param, param_eps, low, high)
    needs = (need_dmean, need_dlogvar, need_dx)
    upstream = torch.ones_like(log_prob)
    return (log_prob, *gaussian_log_prob_bwd(upstream, mean, logvar, x, weight, *options, *needs))


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
    packed=None,
    packed_dim=0,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """dm = (x − m)/σ² = −dx/x_scale; d log σ² = ½(((x − m)/σ)² − 1)."""
    if not (need_dmean or need_dlogvar or need_dx):
        return None, None, None
    form = Scale(param, param_eps, low, high)
    standard, r = _gaussian_arguments(mean, logvar, x, weight, x_scale, form)
    shape = broadcast_shape(mean, logvar, x, weight)
    g = upstream(dlog_prob.to(r.dtype), shape, weight, event_ndim, reduction, scale)
    dmean = g * standard.slope
    dx = -dmean if x_scale == 1.0 else -dmean * x_scale
    draw = None
    if need_dlogvar:
        draw = form.inside(logvar.to(r.dtype), g * by_raw(standard.half_square - 0.5, standard.wide, form, r))
    grads = grad_like(need_dmean, mean, dmean), grad_like(need_dlogvar, logvar, draw)
    return (*together(*grads, packed, packed_dim), grad_like(need_dx, x, dx))
