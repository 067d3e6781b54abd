"""The scale of a location-scale density, by itself or by its logarithm; and what its kernels take of a call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from vae_fast.operators import SCALE_PARAMS
from vae_fast.triton_kernels.arithmetic import divide
from vae_fast.triton_kernels.exponentials import exp, is_ordinary
from vae_fast.triton_kernels.logarithms import log
from vae_fast.triton_kernels.wide import narrow, times, wide, wide_exp


@triton.jit
def log_scale(raw, BY_LOG: tl.constexpr):
    if BY_LOG:
        return raw
    else:
        return log(raw)


@triton.jit
def under(value, raw, BY_LOG: tl.constexpr):
    """value/scale, 0 where the value is, whatever the scale but NaN."""
    if BY_LOG:
        far = narrow(times(wide(value), wide_exp(-raw)))
        result = tl.where(is_ordinary(raw), value * exp(-raw), far)
    else:
        result = divide(value, raw)
    return tl.where((value == 0.0) & (raw == raw), value, result)


@triton.jit
def by_raw(slope, raw, BY_LOG: tl.constexpr):
    """The derivative by the parameter, of one by the scale's logarithm."""
    if BY_LOG:
        return slope
    else:
        return divide(slope, raw)


def numbers_of(options: Any) -> tuple[float, ...]:
    return (options.x_scale,)


def constants_of(options: Any, operands: Sequence[Tensor | None]) -> tuple[Any, ...]:
    """Whether the parameter is the logarithm."""
    return (options.param == SCALE_PARAMS["log_scale"],)
