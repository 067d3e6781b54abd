"""One element's term of the count densities, and its derivatives: csrc/counts.h in Triton.

What is rare, counts above 8 and fractions, is a branch of a whole tile.
"""

import triton
import triton.language as tl

from vae_fast.triton_kernels.arithmetic import DIGITS_32, DIGITS_64, bits, constant, divide, polynomial
from vae_fast.triton_kernels.exponentials import exp, exp_of_negative, half_expm1_and_minus
from vae_fast.triton_kernels.logarithms import exponent_of, ln2, log
from vae_fast.triton_kernels.softplus import log1p_unit, logistic, over_one_plus, softplus

HALF_LOG_2PI = tl.constexpr(0.91893853320467274178)
# log 8!
LOG_OF_EIGHT = tl.constexpr(10.604602902745250228)


@triton.jit
def artanh_cubic(square):
    """(artanh(t)/t − 1)/t² of t², up to 0.22."""
    if square.dtype == tl.float64:
        # To 1.6e-17.
        return polynomial(
            square,
            (
                0.33333333333333337,
                0.19999999999997733,
                0.14285714286279055,
                0.11111111055901254,
                0.090909118903706468,
                0.076922234314583213,
                0.066682884358054903,
                0.058615527880766384,
                0.054442298770068683,
                0.036940030811300255,
                0.085035270201214763,
                -0.059672522324834283,
                0.16065833295794849,
            ),
        )
    else:
        # To 8.1e-9.
        return polynomial(
            square,
            (
                0.3333333134651184,
                0.200002521276474,
                0.1427287459373474,
                0.11347521096467972,
                0.07168065756559372,
                0.14467915892601013,
            ),
        )


@triton.jit
def growth(r):
    """log(1 + r), how much more it is than r/(1 + r), and that, for r ≥ 0 up to ∞: 1 + r is 2ᵏ(1 + f)."""
    digits: tl.constexpr = DIGITS_64 if r.dtype == tl.float64 else DIGITS_32
    one = constant(r, 1.0)
    whole, far = r + 1.0, r > 1.75
    exponent = tl.where(far, exponent_of(whole), 0)
    f = tl.where(far, (bits(whole) - (exponent << digits)).to(r.dtype, bitcast=True) - 1.0, r)
    inverse, t = divide(one, whole), divide(f, f + 2.0)
    k = exponent.to(r.dtype)
    high, low = ln2(r)
    cubic = t * 2.0 * (t * t) * artanh_cubic(t * t)
    share = tl.where(far, 1.0 - inverse, r * inverse)
    value = tl.fma(k, high, tl.fma(t, constant(r, 2.0), tl.fma(k, low, cubic)))
    value = tl.where(r == float("inf"), r, value)
    return value, tl.where(far, value - share, tl.fma(t, share, cubic)), share


@triton.jit
def stirling(z):
    """What Stirling's formula lacks of log Γ(z), and minus its derivative, for z ≥ 8."""
    inverse = divide(constant(z, 1.0), z)
    square = inverse * inverse
    if z.dtype == tl.float64:
        rest = polynomial(
            square,
            (
                1.0 / 12,
                -1.0 / 360,
                1.0 / 1260,
                -1.0 / 1680,
                1.0 / 1188,
                -691.0 / 360360,
                1.0 / 156,
                -3617.0 / 122400,
                43867.0 / 244188,
                -174611.0 / 125400,
            ),
        )
        slope = polynomial(
            square,
            (
                1.0 / 12,
                -3.0 / 360,
                5.0 / 1260,
                -7.0 / 1680,
                9.0 / 1188,
                -11 * 691.0 / 360360,
                13.0 / 156,
                -15 * 3617.0 / 122400,
                17 * 43867.0 / 244188,
                -19 * 174611.0 / 125400,
            ),
        )
    else:
        rest = polynomial(square, (1.0 / 12, -1.0 / 360, 1.0 / 1260))
        slope = polynomial(square, (1.0 / 12, -3.0 / 360, 5.0 / 1260))
    return rest * inverse, slope * square


@triton.jit
def stirling_rising(more, start):
    """log Γ(start + more) − log Γ(start) − more·log start, and minus its derivative by start, for start ≥ 8."""
    end, q = start + more, divide(more, start)
    value, excess, share = growth(q)
    a, da = stirling(start)
    b, db = stirling(end)
    whole = tl.where(excess == 0.0, 0.0, end * excess)
    return (whole - value * 0.5) - (a - b), ((q * share - excess) - divide(q, end) * 0.5) - (da - db)


@triton.jit
def stirling_factorial(x):
    """log x! for x ≥ 8."""
    log_x = log(x)
    rest, _ = stirling(x)
    return tl.fma(x, log_x - 1.0, tl.fma(log_x, constant(x, 0.5), rest + constant(x, HALF_LOG_2PI)))


@triton.jit
def is_fraction(x):
    """Numbers that are no counts; beyond 2ᵈ, d the digits, there are none."""
    whole: tl.constexpr = 2.0**52 if x.dtype == tl.float64 else 2.0**23
    size = tl.abs(x)
    return (((size + whole) - whole != size) & (size < whole)) | (x < 0.0)


