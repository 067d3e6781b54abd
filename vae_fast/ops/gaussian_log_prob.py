"""The diagonal-Gaussian log-likelihood of data, and its gradients."""

from __future__ import annotations

from torch import Tensor

from vae_fast.backends import choose
from vae_fast.operators import OPERATORS
from vae_fast.ops import arguments
from vae_fast.ops.arguments import Bounds, BoundsGrad, Param, Reduction
from vae_fast.ops.autograd import density
from vae_fast.ops.public import operator

_Options = OPERATORS["gaussian_log_prob"].Options


@operator
def gaussian_log_prob(
    mean: Tensor,
    logvar: Tensor | float,
    x: Tensor,
    *,
    x_scale: float = 1.0,
    event_ndim: int = 1,
    weight: Tensor | float | None = None,
    reduction: Reduction = "none",
    scale: float = 1.0,
    param: Param = "logvar",
    param_eps: float = 0.0,
    bounds: Bounds | None = None,
    bounds_grad: BoundsGrad = "zero",
    backend: str | None = None,
) -> Tensor:
    """log p(x|z) of a Gaussian with diagonal covariance, in nats, constants included.

    −½ Σ (log σ² + ((t − m)/σ)² + log 2π) over the event dims, t = x·x_scale. No variance is clamped unless
    ``bounds`` says so; t = m contributes 0 to the square whatever σ.

    Args:
        mean: m, a tensor of any shape and any floating dtype.
        logvar: log σ² (or what ``param`` says): for every element, every feature ([D]), every datum ([B, 1]),
            a 0-d tensor or a number. Its gradient has its own shape.
        x: data, broadcast against mean and logvar and they against it: floats, bool, or uint8. Where they differ in
            their number of dims, one of the two must have the shape of both together.
        x_scale: multiplies x: 1/255 for bytes of 0 to 255.
        event_ndim: how many trailing dims of the broadcast shape make one datum; 0 for elementwise.
        weight: w, a tensor of a floating dtype, uint8 or bool, or a number, broadcast against the elements (of
            shape [B, 1] for one weight a datum): Σ w·log p. An element of weight 0 contributes 0 and gets gradient
            0 whatever its value. Its own gradient is the element's log p; at weight 0 too, where it is that of the
            operands as they are. None: 1.
        reduction: "none" gives one number a datum, "sum" and "mean" run over all data.
        scale: a number that multiplies the result; −1 makes it a loss.
        param: what the second argument is: "logvar" log σ², "logstd" log σ, "std" σ, "var" σ², or "softplus",
            σ = log(1 + e^logvar).
        param_eps: added to σ ("var": to σ²).
        bounds: (low, high), to which the second argument is clamped as it is given; either may be None. None: no
            clamp.
        bounds_grad: the second argument's gradient outside the bounds: "zero", as torch.clamp's, or "pass", that of
            the value at the bound, as nn.GaussianNLLLoss has it.
        backend: "reference", "native", "triton" or "auto"; None is what ``use_backend`` says.

    Returns:
        The data dims ("none") or a 0-d tensor; float64 where mean and logvar promote to it, else float32.

    Raises:
        TypeError: mean or logvar of a complex, integer, quantised, sparse or nested kind; x of int8 to int64; an
            option that is no number; DTensors mixed with plain tensors.
        ValueError: shapes that do not broadcast, or whose numbers of dims differ and that would make a table larger
            than both; an ``event_ndim`` larger than the number of dims, tensors on different devices, an unknown
            ``param`` or ``reduction``, bounds of low > high.
        RuntimeError: a named backend that cannot serve the call.

    Example:
        >>> vae_fast.gaussian_log_prob(torch.zeros(2, 3), 0.0, torch.zeros(2, 3))
        tensor([-2.7568, -2.7568])

    Source: Kingma and Welling, "Auto-Encoding Variational Bayes" (2014), eq. 12 in appendix C.
    """
    operands, shape, composite, arithmetic = arguments.operands("gaussian_log_prob", mean, logvar, x, weight)
    arguments.event_dims(event_ndim, shape, "mean, logvar, x and weight")
    code, eps, low, high = arguments.parametrisation(param, param_eps, bounds)
    name = choose("gaussian_log_prob", mean.device, backend, mean.numel())
    options = _Options(
        event_ndim=event_ndim,
        reduction=arguments.reduction_code(reduction),
        scale=arguments.number("scale", scale),
        x_scale=arguments.number("x_scale", x_scale),
        param=code,
        param_eps=eps,
        low=low,
        high=high,
        bounds_grad=arguments.bounds_grad_code(bounds_grad),
    )
    log_prob: Tensor = density("gaussian_log_prob", name, operands, options, composite, arithmetic)
    return log_prob
