"""The exact results of the count densities, each with its Σ|terms|, in digits enough that nothing cancels."""

import functools

import numpy as np
import torch

from helpers.accuracy import mp

# Γ's differences of 10⁸ and more lose sixteen digits and more.
DIGITS = 110


@functools.cache
def rising(x, theta):
    """Σ_{k<x} log(1 + k/θ) and Σ_{k<x} k/(θ(θ + k)); of what is no count by Γ."""
    if x == int(x) and 0 <= x <= 64:
        parts = [(mp.log1p(k / theta), k / (theta * (theta + k))) for k in range(1, int(x))]
        return sum(a for a, _ in parts) + mp.mpf(0), sum(b for _, b in parts) + mp.mpf(0)
    value = mp.loggamma(x + theta) - mp.loggamma(theta) - x * mp.log(theta)
    return value, x / theta - (mp.digamma(x + theta) - mp.digamma(theta))


def negative_binomial(mean, theta, x, logits=None, log_mean=False, log_theta=False, eps=0.0):
    """((value, terms), …) of one element, and of its derivatives by mean, theta and logits."""
    with mp.workdps(DIGITS):
        mean, theta, x, eps = (mp.mpf(v) for v in (mean, theta, x, eps))
        mu, shape = mp.exp(mean) if log_mean else mean, mp.exp(theta) if log_theta else theta
        moved, more = mu + eps, shape + eps
        log_count, log_theta_part = mp.log1p(moved / shape), mp.log1p(mu / more)
        risen, slope = rising(x, shape)
        parts = [x * mp.log(moved) if x else mp.mpf(0), -x * log_count, -shape * log_theta_part, risen]
        parts.append(-mp.loggamma(x + 1))
        value, terms = sum(parts), sum(map(abs, parts))
        by_mean = (x - moved) / (moved * (1 + moved / shape))
        # By its logarithm μ is rounded, which x − μ may magnify.
        mean_terms = (x + moved) / (moved * (1 + moved / shape)) if log_mean else abs(by_mean)
        bracket = log_theta_part - mu / (more + mu) + mu / (more + mu) * eps / more
        counted = x * moved / (shape * (shape + moved))
        by_theta, theta_terms = counted - bracket - slope, counted + bracket + abs(slope)
        by = [
            [v * (mu if log_mean else 1) for v in (by_mean, mean_terms)],
            [v * (shape if log_theta else 1) for v in (by_theta, theta_terms)],
        ]
        if logits is None:
            return [(value, terms), *by]
        return _inflated(mp.mpf(logits), (value, terms), by, shape * log_theta_part, x == 0)


def _inflated(logits, value, by, u, zero):
    alive, dead = 1 / (1 + mp.exp(logits)), 1 / (1 + mp.exp(-logits))
    if not zero:
        loss = -mp.log(alive)
        return [(value[0] - loss, value[1] + loss), *by, (-dead, dead)]
    own = alive * mp.exp(-u)
    whole, lost = dead + own, alive * -mp.expm1(-u)
    share = own / whole
    # e^−u is off by u's rounding error, u times a unit.
    size = 1 + u * (1 - share)
    log = -mp.log1p(lost / whole)
    by_logits = dead / whole * lost
    return [
        (log, abs(log)),
        *((a * share, b * share * size) for a, b in by),
        (by_logits, by_logits * (1 + u * share)),
    ]


def poisson(rate, x, log_rate=False, eps=0.0):
    """((value, terms), …) of one element, and of its derivative by the rate."""
    with mp.workdps(DIGITS):
        rate, x, eps = (mp.mpf(v) for v in (rate, x, eps))
        value = mp.exp(rate) if log_rate else rate
        parts = [x * mp.log(value + eps) if x else mp.mpf(0), -value, -mp.loggamma(x + 1)]
        slope, terms = x / (value + eps) - 1, x / (value + eps) + 1
        if not log_rate and not eps:
            terms = abs(slope)
        by = [v * (value if log_rate else 1) for v in (slope, terms)]
        return [(sum(parts), sum(map(abs, parts))), by]


def exact(element, *tensors, **options):
    """(exact results, Σ|terms|) of every result, for tensors of one shape."""
    columns = [t.detach().double().reshape(-1).tolist() for t in tensors]
    rows = [element(*row, **options) for row in zip(*columns, strict=True)]
    return [tuple(np.array([row[k][j] for row in rows], object) for j in (0, 1)) for k in range(len(rows[0]))]


def spread(n, low, high, dtype):
    """Powers of ten from low to high, evenly drawn."""
    return (10 ** (low + (high - low) * torch.rand(n, dtype=torch.float64))).to(dtype)


def counted(n, dtype):
    """Counts, of which many are small and some are 10⁶."""
    few = torch.tensor([0, 0, 1, 2, 3, 7, 8, 9, 10, 30, 100, 1000, 10**5, 10**6], dtype=torch.float64)
    x = torch.where(
        torch.rand(n) < 0.5, few[torch.randint(len(few), (n,))], torch.randint(-10, 40, (n,)).clamp(min=0)
    )
    return x.to(dtype)