@triton.jit
def any_of(mask):
    """Whether a tile has one."""
    return tl.max(tl.ravel(mask.to(tl.int32)), 0) > 0


@triton.jit
def eight_factors(x, a, b):
    """Of the factors (a + kb)/(k + 1) for 0 < k < x, k ≤ 7, the product, and the sum of k/(a + kb)."""
    one = constant(x, 1.0)
    product, total = one, 0.0 * one
    for k in tl.static_range(1, 8):
        inside = x > k
        factor = tl.where(inside, tl.fma(b, constant(x, k / (k + 1)), a * (1.0 / (k + 1))), one)
        total = tl.fma(total, factor, tl.where(inside, product * (k / (k + 1)), 0.0))
        product = product * factor
    return product, divide(total, product)


@triton.jit
def rising(x, theta, inverse):
    """Σ_{k<x} log(1 + k/θ) − log x!, and Σ_{k<x} k/(θ(θ + k)), minus the derivative of the first by θ > 0."""
    one = constant(x, 1.0)
    product, slope = eight_factors(x, one, inverse)
    value, slope = log(product), slope * inverse * inverse
    # Where a product of 1 + k/θ would overflow, of θ + k.
    tiny = theta < 2.0**-16
    if any_of(tiny):
        small = tl.where(tiny, theta, one)
        product, share = eight_factors(x, small, one)
        n = tl.minimum(tl.maximum(x - 1.0, 0.0), 7.0)
        value = tl.where(tiny, log(product) - n * log(small), value)
        slope = tl.where(tiny, divide(share, small), slope)
    beyond = x > 8.0
    eight = constant(x, 8.0)
    if any_of(beyond):
        far = tl.where(beyond, x, 9.0)
        more, start = far - 8.0, theta + 8.0
        rest, rest_slope = stirling_rising(more, start)
        step, _, _ = growth(inverse * 8.0)
        rest = tl.fma(more, step, rest) - (stirling_factorial(far) - LOG_OF_EIGHT)
        value = tl.where(beyond, value + rest, value)
        slope = tl.where(beyond, slope + tl.fma(more * 8.0 * inverse, divide(one, start), rest_slope), slope)
    fraction = is_fraction(x) & (x < 8.0)
    if any_of(fraction):
        part = tl.where(fraction, x, 0.5)
        rest, rest_slope = stirling_rising(part, theta + 8.0)
        step, _, _ = growth(inverse * 8.0)
        rest = tl.fma(part, step, rest) - stirling_factorial(part + 8.0)
        rest_slope = tl.fma(part * eight * inverse, divide(one, theta + 8.0), rest_slope)
        for k in tl.static_range(0, 8):
            factor = theta + k
            rest = rest - log(divide(factor + part, factor)) + log(part + (k + 1))
            rest_slope = rest_slope - divide(divide(part, factor), factor + part)
        value = tl.where(fraction, rest, value)
        slope = tl.where(fraction, rest_slope, slope)
    return value, slope


@triton.jit
def many_times(x, theta, m):
    """Of x > 8 and θ ≤ x/8 what is left of the term, and its derivative by θ (csrc/counts.h).

    log Γ(x + θ) − log x! − log Γ(θ) − x·log(1 + θ/m), and Σ_{k<x} 1/(θ + k) − x/(θ + m).
    """
    one = constant(x, 1.0)
    after, end, start = x + 1.0, x + theta, theta + 8.0
    log_start = log(start)
    a, da = stirling(start)
    _, db = stirling(end)
    gamma = tl.fma(start - 0.5, log_start, (constant(x, HALF_LOG_2PI) - start) + a)
    inverses = 0.0 * theta
    # Eight factors are taken off log Γ(θ + 8), four of each logarithm.
    for first in tl.static_range(0, 8, 4):
        product = (theta + first) * (theta + (first + 1)) * ((theta + (first + 2)) * (theta + (first + 3)))
        gamma = gamma - log(product)
        for k in tl.static_range(0, 4):
            inverses = inverses + divide(one, theta + (first + k))
    more = theta - 1.0
    rest, _ = stirling_rising(more, after)
    less, _, _ = growth(divide(theta, m))
    value = (tl.fma(more, log(after), rest) - gamma) - x * less
    psi, _, _ = growth(divide(x - 8.0, start))
    psi = psi + ((divide(0.5 * one, start) - divide(0.5 * one, end)) + (da - db))
    return value, (inverses + psi) - divide(x, theta + m)


