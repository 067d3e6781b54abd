"""The operations that formulas are made of, rounded correctly, and the numbers of a dtype's format.

Triton's own exp, log, division and square root of float32 are approximate on a GPU. Kernels are compiled without
contraction (enable_fp_fusion=False): a multiply-add is fused where ``tl.fma`` says so and nowhere else.
"""

import triton
import triton.language as tl

from vae_fast.triton_kernels.interpreter import INTERPRETED

# Bits of a mantissa, what is added to an exponent, and what rounds to an integer when it is added and taken away.
DIGITS_64, DIGITS_32 = tl.constexpr(52), tl.constexpr(23)
BIAS_64, BIAS_32 = tl.constexpr(1023), tl.constexpr(127)
SHIFT_64, SHIFT_32 = tl.constexpr(1.5 * 2.0**52), tl.constexpr(1.5 * 2.0**23)
_BY_DOUBLE = tl.constexpr(INTERPRETED)


@triton.jit
def constant(x, value: tl.constexpr):
    """``value`` in x's dtype, rounded once."""
    return tl.full((), value, x.dtype)


@triton.jit
def polynomial(x, coefficients):
    """Σ coefficients[k]·xᵏ by Horner's rule."""
    n: tl.constexpr = len(coefficients)
    value = constant(x, coefficients[n - 1])
    for k in tl.static_range(1, n):
        value = tl.fma(value, x, constant(x, coefficients[n - 1 - k]))
    return value


@triton.jit
def fused(a, b, c):
    """a·b + c of float32 numbers, rounded once: where a formula stands on that.

    Not every version of the interpreter rounds ``tl.fma`` once: there it is done as in vae_fast/noise.py.
    """
    if _BY_DOUBLE:
        return (a.to(tl.float64) * b.to(tl.float64) + c.to(tl.float64)).to(tl.float32)
    else:
        return tl.fma(a, b, c)


@triton.jit
def divide(a, b):
    """a/b, correctly rounded."""
    if b.dtype == tl.float64:
        return a / b
    else:
        return tl.div_rn(a, b)


@triton.jit
def root(a):
    """√a, correctly rounded."""
    if a.dtype == tl.float64:
        return tl.sqrt(a)
    else:
        return tl.sqrt_rn(a)


@triton.jit
def bits(x):
    if x.dtype == tl.float64:
        return x.to(tl.int64, bitcast=True)
    else:
        return x.to(tl.int32, bitcast=True)


@triton.jit
def power_of_two(n):
    """2ⁿ for an integral n in the range of normal numbers.

    n plus the exponent's bias is in the last bits of the sum, and the shift leaves only them.
    """
    if n.dtype == tl.float64:
        return (bits(n + (SHIFT_64 + BIAS_64)) << DIGITS_64).to(tl.float64, bitcast=True)
    else:
        return (bits(n + (SHIFT_32 + BIAS_32)) << DIGITS_32).to(tl.float32, bitcast=True)


@triton.jit
def ldexp(a, n):
    """2ⁿa for an integral n, rounded once where that is subnormal: by way of half the exponent."""
    way: tl.constexpr = 512.0 if a.dtype == tl.float64 else 64.0
    back: tl.constexpr = 2.0**-512 if a.dtype == tl.float64 else 2.0**-64
    down = n < 0.0
    first = power_of_two(n + tl.where(down, constant(a, way), constant(a, -way)))
    return a * first * tl.where(down, constant(a, back), constant(a, 1.0 / back))


@triton.jit
def ldexp_down(a, n):
    """The same for n ≤ 0."""
    if a.dtype == tl.float64:
        return a * power_of_two(n + 512.0) * constant(a, 2.0**-512)
    else:
        return a * power_of_two(n + 64.0) * constant(a, 2.0**-64)


@triton.jit
def clamp(x, low, high):
    """x, or the bound that it is beyond; NaN where x is."""
    x = tl.where(low > x, low, x)
    return tl.where(high < x, high, x)
