"""One element's term of each density, and its derivatives."""

import triton
import triton.language as tl

from vae_fast.triton_kernels.arithmetic import constant, divide, power_of_two
from vae_fast.triton_kernels.exponentials import exp_and_square, half_expm1_and_minus_by_grown, is_ordinary
from vae_fast.triton_kernels.lean import exp_of_ordinary, half_expm1_of, logistic_of_negative
from vae_fast.triton_kernels.light import (
    estimated_inverse,
    light_exp,
    light_exp_ordinary,
    light_growth,
    light_log1p_over,
)
from vae_fast.triton_kernels.logarithms import clamped_log, clamped_log1m
from vae_fast.triton_kernels.sigma import (
    LIGHT,
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
)
from vae_fast.triton_kernels.wide import either, half_of, halved, narrow, over, times, wide

HALF_LOG_2PI = tl.constexpr(0.91893853320467274178)
# F.binary_cross_entropy's least p(1 − p).
LEAST_VARIANCE = tl.constexpr(1e-12)
# Beyond it, and below its inverse, products with other numbers may leave a dtype's range.
BIG_64, BIG_32 = tl.constexpr(2.0**1000), tl.constexpr(2.0**100)
# An exponent smaller than that of any number that a 0 is added to.
SMALLEST = tl.constexpr(-4096.0)


@triton.jit
def bernoulli(y, t, HALF: tl.constexpr):
    """t·log σ(y) + (1 − t)·log(1 − σ(y)) and t − σ(y), without a difference that cancels. HALF: of half types."""
    size = -tl.abs(y)
    positive = y > 0.0
    # How far t is from what y's sign says.
    wrong = tl.where(positive, 1.0 - t, t)
    # An infinite logit of the matching target costs nothing; 0·∞ would be NaN.
    cost = tl.where(wrong == 0.0, 0.0, size * wrong)
    # σ(−|y|), and −log σ(|y|).
    if HALF:
        e = light_exp(size, 1)
        s = e * estimated_inverse(e + 1.0)
        log_prob = tl.fma(-e, light_log1p_over(e), cost)
    else:
        s, log_sum = logistic_of_negative(size)
        log_prob = cost - log_sum
    return log_prob, tl.where(positive, s - wrong, wrong - s)


@triton.jit
def bernoulli_of_positives(y, t, weight):
    """weight·t·log σ(y) + (1 − t)·log(1 − σ(y)), and its derivatives by y and by t."""
    size = -tl.abs(y)
    positive = y > 0.0
    heavy, rest = weight * t, 1.0 - t
    wrong = tl.where(positive, rest, heavy)
    # An infinite logit of the matching target costs nothing; 0·∞ would be NaN.
    cost = tl.where(wrong == 0.0, 0.0, size * wrong)
    # σ(−|y|), which is ½ at most, and −log σ(|y|).
    s, least = logistic_of_negative(size)
    above, below = tl.where(positive, 1.0 - s, s), tl.where(positive, s, 1.0 - s)
    # log σ(−∞) is −∞ and log σ(∞) 0: both have the sign of y.
    odds = tl.fma(1.0 - weight, least, tl.where(positive, y, weight * y))
    return cost - (heavy + rest) * least, heavy * below - rest * above, odds


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
    ordinary = is_ordinary(size + size)
    if difference.dtype == tl.float64:
        _, _, inv_var = exp_and_square(-size)
    elif FORM == LIGHT:
        inv_var = light_exp_ordinary(-r)
    else:
        inv_var = exp_of_ordinary(-(size + size))
    slope = difference * inv_var
    half_square = difference * 0.5 * slope
    # The difference is asked as well: its loads would else be put after the branch.
    if anywhere((ordinary == 0) | is_big(half_square)):
        whole, n, _ = exp_and_square(-size)
        m, n = halved(tl.where(size == float("inf"), 0.0, whole), n)
        root = power_of_two(n)
        t = ((difference * root) * m) * root
        half_square = tl.where(ordinary, half_square, t * 0.5 * t)
        slope = tl.where(ordinary, slope, ((t * root) * m) * root)
    return half_square, slope


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
def product(growth, slope, beyond):
    """growth·slope, or ``beyond`` where growth is no ordinary number."""
    return either(is_big(growth), beyond, times(wide(growth), slope))


