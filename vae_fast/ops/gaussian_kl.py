"""The KL divergence of a diagonal Gaussian to N(0, I) or to another one, and its gradients."""

from __future__ import annotations

from torch import Tensor

from vae_fast.backends import choose
from vae_fast.operators import OPERATORS
from vae_fast.ops import arguments
from vae_fast.ops.arguments import Bounds, BoundsGrad, Param, Reduction
from vae_fast.ops.autograd import density
from vae_fast.ops.public import operator

_Options = OPERATORS["gaussian_kl"].Options


@operator
def gaussian_kl(
    mu: Tensor,
    logvar: Tensor | float,
    prior_mu: Tensor | float | None = None,
    prior_logvar: Tensor | float | None = None,
    *,
    free_bits: float | None = None,
    event_ndim: int = 1,
    weight: Tensor | float | None = None,
    reduction: Reduction = "none",
    scale: float = 1.0,
    param: Param = "logvar",
    param_eps: float = 0.0,
    bounds: Bounds | None = None,
    bounds_grad: BoundsGrad = "zero",
    prior_param: Param | None = None,
    prior_param_eps: float | None = None,
    prior_bounds: Bounds | None = None,
    backend: str | None = None,
) -> Tensor:
    """KL(N(μ, σ²) ‖ N(μp, σp²)) of diagonal Gaussians, in nats; by default to N(0, I). Never negative.

    Σ ½((μ − μp)²/σp² + σ²/σp² − 1 − log(σ²/σp²)) over the event dims, accurate where σ is near σp too.

    Args:
        mu: mean μ, a tensor of any shape and any floating dtype.
        logvar: log σ², or what ``param`` says it is: a tensor of any floating dtype, or a number. It is broadcast
            against ``mu``, and its gradient has its own shape.
        prior_mu: the prior's mean μp: a tensor, a number, or None for 0. It is broadcast against mu and logvar.
        prior_logvar: log σp², or what ``prior_param`` says it is: a tensor, a number, or None for σp = 1. It is
            broadcast against the others.
        free_bits: λ, in nats: every element's KL counts as max(KL, λ), with no gradient where KL ≤ λ. None: none.
        event_ndim: how many trailing dims of the broadcast shape make one latent vector; 0 for elementwise.
        weight: w, a tensor of a floating dtype, uint8 or bool, or a number, broadcast against the elements (of
            shape [B, 1] for one weight a datum): Σ w·KL. An element of weight 0 contributes 0 and gets gradient 0
            whatever its value. Its own gradient is the element's term, max(KL, λ); at weight 0 too, where it is
            that of the operands as they are. None: 1.
        reduction: "none" gives one number a datum, "sum" and "mean" run over all data.
        scale: a number that multiplies the result.
        param: what the second argument is: "logvar" log σ², "logstd" log σ, "std" σ, "var" σ², or "softplus",
            σ = log(1 + e^logvar).
        param_eps: added to σ ("var": to σ²).
        bounds: (low, high), to which the second argument is clamped as it is given; either may be None. None: no
            clamp.
        bounds_grad: the gradient of what is clamped outside its bounds: "zero", as torch.clamp's, or "pass", that
            of the value at the bound, as nn.GaussianNLLLoss has it.
        prior_param: what ``prior_logvar`` is, by the same words. None: what ``logvar`` is, with its ``param_eps``
            and ``bounds`` where these are not given for the prior either.
        prior_param_eps: added to σp ("var": to σp²). None: 0 with a ``prior_param``, else ``param_eps``.
        prior_bounds: (low, high), to which ``prior_logvar`` is clamped; (None, None) is no clamp. None: no clamp
            with a ``prior_param``, else ``bounds``.
        backend: "reference", "native", "triton" or "auto"; None is what ``use_backend`` says.

    Returns:
        The data dims ("none") or a 0-d tensor; float64 where the arguments promote to it, else float32.

    Raises:
        TypeError: arguments of a complex, integer, quantised, sparse or nested kind; an option that is no number;
            DTensors mixed with plain tensors.
        ValueError: shapes that do not broadcast, an ``event_ndim`` larger than the number of dims, tensors on
            different devices, an unknown ``param`` or ``reduction``, bounds of low > high.
        RuntimeError: a named backend that cannot serve the call.

    Example:
        >>> vae_fast.gaussian_kl(torch.ones(3, 20), torch.zeros(3, 20))
        tensor([10., 10., 10.])
        >>> vae_fast.gaussian_kl(torch.ones(3, 20), 0.0, prior_mu=1.0, prior_logvar=0.0, reduction="mean")
        tensor(0.)

    Source: Kingma and Welling, "Auto-Encoding Variational Bayes" (2014), appendix B; free bits: Kingma et al.
    (2016), eq. 15, per latent and datum.
    """
    operands, shape, composite, arithmetic = arguments.operands(
        "gaussian_kl", mu, logvar, prior_mu, prior_logvar, weight
    )
    arguments.event_dims(event_ndim, shape, "mu, logvar, the prior and weight")
    free = None if free_bits is None else arguments.number("free_bits", free_bits)
    own = arguments.parametrisation(param, param_eps, bounds)
    code, eps, low, high = own
    prior = arguments.prior_parametrisation(own, prior_param, prior_param_eps, prior_bounds)
    prior_code, prior_eps, prior_low, prior_high = prior
    name = choose("gaussian_kl", mu.device, backend, mu.numel())
    options = _Options(
        event_ndim=event_ndim,
        reduction=arguments.reduction_code(reduction),
        scale=arguments.number("scale", scale),
        free_bits=free,
        param=code,
        param_eps=eps,
        low=low,
        high=high,
        bounds_grad=arguments.bounds_grad_code(bounds_grad),
        prior_param=prior_code,
        prior_param_eps=prior_eps,
        prior_low=prior_low,
        prior_high=prior_high,
    )
    kl: Tensor = density("gaussian_kl", name, operands, options, composite, arithmetic)
    return kl
