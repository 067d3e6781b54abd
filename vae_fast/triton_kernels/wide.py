"""Numbers beyond the exponents of their dtype: vae_fast/wide.py in Triton, in the same words.

A number is a pair (m, n), m·4ⁿ: m within a few powers of two of 1 (of a subnormal number, within its digits), or 0,
infinite, NaN; n integral.
"""

import triton
import triton.language as tl

from vae_fast.triton_kernels.arithmetic import (
    BIAS_32,
    BIAS_64,
    DIGITS_32,
    DIGITS_64,
    SHIFT_32,
    SHIFT_64,
    bits,
    clamp,
    constant,
    divide,
    power_of_two,
)
from vae_fast.triton_kernels.exponentials import expand, expanded_in_two

# A power of 4 that is nothing beside 1.
NOTHING_BESIDE = tl.constexpr(-60.0)


@triton.jit
def times(a, b):
    return a[0] * b[0], a[1] + b[1]


@triton.jit
def over(a, b):
    return divide(a[0], b[0]), a[1] - b[1]


@triton.jit
def half_of(a):
    return a[0] * 0.5, a[1]


@triton.jit
def _shifted(a, n):
    root = power_of_two(tl.where(a[1] - n < NOTHING_BESIDE, NOTHING_BESIDE, a[1] - n))
    return (a[0] * root) * root


@triton.jit
def plus(a, b):
    """What is smaller by 4⁻⁶⁰ is nothing beside the other."""
    n = tl.where(a[1] > b[1], a[1], b[1])
    return _shifted(a, n) + _shifted(b, n), n


@triton.jit
def narrow(a):
    """The number in its dtype: rounded once, infinite or 0 where it is beyond."""
    m, n = a
    limit: tl.constexpr = BIAS_64 - 1.0 if m.dtype == tl.float64 else BIAS_32 - 1.0
    root = power_of_two(clamp(n, constant(m, -limit), constant(m, limit)))
    return (m * root) * root


@triton.jit
def either(condition, a, b):
    return tl.where(condition, a[0], b[0]), tl.where(condition, a[1], b[1])


@triton.jit
def wide(x):
    digits: tl.constexpr = DIGITS_64 if x.dtype == tl.float64 else DIGITS_32
    bias: tl.constexpr = BIAS_64 if x.dtype == tl.float64 else BIAS_32
    # Half of x's exponent, rounded down; of a subnormal number that of the smallest normal one.
    n = (((bits(tl.abs(x)) >> digits) - bias) >> 1).to(x.dtype)
    root = power_of_two(-n)
    return (x * root) * root, n


@triton.jit
def halved(whole, n):
    """whole·2ⁿ in this form, and 4ⁿ's root."""
    # Added and taken away again: rounds to an integer.
    shift: tl.constexpr = SHIFT_64 if n.dtype == tl.float64 else SHIFT_32
    h = tl.fma(n, constant(n, 0.5), constant(n, shift)) - constant(n, shift)
    return whole * power_of_two(tl.fma(h, constant(n, -2.0), n)), h


@triton.jit
def wide_exp(a, RANGE: tl.constexpr = 1):
    """e^a; 0 and infinity from where no product that it is a factor of is an ordinary number.

    RANGE is 2 for a factor that nothing squares afterwards.
    """
    farthest: tl.constexpr = (3000.0 if a.dtype == tl.float64 else 350.0) * RANGE
    n, r, p, error = expand(clamp(a, constant(a, -farthest), constant(a, farthest)))
    high, low = expanded_in_two(r, p, error)
    m, n = halved(high + low, n)
    m = tl.where(a < -farthest, 0.0, m)
    return tl.where(a > farthest, float("inf"), m), n
