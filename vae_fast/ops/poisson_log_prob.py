"""The Poisson log-likelihood of counts, and its gradient."""

from __future__ import annotations

from torch import Tensor

from vae_fast.backends import choose
from vae_fast.operators import OPERATORS, RATE_PARAMS
from vae_fast.ops import arguments, counts
from vae_fast.ops.arguments import RateParam, Reduction
from vae_fast.ops.autograd import density
from vae_fast.ops.public import operator

_OP = "poisson_log_prob"
_Options = OPERATORS[_OP].Options


@operator
def poisson_log_prob(
    rate: Tensor,
    x: Tensor,
    *,
    param: RateParam = "rate",
    eps: float = 0.0,
    event_ndim: int = 1,
    weight: Tensor | float | None = None,
    reduction: Reduction = "none",
    scale: float = 1.0,
    validate: bool = False,
    backend: str | None = None,
) -> Tensor:
    """log p(x | λ) of independent Poisson counts, in nats: Σ x·log(λ + ε) − λ − log x! over the event dims.

    Args:
        rate: λ > 0; with ``param="log_rate"`` its logarithm.
        x: counts, as ``negative_binomial_log_prob`` takes them.
        eps: ε, in the logarithm alone.
        event_ndim, weight, reduction, scale: as ``gaussian_kl``. ``scale=-1`` makes it a loss.
        validate: raises ValueError where x is no count, or a rate negative, at the cost of a pass over each and, on
            a GPU, a synchronisation.
        backend: as ``rsample``.

    Returns:
        The data dims ("none") or a 0-d tensor; float64 for a float64 rate, else float32.

    Raises:
        TypeError: rate of a complex, integer, quantised, sparse or nested kind.
        otherwise as ``gaussian_kl``.

    Source: Johnson, Kemp and Kotz, "Univariate Discrete Distributions" (2005), chapter 4.
    """
    x = counts.table(_OP, x, backend, rate, weight)
    operands, shape, composite, arithmetic = arguments.operands(_OP, rate, x, weight)
    arguments.event_dims(event_ndim, shape, "rate, x and weight")
    code = arguments.code_of("param", RATE_PARAMS, param)
    if counts.is_sparse(operands[1]):
        operands = counts.of_shape(operands, shape)
    if validate:
        counts.whole(operands[1])
        if code == RATE_PARAMS["rate"] and bool((operands[0].detach() < 0).any()):
            raise ValueError("rate has negative values")
    name = choose(_OP, operands[0].device, backend, operands[0].numel())
    options = _Options(
        event_ndim=event_ndim,
        reduction=arguments.reduction_code(reduction),
        scale=arguments.number("scale", scale),
        param=code,
        eps=arguments.number("eps", eps),
    )
    log_prob: Tensor = density(_OP, name, operands, options, composite, arithmetic)
    return log_prob
