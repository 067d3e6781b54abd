"""What a Bernoulli variable's entropy, variance and divergence are in both tails, by its logit y or probability p.

Every formula stands in quantities that are small where the result is: p and 1 − p each from the exponential that is
small, never one from the other. A value is followed by its derivatives.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vae_fast.distributions.known_slopes import known_slopes
from vae_fast.reference.formulas import half_expm1_minus
from vae_fast.scale import magnitude

# Beyond the logits at which e^−|y| is 0 in float64; a finite stand-in for ∞ in products with that 0.
_CERTAIN = 1e4


def _root(size: Tensor) -> Tensor:
    """e^−½|y|, of |y|: its square may be subnormal, and then has few digits; products are taken by it twice."""
    return torch.exp(-0.5 * size)


def _stddev(y: Tensor) -> Tensor:
    """½ sech ½y."""
    r = _root(magnitude(y))
    return r / (1.0 + r * r)


def _stddev_slope(y: Tensor) -> tuple[Tensor]:
    return (-0.5 * stddev(y) * torch.tanh(0.5 * y),)


stddev = known_slopes(_stddev, _stddev_slope)
"""√(σ(y)·σ(−y)), by the logit."""


def variance(y: Tensor) -> Tensor:
    """σ(y)·σ(−y), by the logit."""
    return stddev(y).square()


def _logistic(y: Tensor) -> Tensor:
    e = torch.exp(-magnitude(y))
    return torch.where(y > 0, 1.0, e) / (1.0 + e)


def _logistic_slope(y: Tensor) -> tuple[Tensor]:
    return (variance(y),)


logistic = known_slopes(_logistic, _logistic_slope)
"""σ(y) = 1/(1 + e^−y); torch.sigmoid's derivative is 0 once σ rounds to 1."""


# 1 − e^−s: the derivative of torch.expm1 is made of its value, and 0 once that rounds to −1.
_rise = known_slopes(lambda s: -torch.expm1(-s), lambda s: (torch.exp(-s),))


# ---- entropy ------------------------------------------------------------------------------------------------


def _entropy(y: Tensor) -> Tensor:
    """log(1 + e) + |y|·e/(1 + e), e = e^−|y|: two terms of one sign."""
    size = magnitude(y).clamp(max=_CERTAIN)
    r = _root(size)
    e = r * r
    return torch.log1p(e) + (size * r) * (r / (1.0 + e))


def _entropy_slope(y: Tensor) -> tuple[Tensor]:
    """−y·σ(y)·σ(−y)."""
    y = y.clamp(-_CERTAIN, _CERTAIN)
    w = stddev(y)
    return (-(y * w) * w,)


def _entropy_of_probs(p: Tensor) -> Tensor:
    """−p log p − (1 − p) log(1 − p)."""
    q = 1.0 - p
    return torch.special.entr(p) + torch.where(p < 0.5, -q * torch.log1p(-p), torch.special.entr(q))


def _entropy_slope_of_probs(p: Tensor) -> tuple[Tensor]:
    return (-log_odds(_open(p)),)


entropy = known_slopes(_entropy, _entropy_slope)
"""Entropy in nats, by the logit."""
entropy_of_probs = known_slopes(_entropy_of_probs, _entropy_slope_of_probs)
"""Entropy in nats, by the probability. Its derivative at 0 and 1 is that of the nearest number between."""


def log_odds(p: Tensor) -> Tensor:
    """log(p/(1 − p)): near ½, where two logarithms would cancel, 2 artanh(2p − 1), whose argument is exact."""
    middle = (p > 0.25) & (p < 0.75)
    centred = 2.0 * torch.where(middle, p, 0.5) - 1.0
    outer = torch.where(middle, 0.25, p)
    return torch.where(middle, 2.0 * torch.atanh(centred), torch.log(outer) - torch.log1p(-outer))


def _open(p: Tensor) -> Tensor:
    """p, or for 0 and 1 the nearest number between them: derivatives there are infinite."""
    limits = torch.finfo(p.dtype)
    return p.clamp(limits.tiny * limits.eps, 1.0 - 0.5 * limits.eps)


# ---- divergence ---------------------------------------------------------------------------------------------
# With d = log-odds of q − log-odds of p, t = log((1 − p)/(1 − q)) = log(1 + p·(e^d − 1)) and E(s) = e^s − 1 − s,
#     KL = (1 − p)·t + p·(t − d) = p·E(d) − E(t).
# Both variables are turned over where p > ½, so that p ≤ ½ and the second form cancels by no more than 3 for small
# and for negative d, 5 at d = 1; above, the first does so by no more than 5, and less the larger d.


def _excess(s: Tensor) -> Tensor:
    """e^s − 1 − s."""
    return 2.0 * half_expm1_minus(s)


def _near(p: tuple[Tensor, Tensor], d: Tensor, t: Tensor) -> Tensor:
    """p·E(d) − E(t), p being a product; infinite where q excludes an outcome."""
    excess = _excess(d)
    return torch.where(torch.isinf(excess), excess, (p[0] * excess) * p[1] - _excess(t))


def _far(p: tuple[Tensor, Tensor], complement: Tensor, t: Tensor, u: Tensor) -> Tensor:
    """(1 − p)·t + p·u, u = t − d = log(p/q) ≤ 0; where p is 0, so is its product with −∞."""
    return complement * t + (p[0] * u.clamp(min=-_CERTAIN)) * p[1]


