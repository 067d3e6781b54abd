"""The KL divergence to a prior whose second argument is in a form of its own: of one element, and its derivatives.

Where both arguments are logarithms of σ it hangs on their difference. Elsewhere σ² is S·e^(2q) and d log σ²/dr is
D·e^(2h), S and D numbers of any exponent (wide.py), q and h exact multiples of the argument, or 0: what is large in
a product and what is small in it meet in one exponential.
"""

import triton
import triton.language as tl

from vae_fast.triton_kernels.arithmetic import constant, divide
from vae_fast.triton_kernels.exponentials import exp, half_expm1_and_minus_by_grown
from vae_fast.triton_kernels.lean import half_expm1_of
from vae_fast.triton_kernels.logarithms import log
from vae_fast.triton_kernels.sigma import (
    LOGSTD,
    SOFTPLUS,
    STD,
    VAR,
    log_sigma,
    plus_eps,
    softplus_is_exp,
    twice,
)
from vae_fast.triton_kernels.softplus import logistic, softplus
from vae_fast.triton_kernels.terms import corrected, is_big, product, standardised, wide_standardised
from vae_fast.triton_kernels.wide import half_of, narrow, over, plus, times, wide, wide_exp


@triton.jit
def _difference(a, b):
    """a − b rounded, and its rounding error (Knuth's two-sum); 0 where a step of it is infinite."""
    d = a - b
    part = a - d
    error = (a - (d + part)) + (part - b)
    return d, tl.where(tl.abs(error) < float("inf"), error, 0.0)


@triton.jit
def _of_logarithms(dm, r, prior_r, FORM: tl.constexpr, PRIOR_FORM: tl.constexpr):
    size, prior_size = log_sigma(r, FORM), log_sigma(prior_r, PRIOR_FORM)
    less, error = _difference(size, prior_size)
    error = error + error
    # Where d overflows to infinity, any half of it will do that does not.
    half = tl.where(less == float("inf"), tl.fma(prior_size, constant(r, -0.5), size * 0.5), less)
    growth, spread = half_expm1_of(less + less, half)
    spread = corrected(spread, error, growth)
    growth = corrected(growth, error, growth + 0.5)
    half_square, slope = standardised(dm, prior_r, PRIOR_FORM)
    return half_square + spread, slope, twice(growth, FORM), -twice(half_square + growth, PRIOR_FORM)


@triton.jit
def _scale(r, eps, FORM: tl.constexpr, EPS: tl.constexpr):
    """S, q, D, h and log σ."""
    none = tl.zeros_like(r)
    if FORM == VAR:
        x = plus_eps(r, eps, EPS)
        m, n = wide(x)
        return (m, n), none, (divide(constant(r, 1.0), m), -n), none, log(x) * 0.5
    elif FORM <= LOGSTD and not EPS:
        a = log_sigma(r, FORM)
        return (none + 1.0, none), a, (twice(none + 1.0, FORM), none), none, a
    else:
        q, h, slope = none, none, none + 2.0
        if FORM == STD:
            s = plus_eps(r, eps, EPS)
        elif FORM == SOFTPLUS:
            far = softplus_is_exp(r)
            s = plus_eps(softplus(r), eps, EPS)
            slope = tl.where(far, 2.0, logistic(r) * 2.0)
            if EPS:
                h = tl.where(far, r * 0.5, 0.0)
            else:
                s, q = tl.where(far, 1.0, s), tl.where(far, r, 0.0)
        else:
            a = log_sigma(r, FORM)
            far = a > (525.0 if r.dtype == tl.float64 else 63.75)
            # So far out eps is nothing beside e^a.
            s, q = tl.where(far, 1.0, exp(a) + eps), tl.where(far, a, 0.0)
            slope, h = twice(none + 1.0, FORM), tl.where(far, 0.0, a * 0.5)
        m, n = wide(s)
        return times((m, n), (m, n)), q, (divide(slope, m), -n), h, log(s) + q


