"""What terms of half types are made of: csrc/light.h in Triton, in the same order."""

import triton
import triton.language as tl

from vae_fast.triton_kernels.arithmetic import constant, polynomial
from vae_fast.triton_kernels.interpreter import IS_PTX

_PTX = tl.constexpr(IS_PTX)
_LOG2E = tl.constexpr(1.44269504088896340736)


@triton.jit
def _estimated_exp2(x):
    if _PTX:
        return tl.inline_asm_elementwise(
            "ex2.approx.ftz.f32 $0, $1;", "=f,f", [x], tl.float32, is_pure=True, pack=1
        )
    else:
        return tl.exp2(x)


@triton.jit
def estimated_inverse(a):
    """1/a for a from 1 to 2, good to 2 units."""
    if _PTX:
        return tl.inline_asm_elementwise(
            "rcp.approx.ftz.f32 $0, $1;", "=f,f", [a], tl.float32, is_pure=True, pack=1
        )
    else:
        return 1.0 / a


@triton.jit
def light_exp(x, OVER: tl.constexpr):
    """e^(x/OVER) for every x."""
    root = _estimated_exp2(x * constant(x, _LOG2E / (2 * OVER)))
    return root * root


@triton.jit
def light_half_exp(x, OVER: tl.constexpr):
    """½e^(x/OVER) for every x."""
    root = _estimated_exp2(tl.fma(x, constant(x, _LOG2E / (2 * OVER)), constant(x, -0.5)))
    return root * root


@triton.jit
def light_exp_ordinary(x):
    """e^x for |x| < 85."""
    return _estimated_exp2(x * constant(x, _LOG2E))


@triton.jit
def light_log1p_over(e):
    """log(1 + e)/e for e in [0, 1]."""
    # To 1.3e-6.
    return polynomial(
        e,
        (
            0.9999987483024597,
            -0.49987149238586426,
            0.3311171233654022,
            -0.2351369559764862,
            0.1494150459766388,
            -0.06657236814498901,
            0.014197985641658306,
        ),
    )


@triton.jit
def light_growth(x):
    """½(e^x − 1), and ½(e^x − 1 − x)."""
    half = _estimated_exp2(tl.fma(x, constant(x, _LOG2E), constant(x, -1.0)))
    # ½(e^x − 1 − x)/x² on |x| ≤ 0.6875, to 1.1e-6.
    p = polynomial(
        x,
        (
            0.2500000298023224,
            0.08332633972167969,
            0.02083185873925686,
            0.004225695040076971,
            0.0007031276472844183,
        ),
    )
    near, far = x * x * p, half - 0.5
    small = tl.abs(x) < 0.6875
    growth = tl.where(small, tl.fma(constant(x, 0.5), x, near), far)
    return growth, tl.where(small, near, tl.fma(constant(x, -0.5), x, far))
