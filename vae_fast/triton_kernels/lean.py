"""e^x and what is made of it in float32 with fewer instructions: those of csrc/lean.h, in the same order.

The errors stand above their twins there; polynomials are those of tools/coefficients.py. Float64 has the formulas
of exponentials.py and softplus.py, to which these functions turn for it.
"""

import triton
import triton.language as tl

from vae_fast.triton_kernels.arithmetic import BIAS_32, DIGITS_32, SHIFT_32, constant, fused, polynomial
from vae_fast.triton_kernels.exponentials import exp, exp_of_negative, half_exp, half_expm1_and_minus
from vae_fast.triton_kernels.light import estimated_inverse
from vae_fast.triton_kernels.softplus import log1p_unit, over_one_plus

_LOG2E, _LOG2E_LOW = tl.constexpr(1.4426950216293335), tl.constexpr(1.925963033500011e-08)
_ALL = tl.constexpr(tl.PropagateNan.ALL)


@triton.jit
def _least(x, high):
    """The smaller of two; NaN where x is."""
    return tl.minimum(x, constant(x, high), propagate_nan=_ALL)


@triton.jit
def _most(x, low):
    return tl.maximum(x, constant(x, low), propagate_nan=_ALL)


@triton.jit
def _power_of_sum(sum):
    """2ⁿ⁺ᵇ of sum = n + b + the exponent's bias + what rounds to an integer."""
    return (sum.to(tl.int32, bitcast=True) << DIGITS_32).to(tl.float32, bitcast=True)


@triton.jit
def exp2_near(f):
    """2^f for |f| ≤ ½."""
    # (2^f − 1)/f on |f| ≤ 1.0001·½, to 9.2e-9.
    p = polynomial(
        f,
        (
            0.6931471824645996,
            0.24022650718688965,
            0.05550365895032883,
            0.009618083015084267,
            0.0013388072839006782,
            0.00015453877858817577,
        ),
    )
    return tl.fma(f, p, constant(f, 1.0))


@triton.jit
def _split(x, magic, OVER: tl.constexpr):
    """(n + magic, m) of e^(x/OVER) = 2ⁿm, OVER 1 or 2."""
    high, low = constant(x, _LOG2E / OVER), constant(x, _LOG2E_LOW / OVER)
    sum = tl.fma(x, high, magic)
    return sum, exp2_near(fused(x, low, fused(x, high, -(sum - magic))))


@triton.jit
def lean_exp(x, OVER: tl.constexpr, HALF: tl.constexpr):
    """e^(x/OVER), or half of it."""
    c = _most(_least(x, 90.0 * OVER), -104.0 * OVER)
    down = c < 0.0
    above, below = constant(x, SHIFT_32 + (BIAS_32 - 64)), constant(x, SHIFT_32 + (BIAS_32 + 64))
    sum, m = _split(c, tl.where(down, below, above), OVER)
    times: tl.constexpr = 0.5 if HALF else 1.0
    return m * _power_of_sum(sum) * tl.where(down, constant(x, 2.0**-64 * times), constant(x, 2.0**64 * times))


@triton.jit
def exp_of_ordinary(x):
    """e^x of a float32 for |x| < 85; anything elsewhere."""
    sum, m = _split(x, constant(x, SHIFT_32 + BIAS_32), 1)
    return m * _power_of_sum(sum)


@triton.jit
def lean_log1p_unit(e):
    """log(1 + e) for e in [0, 1]."""
    # (log(1 + e) − e)/e, to 4.7e-9.
    p = polynomial(
        e,
        (
            -4.615146931286063e-09,
            -0.4999990463256836,
            0.3333002030849457,
            -0.24954712390899658,
            0.196788489818573,
            -0.15313845872879028,
            0.106174536049366,
            -0.05709433928132057,
            0.019922619685530663,
            -0.0032596986275166273,
        ),
    )
    return tl.fma(e, p, e)


@triton.jit
def _logistic_of_negative(a):
    sum, m = _split(_most(a, -104.0), constant(a, SHIFT_32 + (BIAS_32 + 64)), 1)
    e = m * _power_of_sum(sum) * constant(a, 2.0**-64)
    whole = e + 1.0
    estimate = estimated_inverse(whole)
    quotient = e * estimate
    return tl.fma(fused(-quotient, whole, e), estimate, quotient), lean_log1p_unit(e)


@triton.jit
def lean_growth(x, half):
    """½(e^x − 1), and ½(e^x − 1 − x), from one expansion."""
    top = _least(half, 45.0)
    c = _most(top, -30.0)
    c = c + c
    n = tl.fma(c, constant(x, 1.44269504088896340736), constant(x, SHIFT_32)) - SHIFT_32
    n = tl.minimum(n, tl.where(c < 0.6, constant(x, 0.0), constant(x, 128.0)), propagate_nan=_ALL)
    r = tl.fma(n, constant(x, -1.428606765330187e-06), tl.fma(n, constant(x, -0.693145751953125), c))
    # (e^r − 1 − r)/r² on −1.0001·½ ln 2 ≤ r ≤ 0.6, to 1.1e-8.
    p = polynomial(
        r,
        (
            0.5,
            0.16666679084300995,
            0.041666679084300995,
            0.008329834789037704,
            0.0013911103596910834,
            0.00021921860752627254,
        ),
    )
    q = r * r * p
    scale = _power_of_sum(n + (SHIFT_32 + (BIAS_32 - 1)))
    base = scale - 0.5
    spread = tl.fma(scale, q, tl.fma(scale, r, base - top))
    # NaN where ½x is infinite too, as ∞ − ∞ is.
    spread = tl.where(x == float("inf"), constant(x, float("inf")) - half, spread)
    return tl.fma(scale, r + q, base), spread


# ---- what terms.py and sigma.py are made of


@triton.jit
def exp_over(x, OVER: tl.constexpr):
    """e^(x/OVER)."""
    if x.dtype == tl.float64:
        return exp(x * (1.0 / OVER))
    else:
        return lean_exp(x, OVER, False)


@triton.jit
def half_exp_over(x, OVER: tl.constexpr):
    """½e^(x/OVER)."""
    if x.dtype == tl.float64:
        return half_exp(x * (1.0 / OVER))
    else:
        return lean_exp(x, OVER, True)


@triton.jit
def logistic_of_negative(a):
    """σ(a) and log(1 + e^a) for a ≤ 0."""
    if a.dtype == tl.float64:
        e, error = exp_of_negative(a)
        return over_one_plus(e, error, e, error), e + log1p_unit(e, error)
    else:
        return _logistic_of_negative(a)


@triton.jit
def half_expm1_of(x, half):
    """½(e^x − 1), and ½(e^x − 1 − x), never negative; ``half`` is ½x, which may be finite where x is not."""
    if x.dtype == tl.float64:
        return half_expm1_and_minus(x, half)
    else:
        return lean_growth(x, half)
