"""The entropy of a diagonal Gaussian, and its gradient: PyTorch's own operations, which leave nothing to fuse."""

from __future__ import annotations

from torch import Tensor

from vae_fast.ops import arguments
from vae_fast.ops.arguments import Bounds, BoundsGrad, Param, Reduction
from vae_fast.reference.densities import compute_dtype, reduce


def gaussian_entropy(
    logvar: Tensor,
    *,
    event_ndim: int = 1,
    reduction: Reduction = "none",
    scale: float = 1.0,
    param: Param = "logvar",
    param_eps: float = 0.0,
    bounds: Bounds | None = None,
    bounds_grad: BoundsGrad = "zero",
) -> Tensor:
    """The differential entropy of a Gaussian with diagonal covariance, in nats.

    Σ ½(1 + log 2πσ²) over the event dims, negative where σ is small: −E[log q(z)] of q = N(μ, σ²), whatever μ.

    Args:
        logvar: log σ² (or what ``param`` says) of every element, of any floating dtype.
        event_ndim: how many trailing dims make one latent vector, over which terms are summed; 0 for elementwise.
        reduction: "none" gives one number a datum, "sum" and "mean" run over all data.
        scale: multiplies the result.
        param: what logvar is: "logvar" log σ², "logstd" log σ, "std" σ, "var" σ², or "softplus",
            σ = log(1 + e^logvar).
        param_eps: added to σ ("var": to σ²).
        bounds: (low, high), to which logvar is clamped as it is given; either may be None. None: no clamp.
        bounds_grad: logvar's gradient outside the bounds: "zero", as torch.clamp's, or "pass", that of the value at
            the bound.

    Returns:
        The data dims ("none") or a 0-d tensor; float64 where logvar is, else float32.

    Raises:
        TypeError: logvar that is no dense tensor of a floating dtype; an option that is no number.
        ValueError: an ``event_ndim`` larger than the number of dims, an unknown ``param`` or ``reduction``, bounds
            of low > high.

    Example:
        >>> vae_fast.gaussian_entropy(torch.zeros(2, 3))
        tensor([4.2568, 4.2568])

    Source: Cover and Thomas, "Elements of Information Theory" (2006), theorem 8.4.1.
    """
    raw = arguments.floating("logvar", logvar)
    arguments.event_dims(event_ndim, raw.shape, "logvar")
    form = arguments.sigma_form(param, param_eps, bounds, bounds_grad)
    code, factor = arguments.reduction_code(reduction), arguments.number("scale", scale)
    log_sigma = form.log_sigma(form.clamp(raw.to(compute_dtype(raw.dtype))))
    # The number is ½(1 + log 2π).
    return reduce(log_sigma + 1.4189385332046727, event_ndim, code, factor)
