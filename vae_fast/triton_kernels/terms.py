"""One element's term of each density, and its derivatives."""

import triton
import triton.language as tl

from vae_fast.triton_kernels.arithmetic import constant, divide, power_of_two
from vae_fast.triton_kernels.exponentials import (
    exp_and_square,
    exp_of_negative,
    half_expm1_and_minus,
    half_expm1_and_minus_by_grown,
    is_ordinary,
)
from vae_fast.triton_kernels.logarithms import clamped_log, clamped_log1m, log
from vae_fast.triton_kernels.sigma import (
    LOGSTD,
    STD,
    VAR,
    dlog_var,
    far_scale,
    inv_var_of,
    is_usual,
    log_sigma,
    log_sigma_of,
    nearest,
    sigma_of,
    twice,
    var_ratio,
    var_ratio_slope,
)
from vae_fast.triton_kernels.softplus import log1p_unit, over_one_plus
from vae_fast.triton_kernels.wide import either, half_of, halved, narrow, over, plus, times, wide

HALF_LOG_2PI = tl.constexpr(0.91893853320467274178)
# F.binary_cross_entropy's least p(1 − p).
LEAST_VARIANCE = tl.constexpr(1e-12)
# Beyond it, and below its inverse, products with other numbers may leave a dtype's range.
BIG_64, BIG_32 = tl.constexpr(2.0**1000), tl.constexpr(2.0**100)
# An exponent smaller than that of any number that a 0 is added to.
SMALLEST = tl.constexpr(-4096.0)


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
    variance, least = p * (1.0 - p), constant(p, LEAST_VARIANCE)
    slope = divide(t - p, tl.where(variance < least, least, variance))
    return tl.fma(t, log_p, (1.0 - t) * log_q), slope, log_p - log_q


@triton.jit
def standardised(difference, r, FORM: tl.constexpr):
    """½(difference/σ)² and difference/σ² where log σ² is r, or twice it: finite whenever they are.

    A difference of 0 gives 0 whatever σ. In two steps of 1/σ where 1/σ² is no ordinary number, each with its power
    of two in two steps.
    """
    size = log_sigma(r, FORM)
    whole, n, inv_var = exp_and_square(-size)
    slope = difference * inv_var
    half_square = difference * 0.5 * slope
    m, n = halved(tl.where(size == float("inf"), 0.0, whole), n)
    root = power_of_two(n)
    t = ((difference * root) * m) * root
    ordinary = is_ordinary(size + size)
    slope = tl.where(ordinary, slope, ((t * root) * m) * root)
    return tl.where(ordinary, half_square, t * 0.5 * t), slope


@triton.jit
def wide_standardised(difference, var):
    """The same elsewhere; the square in numbers of any exponent."""
    m, n = wide(difference)
    slope_m, slope_n = over((m, n), var)
    # A 0 is smaller than any number that it is added to.
    none = (difference == 0.0) & (var[0] == var[0])
    square_m, square_n = tl.where(none, 0.0, slope_m * m * 0.5), tl.where(none, SMALLEST, slope_n + n)
    return (square_m, square_n), tl.where(none, 0.0, narrow((slope_m, slope_n)))


@triton.jit
def _product(growth, slope, beyond):
    """growth·slope, or ``beyond`` where growth is no ordinary number."""
    return either(_is_big(growth), beyond, times(wide(growth), slope))


@triton.jit
def _anywhere(condition):
    """Whether it holds for any element of the tile: what is rare is then computed for all, and chosen for some."""
    return tl.max(condition.to(tl.int32)) != 0


@triton.jit
def _is_big(a):
    big: tl.constexpr = BIG_64 if a.dtype == tl.float64 else BIG_32
    return tl.abs(a) >= big


@triton.jit
def _gaussian_far(difference, r, eps, FORM: tl.constexpr, EPS: tl.constexpr):
    var, dlog, size, _, _ = far_scale(r, eps, FORM, EPS)
    square, slope = wide_standardised(difference, var)
    half_square = narrow(square)
    log_prob = -(half_square + (size + constant(r, HALF_LOG_2PI)))
    return log_prob, slope, narrow(_product(half_square - 0.5, dlog, times(square, dlog)))


@triton.jit
def gaussian(difference, r, eps, FORM: tl.constexpr, EPS: tl.constexpr):
    """−½(log σ² + (difference/σ)² + log 2π) and its derivatives by the mean and by r; difference = x − mean."""
    half_log_2pi = constant(r, HALF_LOG_2PI)
    if FORM <= LOGSTD and not EPS:
        half_square, slope = standardised(difference, r, FORM)
        log_prob = -(half_square + (log_sigma(r, FORM) + half_log_2pi))
        return log_prob, slope, twice(half_square - 0.5, FORM)
    else:
        x = nearest(r, eps, FORM, EPS)
        half_square, slope = _standardised_by(difference, x, FORM)
        log_prob = -(half_square + (log_sigma_of(x, FORM) + half_log_2pi))
        draw = (half_square - 0.5) * dlog_var(r, x, eps, FORM, EPS)
        usual = is_usual(r, x, FORM) & (_is_big(half_square) == 0)
        if FORM == STD or FORM == VAR:
            # Where a tile ends all is 0.
            usual = usual | ((x == 0.0) & (difference == 0.0))
        if _anywhere(usual == 0):
            far_log_prob, far_slope, far_draw = _gaussian_far(difference, r, eps, FORM, EPS)
            log_prob = tl.where(usual, log_prob, far_log_prob)
            slope, draw = tl.where(usual, slope, far_slope), tl.where(usual, draw, far_draw)
        return log_prob, slope, draw