@triton.jit
def log_factorial(x):
    """log x!."""
    one = constant(x, 1.0)
    factorial = tl.where(x > 1.0, 2.0 * one, one)
    for k in tl.static_range(2, 8):
        factorial = factorial * tl.where(x > k, constant(x, k + 1), one)
    value = log(factorial)
    beyond = x > 8.0
    if any_of(beyond):
        value = tl.where(beyond, stirling_factorial(tl.where(beyond, x, 9.0)), value)
    fraction = is_fraction(x) & (x < 8.0)
    if any_of(fraction):
        part = tl.where(fraction, x, 0.5)
        rest = stirling_factorial(part + 8.0)
        for k in tl.static_range(1, 9):
            rest = rest - log(part + k)
        value = tl.where(fraction, rest, value)
    return value


@triton.jit
def negative_binomial(mean, theta, x, eps, LOG_MEAN: tl.constexpr, LOG_THETA: tl.constexpr, EPS: tl.constexpr):
    """log p, its derivatives by mean and theta as they are given, and −log p of a count of 0."""
    one = constant(x, 1.0)
    if LOG_MEAN:
        mu = exp(mean)
    else:
        mu = mean
    if LOG_THETA:
        shape = exp(theta)
    else:
        shape = theta
    inverse = divide(one, shape)
    if EPS:
        moved, start = mu + eps, shape + eps
        r = divide(mu, start)
        log_theta_part, excess, share = growth(r)
        log_count, _, count_share = growth(moved * inverse)
        rest = divide(one, moved * inverse + 1.0)
        by_theta = -excess - share * divide(eps, start)
    else:
        moved = mu
        r = divide(mu, shape)
        log_theta_part, excess, share = growth(r)
        log_count, count_share = log_theta_part, share
        rest = divide(one, r + 1.0)
        by_theta = -excess
    nothing: tl.constexpr = 2.0**-54 if x.dtype == tl.float64 else 2.0**-25
    none = tl.where(r < nothing, mu, shape * log_theta_part)
    some = x != 0.0
    value, slope = rising(x, shape, inverse)
    if LOG_MEAN and not EPS:
        log_moved = mean
    else:
        log_moved = log(moved)
    value = tl.where(some, (x * log_moved - x * log_count) + (value - none), -none)
    base = by_theta
    by_theta = tl.where(some, (x * inverse * count_share + by_theta) - slope, by_theta)
    # A quotient of m beyond the exponents is left to the other form.
    many = (x > 8.0) & (x > shape * 8.0) & (moved * inverse > 2.0**-100)
    if any_of(many):
        left, left_slope = many_times(
            tl.where(many, x, 9.0), tl.where(many, shape, one), tl.where(many, moved, one)
        )
        value = tl.where(many, left - none, value)
        by_theta = tl.where(many, base + left_slope, by_theta)
    by_mean = tl.where(some, divide((x - moved) * rest, moved), -rest)
    if LOG_MEAN:
        if EPS:
            by_mean = by_mean * mu
        else:
            by_mean = tl.where(some, (x - moved) * rest, by_mean * mu)
    if LOG_THETA:
        by_theta = by_theta * shape
    return value, by_mean, by_theta, none


@triton.jit
def zero_inflated(logits, log_prob, u, x):
    """log p where a count is 0 by σ(π) besides, the count density's share in its gradients, and the slope by π."""
    e, error = exp_of_negative(-tl.abs(logits))
    s, log_sum = over_one_plus(e, error, e, error), e + log1p_unit(e, error)
    positive = logits > 0.0
    dead, alive = tl.where(positive, 1.0 - s, s), tl.where(positive, s, 1.0 - s)
    loss = tl.where(positive, logits, 0.0) + log_sum
    half_less, _ = half_expm1_and_minus(-u, u * -0.5)
    lost, own = alive * (half_less * -2.0), alive * exp(-u)
    all = dead + own
    least: tl.constexpr = 2.0**-900 if x.dtype == tl.float64 else 2.0**-100
    far = all < least
    value, _, _ = growth(divide(lost, all))
    up = u + logits
    value = tl.where(far, softplus(-up) - softplus(-logits), -value)
    share = tl.where(far, logistic(-up), divide(own, all))
    by_logits = tl.where(far, alive - logistic(-up), divide(dead, all) * lost)
    zero = x == 0.0
    return tl.where(zero, value, log_prob - loss), tl.where(zero, share, 1.0), tl.where(zero, by_logits, -dead)


@triton.jit
def poisson(rate, x, eps, LOG_RATE: tl.constexpr, EPS: tl.constexpr):
    """x·log(λ + ε) − λ − log x!, and its derivative by the rate as it is given."""
    if LOG_RATE:
        value = exp(rate)
    else:
        value = rate
    if EPS:
        moved = value + eps
    else:
        moved = value
    if LOG_RATE and not EPS:
        log_moved = rate
    else:
        log_moved = log(moved)
    some = x != 0.0
    log_prob = tl.where(some, (x * log_moved - value) - log_factorial(x), -value)
    if LOG_RATE:
        if EPS:
            slope = tl.where(some, x * divide(value, moved) - value, -value)
        else:
            slope = tl.where(some, x - value, -value)
    elif EPS:
        slope = tl.where(some, divide(x, moved) - 1.0, -1.0)
    else:
        slope = tl.where(some, divide(x - value, value), -1.0)
    return log_prob, slope
