"""The log-likelihood of data in [0, 1] under continuous Bernoulli variables, and its gradients."""

from __future__ import annotations

from torch import Tensor

from vae_fast.backends import choose
from vae_fast.operators import OPERATORS
from vae_fast.ops import arguments
from vae_fast.ops.arguments import Reduction
from vae_fast.ops.autograd import density
from vae_fast.ops.public import operator

_OP = "continuous_bernoulli_log_prob"
_Options = OPERATORS[_OP].Options


@operator
def continuous_bernoulli_log_prob(
    logits: Tensor,
    x: Tensor,
    *,
    x_scale: float = 1.0,
    event_ndim: int = 1,
    weight: Tensor | float | None = None,
    reduction: Reduction = "none",
    scale: float = 1.0,
    backend: str | None = None,
) -> Tensor:
    """log p(x|z) of continuous Bernoulli variables given by their logits y, in nats: a density on [0, 1].

    Σ y·t + log(y/(e^y − 1)) over the event dims, t = x·x_scale: a Bernoulli's log-likelihood and the logarithm of
    what makes it integrate to 1. Its gradient by y is t − E[t], E[t] = 1/(1 − e^−y) − 1/y; both are evaluated
    without cancellation, at y = 0 too.

    Args:
        logits: y = log(λ/(1 − λ)).
        x: data, broadcast against ``logits`` and they against it: floats, bool, or uint8. Where they differ in
            their number of dims, one of the two must have the shape of both together.
        x_scale: multiplies x: 1/255 for bytes of 0 to 255.
        event_ndim: how many trailing dims of the broadcast shape make one datum, over which terms are summed; 0 for
            elementwise.
        weight: broadcast against the elements (of shape [B, 1] for one weight a datum): Σ w·log p. An element of
            weight 0 contributes 0 and gets gradient 0 whatever its value. Its own gradient is the element's term.
        reduction: "none" gives one number a datum, "sum" and "mean" run over all data.
        scale: multiplies the result: −1 makes it a loss.
        backend: "reference", "native", "triton" or "auto"; by default what ``use_backend`` says.

    Returns:
        The data dims ("none") or a 0-d tensor; float64 where logits promote to it, else float32.

    Raises:
        TypeError: logits of a complex, integer, quantised, sparse or nested kind; x of int8 to int64; DTensors
            mixed with plain tensors.
        ValueError: shapes that do not broadcast, an ``event_ndim`` larger than the number of dims, tensors on
            different devices, an unknown ``reduction``.
        RuntimeError: a named backend that cannot serve the call.

    Example:
        >>> vae_fast.continuous_bernoulli_log_prob(torch.zeros(2, 3), torch.rand(2, 3))
        tensor([0., 0.])

    Source: Loaiza-Ganem and Cunningham, "The continuous Bernoulli: fixing a pervasive error in variational
    autoencoders" (2019).
    """
    operands, shape, composite, arithmetic = arguments.operands(_OP, logits, x, weight)
    arguments.event_dims(event_ndim, shape, "logits, x and weight")
    name = choose(_OP, logits.device, backend, logits.numel())
    options = _Options(
        event_ndim=event_ndim,
        reduction=arguments.reduction_code(reduction),
        scale=arguments.number("scale", scale),
        x_scale=arguments.number("x_scale", x_scale),
    )
    log_prob: Tensor = density(_OP, name, operands, options, composite, arithmetic)
    return log_prob
