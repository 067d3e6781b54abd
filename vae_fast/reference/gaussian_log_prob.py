"""log p(x|z) of a Gaussian with a diagonal covariance."""

from __future__ import annotations

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
from vae_fast.reference.formulas import Standardised, by_raw, standardised
from vae_fast.sigma import SigmaForm


def _standardised(args, mask, x_scale: float, form: SigmaForm, dtype: torch.dtype) -> tuple[Standardised, Tensor]:
    """x − m in units of σ, and the clamped raw argument of σ, in ``dtype`` and masked."""
    mean, logvar, x = masked("gaussian_log_prob", mask, args, dtype)
    difference = (x if x_scale == 1.0 else x * x_scale) - mean
    r = form.clamp(logvar)
    return standardised(difference, form, r), r


def _terms(standard: Standardised, r: Tensor, form: SigmaForm) -> Tensor:
    # The number is ½ log 2π: written out, since a compiler takes a module's float for an input.
    return -(standard.half_square + (form.log_sigma(r) + 0.9189385332046727))


def gaussian_log_prob_fwd(mean, logvar, x, weight, options, wanted) -> tuple[Tensor | None, ...]:
    """−½ Σ w·(log σ² + ((x·x_scale − m)/σ)² + log 2π); gradients as gaussian_kl_fwd."""
    args, form = (mean, logvar, x), SigmaForm.of(options)
    dtype, result = dtypes((mean, logvar), x, weight)

    def terms(mask):
        return (_terms(*_standardised(args, mask, options.x_scale, form, dtype), form),)

    (term,) = weighted(weight, terms)
    log_prob = reduce(term, options.event_ndim, options.reduction, options.scale).to(result)
    return with_gradients(log_prob, gaussian_log_prob_bwd, (*args, weight), options, wanted)


def gaussian_log_prob_bwd(dlog_prob, mean, logvar, x, weight, options, wanted) -> tuple[Tensor | None, ...]:
    """dm = (x − m)/σ² = −dx/x_scale; d log σ² = ½(((x − m)/σ)² − 1); dw = the term of the operands as they are."""
    args, form, x_scale = (mean, logvar, x), SigmaForm.of(options), options.x_scale
    dtype, _ = dtypes((mean, logvar), x, weight)
    g = upstream(dlog_prob.to(dtype), broadcast_shape(*args, weight), options)

    def slopes(mask):
        standard, r = _standardised(args, mask, x_scale, form, dtype)
        draw = form.inside(logvar.to(dtype), g * by_raw(standard.half_square - 0.5, standard.wide, form, r))
        return g * standard.slope, draw

    dmean, draw = weighted(weight, slopes)
    if weight is not None:
        # No weight, infinite or NaN, gives a bound a slope.
        draw = form.inside(logvar.to(dtype), draw)
    dx = -dmean if x_scale == 1.0 else -dmean * x_scale
    *_, need_dweight = wanted.needs
    dweight = None
    if need_dweight:
        dweight = g * _terms(*_standardised(args, None, x_scale, form, dtype), form)
    return gradients(wanted, (*args, weight), (dmean, draw, dx, dweight))
