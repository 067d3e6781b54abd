"""log p(x) of a negative binomial given by its mean and θ, zero-inflated or not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from vae_fast.operators import MEAN_PARAMS, THETA_PARAMS
from vae_fast.triton_kernels.counts import negative_binomial, zero_inflated
from vae_fast.triton_kernels.density_launch import Density, launchers


@triton.jit
def _term(operands, g, numbers, CONSTANTS: tl.constexpr):
    mean, theta, logits, x = operands
    eps = numbers[0]
    LOG_MEAN: tl.constexpr = CONSTANTS[0]
    LOG_THETA: tl.constexpr = CONSTANTS[1]
    EPS: tl.constexpr = CONSTANTS[2]
    INFLATED: tl.constexpr = CONSTANTS[3]
    log_prob, by_mean, by_theta, none = negative_binomial(mean, theta, x, eps, LOG_MEAN, LOG_THETA, EPS)
    by_logits = g
    if INFLATED:
        log_prob, share, slope = zero_inflated(logits, log_prob, none, x)
        by_logits = g * slope
        g = g * share
    # Counts have no gradient.
    return log_prob, (g * by_mean, g * by_theta, by_logits, by_logits)


def _numbers(options: Any) -> tuple[float, ...]:
    return (options.eps,)


def _constants(options: Any, operands: Sequence[Tensor | None]) -> tuple[Any, ...]:
    _, _, logits, *_ = operands
    logs = options.param == MEAN_PARAMS["log_mean"], options.theta_param == THETA_PARAMS["log_theta"]
    return (*logs, options.eps != 0.0, logits is not None)


negative_binomial_log_prob_fwd, negative_binomial_log_prob_bwd = launchers(
    Density("negative_binomial_log_prob", _term, _numbers, _constants)
)
