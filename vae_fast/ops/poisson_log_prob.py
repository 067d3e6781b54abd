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
        rate: λ > 0, a tensor of any floating dtype; with ``param="log_rate"`` its logarithm.
        x: counts, broadcast against the rate and it against them: floats, bool, or integers (uint8, int16, int32,
            int64); or a CSR matrix [B, G], PyTorch's or SciPy's, of which kernels on a CPU read what is not 0, and
            all others make a dense copy. A constant, without a gradient. Where they differ in their number of dims,
            one of the two must have the shape of both.
        param: what ``rate`` is: "rate" λ, or "log_rate" log λ.
        eps: ε, in the logarithm alone.
        event_ndim: how many trailing dims of the broadcast shape make one datum; 0 for elementwise.
        weight: w, a tensor of a floating dtype, uint8 or bool, or a number, broadcast against the elements (of
            shape [B, 1] for one weight a datum): Σ w·log p. An element of weight 0 contributes 0 and gets gradient
            0 whatever its value. Its own gradient is the element's log p; at weight 0 too, where it is that of the
            operands as they are. None: 1.
        reduction: "none" gives one number a datum, "sum" and "mean" run over all data.
        scale: a number that multiplies the result; −1 makes it a loss.
        validate: raises ValueError where x is no count, or a rate negative, at the cost of a pass over each and, on
            a GPU, a synchronisation. Without it the formula goes on for fractions, by log Γ.
        backend: "reference", "native", "triton" or "auto"; None is what ``use_backend`` says.

    Returns:
        The data dims ("none") or a 0-d tensor; float64 for a float64 rate, else float32.

    Raises:
        TypeError: rate of a complex, integer, quantised, sparse or nested kind; x of another kind than those above;
            an option that is no number; DTensors mixed with plain tensors.
        ValueError: shapes that do not broadcast, or whose numbers of dims differ and that would make a table larger
            than both; an ``event_ndim`` larger than the number of dims, tensors on different devices, an unknown
            ``param`` or ``reduction``; what ``validate`` finds.
        RuntimeError: a named backend that cannot serve the call.

    Example:
        >>> vae_fast.poisson_log_prob(torch.ones(2, 3), torch.tensor([[0, 0, 0], [1, 1, 1]]))
        tensor([-3., -3.])

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
