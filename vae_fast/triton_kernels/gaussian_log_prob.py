"""log p(x|z) of a Gaussian with diagonal covariance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from vae_fast.triton_kernels.density_launch import Density, launchers
from vae_fast.triton_kernels.forms import are_half, form_of, is_plain
from vae_fast.triton_kernels.sigma import clamped, within
from vae_fast.triton_kernels.terms import gaussian


@triton.jit
def _term(operands, g, numbers, CONSTANTS: tl.constexpr):
    mean, raw, x = operands
    x_scale, eps, low, high = numbers
    FORM: tl.constexpr = CONSTANTS[0]
    EPS: tl.constexpr = CONSTANTS[1]
    BOUNDED: tl.constexpr = CONSTANTS[2]
    log_prob, slope, draw = gaussian(x * x_scale - mean, clamped(raw, low, high, BOUNDED), eps, FORM, EPS)
    slope = g * slope
    return log_prob, (slope, within(raw, g * draw, low, high, BOUNDED), -slope * x_scale)


def _numbers(options: Any) -> tuple[float, ...]:
    return options.x_scale, options.param_eps, options.low, options.high


def _constants(options: Any, operands: Sequence[Tensor | None]) -> tuple[Any, ...]:
    mean, logvar, *others = operands
    return form_of(options, are_half((mean, logvar), others))


def _in_few_registers(options: Any, operands: Sequence[Tensor | None]) -> bool:
    return is_plain(options)


gaussian_log_prob_fwd, gaussian_log_prob_bwd = launchers(
    Density("gaussian_log_prob", _term, _numbers, _constants, _in_few_registers)
)
