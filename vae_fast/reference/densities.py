"""What the operators share: compute dtype, masks, reductions, and gradients in their arguments' shapes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

NONE, SUM, MEAN = range(3)
REDUCTIONS = {"none": NONE, "sum": SUM, "mean": MEAN}


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype arithmetic on ``dtype`` is done in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def unmasked(weight: Tensor | None, value: Tensor, neutral: float = 0.0) -> Tensor:
    """``value``, with a harmless number where the weight is 0, so that neither value nor gradient escapes."""
    return value if weight is None else torch.where(weight == 0, neutral, value)


def reduce(term: Tensor, weight: Tensor | None, event_ndim: int, reduction: int, scale: float) -> Tensor:
    if weight is not None:
        term = term * weight.to(term.dtype)
    if reduction == NONE:
        total = term.sum(tuple(range(-event_ndim, 0))) if event_ndim else term
    else:
        total = term.sum()
        if reduction == MEAN:
            total = total / math.prod(term.shape[: term.ndim - event_ndim])
    return total if scale == 1.0 else total * scale


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
    return value.sum_to_size(like.shape).to(like.dtype)


def broadcast_shape(*tensors: Tensor | None) -> torch.Size:
    return torch.broadcast_shapes(*(t.shape for t in tensors if t is not None))
