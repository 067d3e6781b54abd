"""log p(x|z) of independent Laplace variables."""

from __future__ import annotations

import torch
from torch import Tensor

from vae_fast.reference.densities import (
    broadcast_shape,
    dtypes,
    gradients,
    reduce,
    unmasked,
    upstream,
    weighted,
    with_gradients,
)
from vae_fast.sigma import magnitude


def _term(mean, log_b, x, mask, dtype) -> tuple[Tensor, Tensor, Tensor]:
    """The log-density; |x − m|/b and sign(x − m)/b."""
    difference, log_scale = unmasked(mask, x.to(dtype) - mean.to(dtype)), unmasked(mask, log_b.to(dtype))
    inverse = torch.exp(-log_scale)
    size = magnitude(difference) * inverse
    return -(size + log_scale + 0.6931471805599453), size, torch.sign(difference) * inverse


def laplace_log_prob_fwd(mean, log_b, x, weight, options, wanted) -> tuple[Tensor | None, ...]:
    """−Σ w·(|x − m|/b + log b + log 2)."""
    operands = (mean, log_b, x, weight)
    dtype, result = dtypes((mean, log_b), x, weight)
    (term,) = weighted(weight, lambda mask: _term(mean, log_b, x, mask, dtype)[:1])
    log_prob = reduce(term, options.event_ndim, options.reduction, options.scale).to(result)
    return with_gradients(log_prob, laplace_log_prob_bwd, operands, options, wanted)


def laplace_log_prob_bwd(dlog_prob, mean, log_b, x, weight, options, wanted) -> tuple[Tensor | None, ...]:
    """dm = sign(x − m)/b = −dx, d log b = |x − m|/b − 1; dw = the term of the operands as they are."""
    operands = (mean, log_b, x, weight)
    dtype, _ = dtypes((mean, log_b), x, weight)
    g = upstream(dlog_prob.to(dtype), broadcast_shape(*operands), options)

    def slopes(mask):
        _, size, slope = _term(mean, log_b, x, mask, dtype)
        return g * slope, g * (size - 1.0)

    dmean, dlog_b = weighted(weight, slopes)
    dweight = None if weight is None else g * _term(mean, log_b, x, None, dtype)[0]
    return gradients(wanted, operands, (dmean, dlog_b, -dmean, dweight))
