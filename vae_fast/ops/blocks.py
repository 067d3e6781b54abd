"""What operators that work a few pairs or rows at a time share: weights of data, reductions, whole tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from vae_fast import tracing
from vae_fast.ops import arguments
from vae_fast.ops.arguments import Reduction


def whole(backend: str, composite: bool) -> bool:
    """Whether a call is made of PyTorch's operations on whole tables.

    Where a transform has to see these, which ``composite`` says; in a graph of operators, which has no node with a
    gradient of ours; and compiled from the reference, whose loop over blocks a compiler would unroll.
    """
    if composite or not tracing.traced():
        return composite
    return backend == "reference" or tracing.graph() or tracing.to_onnx()


def gradients(
    function: Callable[[], Sequence[Tensor]],
    tensors: Sequence[Tensor],
    needs: Sequence[bool],
    upstream: Sequence[Tensor | None],
) -> tuple[Tensor | None, ...]:
    """The gradients of ``function()`` by the tensors, None where none is needed; they can be differentiated."""
    with torch.enable_grad():
        given = [(out, grad) for out, grad in zip(function(), upstream, strict=True) if grad is not None]
        wanted = [t for t, need in zip(tensors, needs, strict=True) if need]
        outs, grads = [out for out, _ in given], [grad for _, grad in given]
        found = iter(torch.autograd.grad(outs, wanted, grads, create_graph=True))
    return tuple(next(found) if need else None for need in needs)


def weight_of_data(weight: Any, data: tuple[int, ...], name: str, operand: Tensor) -> Tensor | None:
    """A weight a datum, checked against an operand by its name; without a gradient."""
    found = arguments.weights("weight", weight)
    if found is None:
        return None
    arguments.same_device(name, operand, weight=found)
    if arguments.broadcast_shape("the data", data, weight=found) != data:
        raise ValueError(f"weight must broadcast to the data's shape {data}, got {tuple(found.shape)}")
    return found.detach()


def weighted(values: Tensor, weight: Tensor | None) -> Tensor:
    """Values, one a datum, times its weight: where that is 0 neither a value nor a gradient, whatever they were."""
    return values if weight is None else torch.where(weight == 0, 0.0, values) * weight.to(values.dtype)


def reduced(result: Tensor, reduction: Reduction, scale: float) -> Tensor:
    """A value a datum, or their sum or mean, summed in float64; times ``scale``."""
    if reduction == "none":
        return result * scale if scale != 1.0 else result
    total = result.sum(dtype=torch.float64)
    return (total * (scale if reduction == "sum" else scale / result.numel())).to(result.dtype)
