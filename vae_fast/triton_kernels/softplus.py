"""The softplus and the logistic function in float32 and float64: log(1 + e^x) and 1/(1 + e^−x), each once.

Polynomials are minimax, the errors beside them absolute and those of real coefficients (tools/coefficients.py). The
errors of the formulas, with a fused multiply-add, stand above their twins in csrc/formulas.h.
"""

import triton
import triton.language as tl

from vae_fast.triton_kernels.arithmetic import constant, polynomial
from vae_fast.triton_kernels.exponentials import exp_of_negative


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
