"""The Bernoulli log-likelihood of data under logits or probabilities, and its gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vae_fast.backends import choose, kernel
from vae_fast.ops import arguments, dispatch, early
from vae_fast.ops.arguments import BernoulliParam, Reduction
from vae_fast.reference.bernoulli_log_prob import PROBS
from vae_fast.reference.densities import arithmetic_dtype
from vae_fast.tracing import public


class _BernoulliLogProb(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, backend: str, in_forward: bool, logits: Any, x: Any, weight: Any, options: Any) -> Any:
        ctx.save_for_backward(logits, x, weight)
        ctx.backend, ctx.options = backend, options
        needs = ctx.needs_input_grad[2:4] if in_forward else (False, False)
        log_prob, *grads = kernel(backend, "bernoulli_log_prob_fwd")(logits, x, weight, *options, *needs)
        early.keep(ctx, grads if in_forward else None)
        return log_prob

    @staticmethod
    def backward(ctx: Any, dlog_prob: Any) -> Any:
        needs = ctx.needs_input_grad[2:5]
        grads = early.take(ctx, dlog_prob)
        if grads is None:
            bwd = dispatch.backward_kernel(ctx.backend, "bernoulli_log_prob_bwd", dlog_prob)
            grads = bwd(dlog_prob, *ctx.saved_tensors, *ctx.options, *needs)
        return (None, None, *dispatch.asked(needs, grads), None)


def _within(name: str, values: Tensor) -> None:
    if not bool(((values >= 0) & (values <= 1)).all()):
        raise ValueError(f"{name} has values outside [0, 1]")


@public
def bernoulli_log_prob(
    logits: Tensor,
    x: Tensor,
    *,
    x_scale: float = 1.0,
    event_ndim: int = 1,
    weight: Tensor | float | None = None,
    reduction: Reduction = "none",
    scale: float = 1.0,
    param: BernoulliParam = "logits",
    validate: bool = False,
    backend: str | None = None,
) -> Tensor:
    """log p(x|z) of independent Bernoulli variables given by their logits y or their probabilities p, in nats.

    Σ t·log σ(y) + (1 − t)·log(1 − σ(y)) over the event dims, t = x·x_scale, σ the logistic function; evaluated
    without cancellation, so that neither value nor gradient (t − σ(y)) is lost for large |y|.

    With ``param="probs"``, Σ t·max(log p, −100) + (1 − t)·max(log(1 − p), −100), as F.binary_cross_entropy has it,
    and its gradient by p, (t − p)/max(p(1 − p), 1e-12); that by t is the difference of the two clamped logarithms.
    A float p holds far less of a small 1 − p than logits do: prefer these where there is a choice.

    Args:
        logits: y; with ``param="probs"`` p.
        x: targets, broadcast against ``logits`` and they against it: floats in [0, 1], bool, or uint8. Where they
            differ in their number of dims, one of the two must have the shape of both together.
        x_scale: multiplies x: 1/255 for bytes of 0 to 255.
        event_ndim, weight, reduction, scale: as ``gaussian_kl``. ``scale=-1`` makes it a loss.
        param: what the first operand is: "logits" or "probs".
        validate: raises ValueError where t, or p, is outside [0, 1] or NaN, at the cost of a pass over x (and p)
            and, on a GPU, a synchronisation. Without it the formula is continued for t outside, and the value is
            NaN for p outside.
        backend: as ``rsample``.

    Returns:
        The data dims ("none") or a 0-d tensor; float64 for float64 logits, else float32. Logits of ±∞ give 0
        with the matching target and −∞ with the other; a p of 0 or 1 gives 0 and −100.

    Raises:
        TypeError: logits of a complex, integer, quantised or sparse kind; x of int8 to int64.
        otherwise as ``gaussian_kl``.

    Source: Kingma and Welling, "Auto-Encoding Variational Bayes" (2014), eq. 11 in appendix C.
    """
    if weight is None and dispatch.uniform(logits, x):
        shape, in_the_open = tuple(logits.shape), False
        arithmetic = logits.dtype
    else:
        logits, x = arguments.floating("logits", logits), arguments.target("x", x)
        weight = arguments.weights(weight)
        in_the_open = dispatch.in_the_open(logits=logits, x=x, weight=weight)
        arguments.same_device("logits", logits, x=x, weight=weight)
        shape = arguments.broadcast_shape("logits", logits.shape, x=x, weight=weight)
        arguments.target_fits("logits", logits.shape, x)
        arithmetic = arithmetic_dtype(logits.dtype, x, weight)
    arguments.event_dims(event_ndim, shape, "logits, x and weight")
    x_scale, code = arguments.number("x_scale", x_scale), arguments.bernoulli_code(param)
    if validate:
        _within("x * x_scale", x.detach().double() * x_scale)
        if code == PROBS:
            _within("logits, given as probabilities,", logits.detach())
    name = choose("bernoulli_log_prob", logits.device, backend, logits.numel())
    density = (event_ndim, arguments.reduction_code(reduction), arguments.number("scale", scale))
    operands, options = (logits, x, weight), (*density, x_scale, code)
    if in_the_open or not dispatch.differentiable(*operands):
        return kernel("reference" if in_the_open else name, "bernoulli_log_prob_fwd")(
            *operands, *options, False, False
        )[0]
    in_forward = early.wanted(name, density[1], arithmetic, weight, logits, x)
    return _BernoulliLogProb.apply(name, in_forward, *dispatch.distinct(operands), options)
