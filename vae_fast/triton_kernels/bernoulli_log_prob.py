"""log p(x|z) of a Bernoulli given by its logits or probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from vae_fast.operators import BERNOULLI_PARAMS
from vae_fast.triton_kernels.density_launch import Density, launchers
from vae_fast.triton_kernels.forms import are_half
from vae_fast.triton_kernels.terms import bernoulli, bernoulli_of_positives, bernoulli_of_probs


@triton.jit
def _term(operands, g, numbers, CONSTANTS: tl.constexpr):
    y, x, pos_weight = operands
    x_scale = numbers[0]
    OF_PROBS: tl.constexpr = CONSTANTS[0]
    OF_POSITIVES: tl.constexpr = CONSTANTS[1]
    HALF: tl.constexpr = CONSTANTS[2]
    if OF_PROBS:
        log_prob, slope, odds = bernoulli_of_probs(y, x * x_scale)
    elif OF_POSITIVES:
        log_prob, slope, odds = bernoulli_of_positives(y, x * x_scale, pos_weight)
    else:
        log_prob, slope = bernoulli(y, x * x_scale, HALF)
        odds = y
    # The weight of the positives has no gradient.
    return log_prob, (g * slope, g * odds * x_scale, slope)


def _numbers(options: Any) -> tuple[float, ...]:
    return (options.x_scale,)


def _constants(options: Any, operands: Sequence[Tensor | None]) -> tuple[Any, ...]:
    logits, x, pos_weight, weight = operands
    of_probs, of_positives = options.param == BERNOULLI_PARAMS["probs"], pos_weight is not None
    return of_probs, of_positives, not (of_probs or of_positives) and are_half((logits,), (x, weight))


def _in_few_registers(options: Any, operands: Sequence[Tensor | None]) -> bool:
    _, _, pos_weight, _ = operands
    return pos_weight is None


bernoulli_log_prob_fwd, bernoulli_log_prob_bwd = launchers(
    Density("bernoulli_log_prob", _term, _numbers, _constants, _in_few_registers)
)
