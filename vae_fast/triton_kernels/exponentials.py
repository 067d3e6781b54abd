"""e^x and what is made of it, in float32 and float64: each formula once.

Polynomials are minimax, the errors beside them absolute and those of real coefficients (tools/coefficients.py). The
errors of the formulas, with a fused multiply-add, stand above their twins in csrc/formulas.h.
"""

import triton
import triton.language as tl

from vae_fast.triton_kernels.arithmetic import (
    SHIFT_32,
    SHIFT_64,
    clamp,
    constant,
    ldexp,
    ldexp_down,
    polynomial,
    power_of_two,
)

# Where e^x is 0 and where it is infinite, rounded outwards.
ZERO_64, ZERO_32 = tl.constexpr(-746.0), tl.constexpr(-104.0)
INFINITE_64, INFINITE_32 = tl.constexpr(710.0), tl.constexpr(89.0)


@triton.jit
def expand(x):
    """(n, r, p, error) of e^x = 2ⁿ(1 + r + r²p + error), |r| ≤ ½ ln 2, ``error`` what r was rounded by.

    For x that neither overflow nor underflow n. r is NaN where x is.
    """
    if x.dtype == tl.float64:
        shift = constant(x, SHIFT_64)
        high, low = constant(x, -0.6931471805582987), constant(x, -1.6465949582897082e-12)
    else:
        shift = constant(x, SHIFT_32)
        high, low = constant(x, -0.693145751953125), constant(x, -1.428606765330187e-06)
    n = tl.fma(x, constant(x, 1.44269504088896340736), shift) - shift
    exact = tl.fma(n, high, x)
    r = tl.fma(n, low, exact)
    error = tl.fma(n, low, exact - r)
    if x.dtype == tl.float64:
        # (e^r − 1 − r)/r² on |r| ≤ 1.0001·½ ln 2, to 1.7e-20.
        p = polynomial(
            r,
            (
                0.5,
                0.16666666666666666,
                0.04166666666666668,
                0.008333333333333337,
                0.0013888888888879073,
                0.00019841269841253706,
                2.480158733644327e-05,
                2.7557319265468586e-06,
                2.755726327811409e-07,
                2.5052055903834265e-08,
                2.0918138067301925e-09,
                1.6091226040809938e-10,
            ),
        )
    else:
        # The same, to 1.4e-9.
        p = polynomial(
            r,
            (
                0.5,
                0.1666666716337204,
                0.04166646674275398,
                0.00833328627049923,
                0.0013933653244748712,
                0.00019907548266928643,
            ),
        )
    return n, r, p, error


@triton.jit
def expanded_in_two(r, p, error):
    """e^x/2ⁿ of an expansion, in a large part and a small one; exact but for the small one's last place."""
    high = r + 1.0
    return high, ((1.0 - high) + r) + tl.fma(r * r, p, error)


@triton.jit
def in_range_of_exp(x):
    """x, or what is just beyond the arguments for which e^x is neither 0 nor infinite."""
    if x.dtype == tl.float64:
        return clamp(x, constant(x, ZERO_64), constant(x, INFINITE_64))
    else:
        return clamp(x, constant(x, ZERO_32), constant(x, INFINITE_32))


@triton.jit
def exp(x):
    """e^x."""
    n, r, p, error = expand(in_range_of_exp(x))
    high, low = expanded_in_two(r, p, error)
    return ldexp(high + low, n)


@triton.jit
def half_exp(x):
    """½e^x, which may be finite where e^x is not."""
    most: tl.constexpr = INFINITE_64 + 1.0 if x.dtype == tl.float64 else INFINITE_32 + 1.0
    least: tl.constexpr = ZERO_64 if x.dtype == tl.float64 else ZERO_32
    n, r, p, error = expand(clamp(x, constant(x, least), constant(x, most)))
    high, low = expanded_in_two(r, p, error)
    return ldexp(high + low, n - 1.0)


@triton.jit
def exp_and_square(x):
    """(whole, n) of e^x = 2ⁿ·whole, and its square where |2x| is below ``ORDINARY``: with hardly more error.

    x counts as no more than that beyond which no result depends on how far.
    """
    farthest: tl.constexpr = 1400.0 if x.dtype == tl.float64 else 175.0
    n, r, p, error = expand(clamp(x, constant(x, -farthest), constant(x, farthest)))
    high, low = expanded_in_two(r, p, error)
    whole = high + low
    lost = (high - whole) + low
    square = tl.fma(whole, whole, whole * (lost + lost))
    # A number in the range of power_of_two, whatever n.
    bound: tl.constexpr = 1020.0 if x.dtype == tl.float64 else 124.0
    return whole, n, square * power_of_two(clamp(n + n, constant(x, -bound), constant(x, bound)))