@triton.jit
def _standardised_by(difference, x, FORM: tl.constexpr):
    slope = difference * inv_var_of(x, FORM)
    slope = tl.where((difference == 0.0) & (x == x), 0.0, slope)
    return difference * 0.5 * slope, slope


@triton.jit
def _gaussian_kl_far(r, eps, FORM: tl.constexpr, EPS: tl.constexpr):
    var, dlog, size, _, _ = far_scale(r, eps, FORM, EPS)
    grown = half_of(var)
    growth, spread = half_expm1_and_minus_by_grown(size + size, size, narrow(grown))
    return spread, narrow(_product(growth, dlog, times(grown, dlog)))


@triton.jit
def gaussian_kl(dm, r, eps, FORM: tl.constexpr, EPS: tl.constexpr):
    """KL(N(μ, σ²) ‖ N(μp, 1)), dm = μ − μp, and its derivative by r; that by μ is dm."""
    if FORM <= LOGSTD and not EPS:
        growth, spread = half_expm1_and_minus(twice(r, FORM), log_sigma(r, FORM))
        draw = twice(growth, FORM)
    else:
        x = nearest(r, eps, FORM, EPS)
        size, root = log_sigma_of(x, FORM), sigma_of(x, FORM)
        growth, spread = half_expm1_and_minus_by_grown(size + size, size, (root * 0.5) * root)
        draw = growth * dlog_var(r, x, eps, FORM, EPS)
        usual = is_usual(r, x, FORM)
        if FORM == STD or FORM == VAR:
            # Where a tile ends all is 0.
            usual = usual | (x == 0.0)
        if _anywhere(usual == 0):
            far_spread, far_draw = _gaussian_kl_far(r, eps, FORM, EPS)
            spread, draw = tl.where(usual, spread, far_spread), tl.where(usual, draw, far_draw)
    return tl.fma(dm * 0.5, dm, spread), draw


@triton.jit
def floored(kl, g, floor, FLOOR: tl.constexpr):
    """max(kl, floor), and the gradient that reaches kl: 0 where the floor is not exceeded."""
    if FLOOR:
        below = kl <= floor
        return tl.where(below, floor, kl), tl.where(below, 0.0, g)
    else:
        return kl, g


@triton.jit
def _corrected(value, error, slope):
    """value + error·slope, a first-order correction; an infinite value needs none."""
    keep = (error == 0.0) | (tl.abs(value) == float("inf"))
    return tl.where(keep, value, tl.fma(error, slope, value))


@triton.jit
def _gaussian_kl_to_prior_far(dm, r, prior_r, eps, FORM: tl.constexpr, EPS: tl.constexpr):
    far, prior = far_scale(r, eps, FORM, EPS), far_scale(prior_r, eps, FORM, EPS)
    ratio = var_ratio(far, prior, FORM, EPS)
    beyond = half_of(var_ratio_slope(ratio, far, prior, FORM, EPS))
    # Nearer than the difference of two logarithms where the ratio is an ordinary number.
    square, half = narrow(ratio), far[2] - prior[2]
    big: tl.constexpr = BIG_64 if r.dtype == tl.float64 else BIG_32
    half = tl.where((square > 1.0 / big) & (square < big), log(square) * 0.5, half)
    growth, spread = half_expm1_and_minus_by_grown(half + half, half, narrow(half_of(ratio)))
    squared, slope = wide_standardised(dm, prior[0])
    draw = narrow(_product(growth, far[1], times(half_of(ratio), far[1])))
    dprior_raw = -narrow(plus(times(squared, prior[1]), _product(growth, prior[1], beyond)))
    return narrow(squared) + spread, slope, draw, dprior_raw


@triton.jit
def gaussian_kl_to_prior(dm, r, prior_r, eps, FORM: tl.constexpr, EPS: tl.constexpr):
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
        growth, spread = half_expm1_and_minus(d, half)
        spread = _corrected(spread, error, growth)
        growth = _corrected(growth, error, growth + 0.5)
        half_square, slope = standardised(dm, prior_r, FORM)
        return half_square + spread, slope, twice(growth, FORM), -twice(half_square + growth, FORM)
    else:
        x, prior_x = nearest(r, eps, FORM, EPS), nearest(prior_r, eps, FORM, EPS)
        ratio = sigma_of(divide(x, prior_x), FORM)
        half = log(ratio)
        growth, spread = half_expm1_and_minus_by_grown(half + half, half, (ratio * 0.5) * ratio)
        half_square, slope = _standardised_by(dm, prior_x, FORM)
        kl, draw = half_square + spread, growth * dlog_var(r, x, eps, FORM, EPS)
        dprior_raw = -(half_square + growth) * dlog_var(prior_r, prior_x, eps, FORM, EPS)
        usual = is_usual(r, x, FORM) & is_usual(prior_r, prior_x, FORM)
        usual = usual & (_is_big(tl.fma(ratio, ratio, half_square)) == 0)
        if FORM == STD or FORM == VAR:
            # Where a tile ends all is 0.
            usual = usual | ((x == 0.0) & (prior_x == 0.0) & (dm == 0.0))
        if _anywhere(usual == 0):
            far = _gaussian_kl_to_prior_far(dm, r, prior_r, eps, FORM, EPS)
            kl, slope = tl.where(usual, kl, far[0]), tl.where(usual, slope, far[1])
            draw, dprior_raw = tl.where(usual, draw, far[2]), tl.where(usual, dprior_raw, far[3])
        return kl, slope, draw, dprior_raw
