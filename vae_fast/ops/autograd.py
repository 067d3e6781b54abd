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
from vae_fast.ops.noise_source import Drawn

# What a call is beside its tensors: operator, backend, dim, options. One argument, since each costs.
Call = tuple[str, str, int | None, Any]

# The raw operators' names, which take longer to put together than to look up.
_FWD = {name: f"{name}_fwd" for name in OPERATORS}
_BWD = {name: f"{name}_bwd" for name in OPERATORS}
_VALUE_ALONE = {name: (False,) * len(operator.differentiable_in_forward) for name, operator in OPERATORS.items()}
# Of the operators that have operands without a gradient, which have one.
_DIFFERENTIABLE = {
    name: tuple(operand.differentiable for operand in operator.operands)
    for name, operator in OPERATORS.items()
    if not all(operand.differentiable for operand in operator.operands)
}


class Density(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, call: Call, in_forward: bool, *tensors: Any) -> Any:
        ctx.save_for_backward(*tensors)
        ctx.call = call
        op, backend, dim, options = call
        operands = tensors if dim is None else _halves(tensors, dim)
        needs: Sequence[bool] = _VALUE_ALONE[op]
        if in_forward:
            *needs, _ = _needs(op, ctx)
        value, *grads = kernel(backend, _FWD[op])(*operands, *options, *needs)
        early.keep(ctx, grads if in_forward else None)
        return value

    @staticmethod
    def backward(ctx: Any, upstream: Any) -> Any:
        op, backend, dim, options = ctx.call
        needs = _needs(op, ctx)
        kept = early.take(ctx, upstream)
        grads = None if kept is None else early.scaled(kept, backend, upstream)
        if grads is None:
            bwd = dispatch.backward_kernel(backend, _BWD[op], upstream)
            if dim is not None:
                return None, None, *_packed(bwd, (upstream,), ctx.saved_tensors, options, needs, dim)
            args = (upstream, *ctx.saved_tensors, *options, *needs)
            if kept is not None and early.are_rounded(kept):
                grads = kernel(backend, "with_kept")(kept, bwd, args)
            else:
                grads = bwd(*args)
        return None, None, *_wanted(op, needs, grads)


class Draw(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, call: Call, seed_tensor: Any, noise: Any, *tensors: Any) -> Any:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(seed_tensor, noise, *tensors)
        ctx.call = call
        op, backend, dim, options = call
        operands = tensors if dim is None else _halves(tensors, dim)
        return kernel(backend, _FWD[op])(*operands, *_drawing(options, seed_tensor, noise))

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> Any:
        op, backend, dim, options = ctx.call
        _, _, _, *needs = ctx.needs_input_grad
        if all(g is None for g in upstream):
            return None, None, None, *(None for _ in needs)
        seed_tensor, noise, *tensors = ctx.saved_tensors
        options = _drawing(options, seed_tensor, noise)
        bwd = dispatch.backward_kernel(backend, _BWD[op], *upstream)
        if dim is not None:
            return None, None, None, *_packed(bwd, upstream, tensors, options, needs, dim)
        return None, None, None, *_wanted(op, needs, bwd(*upstream, *tensors, *options, *needs))


def _drawing(options: Any, seed_tensor: Tensor | None, noise: Tensor | None) -> Any:
    """The options of a draw with their tensors, which autograd saves by itself."""
    if seed_tensor is None and noise is None:
        return options
    return options._replace(seed_tensor=seed_tensor, noise=noise)


def _halves(tensors: Sequence[Any], dim: int) -> tuple[Any, ...]:
    moments, *others = tensors
    return (*moments.chunk(2, dim), *others)


def _needs(op: str, ctx: Any) -> Sequence[bool]:
    """Which gradients autograd asks for, of the operands that can have one."""
    _, _, *needs = ctx.needs_input_grad
    if op in _DIFFERENTIABLE:
        return [need for need, can in zip(needs, _DIFFERENTIABLE[op], strict=True) if can]
    return needs


def _wanted(op: str, needs: Sequence[bool], grads: Sequence[Tensor | None]) -> list[Tensor | None]:
    """The gradients that autograd asked for, each in its operand's place; a kernel's others are empty."""
    wanted = [grad if need else None for need, grad in zip(needs, grads, strict=True)]
    if op in _DIFFERENTIABLE:
        rest = iter(wanted)
        return [next(rest) if can else None for can in _DIFFERENTIABLE[op]]
    return wanted


def _packed(
    bwd: Any, upstream: Sequence[Any], tensors: Sequence[Any], options: Any, needs: Sequence[bool], dim: int
) -> list[Tensor | None]:
    moments, *_ = tensors
    need, *others = needs
    both, _, *grads = bwd(*upstream, *_halves(tensors, dim), *options, need, need, *others, moments, dim)
    return [both, *(grad if need else None for need, grad in zip(others, grads, strict=True))]


def density(
    op: str, backend: str, operands: Sequence[Any], options: Any, composite: bool, arithmetic: torch.dtype
) -> Any:
    """A density of checked operands (arguments.py), the weight the last of them, on a backend."""
    if composite or not dispatch.differentiable(*operands):
        fwd = kernel("reference" if composite else backend, _FWD[op])
        return fwd(*operands, *options, *_VALUE_ALONE[op])[0]
    in_forward = early.wanted(op, backend, options, arithmetic, operands)
    return Density.apply((op, backend, None, options), in_forward, *dispatch.distinct(operands))


def draw(op: str, backend: str, operands: Sequence[Any], options: Any, composite: bool, drawn: Drawn) -> Any:
    """A sampler's results of checked operands; ``drawn`` has what the options have not, their tensors."""
    tensors = (drawn.seed_tensor, drawn.noise)
    if composite or not dispatch.differentiable(*operands):
        fwd = kernel("reference" if composite else backend, _FWD[op])
        return fwd(*operands, *_drawing(options, *tensors))
    return Draw.apply((op, backend, None, options), *dispatch.distinct((*tensors, *operands)))
