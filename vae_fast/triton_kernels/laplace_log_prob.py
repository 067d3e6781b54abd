"""log p(x|z) of a Laplace variable."""

from __future__ import annotations

import triton
import triton.language as tl

from vae_fast.triton_kernels.arithmetic import constant
from vae_fast.triton_kernels.density_launch import Density, launchers
from vae_fast.triton_kernels.scale import by_raw, constants_of, log_scale, numbers_of, under

_LOG_2 = tl.constexpr(0.69314718055994530942)


@triton.jit
def _term(operands, g, numbers, CONSTANTS: tl.constexpr):
    loc, b, x = operands
    BY_LOG: tl.constexpr = CONSTANTS[0]
    difference = x * numbers[0] - loc
    size = under(tl.abs(difference), b, BY_LOG)
    one = constant(x * numbers[0], 1.0)
    sign = tl.where(difference > 0.0, one, tl.where(difference < 0.0, -one, difference))
    slope = g * under(sign, b, BY_LOG)
    log_prob = -(size + (log_scale(b, BY_LOG) + constant(size, _LOG_2)))
    return log_prob, (slope, g * by_raw(size - 1.0, b, BY_LOG), -slope * numbers[0])


laplace_log_prob_fwd, laplace_log_prob_bwd = launchers(Density("laplace_log_prob", _term, numbers_of, constants_of))
