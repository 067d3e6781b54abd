"""Logarithms in float32 and float64, each formula once.

Polynomials are minimax, the errors beside them absolute and those of real coefficients (tools/coefficients.py). The
errors of the formulas, with a fused multiply-add, stand above their twins in csrc/formulas.h.
"""

import triton
import triton.language as tl

from vae_fast.triton_kernels.arithmetic import DIGITS_32, DIGITS_64, bits, constant, polynomial

# F.binary_cross_entropy's least logarithm.
LEAST_LOG = tl.constexpr(-100.0)


@triton.jit
def exponent_of(y):
    """k of y = 2ᵏ(1 + f), 1 + f between √½ and √2."""
    digits: tl.constexpr = DIGITS_64 if y.dtype == tl.float64 else DIGITS_32
    return (bits(y) - bits(constant(y, 0.70710678118654752440))) >> digits


@triton.jit
def log_parts(x):
    """That k, as a number, and f; of subnormal x too."""
    double: tl.constexpr = x.dtype == tl.float64
    smallest: tl.constexpr = 2.0**-1022 if double else 2.0**-126
    digits: tl.constexpr = DIGITS_64 if double else DIGITS_32
    subnormal = x < smallest
    y = tl.where(subnormal, x * (2.0 ** (digits + 1)), x)
    k = exponent_of(y)
    f = (bits(y) - (k << digits)).to(x.dtype, bitcast=True) - 1.0
    return k.to(x.dtype) - tl.where(subnormal, constant(x, digits + 1.0), constant(x, 0.0)), f


@triton.jit
def ln2(x):
    """ln 2 in two parts, the first with zeros at its end."""
    if x.dtype == tl.float64:
        return constant(x, 0.6931471805582987), constant(x, 1.6465949582897082e-12)
    else:
        return constant(x, 0.693145751953125), constant(x, 1.428606765330187e-06)


@triton.jit
def log1p_cubic(f):
    """(log(1 + f) − f + ½f²)/f³."""
    if f.dtype == tl.float64:
        # To 4.4e-17.
        return polynomial(
            f,
            (
                0.33333333333333337,
                -0.25000000000000006,
                0.19999999999992804,
                -0.16666666666659505,
                0.1428571428766703,
                -0.12500000002653885,
                0.11111110907216643,
                -0.0999999962837375,
                0.09090919686429352,
                -0.0833335803741155,
                0.07692004732903494,
                -0.07141974441967965,
                0.06671482871640974,
                -0.06267843378099999,
                0.0584452625820902,
                -0.053539815541616936,
                0.053161309737646184,
                -0.06136837265023594,
                0.05830889239975272,
                -0.026470598273608467,
            ),
        )
    else:
        # To 2.3e-8.
        return polynomial(
            f,
            (
                0.3333333134651184,
                -0.24999980628490448,
                0.2000068873167038,
                -0.16669151186943054,
                0.14251156151294708,
                -0.1239670068025589,
                0.1163465827703476,
                -0.11659929901361465,
                0.07332541793584824,
            ),
        )


@triton.jit
def log(x):
    """The natural logarithm."""
    k, f = log_parts(x)
    high, low = ln2(x)
    square = f * f
    # log(1 + f) = f − ½f² + f³p, its largest part last.
    rest = tl.fma(k, low, tl.fma(square * f, log1p_cubic(f), square * -0.5))
    result = tl.fma(k, high, f + rest)
    infinity = constant(x, float("inf"))
    result = tl.where(x == 0.0, -infinity, result)
    result = tl.where(x == infinity, x, result)
    return tl.where(x < 0.0, constant(x, float("nan")), tl.where(x != x, x, result))


@triton.jit
def log_of(k, f):
    """log(2ᵏ(1 + f)), nearer: what the sum of its largest parts is rounded by goes with the smaller ones."""
    high, low = ln2(f)
    square = f * f
    lost = tl.fma(f, f, -square)
    half = square * -0.5
    near = f + half
    whole = k * high
    sum = whole + near
    missing = ((whole - sum) + near) + ((f - near) + half)
    rest = tl.fma(square * f, log1p_cubic(f), tl.fma(lost, constant(f, -0.5), missing))
    return sum + tl.fma(k, low, rest)


@triton.jit
def clamped_log(p):
    """max(log p, −100) for p from 0 to 1; NaN below."""
    k, f = log_parts(p)
    result = log_of(k, f)
    result = tl.where(result < LEAST_LOG, LEAST_LOG, result)
    beyond = tl.where(p == 0.0, constant(p, LEAST_LOG), constant(p, float("nan")))
    return tl.where(p > 0.0, result, beyond)


@triton.jit
def clamped_log1m(p):
    """max(log(1 − p), −100) for p from 0 to 1; NaN above."""
    q = 1.0 - p
    k = exponent_of(q)
    digits: tl.constexpr = DIGITS_64 if p.dtype == tl.float64 else DIGITS_32
    scale = (bits(constant(p, 1.0)) - (k << digits)).to(p.dtype, bitcast=True)
    # f = 2⁻ᵏ(1 − p) − 1 is a number of p's dtype whatever 1 − p was rounded by, and so are both parts of this
    # difference.
    result = log_of(k.to(p.dtype), (scale - 1.0) - scale * p)
    beyond = tl.where(q == 0.0, constant(p, LEAST_LOG), constant(p, float("nan")))
    return tl.where(q > 0.0, result, beyond)
