"""KL(p ‖ q) of two Bernoulli variables in both tails, each by its logit or its probability.

With d = log-odds of q − log-odds of p, t = log((1 − p)/(1 − q)) and E(s) = e^s − 1 − s,

    KL = t − p·d = p·log(p/q) + (1 − p)·t = p·E(d) − E(t),

both variables turned over where p > ½. Float32 takes the first two in float64, whose digits outlast what cancels;
float64 has none to spare: it takes the third up to d = 1, where that cancels by no more than 5, and the second
above, which does so less the larger d.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vae_fast.distributions.bernoulli_terms import (
    CERTAIN,
    log1p_ratio,
    log_odds,
    logistic,
    logistic_value,
    opened,
    root,
    stddev,
    variance,
)
from vae_fast.distributions.known_slopes import known_slopes
from vae_fast.reference.formulas import half_expm1_minus

# Stand-ins for an infinite logit, as a number of float32 and as one of float64 that none of float32 comes near.
_LARGE, _HUGE = 1e38, 1e300


def _turned(a: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    """−|a|, and the others with the sign that turns."""
    sign = -torch.copysign(torch.ones_like(a), a)
    return -a.abs(), *(sign * t for t in others)


# ---- by logits ----------------------------------------------------------------------------------------------


def _of_narrow_logits(a: Tensor, b: Tensor) -> Tensor:
    """Of float32 numbers in float64: softplus(b) − softplus(a) − p·d, or its series where that loses 2⁻⁵³/d²."""
    a, b = _turned(a.clamp(-_HUGE, _HUGE), b.clamp(-_HUGE, _HUGE))
    d = b - a
    e = torch.exp(a)
    rest = 1.0 / (1.0 + e)
    p = e * rest
    v = p * rest
    kl = b.clamp(min=0.0) + torch.log1p(torch.exp(-b.abs())) - torch.log1p(e) - p * d
    series = (0.5 * v) * d * d * (1.0 + (rest - p) / 3.0 * d + (1.0 - 6.0 * v) / 12.0 * d * d)
    kl = torch.where(d.abs() < 1e-3, series, kl)
    return torch.where((b == -_HUGE) & (a > b), torch.inf, kl)


def _excess(s: Tensor) -> Tensor:
    """E(s) = e^s − 1 − s."""
    return 2.0 * half_expm1_minus(s)


def _near(p: tuple[Tensor, Tensor], d: Tensor, t: Tensor) -> Tensor:
    """p·E(d) − E(t), p being a product; infinite where q excludes an outcome."""
    excess = _excess(d)
    return torch.where(torch.isinf(excess), excess, (p[0] * excess) * p[1] - _excess(t))


def _far(p: tuple[Tensor, Tensor], rest: Tensor, t: Tensor, u: Tensor) -> Tensor:
    """(1 − p)·t + p·u, u = log(p/q) ≤ 0; where p is 0, so is its product with −∞."""
    return rest * t + (p[0] * u.clamp(min=-CERTAIN)) * p[1]


def _of_logits(a: Tensor, b: Tensor) -> Tensor:
    if a.dtype != torch.float64:
        return _of_narrow_logits(a.double(), b.double()).to(a.dtype).clamp(min=0.0)
    d = (b - a).masked_fill(a == b, 0.0)
    a, b, d = _turned(a, b, d)
    r = root(a)
    e = r * r
    p, rest = (r, r / (1.0 + e)), 1.0 / (1.0 + e)

    near = d <= 1.0
    step = torch.where(near, d, 0.0)
    close = _near(p, step, torch.log1p((r * torch.expm1(step)) * p[1]))

    # From e^b and not from d, which is rounded: p·(e^d − 1) = (e^b − e^a)·(1 − p).
    fall = rest * -torch.expm1(-torch.where(near, 1.0, d))
    t = torch.log1p(torch.exp(b.clamp(max=20.0)) * fall)
    t = torch.where(b > 20.0, b + torch.log1p(torch.exp(-b.clamp(min=20.0))) - torch.log1p(e), t)
    u = torch.where(fall < 0.5, torch.log1p(-fall), torch.log(rest * (e + torch.exp(-d.clamp(min=1.0)))))
    return torch.where(near, close, _far(p, rest, t, u)).clamp(min=0.0)


def _between(a: Tensor, b: Tensor) -> Tensor:
    """σ(b) − σ(a) = ±(1 − e^−|b − a|)·σ(higher)·σ(−lower)."""
    a, b = a.clamp(-_LARGE, _LARGE), b.clamp(-_LARGE, _LARGE)
    d = b - a
    size = -torch.expm1(-d.abs()) * logistic_value(torch.maximum(a, b)) * logistic_value(-torch.minimum(a, b))
    return torch.copysign(size, d)


between = known_slopes(_between, lambda a, b: (-variance(a), variance(b)))


def _by_a(a: Tensor, b: Tensor) -> Tensor:
    """(a − b)·σ(a)·σ(−a)."""
    w = stddev(a)
    return ((a.clamp(-CERTAIN, CERTAIN) - b.clamp(-_LARGE, _LARGE)) * w) * w


def _slopes_of_logits(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    return _by_a(a, b), between(a, b)


# ---- by probabilities ---------------------------------------------------------------------------------------


def _of_narrow_probs(p: Tensor, q: Tensor) -> Tensor:
    """Of float32 numbers in float64: p·log(p/q) + (1 − p)·log((1 − p)/(1 − q)), each from p − q."""
    step, rest, rest_q = p - q, 1.0 - p, 1.0 - q
    size, sign = step.abs(), torch.sign(step)
    u = sign * torch.log1p(size / torch.minimum(p, q).clamp(min=1e-300))
    v = -sign * torch.log1p(size / torch.minimum(rest, rest_q).clamp(min=1e-300))
    excluded = ((q == 0) & (p > 0)) | ((q == 1) & (p < 1))
    return torch.where(excluded, torch.inf, p * u + rest * v)


def _of_probs(p: Tensor, q: Tensor) -> Tensor:
    if p.dtype != torch.float64:
        return _of_narrow_probs(p.double(), q.double()).to(p.dtype).clamp(min=0.0)
    turned = p > 0.5
    rest, rest_q = torch.where(turned, p, 1.0 - p), torch.where(turned, q, 1.0 - q)
    step = torch.where(turned, p - q, q - p)
    p, q = torch.where(turned, 1.0 - p, p), torch.where(turned, 1.0 - q, q)
    t = log1p_ratio(step, rest_q)

    # e^d − 1 = step/(p·(1 − q)) ≤ e − 1; where p is 0, only if q is too.
    near = step <= 1.7 * (p * rest_q)
    still = ~near | (step == 0)
    size = torch.where(still, 0.0, step.abs())
    log_ratio = torch.copysign(log1p_ratio(size, torch.where(still, 1.0, torch.minimum(p, q))), step)
    d = torch.where(still, 0.0, log_ratio + t)
    one = torch.ones_like(p)
    close = _near((p, one), d, torch.where(near, t, 0.0))
    u = torch.log(p / torch.where(near, 1.0, q))
    return torch.where(near, close, _far((p, one), rest, t, u)).clamp(min=0.0)


def _odds(p: Tensor, q: Tensor) -> Tensor:
    """d, from q − p: two terms of one sign."""
    step = q - p
    size = step.abs()
    d = log1p_ratio(size, torch.minimum(p, q)) + log1p_ratio(size, torch.minimum(1.0 - p, 1.0 - q))
    return torch.copysign(d, step)


odds = known_slopes(_odds, lambda p, q: (-1.0 / (p * (1.0 - p)), 1.0 / (q * (1.0 - q))))


def _per_q(by_y: Tensor, q: Tensor) -> Tensor:
    """A derivative by the logit of q as one by q."""
    q = opened(q)
    return by_y / q / (1.0 - q)


def _slopes_of_probs(p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """−d, and (q − p)/(q·(1 − q))."""
    return -odds(opened(p), opened(q)), _per_q(q - p, q)


# ---- by one of each -----------------------------------------------------------------------------------------


def _above(y: Tensor, p: Tensor) -> Tensor:
    """σ(y) − p, of the smaller of p and 1 − p; near ½, where both are known no better than to ½ε, by logits."""
    direct = torch.where(p > 0.5, (1.0 - p) - logistic(-y), logistic(y) - p)
    return torch.where((p - 0.5).abs() < 0.25, between(log_odds(p), y), direct)


def _to_probs(a: Tensor, q: Tensor) -> Tensor:
    return _of_logits(a.double(), log_odds(q.double())).to(a.dtype)


def _slopes_to_probs(a: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    return _by_a(a, log_odds(q)), _per_q(-_above(a, q), q)


def _from_probs(p: Tensor, b: Tensor) -> Tensor:
    return _of_logits(log_odds(p.double()), b.double()).to(b.dtype)


def _slopes_from_probs(p: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    return log_odds(opened(p)) - b, _above(b, p)


divergence = {
    ("logits", "logits"): known_slopes(_of_logits, _slopes_of_logits),
    ("probs", "probs"): known_slopes(_of_probs, _slopes_of_probs),
    ("logits", "probs"): known_slopes(_to_probs, _slopes_to_probs),
    ("probs", "logits"): known_slopes(_from_probs, _slopes_from_probs),
}
"""KL(p ‖ q) of one variable, by what p and q are given by."""