@triton.jit
def anywhere(condition):
    """Whether it holds for any element of the tile: what is rare is then computed for all, and chosen for some."""
    return tl.max(condition.to(tl.int32)) != 0


@triton.jit
def is_big(a):
    big: tl.constexpr = BIG_64 if a.dtype == tl.float64 else BIG_32
    return tl.abs(a) >= big


@triton.jit
def _gaussian_far(difference, r, eps, FORM: tl.constexpr, EPS: tl.constexpr):
    var, dlog, size, _, _ = far_scale(r, eps, FORM, EPS)
    square, slope = wide_standardised(difference, var)
    half_square = narrow(square)
    log_prob = -(half_square + (size + constant(r, HALF_LOG_2PI)))
    return log_prob, slope, narrow(product(half_square - 0.5, dlog, times(square, dlog)))


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
        half_square, slope = standardised_by(difference, x, FORM)
        log_prob = -(half_square + (log_sigma_of(x, FORM) + half_log_2pi))
        draw = (half_square - 0.5) * dlog_var(r, x, eps, FORM, EPS)
        usual = is_usual(r, x, FORM) & (is_big(half_square) == 0)
        if FORM == STD or FORM == VAR:
            # Where a tile ends all is 0.
            usual = usual | ((x == 0.0) & (difference == 0.0))
        if anywhere(usual == 0):
            far_log_prob, far_slope, far_draw = _gaussian_far(difference, r, eps, FORM, EPS)
            log_prob = tl.where(usual, log_prob, far_log_prob)
            slope, draw = tl.where(usual, slope, far_slope), tl.where(usual, draw, far_draw)
        return log_prob, slope, draw


@triton.jit
def log_scale(r, eps, FORM: tl.constexpr, EPS: tl.constexpr):
    """log σ and ½ d log σ²/dr."""
    if FORM <= LOGSTD and not EPS:
        return log_sigma(r, FORM), twice(constant(r, 0.5), FORM)
    else:
        x = nearest(r, eps, FORM, EPS)
        size, draw = log_sigma_of(x, FORM), dlog_var(r, x, eps, FORM, EPS) * 0.5
        usual = is_usual(r, x, FORM)
        if FORM == STD or FORM == VAR:
            # Where a tile ends all is 0.
            usual = usual | (x == 0.0)
        if anywhere(usual == 0):
            _, dlog, far_size, _, _ = far_scale(r, eps, FORM, EPS)
            size, draw = tl.where(usual, size, far_size), tl.where(usual, draw, narrow(half_of(dlog)))
        return size, draw


@triton.jit
def standardised_by(difference, x, FORM: tl.constexpr):
    slope = difference * inv_var_of(x, FORM)
    slope = tl.where((difference == 0.0) & (x == x), 0.0, slope)
    return difference * 0.5 * slope, slope


@triton.jit
def _gaussian_kl_far(r, eps, FORM: tl.constexpr, EPS: tl.constexpr):
    var, dlog, size, _, _ = far_scale(r, eps, FORM, EPS)
    grown = half_of(var)
    growth, spread = half_expm1_and_minus_by_grown(size + size, size, narrow(grown))
    return spread, narrow(product(growth, dlog, times(grown, dlog)))


@triton.jit
def gaussian_kl(dm, r, eps, FORM: tl.constexpr, EPS: tl.constexpr):
    """KL(N(μ, σ²) ‖ N(μp, 1)), dm = μ − μp, and its derivative by r; that by μ is dm."""
    if FORM == LIGHT:
        draw, spread = light_growth(r)
    elif FORM <= LOGSTD and not EPS:
        growth, spread = half_expm1_of(twice(r, FORM), log_sigma(r, FORM))
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
        if anywhere(usual == 0):
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
def corrected(value, error, slope):
    """value + error·slope, a first-order correction; an infinite value needs none."""
    keep = (error == 0.0) | (tl.abs(value) == float("inf"))
    return tl.where(keep, value, tl.fma(error, slope, value))
