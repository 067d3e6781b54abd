"""What a Bernoulli variable's entropy, variance and divergence are in both tails, by its logit y or probability p.

Every formula stands in quantities that are small where the result is: p and 1 − p each from the exponential that is
small, never one from the other. A value is followed by its derivatives. Values select by min, max and signs: a
torch.where whose condition alternates takes longer than ten exponentials.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vae_fast.distributions.known_slopes import known_slopes

# Beyond the logits at which e^−|y| is 0 in float64; a finite stand-in for ∞ in products with that 0.
CERTAIN = 1e4


def root(y: Tensor) -> Tensor:
    """e^−½|y|: its square may be subnormal, and then has few digits; products are taken by it twice."""
    return torch.exp(-0.5 * y.abs())


def _stddev(y: Tensor) -> Tensor:
    """½ sech ½y."""
    r = root(y)
    return r / (1.0 + r * r)


def _stddev_slope(y: Tensor) -> tuple[Tensor]:
    return (-0.5 * stddev(y) * torch.tanh(0.5 * y),)


stddev = known_slopes(_stddev, _stddev_slope)
"""√(σ(y)·σ(−y)), by the logit."""


def variance(y: Tensor) -> Tensor:
    """σ(y)·σ(−y), by the logit."""
    return stddev(y).square()


def logistic_value(y: Tensor) -> Tensor:
    return torch.exp(y.clamp(max=0.0)) / (1.0 + torch.exp(-y.abs()))


def _logistic_slope(y: Tensor) -> tuple[Tensor]:
    return (variance(y),)


logistic = known_slopes(logistic_value, _logistic_slope)
"""σ(y) = 1/(1 + e^−y); torch.sigmoid's derivative is 0 once σ rounds to 1."""


def log1p_ratio(step: Tensor, least: Tensor) -> Tensor:
    """log(1 + step/least)."""
    quotient = step / least
    return torch.where(torch.isinf(quotient), torch.log(step) - torch.log(least), torch.log1p(quotient))


def _log_odds(p: Tensor) -> Tensor:
    """±log(1 + |2p − 1|/min(p, 1 − p)), where two logarithms would cancel near ½."""
    step = 2.0 * p - 1.0
    return torch.sign(step) * log1p_ratio(step.abs(), torch.minimum(p, 1.0 - p))


def _log_odds_slope(p: Tensor) -> tuple[Tensor]:
    return (1.0 / (p * (1.0 - p)),)


log_odds = known_slopes(_log_odds, _log_odds_slope)
"""log(p/(1 − p))."""


def opened(p: Tensor) -> Tensor:
    """p, or for 0 and 1 the nearest number between them: derivatives there are infinite."""
    limits = torch.finfo(p.dtype)
    return p.clamp(limits.tiny * limits.eps, 1.0 - 0.5 * limits.eps)


# ---- entropy ------------------------------------------------------------------------------------------------


def _entropy(y: Tensor) -> Tensor:
    """log(1 + e) + |y|·e/(1 + e), e = e^−|y|: two terms of one sign."""
    size = y.abs().clamp(max=CERTAIN)
    r = root(size)
    e = r * r
    return torch.log1p(e) + (size * r) * (r / (1.0 + e))


def _entropy_slope(y: Tensor) -> tuple[Tensor]:
    """−y·σ(y)·σ(−y)."""
    y = y.clamp(-CERTAIN, CERTAIN)
    w = stddev(y)
    return (-(y * w) * w,)


def _entropy_of_probs(p: Tensor) -> Tensor:
    """−p log p − (1 − p) log(1 − p), of the smaller of p and 1 − p."""
    p = torch.minimum(p, 1.0 - p)
    return torch.special.entr(p) - (1.0 - p) * torch.log1p(-p)


def _entropy_slope_of_probs(p: Tensor) -> tuple[Tensor]:
    return (-log_odds(opened(p)),)


entropy = known_slopes(_entropy, _entropy_slope)
"""Entropy in nats, by the logit."""
entropy_of_probs = known_slopes(_entropy_of_probs, _entropy_slope_of_probs)
"""Entropy in nats, by the probability. Its derivative at 0 and 1 is that of the nearest number between."""