def _difference(a: Tensor, b: Tensor) -> Tensor:
    """b − a, 0 for two equal infinities."""
    return torch.where((a == b) & torch.isinf(a), 0.0, b - a)


def _divergence(a: Tensor, b: Tensor) -> Tensor:
    d = _difference(a, b)
    turned = a > 0
    a, b, d = torch.where(turned, -a, a), torch.where(turned, -b, b), torch.where(turned, -d, d)
    r = _root(-a)
    e = r * r
    p, complement = (r, r / (1.0 + e)), 1.0 / (1.0 + e)

    near = d <= 1.0
    step = torch.where(near, d, 0.0)
    close = _near(p, step, torch.log1p((r * torch.expm1(step)) * p[1]))

    # From e^b and not from d, which is rounded: p·(e^d − 1) = (e^b − e^a)·(1 − p).
    rise = _rise(torch.where(near, 1.0, d))
    t = torch.log1p(torch.exp(b.clamp(max=20.0)) * rise * complement)
    t = torch.where(b > 20.0, b + torch.log1p(torch.exp(-b.clamp(min=20.0))) - torch.log1p(e), t)
    fall = complement * rise
    u = torch.where(fall < 0.5, torch.log1p(-fall), torch.log(e * complement + complement * (1.0 - rise)))
    return torch.where(near, close, _far(p, complement, t, u)).clamp(min=0.0)


def _divergence_slopes(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """(a − b)·σ(a)·σ(−a), and σ(b) − σ(a) = ±(1 − e^−|b − a|)·σ(higher)·σ(−lower)."""
    w = stddev(a)
    d = _difference(a, b)
    by_a = -(torch.where(w == 0, 0.0, d) * w) * w
    up = b > a
    high, low = torch.where(up, b, a), torch.where(up, a, b)
    by_b = _rise(torch.where(up, d, -d)) * logistic(high) * logistic(-low)
    return by_a, torch.where(up, by_b, -by_b)


def _ratio(step: Tensor, least: Tensor) -> Tensor:
    """log(1 + step/least)."""
    far = torch.isinf(step / least)
    above, below = (torch.where(far, t, 1.0) for t in (step, least))
    ordinary = torch.log1p(torch.where(far, 0.0, step) / torch.where(far, 1.0, least))
    return torch.where(far, torch.log(above) - torch.log(below), ordinary)


def _difference_of_odds(p: Tensor, q: Tensor) -> Tensor:
    """d, from q − p: two terms of one sign."""
    step, up = q - p, q > p
    size = torch.where(up, step, -step)
    d = _ratio(size, torch.where(up, p, q)) + _ratio(size, torch.where(up, 1.0 - q, 1.0 - p))
    return torch.where(up, d, -d)


def _divergence_of_probs(p: Tensor, q: Tensor) -> Tensor:
    turned = p > 0.5
    rest, rest_q = torch.where(turned, p, 1.0 - p), torch.where(turned, q, 1.0 - q)
    step = torch.where(turned, p - q, q - p)
    p, q = torch.where(turned, 1.0 - p, p), torch.where(turned, 1.0 - q, q)
    t = _ratio(step, rest_q)

    # e^d − 1 = step/(p·(1 − q)) ≤ e − 1; where p is 0, only if q is too.
    near = step <= 1.7 * (p * rest_q)
    low = torch.where(near & (step < 0), q, torch.where(near, p, 1.0))
    size = torch.where(near, magnitude(step), 0.0)
    d = _ratio(torch.where(size == 0, 0.0, size), torch.where(size == 0, 1.0, low))
    d = torch.where(step < 0, -(d - t), d + t)
    d = torch.where(near & (step != 0), d, 0.0)
    close = _near((p, torch.ones_like(p)), d, torch.where(near, t, 0.0))
    u = torch.log(p / torch.where(near, 1.0, q))
    return torch.where(near, close, _far((p, torch.ones_like(p)), rest, t, u)).clamp(min=0.0)


def _divergence_slopes_of_probs(p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """log-odds of p − log-odds of q, and (q − p)/(q·(1 − q))."""
    between = _open(q)
    return -_difference_of_odds(_open(p), between), (q - p) / between / (1.0 - between)


def _above(y: Tensor, p: Tensor) -> Tensor:
    """σ(y) − p, between the probabilities, or their complements where p's is the smaller."""
    return torch.where(p > 0.5, (1.0 - p) - logistic(-y), logistic(y) - p)


def _divergence_to_probs(a: Tensor, q: Tensor) -> Tensor:
    return _divergence(a, log_odds(q))


def _slopes_to_probs(a: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    between = _open(q)
    return _divergence_slopes(a, log_odds(q))[0], -_above(a, q) / between / (1.0 - between)


def _divergence_from_probs(p: Tensor, b: Tensor) -> Tensor:
    return _divergence(log_odds(p), b)


def _slopes_from_probs(p: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    return -_difference(log_odds(_open(p)), b), _above(b, p)


divergence = {
    ("logits", "logits"): known_slopes(_divergence, _divergence_slopes),
    ("probs", "probs"): known_slopes(_divergence_of_probs, _divergence_slopes_of_probs),
    ("logits", "probs"): known_slopes(_divergence_to_probs, _slopes_to_probs),
    ("probs", "logits"): known_slopes(_divergence_from_probs, _slopes_from_probs),
}
"""KL(p ‖ q) of one variable, by what p and q are given by."""
