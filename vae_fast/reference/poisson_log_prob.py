"""log p(x) of a Poisson variable given by its rate."""

from __future__ import annotations

import torch
from torch import Tensor

from vae_fast.operators import RATE_PARAMS
from vae_fast.reference.counts import dense, log_factorial
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

_OP = "poisson_log_prob"
LOG_RATE = RATE_PARAMS["log_rate"]


def _rates(rate: Tensor, options) -> tuple[Tensor, Tensor]:
    """λ, and λ + ε."""
    by_value = torch.exp(rate) if options.param == LOG_RATE else rate
    return by_value, by_value + options.eps if options.eps else by_value


def _terms(args, mask: Tensor | None, options, dtype: torch.dtype) -> Tensor:
    rate, x = masked(_OP, mask, args, dtype)
    value, moved = _rates(rate, options)
    some = x != 0
    log = rate if options.param == LOG_RATE and not options.eps else torch.log(torch.where(some, moved, 1.0))
    counted = (torch.where(some, x, 0.0) * torch.where(some, log, 0.0) - value) - log_factorial(x)
    return torch.where(some, counted, -value)


def poisson_log_prob_fwd(rate, x, weight, options, wanted) -> tuple[Tensor | None, ...]:
    """Σ w·(x·log(λ + ε) − λ − log x!); gradients as gaussian_kl_fwd."""
    x = dense(x)
    dtype, result = dtypes((rate,), x, weight)
    (term,) = weighted(weight, lambda mask: (_terms((rate, x), mask, options, dtype),))
    log_prob = reduce(term, options.event_ndim, options.reduction, options.scale).to(result)
    return with_gradients(log_prob, poisson_log_prob_bwd, (rate, x, weight), options, wanted)


def poisson_log_prob_bwd(dlog_prob, rate, x, weight, options, wanted) -> tuple[Tensor | None, ...]:
    """dλ = (x − λ)/λ, by log λ x − λ."""
    x = dense(x)
    args = (rate, x)
    dtype, _ = dtypes((rate,), x, weight)
    g = upstream(dlog_prob.to(dtype), broadcast_shape(*args, weight), options)

    def slopes(mask):
        raw, counts = masked(_OP, mask, args, dtype)
        value, moved = _rates(raw, options)
        some = counts != 0
        if options.param == LOG_RATE:
            many = counts * (value / moved) - value if options.eps else counts - value
            return (g * torch.where(some, many, -value),)
        moved = torch.where(some, moved, 1.0)
        many = counts / moved - 1.0 if options.eps else (counts - value) / moved
        return (g * torch.where(some, many, -1.0),)

    (drate,) = weighted(weight, slopes)
    *_, need_dweight = wanted.needs
    dweight = g * _terms(args, None, options, dtype) if need_dweight else None
    return gradients(wanted, (rate, weight), (drate, dweight))
