"""log p(x) of a negative binomial given by its mean and θ, zero-inflated or not."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from vae_fast.operators import MEAN_PARAMS, THETA_PARAMS
from vae_fast.reference.counts import Growth, Rising, dense, growth, many_times, rising
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
from vae_fast.reference.formulas import exp_of_magnitude, half_expm1, log_softmax, softplus

_OP = "negative_binomial_log_prob"
MEAN, SOFTMAX, LOG_THETA = MEAN_PARAMS["mean"], MEAN_PARAMS["softmax"], THETA_PARAMS["log_theta"]


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
    mu = mean if options.param == MEAN else torch.exp(mean)
    shape = torch.exp(theta) if options.theta_param == LOG_THETA else theta
    moved = mu + options.eps if options.eps else mu
    r = mu / (shape + options.eps)
    of_theta = growth(r)
    of_count = growth(moved / shape) if options.eps else of_theta
    # θ·log(1 + r), which is μ where r is nothing beside 1.
    tiny = r < 0.25 * torch.finfo(r.dtype).eps
    none = torch.where(tiny, mu, torch.where(tiny, 1.0, shape) * of_theta.log)
    return _Count(mu, shape, x, moved, of_count, of_theta, none)


def _left(count: _Count) -> tuple[Tensor, Rising]:
    """Where x is many times θ, and the other form of the term there."""
    _, theta, x, m, *_ = count
    many = (x > 8.0) & (x > 8.0 * theta) & (m / theta > 1e-30)
    return many, many_times(torch.where(many, x, 9.0), torch.where(many, theta, 1.0), torch.where(many, m, 1.0))


def _value(count: _Count) -> Tensor:
    some = count.x != 0
    log_mean = torch.log(torch.where(some, count.moved, 1.0))
    terms = count.x * log_mean - count.x * count.of_count.log
    many, left = _left(count)
    value = torch.where(many, left.value, terms + rising(count.x, count.theta).value)
    return torch.where(some, value - count.none, -count.none)


def _slopes(count: _Count, options) -> tuple[Tensor, Tensor]:
    """By μ and θ, or their logarithms."""
    mu, theta, x, moved, of_count, of_theta, _ = count
    some = x != 0
    rest = 1.0 / (moved / theta + 1.0)
    by_log = torch.where(some, (x - moved) * rest, -mu * rest)
    if options.param == MEAN:
        by_mean = torch.where(some, (x - moved) * rest / torch.where(some, moved, 1.0), -rest)
    else:
        by_mean = torch.where(some, by_log * (mu / moved), by_log) if options.eps else by_log
    by_theta = -of_theta.excess
    if options.eps:
        by_theta = by_theta - of_theta.share * (options.eps / (theta + options.eps))
    many, left = _left(count)
    more = (x / theta * of_count.share + by_theta) - rising(x, theta).slope
    by_theta = torch.where(some, torch.where(many, by_theta + left.slope, more), by_theta)
    return by_mean, by_theta * theta if options.theta_param == LOG_THETA else by_theta


def _dead(logits: Tensor, none: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of a count of 0: log(σ(π) + σ(−π)e^−u), the share of the second term in it, and the slope by π; u = none."""
    alive, dead = _logistic(-logits), _logistic(logits)
    lost, own = alive * (-2.0 * half_expm1(-none)), alive * torch.exp(-none)
    total = dead + own
    far = total < (1e-270 if total.dtype == torch.float64 else 1e-30)
    total = torch.where(far, 1.0, total)
    up = none + logits
    value = torch.where(far, softplus(-up) - softplus(-logits), -torch.log1p(lost / total))
    share = torch.where(far, _logistic(-up), own / total)
    return value, share, torch.where(far, alive - _logistic(-up), dead / total * lost)


# As softplus: PyTorch's own sigmoid has other bits at the ends of what each thread computes.
def _logistic(y: Tensor) -> Tensor:
    e = exp_of_magnitude(y)
    return torch.where(y < 0, e, 1.0) / (e + 1.0)


