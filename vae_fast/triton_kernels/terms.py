"""One element's term of each density, and its derivatives."""

import triton
import triton.language as tl

from vae_fast.triton_kernels.formulas import (
    clamped_log,
    clamped_log1m,
    constant,
    divide,
    exp_of_negative,
    half_expm1_and_minus,
    half_expm1_and_minus_by_root,
    is_ordinary,
    log1p_unit,
    over_one_plus,
)
from vae_fast.triton_kernels.scale import LOGSTD, dlog_var, inverse, log_var, sigma


@triton.jit
def bernoulli(y, t):
    """t·log σ(y) + (1 − t)·log(1 − σ(y)) and t − σ(y), without a difference that cancels."""
    size = -tl.abs(y)
    e, error = exp_of_negative(size)
    positive = y > 0.0
    # How far t is from what y's sign says.
    wrong = tl.where(positive, 1.0 - t, t)
    # An infinite logit of the matching target costs nothing; 0·∞ would be NaN.
    cost = tl.where(wrong == 0.0, 0.0, size * wrong)
    # σ(−|y|).
    s = over_one_plus(e, error, e, error)
    return cost - (e + log1p_unit(e, error)), tl.where(positive, s - wrong, wrong - s)


@triton.jit
def bernoulli_of_probs(p, t):
    """t·max(log p, −100) + (1 − t)·max(log(1 − p), −100), and its derivatives by p and by t.

    The one by p is what F.binary_cross_entropy gives.
    """
    log_p, log_q = clamped_log(p), clamped_log1m(p)
    variance, least = p * (1.0 - p), constant(p, 1e-12)
    slope = divide(t - p, tl.where(variance < least, least, variance))
    return tl.fma(t, log_p, (1.0 - t) * log_q), slope, log_p - log_q


@triton.jit
def standardised(difference, r, log_var_of_r, eps, KIND: tl.constexpr, EPS: tl.constexpr):
    """½(difference/σ)² and difference/σ², finite whenever they are; a difference of 0 gives 0 whatever σ.

    In two steps of 1/σ where 1/σ² is no ordinary number.
    """
    inv_sigma, inv_var = inverse(r, eps, KIND, EPS)
    slope = difference * inv_var
    half_square = difference * 0.5 * slope
    infinite = tl.abs(inv_sigma) == float("inf")
    inv_sigma = tl.where(difference == 0.0, tl.where(infinite, 0.0, inv_sigma), inv_sigma)
    t = difference * inv_sigma
    ordinary = is_ordinary(log_var_of_r)
    return tl.where(ordinary, half_square, t * 0.5 * t), tl.where(ordinary, slope, t * inv_sigma)


@triton.jit
def gaussian(difference, r, eps, KIND: tl.constexpr, EPS: tl.constexpr):
    """−½(log σ² + (difference/σ)² + log 2π) and its derivatives by the mean and by r; difference = x − mean."""
    size = log_var(r, eps, KIND, EPS)
    half_square, slope = standardised(difference, r, size, eps, KIND, EPS)
    log_prob = -(half_square + (size + constant(size, 1.8378770664093454836)) * 0.5)
    return log_prob, slope, (half_square - 0.5) * dlog_var(r, eps, KIND, EPS)


@triton.jit
def gaussian_kl(dm, r, eps, KIND: tl.constexpr, EPS: tl.constexpr):
    """KL(N(μ, σ²) ‖ N(μp, 1)), dm = μ − μp, and its derivative by r; that by μ is dm."""
    size = log_var(r, eps, KIND, EPS)
    if KIND <= LOGSTD and not EPS:
        growth, spread = half_expm1_and_minus(size)
    else:
        growth, spread = half_expm1_and_minus_by_root(size, sigma(r, eps, KIND, EPS))
    return tl.fma(dm * 0.5, dm, spread), growth * dlog_var(r, eps, KIND, EPS)


@triton.jit
def _corrected(value, error, slope):
    """value + error·slope, a first-order correction; an infinite value needs none."""
    keep = (error == 0.0) | (tl.abs(value) == float("inf"))
    return tl.where(keep, value, tl.fma(error, slope, value))


@triton.jit
def gaussian_kl_to_prior(dm, r, prior_r, eps, KIND: tl.constexpr, EPS: tl.constexpr):
    """KL(N(μ, σ²) ‖ N(μp, σp²)) and its derivatives by μ, r and the prior's r."""
    size, prior_size = log_var(r, eps, KIND, EPS), log_var(prior_r, eps, KIND, EPS)
    d = size - prior_size
    if KIND <= LOGSTD and not EPS:
        # The rounding error of d (Knuth's two-sum), which e^d would magnify; none where d is infinite.
        part = size - d
        error = (size - (d + part)) + (part - prior_size)
        error = tl.where(tl.abs(d) < float("inf"), error, 0.0)
        growth, spread = half_expm1_and_minus(d)
        spread = _corrected(spread, error, growth)
        growth = _corrected(growth, error, growth + 0.5)
    else:
        inv_prior, _ = inverse(prior_r, eps, KIND, EPS)
        ratio = sigma(r, eps, KIND, EPS) * inv_prior
        growth, spread = half_expm1_and_minus_by_root(d, ratio)
    half_square, slope = standardised(dm, prior_r, prior_size, eps, KIND, EPS)
    draw = growth * dlog_var(r, eps, KIND, EPS)
    dprior_raw = -(half_square + growth) * dlog_var(prior_r, eps, KIND, EPS)
    return half_square + spread, slope, draw, dprior_raw
