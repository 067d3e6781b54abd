"""The scalar formulas of the kernels, each once, in float32 and float64.

Triton's own exp, log, division and square root of float32 are approximate on a GPU; these are made of operations
that are rounded correctly. Kernels are compiled without contraction (enable_fp_fusion=False): a multiply-add is
fused where ``tl.fma`` says so and nowhere else. The errors of the formulas, with a fused multiply-add, and the
arguments for them stand above their twins in csrc/formulas.h; those beside polynomials are absolute, and of real
coefficients (tools/coefficients.py).
"""

import triton
import triton.language as tl


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
        return (bits(n + (6755399441055744.0 + 1023.0)) << 52).to(tl.float64, bitcast=True)
    else:
        return (bits(n + (12582912.0 + 127.0)) << 23).to(tl.float32, bitcast=True)


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


@triton.jit
def expand(x):
    """(n, r, p, error) of e^x = 2ⁿ(1 + r + r²p + error), |r| ≤ ½ ln 2, ``error`` what r was rounded by.

    For x that neither overflow nor underflow n. r is NaN where x is.
    """
    if x.dtype == tl.float64:
        shift = constant(x, 6755399441055744.0)
        high, low = constant(x, -0.6931471805582987), constant(x, -1.6465949582897082e-12)
    else:
        shift = constant(x, 12582912.0)
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
        return clamp(x, constant(x, -746.0), constant(x, 710.0))
    else:
        return clamp(x, constant(x, -104.0), constant(x, 89.0))


@triton.jit
def exp(x):
    """e^x."""
    n, r, p, error = expand(in_range_of_exp(x))
    high, low = expanded_in_two(r, p, error)
    return ldexp(high + low, n)


@triton.jit
def half_exp(x):
    """½e^x, which may be finite where e^x is not."""
    most: tl.constexpr = 711.0 if x.dtype == tl.float64 else 90.0
    least: tl.constexpr = -746.0 if x.dtype == tl.float64 else -104.0
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
        low = constant(a, -746.0)
    else:
        low = constant(a, -104.0)
    n, r, p, error = expand(tl.where(low > a, low, a))
    high, rest = expanded_in_two(r, p, error)
    whole = high + rest
    return ldexp_down(whole, n), ldexp_down((high - whole) + rest, n)


@triton.jit
def log1p_unit(e, error):
    """log(1 + e + error) − e for e in [0, 1]."""
    u = e - 0.5
    if e.dtype == tl.float64:
        # (log(1 + e) − e)/e around ½, to 2.1e-19.
        p = polynomial(
            u,
            (
                -0.2885270990993242,
                0.132609753754204,
                -0.06768864331087386,
                0.036611854522976245,
                -0.020548811926962843,
                0.011833792121159134,
                -0.006945394663326441,
                0.004136178749516912,
                -0.0024918480000973046,
                0.0015153898432334627,
                -0.0009287681344435752,
                0.0005729830138335455,
                -0.00035555463758324434,
                0.00022169476690141608,
                -0.00013828961140404487,
                8.67351122593874e-05,
                -5.695141674651429e-05,
                3.651114764485752e-05,
                -1.6779606786738476e-05,
                9.826512581106255e-06,
                -1.6465201147823227e-05,
                1.111816823342715e-05,
            ),
        )
    else:
        # The same, to 4e-9.
        p = polynomial(
            u,
            (
                -0.28852713108062744,
                0.13260900974273682,
                -0.0676870048046112,
                0.03663548454642296,
                -0.020580288022756577,
                0.011576083488762379,
                -0.006696623750030994,
                0.005253483075648546,
                -0.003338758135214448,
            ),
        )
    # The last step of Horner's rule with what it rounds away: near e = 1 that is a quarter of the result's last
    # place.
    first = constant(e, -0.18906978378367123)
    sum = tl.fma(p, u, first)
    lost = tl.fma(p, u, first - sum)
    # 1 − ½e is near enough to 1/(1 + e), which the error is multiplied by.
    return tl.fma(e, sum, tl.fma(error, tl.fma(e, constant(e, -0.5), constant(e, 1.0)), e * lost))


@triton.jit
def over_one_plus(numerator, error, e, e_error):
    """(numerator + error)/(1 + e + e_error), for a numerator of at most 1.

    By an estimate of the reciprocal, which may be off in its last places, and one step of Newton's method.
    """
    sum = e + 1.0
    lost = ((1.0 - sum) + e) + e_error
    estimate = 1.0 / sum
    quotient = numerator * estimate
    rest = tl.fma(-quotient, lost, tl.fma(-quotient, sum, numerator) + error)
    return tl.fma(rest, estimate, quotient)


@triton.jit
def exponent_of(y):
    """k of y = 2ᵏ(1 + f), 1 + f between √½ and √2."""
    digits: tl.constexpr = 52 if y.dtype == tl.float64 else 23
    return (bits(y) - bits(constant(y, 0.70710678118654752440))) >> digits


@triton.jit
def log_parts(x):
    """That k, as a number, and f; of subnormal x too."""
    double: tl.constexpr = x.dtype == tl.float64
    smallest: tl.constexpr = 2.0**-1022 if double else 2.0**-126
    digits: tl.constexpr = 52 if double else 23
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
    result = tl.where(result < -100.0, -100.0, result)
    beyond = tl.where(p == 0.0, constant(p, -100.0), constant(p, float("nan")))
    return tl.where(p > 0.0, result, beyond)


@triton.jit
def clamped_log1m(p):
    """max(log(1 − p), −100) for p from 0 to 1; NaN above."""
    q = 1.0 - p
    k = exponent_of(q)
    digits: tl.constexpr = 52 if p.dtype == tl.float64 else 23
    scale = (bits(constant(p, 1.0)) - (k << digits)).to(p.dtype, bitcast=True)
    # f = 2⁻ᵏ(1 − p) − 1 is a number of p's dtype whatever 1 − p was rounded by, and so are both parts of this
    # difference.
    result = log_of(k.to(p.dtype), (scale - 1.0) - scale * p)
    beyond = tl.where(q == 0.0, constant(p, -100.0), constant(p, float("nan")))
    return tl.where(q > 0.0, result, beyond)


@triton.jit
def softplus(r):
    """log(1 + e^r)."""
    e, error = exp_of_negative(-tl.abs(r))
    return tl.where(r < 0.0, constant(r, 0.0), r) + (e + log1p_unit(e, error))


@triton.jit
def logistic(y):
    """1/(1 + e^−y), from the end that loses nothing."""
    e, error = exp_of_negative(-tl.abs(y))
    positive = y > 0.0
    numerator = tl.where(positive, constant(y, 1.0), e)
    return over_one_plus(numerator, tl.where(positive, constant(y, 0.0), error), e, error)


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