@triton.jit
def _grown(a, q, prior_q):
    """a·e^(2(q − prior_q))."""
    d, error = _difference(q, prior_q)
    m, n = wide_exp(d + d, 2)
    # The exponential would magnify the difference's error.
    return times(a, (tl.where((m > 0.0) & (m < float("inf")), tl.fma(m, error + error, m), m), n))


@triton.jit
def _of_scales(
    dm,
    r,
    prior_r,
    eps,
    prior_eps,
    FORM: tl.constexpr,
    EPS: tl.constexpr,
    PRIOR_FORM: tl.constexpr,
    PRIOR_EPS: tl.constexpr,
):
    s, q, slope, h, size = _scale(r, eps, FORM, EPS)
    prior_s, prior_q, prior_slope, prior_h, prior_size = _scale(prior_r, prior_eps, PRIOR_FORM, PRIOR_EPS)
    quotient = over(s, prior_s)
    # Which q and h may be other than 0.
    HAS_Q: tl.constexpr = FORM <= LOGSTD or (FORM == SOFTPLUS and not EPS)
    PRIOR_HAS_Q: tl.constexpr = PRIOR_FORM <= LOGSTD or (PRIOR_FORM == SOFTPLUS and not PRIOR_EPS)
    HAS_H: tl.constexpr = EPS and (FORM <= LOGSTD or FORM == SOFTPLUS)
    PRIOR_HAS_H: tl.constexpr = PRIOR_EPS and (PRIOR_FORM <= LOGSTD or PRIOR_FORM == SOFTPLUS)
    ratio = quotient
    if HAS_Q or PRIOR_HAS_Q:
        ratio = _grown(quotient, q, prior_q)
    # The ratio times each d log σ²/dr, and these by themselves.
    grown, prior_grown = times(ratio, slope), times(ratio, prior_slope)
    if HAS_H:
        grown = _grown(times(quotient, slope), q + h, prior_q)
        slope = times(slope, wide_exp(h + h, 2))
    if PRIOR_HAS_H:
        prior_grown = _grown(times(quotient, prior_slope), q, prior_q - prior_h)
        prior_slope = times(prior_slope, wide_exp(prior_h + prior_h, 2))
    if PRIOR_HAS_Q:
        prior_s = times(prior_s, wide_exp(prior_q + prior_q, 2))
    # Nearer than the difference of two logarithms where the ratio is an ordinary number; not where both are small,
    # of which one may be exact.
    square = narrow(ratio)
    nearer = (is_big(square) == 0) & (is_big(divide(constant(r, 1.0), square)) == 0)
    nearer = nearer & ((tl.abs(size) > 1.0) | (tl.abs(prior_size) > 1.0))
    half = tl.where(nearer, log(square) * 0.5, size - prior_size)
    growth, spread = half_expm1_and_minus_by_grown(half + half, half, narrow(half_of(ratio)))
    half_square, by_mean = wide_standardised(dm, prior_s)
    draw = narrow(product(growth, slope, half_of(grown)))
    dprior = plus(times(half_square, prior_slope), product(growth, prior_slope, half_of(prior_grown)))
    return narrow(half_square) + spread, by_mean, draw, -narrow(dprior)


@triton.jit
def gaussian_kl_of_two_forms(
    dm,
    r,
    prior_r,
    eps,
    prior_eps,
    FORM: tl.constexpr,
    EPS: tl.constexpr,
    PRIOR_FORM: tl.constexpr,
    PRIOR_EPS: tl.constexpr,
):
    """KL(N(μ, σ²) ‖ N(μp, σp²)) and its derivatives by μ, r and the prior's r; finite wherever they are."""
    if FORM <= LOGSTD and not EPS and PRIOR_FORM <= LOGSTD and not PRIOR_EPS:
        return _of_logarithms(dm, r, prior_r, FORM, PRIOR_FORM)
    else:
        return _of_scales(dm, r, prior_r, eps, prior_eps, FORM, EPS, PRIOR_FORM, PRIOR_EPS)
