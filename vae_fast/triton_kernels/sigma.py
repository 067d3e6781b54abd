"""What the second argument of a Gaussian is, and σ from it: vae_fast/sigma.py in Triton, in the same words.

r is the raw argument, clamped. FORM is one of that file's forms; where EPS is set, ``eps`` is added to σ (σ² for
VAR); LIGHT is forms.py's. BOUNDED is one of forms.py's kinds of bounds.
"""

import triton
import triton.language as tl

from vae_fast import sigma as definition
from vae_fast.triton_kernels import forms
from vae_fast.triton_kernels.arithmetic import clamp, constant, divide, root
from vae_fast.triton_kernels.exponentials import exp
from vae_fast.triton_kernels.lean import exp_over, half_exp_over
from vae_fast.triton_kernels.light import light_exp, light_half_exp
from vae_fast.triton_kernels.logarithms import log
from vae_fast.triton_kernels.softplus import logistic, softplus
from vae_fast.triton_kernels.wide import over, times, wide, wide_exp

LOGVAR = tl.constexpr(definition.LOGVAR)
LOGSTD = tl.constexpr(definition.LOGSTD)
STD = tl.constexpr(definition.STD)
VAR = tl.constexpr(definition.VAR)
SOFTPLUS = tl.constexpr(definition.SOFTPLUS)
LIGHT = tl.constexpr(forms.LIGHT)
STOPPING = tl.constexpr(forms.STOPPING)


@triton.jit
def clamped(raw, low, high, BOUNDED: tl.constexpr):
    if BOUNDED:
        return clamp(raw, low, high)
    else:
        return raw


@triton.jit
def within(raw, grad, low, high, BOUNDED: tl.constexpr):
    """``grad`` where ``raw`` is within the bounds, 0 elsewhere unless they pass it on."""
    if BOUNDED == STOPPING:
        return tl.where(raw >= low, tl.where(raw <= high, grad, 0.0), 0.0)
    else:
        return grad


@triton.jit
def plus_eps(a, eps, EPS: tl.constexpr):
    # −0 + 0 is 0, and 1/σ has a sign.
    if EPS:
        return a + eps
    else:
        return a


@triton.jit
def sigma(r, eps, FORM: tl.constexpr, EPS: tl.constexpr):
    if FORM == LIGHT:
        value = light_exp(r, 2)
    elif FORM == LOGVAR:
        value = exp_over(r, 2)
    elif FORM == LOGSTD:
        value = exp_over(r, 1)
    elif FORM == STD or FORM == VAR:
        value = r
    else:
        value = softplus(r)
    value = plus_eps(value, eps, EPS)
    if FORM == VAR:
        return root(value)
    else:
        return value


@triton.jit
def dsigma(r, eps, FORM: tl.constexpr, EPS: tl.constexpr):
    """dσ/dr."""
    if FORM == LIGHT:
        return light_half_exp(r, 2)
    elif FORM == LOGVAR:
        return half_exp_over(r, 2)
    elif FORM == LOGSTD:
        return exp_over(r, 1)
    elif FORM == STD:
        return tl.full(r.shape, 1.0, r.dtype)
    elif FORM == VAR:
        return divide(constant(r, 0.5), sigma(r, eps, FORM, EPS))
    else:
        return logistic(r)


# Where log σ² is r, or twice it.


@triton.jit
def log_sigma(r, FORM: tl.constexpr):
    if FORM == LOGVAR or FORM == LIGHT:
        return r * 0.5
    else:
        return r


@triton.jit
def twice(a, FORM: tl.constexpr):
    """a·d log σ²/dr."""
    if FORM == LOGVAR or FORM == LIGHT:
        return a
    else:
        return a + a


# Elsewhere. x is what is nearest to the argument: σ, or σ² for VAR.


@triton.jit
def nearest(r, eps, FORM: tl.constexpr, EPS: tl.constexpr):
    if FORM == VAR:
        return plus_eps(r, eps, EPS)
    else:
        return sigma(r, eps, FORM, EPS)


@triton.jit
def sigma_of(x, FORM: tl.constexpr):
    if FORM == VAR:
        return root(x)
    else:
        return x


@triton.jit
def log_sigma_of(x, FORM: tl.constexpr):
    if FORM == VAR:
        return log(x) * 0.5
    else:
        return log(x)


@triton.jit
def inv_var_of(x, FORM: tl.constexpr):
    inverse = divide(constant(x, 1.0), x)
    if FORM == VAR:
        return inverse
    else:
        return inverse * inverse


@triton.jit
def dlog_var(r, x, eps, FORM: tl.constexpr, EPS: tl.constexpr):
    """d log σ²/dr."""
    if FORM == VAR:
        return divide(constant(x, 1.0), x)
    elif FORM == STD:
        return divide(constant(x, 2.0), x)
    else:
        return divide(dsigma(r, eps, FORM, EPS) * 2.0, x)


