"""log p(x|z) of independent Laplace variables."""

from __future__ import annotations

import triton
import triton.language as tl

from vae_fast.triton_kernels.arithmetic import constant
from vae_fast.triton_kernels.density_launch import Density, launchers
from vae_fast.triton_kernels.exponentials import exp


@triton.jit
def _term(operands, g, numbers, CONSTANTS: tl.constexpr):
    mean, log_b, x = operands
    difference, inverse = x - mean, exp(-log_b)
    size = tl.abs(difference) * inverse
    slope = g * tl.where(difference < 0.0, -inverse, tl.where(difference > 0.0, inverse, 0.0 * inverse))
    return -(size + log_b + constant(size, 0.6931471805599453)), (slope, g * (size - 1.0), -slope)


double_exponential_log_prob_fwd, double_exponential_log_prob_bwd = launchers(
    Density("double_exponential_log_prob", _term)
)
