"""The KL divergence to a prior whose σ is not 1, element by element, and its derivatives.

By one formula where the prior's second argument is in the posterior's form, by another where it is in its own.
"""

import triton
import triton.language as tl

from vae_fast.triton_kernels import forms
from vae_fast.triton_kernels.arithmetic import constant, divide
from vae_fast.triton_kernels.exponentials import half_expm1_and_minus_by_grown
from vae_fast.triton_kernels.lean import half_expm1_of
from vae_fast.triton_kernels.logarithms import log
from vae_fast.triton_kernels.sigma import (
    LOGSTD,
    STD,
    VAR,
    clamped,
    dlog_var,
    far_scale,
    is_usual,
    nearest,
    sigma_of,
    twice,
    var_ratio,
    var_ratio_slope,
    within,
)
from vae_fast.triton_kernels.terms import (
    BIG_32,
    BIG_64,
    anywhere,
    corrected,
    is_big,
    product,
    standardised,
    standardised_by,
    wide_standardised,
)
from vae_fast.triton_kernels.two_forms import gaussian_kl_of_two_forms
from vae_fast.triton_kernels.wide import half_of, narrow, plus, times

SAME = tl.constexpr(forms.SAME)


@triton.jit
def _far(dm, r, prior_r, eps, FORM: tl.constexpr, EPS: tl.constexpr):
    far, prior = far_scale(r, eps, FORM, EPS), far_scale(prior_r, eps, FORM, EPS)
    ratio = var_ratio(far, prior, FORM, EPS)
    beyond = half_of(var_ratio_slope(ratio, far, prior, FORM, EPS))
    # Nearer than the difference of two logarithms where the ratio is an ordinary number.
    square, half = narrow(ratio), far[2] - prior[2]
    big: tl.constexpr = BIG_64 if r.dtype == tl.float64 else BIG_32
    half = tl.where((square > 1.0 / big) & (square < big), log(square) * 0.5, half)
    growth, spread = half_expm1_and_minus_by_grown(half + half, half, narrow(half_of(ratio)))
    squared, slope = wide_standardised(dm, prior[0])
    draw = narrow(product(growth, far[1], times(half_of(ratio), far[1])))
    dprior_raw = -narrow(plus(times(squared, prior[1]), product(growth, prior[1], beyond)))
    return narrow(squared) + spread, slope, draw, dprior_raw


@triton.jit
def _alike(dm, r, prior_r, eps, FORM: tl.constexpr, EPS: tl.constexpr):
    """KL(N(μ, σ²) ‖ N(μp, σp²)) and its derivatives by μ, r and the prior's r."""
    if FORM <= LOGSTD and not EPS:
        less = r - prior_r
        d = twice(less, FORM)
        # The rounding error of d (Knuth's two-sum), which e^d would magnify; none where a step of it is infinite.
        part = r - less
        error = twice((r - (less + part)) + (part - prior_r), FORM)
        error = tl.where(tl.abs(error) < float("inf"), error, 0.0)
        half = tl.fma(prior_r, constant(r, -0.5), r * 0.5)
        if FORM == LOGSTD:
            # Where d overflows to infinity, any half of it will do that does not.
            half = tl.where(less == float("inf"), half, less)
        growth, spread = half_expm1_of(d, half)
        spread = corrected(spread, error, growth)
        growth = corrected(growth, error, growth + 0.5)
        half_square, slope = standardised(dm, prior_r, FORM)
        return half_square + spread, slope, twice(growth, FORM), -twice(half_square + growth, FORM)
    else:
        x, prior_x = nearest(r, eps, FORM, EPS), nearest(prior_r, eps, FORM, EPS)
        ratio = sigma_of(divide(x, prior_x), FORM)
        half = log(ratio)
        growth, spread = half_expm1_and_minus_by_grown(half + half, half, (ratio * 0.5) * ratio)
        half_square, slope = standardised_by(dm, prior_x, FORM)
        kl, draw = half_square + spread, growth * dlog_var(r, x, eps, FORM, EPS)
        dprior_raw = -(half_square + growth) * dlog_var(prior_r, prior_x, eps, FORM, EPS)
        usual = is_usual(r, x, FORM) & is_usual(prior_r, prior_x, FORM)
        usual = usual & (is_big(tl.fma(ratio, ratio, half_square)) == 0)
        if FORM == STD or FORM == VAR:
            # Where a tile ends all is 0.
            usual = usual | ((x == 0.0) & (prior_x == 0.0) & (dm == 0.0))
        if anywhere(usual == 0):
            far = _far(dm, r, prior_r, eps, FORM, EPS)
            kl, slope = tl.where(usual, kl, far[0]), tl.where(usual, slope, far[1])
            draw, dprior_raw = tl.where(usual, draw, far[2]), tl.where(usual, dprior_raw, far[3])
        return kl, slope, draw, dprior_raw


# PRIOR is what forms.prior_form_of says.


@triton.jit
def _number(value: tl.constexpr, T: tl.constexpr):
    """As a kernel has the numbers that are arguments."""
    return tl.full((), value, tl.float64).to(T)


@triton.jit
def clamped_prior(prior_raw, low, high, BOUNDED: tl.constexpr, PRIOR: tl.constexpr):
    if len(PRIOR) == 0:
        return clamped(prior_raw, low, high, BOUNDED)
    else:
        T: tl.constexpr = prior_raw.dtype
        return clamped(prior_raw, _number(PRIOR[2], T), _number(PRIOR[3], T), PRIOR[4])


@triton.jit
def within_prior(prior_raw, grad, low, high, BOUNDED: tl.constexpr, PRIOR: tl.constexpr):
    """``within`` the prior's bounds."""
    if len(PRIOR) == 0:
        return within(prior_raw, grad, low, high, BOUNDED)
    else:
        T: tl.constexpr = prior_raw.dtype
        return within(prior_raw, grad, _number(PRIOR[2], T), _number(PRIOR[3], T), PRIOR[4])


@triton.jit
def gaussian_kl_to_prior(dm, r, prior_r, eps, FORM: tl.constexpr, EPS: tl.constexpr, PRIOR: tl.constexpr):
    """KL(N(μ, σ²) ‖ N(μp, σp²)) and its derivatives by μ, r and the prior's r."""
    if len(PRIOR) == 0:
        return _alike(dm, r, prior_r, eps, FORM, EPS)
    elif PRIOR[0] == SAME:
        return _alike(dm, r, prior_r, eps, FORM, EPS)
    else:
        prior_eps = _number(PRIOR[1], r.dtype)
        return gaussian_kl_of_two_forms(dm, r, prior_r, eps, prior_eps, FORM, EPS, PRIOR[0], PRIOR[1] != 0.0)