def _parameters(mean, theta, zero_logits, log_library, options, dtype: torch.dtype) -> tuple[Tensor | None, ...]:
    """Mean, θ and π: of a softmax the logarithm of the mean, of whatever weights."""
    if options.param != SOFTMAX:
        return mean, theta, zero_logits
    log_mean = log_softmax(mean.to(dtype), options.event_ndim)
    return log_mean if log_library is None else log_mean + log_library.to(dtype), theta, zero_logits


def _by_logits(by_log: Tensor, mean: Tensor, options) -> Tensor:
    """A gradient by the logits of a softmax, of that by the logarithms of its shares."""
    total = by_log.sum(tuple(range(-options.event_ndim, 0)), keepdim=True, dtype=torch.float64)
    return by_log - torch.exp(log_softmax(mean, options.event_ndim)) * total.to(by_log.dtype)


def _terms(parameters, x: Tensor, mask: Tensor | None, options, dtype: torch.dtype) -> Tensor:
    mean, theta, logits, _, x = masked(_OP, mask, (*parameters, None, x), dtype)
    count = _count(mean, theta, x, options)
    value = _value(count)
    if logits is None:
        return value
    return torch.where(x == 0, _dead(logits, count.none)[0], value - softplus(logits))


def _dtypes(mean, theta, zero_logits, log_library, x, weight) -> tuple[torch.dtype, torch.dtype]:
    others = [t for t in (zero_logits, log_library) if t is not None]
    return dtypes((mean, theta, *others), x, weight)


def negative_binomial_log_prob_fwd(
    mean, theta, zero_logits, log_library, x, weight, options, wanted
) -> tuple[Tensor | None, ...]:
    """Σ w·log p(x); gradients as gaussian_kl_fwd."""
    x = dense(x)
    args = (mean, theta, zero_logits, log_library, x, weight)
    dtype, result = _dtypes(*args)
    parameters = _parameters(mean, theta, zero_logits, log_library, options, dtype)
    (term,) = weighted(weight, lambda mask: (_terms(parameters, x, mask, options, dtype),))
    log_prob = reduce(term, options.event_ndim, options.reduction, options.scale).to(result)
    return with_gradients(log_prob, negative_binomial_log_prob_bwd, args, options, wanted)


def negative_binomial_log_prob_bwd(dlog_prob, *operands_and_options) -> tuple[Tensor | None, ...]:
    """dμ = (x − μ)/(μ(1 + μ/θ)), dθ = −(log(1 + r) − r/(1 + r)) + xμ/(θ(θ + μ)) − Σ_{k<x} k/(θ(θ + k))."""
    mean, theta, zero_logits, log_library, x, weight, options, wanted = operands_and_options
    x = dense(x)
    args = (mean, theta, zero_logits, log_library, x, weight)
    dtype, _ = _dtypes(*args)
    parameters = _parameters(mean, theta, zero_logits, log_library, options, dtype)
    g = upstream(dlog_prob.to(dtype), broadcast_shape(*args), options)

    def slopes(mask):
        mu, shape, logits, _, counts = masked(_OP, mask, (*parameters, None, x), dtype)
        count = _count(mu, shape, counts, options)
        by_mean, by_theta = _slopes(count, options)
        if logits is None:
            return g * by_mean, g * by_theta
        _, share, by_logits = _dead(logits, count.none)
        own = torch.where(counts == 0, g * share, g)
        return own * by_mean, own * by_theta, g * torch.where(counts == 0, by_logits, -_logistic(logits))

    dmean, dtheta, *rest = weighted(weight, slopes)
    dzero_logits, dlog_library = rest[0] if rest else None, dmean
    if options.param == SOFTMAX:
        dmean = _by_logits(dmean, mean.to(dtype), options)
    *_, need_dweight = wanted.needs
    dweight = g * _terms(parameters, x, None, options, dtype) if need_dweight else None
    operands = (mean, theta, zero_logits, log_library, weight)
    return gradients(wanted, operands, (dmean, dtheta, dzero_logits, dlog_library, dweight))
