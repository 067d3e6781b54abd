"""What the second argument of a Gaussian is, and σ from it: vae_fast/scale.py in Triton, in the same words.

r is the raw argument, clamped. KIND is one of that file's kinds; where EPS is set, ``eps`` is added to σ (σ² for
VAR).
"""

import triton
import triton.language as tl

from vae_fast import scale
from vae_fast.triton_kernels.formulas import (
    constant,
    divide,
    exp,
    exp_and_square,
    log,
    logistic,
    root,
    softplus,
)

LOGVAR = tl.constexpr(scale.LOGVAR)
LOGSTD = tl.constexpr(scale.LOGSTD)
STD = tl.constexpr(scale.STD)
VAR = tl.constexpr(scale.VAR)


@triton.jit
def inside(raw, grad, low, high):
    """``grad`` where ``raw`` is within the bounds, 0 elsewhere."""
    return tl.where(raw >= low, tl.where(raw <= high, grad, 0.0), 0.0)


@triton.jit
def plus_eps(a, eps, EPS: tl.constexpr):
    # −0 + 0 is 0, and 1/σ has a sign.
    if EPS:
        return a + eps
    else:
        return a


@triton.jit
def sigma(r, eps, KIND: tl.constexpr, EPS: tl.constexpr):
    if KIND == LOGVAR:
        value = exp(r * 0.5)
    elif KIND == LOGSTD:
        value = exp(r)
    elif KIND == STD or KIND == VAR:
        value = r
    else:
        value = softplus(r)
    value = plus_eps(value, eps, EPS)
    if KIND == VAR:
        return root(value)
    else:
        return value


@triton.jit
def dsigma(r, eps, KIND: tl.constexpr, EPS: tl.constexpr):
    """dσ/dr."""
    if KIND == LOGVAR:
        return exp(r * 0.5) * 0.5
    elif KIND == LOGSTD:
        return exp(r)
    elif KIND == STD:
        return tl.full(r.shape, 1.0, r.dtype)
    elif KIND == VAR:
        return divide(constant(r, 0.5), sigma(r, eps, KIND, EPS))
    else:
        return logistic(r)


@triton.jit
def log_var(r, eps, KIND: tl.constexpr, EPS: tl.constexpr):
    """log σ²."""
    if KIND == VAR:
        return log(plus_eps(r, eps, EPS))
    elif KIND == LOGVAR and not EPS:
        return r
    elif KIND == LOGSTD and not EPS:
        return r + r
    else:
        return log(sigma(r, eps, KIND, EPS)) * 2.0


@triton.jit
def dlog_var(r, eps, KIND: tl.constexpr, EPS: tl.constexpr):
    """d log σ²/dr."""
    if KIND == VAR:
        return divide(constant(r, 1.0), plus_eps(r, eps, EPS))
    elif KIND == LOGVAR and not EPS:
        return tl.full(r.shape, 1.0, r.dtype)
    elif KIND == LOGSTD and not EPS:
        return tl.full(r.shape, 2.0, r.dtype)
    else:
        return divide(dsigma(r, eps, KIND, EPS) * 2.0, sigma(r, eps, KIND, EPS))


@triton.jit
def inverse(r, eps, KIND: tl.constexpr, EPS: tl.constexpr):
    """1/σ, and 1/σ² where |log σ²| is ordinary."""
    if KIND == LOGVAR and not EPS:
        return exp_and_square(r * -0.5)
    elif KIND == LOGSTD and not EPS:
        return exp_and_square(-r)
    else:
        one = constant(r, 1.0)
        inv_sigma = divide(one, sigma(r, eps, KIND, EPS))
        if KIND == VAR:
            return inv_sigma, divide(one, plus_eps(r, eps, EPS))
        else:
            return inv_sigma, inv_sigma * inv_sigma
