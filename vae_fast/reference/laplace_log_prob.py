"""log p(x|z) of a Laplace variable."""

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
from vae_fast.reference.scale import Scale

_OP = "laplace_log_prob"


def _arguments(args, mask: Tensor | None, options, dtype: torch.dtype) -> tuple[Tensor, Scale]:
    """x − loc, and b."""
    loc, b, x = masked(_OP, mask, args, dtype)
    return (x if options.x_scale == 1.0 else x * options.x_scale) - loc, Scale.of(b, options)


def _terms(difference: Tensor, b: Scale) -> Tensor:
    # The number is log 2: written out, since a compiler takes a module's float for an input.
    return -(b.under(difference.abs()) + (b.log() + 0.6931471805599453))


def laplace_log_prob_fwd(loc, b, x, weight, options, wanted) -> tuple[Tensor | None, ...]:
    """−Σ w·(|x·x_scale − loc|/b + log 2b); gradients as gaussian_kl_fwd."""
    args = (loc, b, x)
    dtype, result = dtypes((loc, b), x, weight)
    (term,) = weighted(weight, lambda mask: (_terms(*_arguments(args, mask, options, dtype)),))
    log_prob = reduce(term, options.event_ndim, options.reduction, options.scale).to(result)
    return with_gradients(log_prob, laplace_log_prob_bwd, (*args, weight), options, wanted)


def laplace_log_prob_bwd(dlog_prob, loc, b, x, weight, options, wanted) -> tuple[Tensor | None, ...]:
    """dloc = sign(x − loc)/b = −dx/x_scale; d log b = |x − loc|/b − 1; dw = the term of the real operands."""
    args, x_scale = (loc, b, x), options.x_scale
    dtype, _ = dtypes((loc, b), x, weight)
    g = upstream(dlog_prob.to(dtype), broadcast_shape(*args, weight), options)

    def slopes(mask):
        difference, scale = _arguments(args, mask, options, dtype)
        # sign(NaN) is 0 to PyTorch.
        slope = scale.under(torch.where(difference.isnan(), difference, torch.sign(difference)))
        return g * slope, g * scale.by_raw(scale.under(difference.abs()) - 1.0)

    dloc, db = weighted(weight, slopes)
    dx = -dloc if x_scale == 1.0 else -dloc * x_scale
    *_, need_dweight = wanted.needs
    dweight = g * _terms(*_arguments(args, None, options, dtype)) if need_dweight else None
    return gradients(wanted, (*args, weight), (dloc, db, dx, dweight))
