"""The Laplace log-likelihood of data, and its gradients."""

from __future__ import annotations

from torch import Tensor

from vae_fast.backends import choose
from vae_fast.operators import OPERATORS
from vae_fast.ops import arguments
from vae_fast.ops.arguments import Reduction
from vae_fast.ops.autograd import density
from vae_fast.ops.public import operator

_Options = OPERATORS["double_exponential_log_prob"].Options


@operator
def double_exponential_log_prob(
    mean: Tensor,
    log_b: Tensor | float,
    x: Tensor,
    *,
    event_ndim: int = 1,
    weight: Tensor | float | None = None,
    reduction: Reduction = "none",
    scale: float = 1.0,
    backend: str | None = None,
) -> Tensor:
    """log p(x|z) of independent Laplace variables: −Σ (|x − m|/b + log b + log 2) over the event dims, in nats."""
    operands, shape, composite, arithmetic = arguments.operands(
        "double_exponential_log_prob", mean, log_b, x, weight
    )
    arguments.event_dims(event_ndim, shape, "mean, log_b, x and weight")
    name = choose("double_exponential_log_prob", mean.device, backend, mean.numel())
    options = _Options(
        event_ndim=event_ndim,
        reduction=arguments.reduction_code(reduction),
        scale=arguments.number("scale", scale),
    )
    log_prob: Tensor = density("double_exponential_log_prob", name, operands, options, composite, arithmetic)
    return log_prob
