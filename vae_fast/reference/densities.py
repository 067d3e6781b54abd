"""What the operators share: compute dtype, masks, reductions, and gradients in their arguments' shapes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from vae_fast import tracing

NONE, SUM, MEAN = range(3)
REDUCTIONS = {"none": NONE, "sum": SUM, "mean": MEAN}


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype arithmetic on ``dtype`` is done in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def unmasked(weight: Tensor | None, value: Tensor, neutral: float = 0.0) -> Tensor:
    """``value``, with a harmless number where the weight is 0, so that neither value nor gradient escapes."""
    return value if weight is None else torch.where(weight == 0, neutral, value)


def total(value: Tensor) -> Tensor:
    """Σ of all elements, in an order that no number of threads changes.

    PyTorch splits a sum over threads only where its result is one element and it has 32768 elements or more, so
    a larger one is summed by rows of 4096 first. A compiler, or what else traces, sees a plain sum of any size.
    """
    if tracing.traced() or value.numel() < 32768:
        return value.sum()
    flat = value.reshape(-1)
    whole = flat.numel() - flat.numel() % 4096
    rows = flat[:whole].view(-1, 4096).sum(1)
    return total(torch.cat([rows, flat[whole:].sum().reshape(1)]))


def reduce(term: Tensor, weight: Tensor | None, event_ndim: int, reduction: int, scale: float) -> Tensor:
    if weight is not None:
        term = term * weight.to(term.dtype)
    data = term.shape[: term.ndim - event_ndim]
    n_data = math.prod(data)
    if reduction != NONE:
        result = total(term) / n_data if reduction == MEAN else total(term)
    elif event_ndim == 0:
        result = term
    elif n_data == 1:
        result = total(term).reshape(data)
    else:
        result = term.sum(tuple(range(-event_ndim, 0)))
    return result if scale == 1.0 else result * scale


def upstream(
    dout: Tensor, shape: Sequence[int], weight: Tensor | None, event_ndim: int, reduction: int, scale: float
) -> Tensor:
    """The gradient that reaches the term of every element of ``shape``."""
    g = dout if scale == 1.0 else dout * scale
    if reduction == NONE:
        g = g.reshape((*g.shape, *(1,) * event_ndim))
    elif reduction == MEAN:
        g = g / math.prod(shape[: len(shape) - event_ndim])
    return (g if weight is None else g * weight.to(g.dtype)).expand(shape)


def grad_like(needed: bool, like: Tensor | None, value: Tensor | None) -> Tensor | None:
    """``value`` summed to the shape of the argument it belongs to, in that argument's dtype; None if not needed."""
    if not needed or like is None or value is None:
        return None
    if like.numel() == 1:
        return total(value).reshape(like.shape).to(like.dtype)
    return value.sum_to_size(like.shape).to(like.dtype)


def together(
    dmu: Tensor | None, dlogvar: Tensor | None, packed: Tensor | None, packed_dim: int
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of mu and logvar; where those are the halves of ``packed``, its gradient and None."""
    if packed is None:
        return dmu, dlogvar
    assert dmu is not None and dlogvar is not None
    return torch.cat([dmu, dlogvar], packed_dim), None


def broadcast_shape(*tensors: Tensor | None) -> torch.Size:
    return torch.broadcast_shapes(*(t.shape for t in tensors if t is not None))
