"""log p(x) of a Poisson variable given by its rate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from vae_fast.operators import RATE_PARAMS
from vae_fast.triton_kernels.counts import poisson
from vae_fast.triton_kernels.density_launch import Density, launchers


@triton.jit
def _term(operands, g, numbers, CONSTANTS: tl.constexpr):
    rate, x = operands
    LOG_RATE: tl.constexpr = CONSTANTS[0]
    EPS: tl.constexpr = CONSTANTS[1]
    log_prob, slope = poisson(rate, x, numbers[0], LOG_RATE, EPS)
    return log_prob, (g * slope, g)


def _numbers(options: Any) -> tuple[float, ...]:
    return (options.eps,)


def _constants(options: Any, operands: Sequence[Tensor | None]) -> tuple[Any, ...]:
    return options.param == RATE_PARAMS["log_rate"], options.eps != 0.0


def _parts(options: Any, operands: Sequence[Tensor | None]) -> int:
    *_, weight = operands
    double = any(t is not None and t.dtype == torch.float64 for t in operands)
    return 2 if double and weight is not None else 1


poisson_log_prob_fwd, poisson_log_prob_bwd = launchers(
    Density("poisson_log_prob", _term, _numbers, _constants, parts=_parts)
)
