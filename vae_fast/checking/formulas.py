"""What the operators compute, element by element, as textbooks write it: the truth that errors are measured from.

Written apart from the package's own formulas, none of which is called here. The numbers are arrays of numpy's
float64; or of any numbers of which ``f``, a namespace of numpy's functions by name, has the functions.

Every truth stands beside Σ|terms|, the sum of the absolute values of what is added up to it: rounding errors are
proportional to it, not to the result, which may cancel.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from vae_fast.checking.element import Element, Pair, log_growth_less_share
from vae_fast.checking.forms import Array, Form, sigmoid, softplus
from vae_fast.checking.more_formulas import continuous_bernoulli, laplace, student_t

# ---- functions that cancel as they are written -------------------------------------------------------------


def expm1_minus(a: Array, f: Any = np) -> Array:
    """e^a − 1 − a; near 0, where the difference cancels in any precision, from its power series."""
    near = np.asarray(abs(a) <= 1, bool)
    result, x = np.array(f.expm1(a) - a), np.asarray(a)[near]
    series = 0.0 * x
    # 1/22! is 9e-22, 1/46! 2e-58.
    for k in range(22 if f is np else 46, 1, -1):
        series = series * x + f.ones(()) / math.factorial(k)
    result[near] = series * x * x
    return result


def _half_expm1(d: Array, low: Array, f: Any) -> Array:
    """½(e^(d + low) − 1), which is a number of float64 where e^d no longer is; ``low`` is next to nothing."""
    root = f.exp(d / 2)
    half = root / 2 * root
    return f.where(d > 700, half, f.expm1(d) / 2) + low * f.where(half < math.inf, half, 0.0)


def _half_expm1_minus(d: Array, low: Array, f: Any) -> Array:
    """½(e^(d + low) − 1 − (d + low)), likewise."""
    grown = _half_expm1(d, low, f)
    near = f.where(d > 700, 0.0, d)
    return f.where(
        d > 700, f.where(grown < math.inf, grown - d / 2, grown), (expm1_minus(near, f) + low * f.expm1(near)) / 2
    )


def _difference(a: Array, b: Array, f: Any) -> Pair:
    """a − b and its rounding error (Knuth's two-sum), 0 where exponentials of it are 0 or infinite anyway."""
    d = a - b
    t = d - a
    low = (a - (d - t)) - (b + t)
    return d, f.where(abs(d) < 1e6, low, 0.0)


def standardised(d: Array, form: Form, r: Array, f: Any) -> Pair:
    """½(d/σ)² and d/σ², both 0 where d is and σ no NaN; 1/σ² may be no number of float64."""
    inverse, square = form.inverse(r, f), form.inverse_square(r, f)
    zero = (d == 0) & (r == r)
    u = f.where(zero, 0.0, d) * f.where(zero, 0.0, inverse)
    slope = f.where((square > 1e-300) & (square < 1e300), d * square, u * f.where(zero, 0.0, inverse))
    return u / 2 * u, f.where(zero, 0.0, slope)


# ---- the operators -----------------------------------------------------------------------------------------


def sample(form: Form, mu: Array, raw: Array, eps: Array, temperature: float = 1.0, f: Any = np) -> Element:
    """z = μ + τσε."""
    r = form.clamp(raw, f)
    sigma = form.sigma(r, f)
    eps = eps if temperature == 1.0 else temperature * eps
    step, slope = sigma * eps, form.inside(raw, form.dsigma(r, f) * eps, f)
    ones = f.ones(np.shape(eps))
    slopes = {"mu": (ones, ones), "logvar": (slope, abs(slope))}
    return Element((mu + step, abs(mu) + abs(step)), slopes, (sigma,))


class Forms(NamedTuple):
    """The posterior's, and the prior's where that is another one."""

    own: Form
    prior: Form

    @property
    def rounded(self) -> bool:
        """Whether σ or σp is rounded on the way to what is made of it."""
        return self.own.rounded or self.prior.rounded


def kl(
    form: Form | Forms, mu: Array, raw: Array, prior_mu: Array = None, prior_raw: Array = None, f: Any = np
) -> Element:
    """½((μ−μp)/σp)² + ½(e^d − 1 − d), d = log σ²/σp²; μp is 0 and σp 1 where they are None.

    Where σ itself, not its logarithm, is an argument, it is rounded before the second is small: the terms are then
    ½e^d, ½, ½|log σ²| and ½|log σp²|.
    """
    form, prior = form if isinstance(form, Forms) else Forms(form, form)
    r = form.clamp(raw, f)
    difference = mu if prior_mu is None else mu - prior_mu
    prior_log_var, prior_sigma, prior_r = 0.0, 1.0, None
    square, slope = difference / 2 * difference, difference
    if prior_raw is not None:
        prior_r = prior.clamp(prior_raw, f)
        prior_log_var, prior_sigma = prior.log_var(prior_r, f), prior.sigma(prior_r, f)
        square, slope = standardised(difference, prior, prior_r, f)
    log_var, dlog_var = form.log_var(r, f), form.dlog_var(r, f)
    if form.logarithmic and (prior_raw is None or prior.logarithmic):
        d, low = (log_var, 0.0) if prior_raw is None else _difference(log_var, prior_log_var, f)
        growth, spread = _half_expm1(d, low, f), _half_expm1_minus(d, low, f)
        infinite = (abs(log_var) == math.inf) | (abs(prior_log_var) == math.inf)
        spread = f.where((d == math.inf) & infinite, math.nan, spread)  # ∞ − ∞
        spread_terms, growth_terms = spread, abs(growth)
    else:
        sigma = form.sigma(r, f)
        growth = (sigma - prior_sigma) / prior_sigma * ((sigma + prior_sigma) / prior_sigma) / 2
        spread = growth - (log_var - prior_log_var) / 2
        growth_terms = growth + 1
        spread_terms = growth_terms + (abs(log_var) + abs(prior_log_var)) / 2
    slopes = {
        "mu": (slope, abs(slope)),
        "logvar": (form.inside(raw, growth * dlog_var, f), growth_terms * abs(dlog_var)),
    }
    if prior_mu is not None:
        slopes["prior_mu"] = (-slope, abs(slope))
    if prior_r is not None:
        dprior = prior.dlog_var(prior_r, f)
        slopes["prior_logvar"] = (
            prior.inside(prior_raw, -(square + growth) * dprior, f),
            (square + growth_terms) * abs(dprior),
        )
    steps = () if prior_mu is None else (difference,)
    return Element((square + spread, square + spread_terms), slopes, steps)


def bernoulli(y: Array, x: Array, x_scale: float = 1.0, f: Any = np) -> Element:
    """log p = −|y|·w − log(1 + e^−|y|), w = y > 0 ? 1 − t : t; slopes t − σ(y), of terms w and σ(−|y|), and y.

    A target that is a product with ``x_scale`` has a rounding of its own, of size t.
    """
    t, size = x * x_scale, abs(y)
    wrong = f.where(y > 0, 1 - t, t)
    small = f.exp(-size)
    s = small / (1 + small)
    rounded = abs(t) if x_scale != 1.0 else 0 * t

    def certain(w: Array) -> Array:
        return f.where(w == 0, 0.0, f.where(w == 0, 0.0, size) * w)

    value = -(certain(wrong) + f.log1p(small))
    terms = certain(abs(wrong) + rounded) + f.log1p(small)
    slope = f.where(y > 0, s - (1 - t), t - s)
    by_x = y * x_scale
    return Element((value, terms), {"logits": (slope, abs(wrong) + rounded + s), "x": (by_x, abs(by_x))})


def bernoulli_weighted(y: Array, x: Array, p: Array, x_scale: float = 1.0, f: Any = np) -> Element:
    """log p = p·t·log σ(y) + (1 − t)·log σ(−y), p the weight of the positive."""
    t = x * x_scale
    positive, negative = p * t, 1 - t
    rounded = abs(t) if x_scale != 1.0 else 0 * t

    def cost(w: Array, log: Array) -> Array:
        return f.where(w == 0, 0.0, w * f.where(w == 0, 0.0, log))

    minus, plus = softplus(-y, f), softplus(y, f)
    by_x = (plus - p * minus) * x_scale
    value = cost(positive, -minus) + cost(negative, -plus)
    terms = cost(abs(positive), minus) + cost(abs(negative) + rounded, plus)
    below, above = sigmoid(-y, f), sigmoid(y, f)
    slope_terms = abs(positive) * below + (abs(negative) + rounded) * above
    return Element(
        (value, terms),
        {
            "logits": (positive * below - negative * above, slope_terms),
            "x": (by_x, (plus + abs(p) * minus) * abs(x_scale)),
        },
    )


def bernoulli_of_probs(p: Array, x: Array, x_scale: float = 1.0, f: Any = np) -> Element:
    """log p as ``F.binary_cross_entropy`` defines it: logarithms ≥ −100, the slope's denominator ≥ 1e-12.

    t − p is rounded once. A target that is a product with ``x_scale`` has a rounding of its own, of size t.
    """
    t = x * x_scale
    valid = (p >= 0) & (p <= 1)
    p = f.where(valid, p, math.nan)
    log_p, log_q = f.log(f.where(valid, p, 1.0)), f.log1p(-f.where(valid, p, 0.0))
    log_p, log_q = (f.where(log < -100, -100.0, log) * f.where(valid, 1.0, math.nan) for log in (log_p, log_q))
    variance = p * (1 - p)
    variance = f.where(variance < 1e-12, 1e-12, variance)
    rounded = abs(t) if x_scale != 1.0 else 0 * t
    slope, by_x = (t - p) / variance, (log_p - log_q) * x_scale
    return Element(
        (t * log_p + (1 - t) * log_q, -abs(t) * log_p - (abs(1 - t) + rounded) * log_q),
        {"logits": (slope, abs(slope) + rounded / variance), "x": (by_x, -(log_p + log_q) * abs(x_scale))},
    )


def gaussian(form: Form, mean: Array, raw: Array, x: Array, x_scale: float = 1.0, f: Any = np) -> Element:
    """log p = −½((x−m)/σ)² − ½log σ² − ½log 2π.

    Data that are a product with ``x_scale`` have a rounding of their own, of size |x|.
    """
    r, x = form.clamp(raw, f), x * x_scale
    difference = x - mean
    square, slope = standardised(difference, form, r, f)
    log_var, dlog_var = form.log_var(r, f), form.dlog_var(r, f)
    log_2pi = f.log(2 * f.pi * f.ones(()))
    square_terms, slope_terms = square, abs(slope)
    if x_scale != 1.0:
        slope_terms = slope_terms + abs(x) * form.inverse_square(r, f)
        square_terms = square_terms + abs(x * slope)
    return Element(
        (-(square + (log_var + log_2pi) / 2), square_terms + (abs(log_var) + log_2pi) / 2),
        {
            "mean": (slope, slope_terms),
            "logvar": (
                form.inside(raw, (square - 0.5) * dlog_var, f),
                (square_terms + 0.5) * abs(dlog_var),
            ),
            "x": (-slope * x_scale, slope_terms * abs(x_scale)),
        },
        (difference,),
    )


def _rising(x: Array, theta: Array, f: Any) -> tuple[Array, Array, Array]:
    """Σ_{k<x} log(1 + k/θ), Σ_{k<x} k/(θ(θ + k)) and log x!, of counts: term by term, so that none cancels."""
    value = slope = factorial = 0.0 * x
    for k in range(1, int(np.max(x, initial=0))):
        inside = k < x
        value = value + f.where(inside, f.log1p(k / theta), 0.0)
        slope = slope + f.where(inside, k / theta / (theta + k), 0.0)
        factorial = factorial + f.where(inside, f.log(f.ones(()) * (k + 1)), 0.0)
    return value, slope, factorial


def negative_binomial(
    mean: Array,
    theta: Array,
    *more: Array,
    log_mean: bool = False,
    log_theta: bool = False,
    eps: float = 0.0,
    f: Any = np,
) -> Element:
    """log p = x·log m − x·log(1 + m/θ) − θ·log(1 + μ/(θ + ε)) + Σ_{k<x} log(1 + k/θ) − log x!, m = μ + ε.

    ``more`` is x, or π and x: then a count of 0 has log(σ(π) + σ(−π)e^−u), u the third term, and others log σ(−π)
    besides. For counts x of some hundreds. What a rounded u or m is off by is magnified where m is subtracted
    from x, or e^−u is made.
    """
    *logits, x = more
    mu, theta_ = (f.exp(v) if by_log else v for v, by_log in ((mean, log_mean), (theta, log_theta)))
    m, t, some = mu + eps, theta_ + eps, x > 0
    finite = theta_ < math.inf
    bounded = f.where(finite, theta_, 1.0)
    r = mu / t
    u = f.where(theta_ == math.inf, mu, theta_ * f.log1p(r))
    risen, risen_slope, factorial = _rising(x, theta_, f)
    parts = (
        f.where(some, x * f.log(f.where(some, m, 1.0)), 0.0 * m),
        -x * f.log1p(m / theta_),
        -u,
        risen,
        -factorial,
    )
    value, terms = sum(parts), sum(abs(part) for part in parts)
    rest = 1 / (1 + m / theta_)
    by_mean = (x - m) / m * rest
    mean_terms = (x + m) / m * rest if log_mean or eps else abs(by_mean)
    bracket = log_growth_less_share(r, f) + r / (1 + r) * (eps / t)
    counted = f.where(finite, x * m / bounded / (bounded + m), 0.0)
    by_theta, theta_terms = counted - bracket - risen_slope, counted + bracket + risen_slope
    scale_mean = mu if log_mean else 1.0
    scale_theta = theta_ if log_theta else 1.0
    slopes = {
        "mean": (by_mean * scale_mean, mean_terms * scale_mean),
        "theta": (by_theta * scale_theta, theta_terms * scale_theta),
    }
    if not logits:
        return Element((value, terms), slopes)
    (pi,) = logits
    alive, dead = sigmoid(-pi, f), sigmoid(pi, f)
    own, lost = alive * f.exp(-u), -alive * f.expm1(-u)
    whole, cost = dead + own, softplus(pi, f)
    share, log = own / whole, -f.log1p(lost / whole)
    size = f.where(some, 1.0, share * (1 + u * (1 - share)))
    share = f.where(some, 1.0, share)
    by_pi = dead / whole * lost
    return Element(
        (f.where(some, value - cost, log), f.where(some, terms + cost, abs(log))),
        {
            **{name: (slope * share, of * size) for name, (slope, of) in slopes.items()},
            "zero_logits": (
                f.where(some, -dead, by_pi),
                f.where(some, dead, by_pi * (1 + u * own / whole)),
            ),
        },
    )


def poisson(rate: Array, x: Array, log_rate: bool = False, eps: float = 0.0, f: Any = np) -> Element:
    """log p = x·log(λ + ε) − λ − log x!, of counts x of some hundreds."""
    value = f.exp(rate) if log_rate else rate
    m, some = value + eps, x > 0
    *_, factorial = _rising(x, 1.0 + 0.0 * x, f)
    parts = (f.where(some, x * f.log(f.where(some, m, 1.0)), 0.0 * m), -value, -factorial)
    slope, terms = (x - value) / m - (eps / m), (x + m) / m
    terms = terms if log_rate or eps else abs(slope)
    scale = value if log_rate else 1.0
    return Element((sum(parts), sum(abs(part) for part in parts)), {"rate": (slope * scale, terms * scale)})


# The operators that sum terms: of ``form``, where they have one, operands in the table's order, and ``x_scale``.
DENSITIES: dict[str, Callable[..., Element]] = {
    "rsample_kl": kl,
    "gaussian_kl": kl,
    "bernoulli_log_prob": bernoulli,
    "continuous_bernoulli_log_prob": continuous_bernoulli,
    "gaussian_log_prob": gaussian,
    "laplace_log_prob": laplace,
    "student_t_log_prob": student_t,
    "negative_binomial_log_prob": negative_binomial,
    "poisson_log_prob": poisson,
}
