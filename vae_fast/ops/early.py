"""Gradients that a forward pass makes while the data is at hand, for an upstream gradient of 1."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from vae_fast import front, tracing
from vae_fast.backends import kernel
from vae_fast.operators import OPERATORS
from vae_fast.ops import dispatch
from vae_fast.reference.densities import NONE

ENVIRONMENT_VARIABLE = "VAE_FAST_EARLY_GRADIENTS"

# Backends whose forward kernels give gradients at hardly any cost beside the values.
BACKENDS = ("native", "triton")
_EXACT = (torch.float32, torch.float64)
# Those whose backward kernels scale gradients that were rounded, or make them anew, element by element. To native
# ones the compiled front alone hands them over (csrc/front/call.cpp).
_SCALING = ("triton",)

_WORDS = {"": True, "1": True, "true": True, "on": True, "0": False, "false": False, "off": False}
# None: the environment's value is read at the first call that asks, so that importing never fails.
_allowed: bool | None = None


def _from_environment() -> bool:
    word = os.environ.get(ENVIRONMENT_VARIABLE, "")
    if word.lower() not in _WORDS:
        raise ValueError(f"{ENVIRONMENT_VARIABLE} must be 0 or 1, got {word!r}")
    return _WORDS[word.lower()]


def _set(allowed: bool | None) -> None:
    global _allowed
    _allowed = allowed
    front.state.early = -1 if allowed is None else int(allowed)


class early_gradients:
    """Whether later calls, or those in a ``with`` block, may keep gradients that their forward pass made.

    With ``reduction="sum"`` and ``"mean"`` the native and triton backends write the gradients while the data is at
    hand, which saves the backward pass a reading of every operand. Until that backward pass each differentiable
    operand then has a buffer of its size beside it: 12 MB of operands are 24 MB held. ``early_gradients(False)``
    leaves exactly what PyTorch's own operations would hold, the operands; gradients are then made in the backward
    pass. While saved-tensor hooks are active (activation checkpointing, ``save_on_cpu``) it is so in any case.

    An upstream gradient other than 1 multiplies them. Those of bfloat16, which are rounded by then, are made anew
    where it is not ±2ⁿ, or would take them out of bfloat16's normal numbers: so they are what a backward pass makes
    without any being kept. A factor costs least as the operator's own ``scale=``. float16's are never kept, for a
    gradient scaler is there to save what its numbers cannot hold; nor are bfloat16's of a call some of whose
    gradients are summed over a broadcast dim, or a softmax's.

    The setting is the process's; the environment variable VAE_FAST_EARLY_GRADIENTS, 0 or 1, sets its start value.

    Args:
        allowed: True, as the process starts, or False.

    Returns:
        A context manager, which at the end of its ``with`` block makes the setting what it was before. Without a
        block it stays.

    Raises:
        TypeError: ``allowed`` is no bool.

    Example:
        >>> mu = torch.ones(64, 20, requires_grad=True)
        >>> with vae_fast.early_gradients(False):
        ...     vae_fast.gaussian_kl(mu, 0.0, reduction="sum").backward()
        >>> mu.grad[0, 0]
        tensor(1.)
    """

    def __init__(self, allowed: bool) -> None:
        if not isinstance(allowed, bool):
            raise TypeError(f"early_gradients takes True or False, got {allowed!r}")
        self.allowed, self.previous = allowed, _allowed
        _set(allowed)

    def __enter__(self) -> early_gradients:
        _set(self.allowed)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        _set(self.previous)


def allowed() -> bool:
    """Whether a forward pass may make and keep gradients, of whatever operands.

    Not in a graph, where scaling is a pass that recomputing saves, nor under a dispatch mode, whose tensors may
    have no values; and not while hooks decide where what is saved lies, which would not see them.
    """
    if tracing.traced():
        return False
    if _allowed is None:
        _set(_from_environment())
    return bool(_allowed) and torch._C._autograd._top_saved_tensors_default_hooks(True) is None


def wanted(op: str, backend: str, options: Any, arithmetic: torch.dtype, operands: Sequence[Any]) -> bool:
    """Whether the forward pass of a call computes its gradients too, where that is ``allowed``.

    For a reduction to one number only, whose upstream gradient then scales them. Not where a gradient is of a
    narrower type than the arithmetic: scaling what is rounded loses accuracy, unless it is bfloat16's and a kernel
    looks; nor where the weight has one, which forward kernels do not give.
    """
    if options.reduction == NONE or backend not in BACKENDS or not allowed():
        return False
    weight = operands[-1]
    if weight is not None and weight.requires_grad:
        return False
    rounded = False
    for t in operands:
        if t is None or not t.requires_grad:
            continue
        if t.dtype is torch.bfloat16 and arithmetic is not torch.float64:
            rounded = True
        elif t.dtype not in _EXACT or t.dtype.itemsize < arithmetic.itemsize:
            return False
    return not rounded or (backend in _SCALING and _of_all_elements(op, options, operands))


def _of_all_elements(op: str, options: Any, operands: Sequence[Any]) -> bool:
    """Whether each gradient is of bfloat16 or float32, of all of the call's elements, and its kernel's own."""
    softmax = OPERATORS[op].softmax
    if softmax >= 0 and options.param == softmax:
        return False
    device, shape = operands[0].device, torch.broadcast_shapes(*[t.shape for t in operands if t is not None])
    return all(
        t.shape == shape and t.dtype is not torch.float64 and t.device == device
        for t in operands
        if t is not None and t.requires_grad
    )


def keep(ctx: Any, grads: Sequence[Tensor] | None) -> None:
    """Keeps the gradients of the forward pass for the first backward pass, which takes them out."""
    ctx.early = [] if grads is None else [grads]


def take(ctx: Any, upstream: Tensor) -> Sequence[Tensor] | None:
    """The forward's gradients, once. None where there are none, or a graph of them, or a batch, is wanted."""
    if not ctx.early or torch.is_grad_enabled() or tracing.traced() or dispatch.batched(upstream):
        return None
    try:
        grads: Sequence[Tensor] = ctx.early.pop()
    except IndexError:
        return None
    return grads


def are_rounded(grads: Sequence[Tensor]) -> bool:
    """Whether some are of a narrower type than the arithmetic; one that was not asked for has no elements."""
    return any([grad.dtype is torch.bfloat16 and grad.numel() for grad in grads])


def scaled(grads: Sequence[Tensor], backend: str, upstream: Tensor) -> Sequence[Tensor | None] | None:
    """Gradients times ``upstream``, in place, and None for the weight's.

    None where they are rounded, and for an upstream gradient that is not finite, which must not turn the zeros of
    masked or clamped elements into NaN.
    """
    if are_rounded(grads):
        return None
    if upstream.device.type != "cpu":
        # On the device: to look at the factor here would wait for it.
        kernel(backend, "rescale")([g for g in grads if g.device == upstream.device], upstream)
        for grad in grads:
            if grad.device != upstream.device:
                # Of a 0-d tensor on the CPU, whose gradient is there too.
                grad.mul_(upstream.to(grad.device))
        return (*grads, None)
    factor = upstream.item()
    if not math.isfinite(factor):
        return None
    if factor != 1.0:
        for grad in grads:
            grad.mul_(factor)
    return (*grads, None)