@triton.jit
def is_ordinary(log_var):
    """Whether e^±log σ² and its products with other numbers are ordinary numbers."""
    if log_var.dtype == tl.float64:
        return tl.abs(log_var) < 700.0
    else:
        return tl.abs(log_var) < 85.0


@triton.jit
def exp_of_negative(a):
    """e^a for a ≤ 0, and what is missing in it."""
    if a.dtype == tl.float64:
        low = constant(a, ZERO_64)
    else:
        low = constant(a, ZERO_32)
    n, r, p, error = expand(tl.where(low > a, low, a))
    high, rest = expanded_in_two(r, p, error)
    whole = high + rest
    return ldexp_down(whole, n), ldexp_down((high - whole) + rest, n)


@triton.jit
def _half_expm1_minus_near(x):
    """½(e^x − 1 − x) for |x| ≤ 1, where the differences cancel."""
    if x.dtype == tl.float64:
        # ½(e^x − 1 − x)/x², to 2.5e-21.
        p = polynomial(
            x,
            (
                0.25,
                0.08333333333333333,
                0.020833333333333332,
                0.004166666666666667,
                0.000694444444444438,
                9.92063492063481e-05,
                1.240079365084544e-05,
                1.3778659612056715e-06,
                1.3778659591655514e-07,
                1.2526054173095448e-08,
                1.0438382829894584e-09,
                8.029525367691533e-11,
                5.734860900572028e-12,
                3.8232347113960273e-13,
                2.421174313114974e-14,
                1.424342431416202e-15,
            ),
        )
    else:
        # The same, to 1.1e-9.
        p = polynomial(
            x,
            (
                0.25,
                0.0833333358168602,
                0.020833367481827736,
                0.004166675265878439,
                0.0006942697800695896,
                9.917934949044138e-05,
                1.2679312021646183e-05,
                1.4095190863372409e-06,
            ),
        )
    # By x and by x again, so that a subnormal result is rounded once.
    return (x * p) * x


@triton.jit
def half_expm1_and_minus(x, half):
    """½(e^x − 1), and ½(e^x − 1 − x), which is never negative; both finite whenever the result is.

    ``half`` is ½x, which may be finite where x is not. In quarters of 2ⁿ, doubled at the end: 2ⁿ⁻¹ may overflow
    where the result does not.
    """
    double: tl.constexpr = x.dtype == tl.float64
    # Below, e^x is nothing beside 1, and 2ⁿ⁻² still a normal number; above, it is infinite.
    low: tl.constexpr = -100.0 if double else -60.0
    most: tl.constexpr = 710.5 if double else 89.5
    n, r, p, error = expand(clamp(x, constant(x, low), constant(x, most)))
    high, small = expanded_in_two(r, p, error)
    scale = power_of_two(n - 2.0)
    less_one = r + tl.fma(r * r, p, error)
    whole = high + small
    quarter = constant(x, -0.25)
    # 1 + x is exact where it matters.
    rest = tl.fma(half, constant(x, -0.5), quarter)
    # For small x the sum beside the expansion is exact or nearly so; for large x it would be rounded to the last
    # place of the result, and the expansion's two parts are added one by one.
    large = x > 4.0
    growth = tl.where(
        large,
        tl.fma(scale, high, tl.fma(scale, small, quarter)),
        tl.fma(scale, less_one, scale - 0.25),
    )
    spread = tl.where(
        large,
        tl.fma(scale, high, tl.fma(scale, small, rest)),
        tl.fma(scale, less_one, (scale - 0.25) - x * 0.25),
    )
    # Below −1, e^x − 1 is rounded once; below 0, both parts of the other are positive.
    growth = tl.where(x < -1.0, tl.fma(scale, whole, quarter), growth)
    spread = tl.where(x < 0.0, tl.fma(scale, whole, rest), spread)
    above = x > most
    infinity = constant(x, float("inf"))
    growth = tl.where(above, infinity, growth + growth)
    # NaN for an infinite x, as ∞ − ∞ is.
    spread = tl.where(above, infinity - half, spread + spread)
    return growth, tl.where(tl.abs(x) <= 1.0, _half_expm1_minus_near(x), spread)


@triton.jit
def half_expm1_and_minus_by_grown(x, half, grown):
    """The same where grown = ½e^x is known better than x, whose error the exponential would magnify."""
    near, _ = half_expm1_and_minus(x, half)
    small = tl.abs(x) <= 1.0
    spread = grown - (half + 0.5)
    return tl.where(small, near, grown - 0.5), tl.where(small, _half_expm1_minus_near(x), spread)
