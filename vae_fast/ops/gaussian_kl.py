"""The KL divergence of a diagonal Gaussian to N(0, I) or to another one, and its gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vae_fast.backends import choose, kernel
from vae_fast.ops import arguments, dispatch, early
from vae_fast.ops.arguments import Bounds, Param, Reduction
from vae_fast.reference.densities import arithmetic_dtype, promoted_dtype
from vae_fast.tracing import public


class _GaussianKL(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        backend: str,
        in_forward: bool,
        mu: Any,
        logvar: Any,
        prior_mu: Any,
        prior_logvar: Any,
        weight: Any,
        options: Any,
    ) -> Any:
        ctx.save_for_backward(mu, logvar, prior_mu, prior_logvar, weight)
        ctx.backend, ctx.options = backend, options
        needs = ctx.needs_input_grad[2:6] if in_forward else (False,) * 4
        fwd = kernel(backend, "gaussian_kl_fwd")
        kl, *grads = fwd(mu, logvar, prior_mu, prior_logvar, weight, *options, *needs)
        early.keep(ctx, grads if in_forward else None)
        return kl

    @staticmethod
    def backward(ctx: Any, dkl: Any) -> Any:
        needs = ctx.needs_input_grad[2:7]
        grads = early.take(ctx, dkl)
        if grads is None:
            bwd = dispatch.backward_kernel(ctx.backend, "gaussian_kl_bwd", dkl)
            grads = bwd(dkl, *ctx.saved_tensors, *ctx.options, *needs)
        return (None, None, *dispatch.asked(needs, grads), None)


@public
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
    backend: str | None = None,
) -> Tensor:
    """KL(N(μ, σ²) ‖ N(μp, σp²)) of diagonal Gaussians, in nats; by default to N(0, I). Never negative.

    Σ ½((μ − μp)²/σp² + σ²/σp² − 1 − log(σ²/σp²)) over the event dims, accurate where σ is near σp too.

    Args:
        mu, logvar: mean and log σ² (or what ``param`` says), broadcast against each other.
        prior_mu, prior_logvar: the prior's: tensors, numbers, or None for mean 0 and σp = 1. ``param``,
            ``param_eps`` and ``bounds`` hold for ``prior_logvar`` as for ``logvar``.
        free_bits: λ: every element's KL counts as max(KL, λ), with no gradient where KL ≤ λ.
        event_ndim: how many trailing dims of the broadcast shape make one latent vector; 0 for elementwise.
        weight: broadcast against the elements (of shape [B, 1] for one weight a datum): Σ w·KL. An element of
            weight 0 contributes 0 and gets gradient 0 whatever its value. Its own gradient is the element's term,
            max(KL, λ); at weight 0 too, where it is that of the operands as they are.
        reduction: "none" gives one number a datum, "sum" and "mean" run over all data.
        scale: multiplies the result.
        param, param_eps, bounds, backend: as ``rsample``.

    Returns:
        The data dims ("none") or a 0-d tensor; float64 where the arguments promote to it, else float32.

    Raises:
        TypeError: arguments of a complex, integer, quantised or sparse kind; DTensors mixed with plain tensors.
        ValueError: shapes that do not broadcast, an ``event_ndim`` larger than the number of dims, tensors on
            different devices, an unknown ``param`` or ``reduction``.
        RuntimeError: a named backend that cannot serve the call.

    Source: Kingma and Welling, "Auto-Encoding Variational Bayes" (2014), appendix B; free bits: Kingma et al.
    (2016), eq. 15, per latent and datum.
    """
    if prior_mu is None and prior_logvar is None and weight is None and dispatch.uniform(mu, logvar):
        shape, in_the_open, arithmetic = tuple(mu.shape), False, mu.dtype
    else:
        mu, logvar = arguments.floating("mu", mu), arguments.floating_or_number("logvar", logvar)
        if prior_mu is not None:
            prior_mu = arguments.floating_or_number("prior_mu", prior_mu)
        if prior_logvar is not None:
            prior_logvar = arguments.floating_or_number("prior_logvar", prior_logvar)
        weight = arguments.weights(weight)
        others = {"logvar": logvar, "prior_mu": prior_mu, "prior_logvar": prior_logvar, "weight": weight}
        in_the_open = dispatch.in_the_open(mu=mu, **others)
        arguments.same_device("mu", mu, **others)
        shape = arguments.broadcast_shape("mu", mu.shape, **others)
        parameters = (mu, logvar, prior_mu, prior_logvar)
        arithmetic = arithmetic_dtype(promoted_dtype(*parameters), *parameters, weight)
    arguments.event_dims(event_ndim, shape, "mu, logvar, the prior and weight")
    free = None if free_bits is None else arguments.number("free_bits", free_bits)
    form = arguments.scale_form(param, param_eps, bounds)
    name = choose("gaussian_kl", mu.device, backend, mu.numel())
    density = (event_ndim, arguments.reduction_code(reduction), arguments.number("scale", scale))
    operands, options = (mu, logvar, prior_mu, prior_logvar, weight), (*density, free, *form)
    if in_the_open or not dispatch.differentiable(*operands):
        fwd = kernel("reference" if in_the_open else name, "gaussian_kl_fwd")
        return fwd(*operands, *options, False, False, False, False)[0]
    in_forward = early.wanted(name, density[1], arithmetic, weight, *operands[:4])
    return _GaussianKL.apply(name, in_forward, *dispatch.distinct(operands), options)
