"""The diagonal-Gaussian log-likelihood of data, and its gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vae_fast.backends import choose, kernel
from vae_fast.ops import arguments, dispatch, early
from vae_fast.ops.arguments import Bounds, Param, Reduction
from vae_fast.reference.densities import arithmetic_dtype, promoted_dtype
from vae_fast.tracing import public


class _GaussianLogProb(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, backend: str, in_forward: bool, mean: Any, logvar: Any, x: Any, weight: Any, options: Any
    ) -> Any:
        ctx.save_for_backward(mean, logvar, x, weight)
        ctx.backend, ctx.options = backend, options
        needs = ctx.needs_input_grad[2:5] if in_forward else (False, False, False)
        log_prob, *grads = kernel(backend, "gaussian_log_prob_fwd")(mean, logvar, x, weight, *options, *needs)
        early.keep(ctx, grads if in_forward else None)
        return log_prob

    @staticmethod
    def backward(ctx: Any, dlog_prob: Any) -> Any:
        needs = ctx.needs_input_grad[2:6]
        grads = early.take(ctx, dlog_prob)
        if grads is None:
            bwd = dispatch.backward_kernel(ctx.backend, "gaussian_log_prob_bwd", dlog_prob)
            grads = bwd(dlog_prob, *ctx.saved_tensors, *ctx.options, *needs)
        return (None, None, *dispatch.asked(needs, grads), None)


@public
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
    backend: str | None = None,
) -> Tensor:
    """log p(x|z) of a Gaussian with diagonal covariance, in nats, constants included.

    −½ Σ (log σ² + ((t − m)/σ)² + log 2π) over the event dims, t = x·x_scale. No variance is clamped unless
    ``bounds`` says so; t = m contributes 0 to the square whatever σ.

    Args:
        mean: m.
        logvar: log σ² (or what ``param`` says): for every element, every feature ([D]), every datum ([B, 1]),
            a 0-d tensor or a number. Its gradient has its own shape.
        x: data, broadcast against mean and logvar and they against it: floats, bool, or uint8. Where they differ in
            their number of dims, one of the two must have the shape of both together.
        x_scale: multiplies x: 1/255 for bytes of 0 to 255.
        event_ndim, weight, reduction, scale: as ``gaussian_kl``. ``scale=-1`` makes it a loss.
        param, param_eps, bounds, backend: as ``rsample``.

    Returns:
        The data dims ("none") or a 0-d tensor; float64 where mean and logvar promote to it, else float32.

    Raises:
        TypeError: mean or logvar of a complex, integer, quantised or sparse kind; x of int8 to int64.
        otherwise as ``gaussian_kl``.

    Source: Kingma and Welling, "Auto-Encoding Variational Bayes" (2014), eq. 12 in appendix C.
    """
    if weight is None and dispatch.uniform(mean, logvar, x):
        shape, in_the_open, arithmetic = tuple(mean.shape), False, mean.dtype
    else:
        mean, logvar = arguments.floating("mean", mean), arguments.floating_or_number("logvar", logvar)
        x, weight = arguments.target("x", x), arguments.weights(weight)
        in_the_open = dispatch.in_the_open(mean=mean, logvar=logvar, x=x, weight=weight)
        arguments.same_device("mean", mean, logvar=logvar, x=x, weight=weight)
        shape = arguments.broadcast_shape("mean", mean.shape, logvar=logvar, x=x, weight=weight)
        arguments.target_fits("mean and logvar", torch.broadcast_shapes(mean.shape, logvar.shape), x)
        arithmetic = arithmetic_dtype(promoted_dtype(mean, logvar), mean, logvar, x, weight)
    arguments.event_dims(event_ndim, shape, "mean, logvar, x and weight")
    form = arguments.scale_form(param, param_eps, bounds)
    name = choose("gaussian_log_prob", mean.device, backend, mean.numel())
    density = (event_ndim, arguments.reduction_code(reduction), arguments.number("scale", scale))
    operands, options = (mean, logvar, x, weight), (*density, arguments.number("x_scale", x_scale), *form)
    if in_the_open or not dispatch.differentiable(*operands):
        fwd = kernel("reference" if in_the_open else name, "gaussian_log_prob_fwd")
        return fwd(*operands, *options, False, False, False)[0]
    in_forward = early.wanted(name, density[1], arithmetic, weight, mean, logvar, x)
    return _GaussianLogProb.apply(name, in_forward, *dispatch.distinct(operands), options)
