"""log p(x) of a negative binomial given by its mean and θ, zero-inflated or not."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from vae_fast.operators import MEAN_PARAMS, THETA_PARAMS
from vae_fast.reference.counts import Growth, growth, rising
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
from vae_fast.reference.formulas import half_expm1

_OP = "negative_binomial_log_prob"
LOG_MEAN, LOG_THETA = MEAN_PARAMS["log_mean"], THETA_PARAMS["log_theta"]


class _Count(NamedTuple):
    """A count's parameters, and what value and slopes have in common: log((θ + μ + ε)/θ), and that of θ + ε."""

    mean: Tensor
    theta: Tensor
    x: Tensor
    moved: Tensor  # μ + ε
    of_count: Growth
    of_theta: Growth
    none: Tensor  # −log p of a count of 0


def _count(mean: Tensor, theta: Tensor, x: Tensor, options) -> _Count:
    mu = torch.exp(mean) if options.param == LOG_MEAN else mean
    shape = torch.exp(theta) if options.theta_param == LOG_THETA else theta
    moved = mu + options.eps if options.eps else mu
    r = mu / (shape + options.eps)
    of_theta = growth(r)
    of_count = growth(moved / shape) if options.eps else of_theta
    # θ·log(1 + r), which is μ where r is nothing beside 1.
    tiny = r < 0.25 * torch.finfo(r.dtype).eps
    none = torch.where(tiny, mu, torch.where(tiny, 1.0, shape) * of_theta.log)
    return _Count(mu, shape, x, moved, of_count, of_theta, none)


def _value(count: _Count) -> Tensor:
    some = count.x != 0
    log_mean = torch.log(torch.where(some, count.moved, 1.0))
    terms = count.x * log_mean - count.x * count.of_count.log
    return torch.where(some, terms + (rising(count.x, count.theta).value - count.none), -count.none)


def _slopes(count: _Count, options) -> tuple[Tensor, Tensor]:
    """By μ and θ, or their logarithms."""
    mu, theta, x, moved, of_count, of_theta, _ = count
    some = x != 0
    rest = 1.0 / (moved / theta + 1.0)
    by_log = torch.where(some, (x - moved) * rest, -mu * rest)
    if options.param != LOG_MEAN:
        by_mean = torch.where(some, (x - moved) * rest / torch.where(some, moved, 1.0), -rest)
    else:
        by_mean = torch.where(some, by_log * (mu / moved), by_log) if options.eps else by_log
    by_theta = -of_theta.excess
    if options.eps:
        by_theta = by_theta - of_theta.share * (options.eps / (theta + options.eps))
    more = (x / theta * of_count.share + by_theta) - rising(x, theta).slope
    by_theta = torch.where(some, more, by_theta)
    return by_mean, by_theta * theta if options.theta_param == LOG_THETA else by_theta


def _dead(logits: Tensor, none: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of a count of 0: log(σ(π) + σ(−π)e^−u), the share of the second term in it, and the slope by π; u = none."""
    alive, dead = _logistic(-logits), _logistic(logits)
    lost, own = alive * (-2.0 * half_expm1(-none)), alive * torch.exp(-none)
    total = dead + own
    far = total < (1e-270 if total.dtype == torch.float64 else 1e-30)
    total = torch.where(far, 1.0, total)
    up = none + logits
    value = torch.where(far, _softplus(-up) - _softplus(-logits), -torch.log1p(lost / total))
    share = torch.where(far, _logistic(-up), own / total)
    return value, share, torch.where(far, alive - _logistic(-up), dead / total * lost)


# PyTorch's own sigmoid and softplus have other bits at the ends of what each thread computes.
def _small(y: Tensor) -> Tensor:
    """e^−|y|, of which the derivatives at 0 are those from above."""
    return torch.exp(torch.where(y < 0, y, -y))


def _logistic(y: Tensor) -> Tensor:
    e = _small(y)
    return torch.where(y < 0, e, 1.0) / (e + 1.0)


def _softplus(y: Tensor) -> Tensor:
    return torch.where(y < 0, 0.0, y) + torch.log1p(_small(y))


def _arguments(args, mask: Tensor | None, dtype: torch.dtype) -> list[Any]:
    return masked(_OP, mask, args, dtype)


def _terms(args, mask: Tensor | None, options, dtype: torch.dtype) -> Tensor:
    mean, theta, logits, x = _arguments(args, mask, dtype)
    count = _count(mean, theta, x, options)
    value = _value(count)
    if logits is None:
        return value
    return torch.where(x == 0, _dead(logits, count.none)[0], value - _softplus(logits))


def negative_binomial_log_prob_fwd(
    mean, theta, zero_logits, x, weight, options, wanted
) -> tuple[Tensor | None, ...]:
    """Σ w·log p(x); gradients as gaussian_kl_fwd."""
    args = (mean, theta, zero_logits, x)
    dtype, result = dtypes((mean, theta) if zero_logits is None else (mean, theta, zero_logits), x, weight)
    (term,) = weighted(weight, lambda mask: (_terms(args, mask, options, dtype),))
    log_prob = reduce(term, options.event_ndim, options.reduction, options.scale).to(result)
    return with_gradients(log_prob, negative_binomial_log_prob_bwd, (*args, weight), options, wanted)


def negative_binomial_log_prob_bwd(
    dlog_prob, mean, theta, zero_logits, x, weight, options, wanted
) -> tuple[Tensor | None, ...]:
    """dμ = (x − μ)/(μ(1 + μ/θ)), dθ = −(log(1 + r) − r/(1 + r)) + xμ/(θ(θ + μ)) − Σ_{k<x} k/(θ(θ + k))."""
    args = (mean, theta, zero_logits, x)
    dtype, _ = dtypes((mean, theta) if zero_logits is None else (mean, theta, zero_logits), x, weight)
    g = upstream(dlog_prob.to(dtype), broadcast_shape(*args, weight), options)

    def slopes(mask):
        mu, shape, logits, counts = _arguments(args, mask, dtype)
        count = _count(mu, shape, counts, options)
        by_mean, by_theta = _slopes(count, options)
        if logits is None:
            return g * by_mean, g * by_theta
        _, share, by_logits = _dead(logits, count.none)
        own = torch.where(counts == 0, g * share, g)
        return own * by_mean, own * by_theta, g * torch.where(counts == 0, by_logits, -_logistic(logits))

    dmean, dtheta, *rest = weighted(weight, slopes)
    dzero_logits = rest[0] if rest else None
    *_, need_dweight = wanted.needs
    dweight = g * _terms(args, None, options, dtype) if need_dweight else None
    return gradients(wanted, (mean, theta, zero_logits, weight), (dmean, dtheta, dzero_logits, dweight))
