"""What the operators share: compute dtype, masks, reductions, and gradients in their arguments' shapes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from vae_fast import tracing
from vae_fast.operators import OPERATORS, REDUCTIONS, Wanted

NONE, SUM, MEAN = REDUCTIONS.values()


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype that sums over ``dtype`` come out in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def is_number(value: Tensor) -> bool:
    """Whether a tensor stands for a Python number: 0-d, float64, on the CPU."""
    return value.ndim == 0 and value.dtype == torch.float64 and value.device.type == "cpu"


def promoted_dtype(first: Tensor, *others: Tensor | None) -> torch.dtype:
    """What the parameters of a distribution promote to, by PyTorch's rule.

    0-d tensors do not promote ones with dims; numbers take no part, unless the first is one.
    """
    tensors = [first, *(t for t in others if t is not None and not is_number(t))]
    ranked = [t for t in tensors if t.ndim > 0] or tensors
    dtype = ranked[0].dtype
    for t in ranked:
        if t.dtype != dtype:
            dtype = torch.promote_types(dtype, t.dtype)
    return dtype


def arithmetic_dtype(promoted: torch.dtype, *others: Tensor | None) -> torch.dtype:
    """The dtype an operator computes in.

    float64 where its parameters promote to it, or where another operand with dims has it: so none is rounded.
    """
    for t in others:
        if t is not None and t.ndim > 0 and t.dtype == torch.float64:
            return torch.float64
    return compute_dtype(promoted)


def dtypes(parameters: tuple[Tensor, ...], *others: Tensor | None) -> tuple[torch.dtype, torch.dtype]:
    """The dtype that an operator computes in, and that of its sums."""
    promoted = promoted_dtype(*parameters)
    return arithmetic_dtype(promoted, *parameters, *others), compute_dtype(promoted)


def masked(op: str, mask: Tensor | None, operands: Sequence[Tensor | None], dtype: torch.dtype) -> list[Any]:
    """An operator's operands in ``dtype``, where the mask is 0 what the table has as neutral.

    So neither value nor gradient escapes from there.
    """
    values = [t if t is None else t.to(dtype) for t in operands]
    if mask is None:
        return values
    pairs = zip(values, OPERATORS[op].operands, strict=False)
    return [t if t is None else torch.where(mask == 0, operand.neutral, t) for t, operand in pairs]


class _Weighted(torch.autograd.Function):
    """w·value, 0 where w is 0; its slope by w is ``real``, the value of the operands as they are."""

    generate_vmap_rule = True

    @staticmethod
    def forward(value: Tensor, weight: Tensor, real: Tensor) -> Tensor:
        return torch.where(weight == 0, 0.0, value * weight)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        value, weight, real = ctx.saved_tensors
        return torch.where(weight == 0, 0.0, grad * weight), grad * real, None

    @staticmethod
    def jvp(ctx: Any, dvalue: Tensor | None, dweight: Tensor | None, dreal: Tensor | None) -> Tensor:
        value, weight, real = ctx.saved_tensors
        by_value = torch.zeros_like(value) if dvalue is None else torch.where(weight == 0, 0.0, dvalue * weight)
        return by_value if dweight is None else by_value + dweight * real


def _differentiated(weight: Tensor) -> bool:
    """Whether a derivative by the weight may be wanted of these very operations."""
    if torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0:
        return True
    return weight.requires_grad and torch.is_grad_enabled()


def weighted(weight: Tensor | None, of: Callable[[Tensor | None], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """w·value for each value of ``of(mask)``, which leaves out what the mask says; 0 where w is 0.

    Where a derivative by w may be wanted, it is the value of the real operands, at w = 0 too.
    """
    if weight is None:
        return of(None)
    values = of(weight)
    if not _differentiated(weight):
        return tuple(torch.where(weight == 0, 0.0, v * weight.to(v.dtype)) for v in values)
    shape = torch.broadcast_shapes(weight.shape, *(v.shape for v in values))
    return tuple(
        _Weighted.apply(v.expand(shape), weight.to(v.dtype).expand(shape), real.expand(shape))
        for v, real in zip(values, of(None), strict=True)
    )


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


def reduce(term: Tensor, event_ndim: int, reduction: int, scale: float) -> Tensor:
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


def upstream(dout: Tensor, shape: Sequence[int], options: Any) -> Tensor:
    """The gradient that reaches the weighted term of every element of ``shape``."""
    g = dout if options.scale == 1.0 else dout * options.scale
    if options.reduction == NONE:
        g = g.reshape((*g.shape, *(1,) * options.event_ndim))
    elif options.reduction == MEAN:
        g = g / math.prod(shape[: len(shape) - options.event_ndim])
    return g.expand(shape)


def grad_like(needed: bool, like: Tensor | None, value: Tensor | None) -> Tensor | None:
    """``value`` summed to the shape of the argument it belongs to, in that argument's dtype; None if not needed."""
    if not needed or like is None or value is None:
        return None
    if like.numel() == 1:
        return total(value).reshape(like.shape).to(like.dtype)
    return value.sum_to_size(like.shape).to(like.dtype)


def gradients(
    wanted: Wanted, operands: Sequence[Tensor | None], values: Sequence[Tensor | None]
) -> tuple[Tensor | None, ...]:
    """The gradients that are wanted, of values an element; of the halves of ``packed`` its own, and None."""
    triples = zip(wanted.needs, operands, values, strict=True)
    grads = tuple(grad_like(need, like, value) for need, like, value in triples)
    if wanted.packed is None:
        return grads
    first, second, *others = grads
    assert first is not None and second is not None
    return (torch.cat([first, second], wanted.packed_dim), None, *others)


def with_gradients(
    value: Tensor, backward: Callable[..., Any], operands: Sequence[Tensor | None], options: Any, wanted: Wanted
) -> tuple[Tensor | None, ...]:
    """A density's value, and its gradients for an upstream gradient of 1: of all operands but the weight."""
    if not any(wanted.needs):
        return (value, *(None for _ in wanted.needs))
    *grads, _ = backward(torch.ones_like(value), *operands, options, Wanted((*wanted.needs, False)))
    return (value, *grads)


def broadcast_shape(*tensors: Tensor | None) -> torch.Size:
    return torch.broadcast_shapes(*(t.shape for t in tensors if t is not None))
