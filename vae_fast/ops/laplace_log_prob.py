"""The Laplace log-likelihood of data, and its gradients."""

from __future__ import annotations

from torch import Tensor

from vae_fast.backends import choose
from vae_fast.operators import OPERATORS, SCALE_PARAMS
from vae_fast.ops import arguments
from vae_fast.ops.arguments import Reduction, ScaleParam
from vae_fast.ops.autograd import density
from vae_fast.ops.public import operator

_OP = "laplace_log_prob"
_Options = OPERATORS[_OP].Options


@operator
def laplace_log_prob(
    loc: Tensor,
    b: Tensor | float,
    x: Tensor,
    *,
    param: ScaleParam = "scale",
    x_scale: float = 1.0,
    event_ndim: int = 1,
    weight: Tensor | float | None = None,
    reduction: Reduction = "none",
    scale: float = 1.0,
    backend: str | None = None,
) -> Tensor:
    """log p(x|z) of independent Laplace variables, in nats, constants included.

    −Σ |t − loc|/b + log 2b over the event dims, t = x·x_scale. t = loc contributes 0 to the quotient whatever b;
    the slope by loc is 0 there.

    Args:
        loc: the location, which is mean and median.
        b: the scale, b > 0 (or what ``param`` says): for every element, every feature ([D]), every datum ([B, 1]),
            a 0-d tensor or a number. Its gradient has its own shape.
        x: data, broadcast against loc and b and they against it: floats, bool, or uint8. Where they differ in their
            number of dims, one of the two must have the shape of both together.
        param: what the second argument is: "scale" b itself, "log_scale" log b.
        x_scale: multiplies x: 1/255 for bytes of 0 to 255.
        event_ndim: how many trailing dims of the broadcast shape make one datum, over which terms are summed; 0 for
            elementwise.
        weight: broadcast against the elements (of shape [B, 1] for one weight a datum): Σ w·log p. An element of
            weight 0 contributes 0 and gets gradient 0 whatever its value. Its own gradient is the element's term.
        reduction: "none" gives one number a datum, "sum" and "mean" run over all data.
        scale: multiplies the result: −1 makes it a loss.
        backend: "reference", "native", "triton" or "auto"; by default what ``use_backend`` says.

    Returns:
        The data dims ("none") or a 0-d tensor; float64 where loc and b promote to it, else float32.

    Raises:
        TypeError: loc or b of a complex, integer, quantised, sparse or nested kind; x of int8 to int64; DTensors
            mixed with plain tensors.
        ValueError: shapes that do not broadcast, an ``event_ndim`` larger than the number of dims, tensors on
            different devices, an unknown ``param`` or ``reduction``.
        RuntimeError: a named backend that cannot serve the call.

    Example:
        >>> vae_fast.laplace_log_prob(torch.zeros(2, 3), 0.5, torch.zeros(2, 3))
        tensor([0., 0.])

    Source: Johnson, Kotz and Balakrishnan, "Continuous Univariate Distributions" 2 (1995), chapter 24.
    """
    operands, shape, composite, arithmetic = arguments.operands(_OP, loc, b, x, weight)
    arguments.event_dims(event_ndim, shape, "loc, b, x and weight")
    name = choose(_OP, loc.device, backend, loc.numel())
    options = _Options(
        event_ndim=event_ndim,
        reduction=arguments.reduction_code(reduction),
        scale=arguments.number("scale", scale),
        x_scale=arguments.number("x_scale", x_scale),
        param=arguments.code_of("param", SCALE_PARAMS, param),
    )
    log_prob: Tensor = density(_OP, name, operands, options, composite, arithmetic)
    return log_prob
