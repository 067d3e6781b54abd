"""The two autograd.Functions behind all operators: they save operands and options only, and compute gradients anew.

Their tensors are the operator's operands. Or, with a ``dim``, the first tensor is one whose halves along it are the
first two operands, and its gradient is made in one buffer (packed.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vae_fast.backends import kernel
from vae_fast.operators import OPERATORS
from vae_fast.ops import dispatch, early
from vae_fast.ops.arguments import Operands

# The arguments before the tensors, as many for both, and their gradients.
_BEFORE = 5
_NONE = (None,) * _BEFORE
# No gradients in the forward pass.
_VALUE_ALONE = {name: (False,) * len(operator.differentiable_in_forward) for name, operator in OPERATORS.items()}


class Density(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, op: str, backend: str, in_forward: bool, dim: int | None, options: Any, *tensors: Any
    ) -> Any:
        ctx.save_for_backward(*tensors)
        ctx.op, ctx.backend, ctx.dim, ctx.options = op, backend, dim, options
        operands = tensors if dim is None else _halves(tensors, dim)
        needs = _VALUE_ALONE[op]
        if in_forward:
            *needs, _ = ctx.needs_input_grad[_BEFORE:]
        value, *grads = kernel(backend, f"{op}_fwd")(*operands, *options, *needs)
        early.keep(ctx, grads if in_forward else None)
        return value

    @staticmethod
    def backward(ctx: Any, upstream: Any) -> Any:
        grads = early.take(ctx, upstream)
        if grads is None:
            return (*_NONE, *_gradients(ctx, (upstream,), ctx.saved_tensors, ctx.options))
        return (*_NONE, *_wanted(ctx.needs_input_grad[_BEFORE:], grads))


class Draw(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, op: str, backend: str, dim: int | None, options: Any, seed_tensor: Any, *tensors: Any
    ) -> Any:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(seed_tensor, *tensors)
        ctx.op, ctx.backend, ctx.dim, ctx.options = op, backend, dim, options
        operands = tensors if dim is None else _halves(tensors, dim)
        return kernel(backend, f"{op}_fwd")(*operands, *_seeded(options, seed_tensor))

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> Any:
        seed_tensor, *tensors = ctx.saved_tensors
        if all(g is None for g in upstream):
            return (*_NONE, *(None for _ in tensors))
        return (*_NONE, *_gradients(ctx, upstream, tensors, _seeded(ctx.options, seed_tensor)))


def _seeded(options: Any, seed_tensor: Tensor | None) -> Any:
    """The options of a draw with the seed's tensor, which autograd saves by itself."""
    return options if seed_tensor is None else options._replace(seed_tensor=seed_tensor)


def _halves(tensors: Sequence[Any], dim: int) -> tuple[Any, ...]:
    moments, *others = tensors
    return (*moments.chunk(2, dim), *others)


def _wanted(needs: Sequence[bool], grads: Sequence[Tensor | None]) -> list[Tensor | None]:
    """The gradients that autograd asked for; what a kernel returns for the others is empty."""
    return [grad if need else None for need, grad in zip(needs, grads, strict=True)]


def _gradients(ctx: Any, upstream: Sequence[Any], tensors: Sequence[Any], options: Any) -> list[Tensor | None]:
    bwd = dispatch.backward_kernel(ctx.backend, f"{ctx.op}_bwd", *upstream)
    needs = ctx.needs_input_grad[_BEFORE:]
    if ctx.dim is None:
        return _wanted(needs, bwd(*upstream, *tensors, *options, *needs))
    need, *others = needs
    packed = tensors[0], ctx.dim
    both, _, *grads = bwd(*upstream, *_halves(tensors, ctx.dim), *options, need, need, *others, *packed)
    return [both, *_wanted(others, grads)]


def density(op: str, backend: str, operands: Operands, options: Any) -> Any:
    """A density of checked operands, the weight the last of them, on a backend."""
    tensors, composite = operands.tensors, operands.composite
    if composite or not dispatch.differentiable(*tensors):
        fwd = kernel("reference" if composite else backend, f"{op}_fwd")
        value, *_ = fwd(*tensors, *options, *_VALUE_ALONE[op])
        return value
    in_forward = early.wanted(backend, options.reduction, operands.arithmetic, tensors)
    return Density.apply(op, backend, in_forward, None, options, *dispatch.distinct(tensors))


def draw(op: str, backend: str, operands: Operands, options: Any, seed_tensor: Tensor | None) -> Any:
    """A sampler's results of checked operands; the options have the rest of the seed."""
    tensors, composite = operands.tensors, operands.composite
    if composite or not dispatch.differentiable(*tensors):
        fwd = kernel("reference" if composite else backend, f"{op}_fwd")
        return fwd(*tensors, *_seeded(options, seed_tensor))
    return Draw.apply(op, backend, None, options, *dispatch.distinct((seed_tensor, *tensors)))