@triton.jit
def is_usual(r, x, FORM: tl.constexpr):
    """Whether x, its square, d log σ²/dr and their quotients are ordinary numbers."""
    double: tl.constexpr = r.dtype == tl.float64
    most: tl.constexpr = 2.0**504 if double else 2.0**61
    far: tl.constexpr = 350.0 if double else 42.5
    usual = (x > 1.0 / most) & (x < most)
    if FORM == STD or FORM == VAR:
        return usual
    elif FORM == SOFTPLUS:
        return usual & (r > -far)
    else:
        return usual & (tl.abs(log_sigma(r, FORM)) < far)


# The same in numbers of any exponent.


@triton.jit
def softplus_is_exp(r):
    if r.dtype == tl.float64:
        return r < -40.0
    else:
        return r < -20.0


@triton.jit
def parts(r, eps, FORM: tl.constexpr, EPS: tl.constexpr):
    """(s, q) of σ = s·e^q, not for VAR: q is not 0 only for arguments so far out that e^q alone is left of σ."""
    if FORM == SOFTPLUS and not EPS:
        far = softplus_is_exp(r)
        return tl.where(far, 1.0, softplus(r)), tl.where(far, r, 0.0)
    elif FORM == SOFTPLUS or FORM == STD:
        return sigma(r, eps, FORM, EPS), tl.zeros_like(r)
    else:
        a = log_sigma(r, FORM)
        if r.dtype == tl.float64:
            far = a > 525.0
        else:
            far = a > 63.75
        return tl.where(far, 1.0, exp(a) + eps), tl.where(far, a, 0.0)


@triton.jit
def slope_parts(r, s, q, FORM: tl.constexpr, EPS: tl.constexpr):
    """(s, q) of d log σ²/dr = s·e^q, not for VAR, of those of σ; of this q and σ's one is 0."""
    if FORM == STD:
        return divide(constant(r, 2.0), s), tl.zeros_like(r)
    elif FORM == SOFTPLUS:
        far = softplus_is_exp(r)
        slope = divide(tl.where(far, 2.0, logistic(r) * 2.0), s)
        # dσ/dr is e^r there, as σ is without eps.
        if EPS:
            return slope, tl.where(far, r, 0.0)
        else:
            return slope, tl.zeros_like(r)
    else:
        a = log_sigma(r, FORM)
        return divide(twice(constant(r, 1.0), FORM), s), tl.where(q == 0.0, a, 0.0)


@triton.jit
def far_scale(r, eps, FORM: tl.constexpr, EPS: tl.constexpr):
    """σ², d log σ²/dr, log σ, and what the first two are made of."""
    if FORM == VAR:
        x = plus_eps(r, eps, EPS)
        m, n = wide(x)
        return (m, n), (divide(constant(r, 1.0), m), -n), log(x) * 0.5, (m, n), (m, n)
    else:
        s, q = parts(r, eps, FORM, EPS)
        slope, p = slope_parts(r, s, q, FORM, EPS)
        m, n = wide(s)
        if FORM == STD:
            # Of a subnormal σ the quotient may be beyond its dtype.
            dlog_var = divide(constant(r, 2.0), m), -n
        elif FORM == SOFTPLUS and not EPS:
            dlog_var = wide(slope)
        else:
            dlog_var = times(wide(slope), wide_exp(p))
        if FORM != STD and not (FORM == SOFTPLUS and EPS):
            m, n = times((m, n), wide_exp(q))
        return times((m, n), (m, n)), dlog_var, log(s) + q, (s, q), (slope, p)


@triton.jit
def _square_of_ratio(s, q, prior_s, prior_q, FORM: tl.constexpr, EPS: tl.constexpr):
    ratio = over(wide(s), wide(prior_s))
    if FORM != STD and not (FORM == SOFTPLUS and EPS):
        # The difference's rounding error (Knuth's two-sum), which the exponential would magnify.
        d = q - prior_q
        part = q - d
        error = (q - (d + part)) + (part - prior_q)
        m, n = wide_exp(d)
        m = tl.where((m > 0.0) & (m < float("inf")), tl.fma(m, error, m), m)
        ratio = times(ratio, (m, n))
    return times(ratio, ratio)


@triton.jit
def var_ratio(far, prior, FORM: tl.constexpr, EPS: tl.constexpr):
    """σ²/σp² of two ``far_scale``."""
    if FORM == VAR:
        return over(far[0], prior[0])
    else:
        return _square_of_ratio(far[3][0], far[3][1], prior[3][0], prior[3][1], FORM, EPS)


@triton.jit
def var_ratio_slope(ratio, far, prior, FORM: tl.constexpr, EPS: tl.constexpr):
    """The same times d log σp²/dr.

    In one exponential where the ratio may be beyond all range and the derivative below it.
    """
    if FORM <= LOGSTD:
        q = prior[3][1] - prior[4][1] * 0.5
        return times(_square_of_ratio(far[3][0], far[3][1], prior[3][0], q, FORM, EPS), wide(prior[4][0]))
    else:
        return times(ratio, prior[1])
