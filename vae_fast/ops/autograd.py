"""The two autograd.Functions behind all operators: they save operands and options only, and compute gradients anew.

Their tensors are the operator's operands. Or, with a ``dim``, the first tensor is one whose halves along it are the
first two operands, and its gradient is made in one buffer (packed.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vae_fast.backends import kernel
from vae_fast.operators import OPERATORS, Operator
from vae_fast.ops import dispatch, early
from vae_fast.ops.noise_source import Drawn

# What a call is beside its tensors: operator, backend, dim, options. One argument, since each costs.
Call = tuple[str, str, int | None, Any]

# The operators, and beside each that of common calls.
_ALL = OPERATORS | {f"{name}_common": made.common for name, made in OPERATORS.items() if made.common is not None}
_compiling, _SymInt = torch.compiler.is_compiling, torch.SymInt
# The raw operators' names, which take longer to put together than to look up.
_FWD = {name: operator.forward.name for name, operator in _ALL.items()}
_BWD = {name: operator.backward.name for name, operator in _ALL.items() if operator.backward is not None}
_VALUE_ALONE = {name: (False,) * len(operator.differentiable_in_forward) for name, operator in _ALL.items()}
# Of the operators that have operands without a gradient, which have one.
_DIFFERENTIABLE = {
    name: tuple(operand.differentiable for operand in operator.operands)
    for name, operator in _ALL.items()
    if not all(operand.differentiable for operand in operator.operands)
}


class _Common(NamedTuple):
    """What makes a call of an operator a common one: as many operands, and these options' defaults."""

    op: str
    operands: int
    defaults: Any
    rare: Any
    kept: Any
    # Place and default of each rare one, and the places of those kept, for compilers: their traces call no
    # itemgetter that they have not seen being made, and those of torch 2.11 compare no tuples of unequal tuples.
    rare_ones: tuple[tuple[Any, Any], ...]
    kept_ones: tuple[int, ...]
    # Of the rare ones those that a trace may hold as symbols: no graph is bound to what they are not.
    symbols: tuple[int, ...]

    @classmethod
    def of(cls, operator: Operator, common: Operator) -> _Common:
        kept = tuple(k for k, option in enumerate(operator.options) if option.common)
        rare = tuple((k, option.default) for k, option in enumerate(operator.options) if not option.common)
        # An operator may have none.
        places: list[Any] = [k for k, _ in rare] or [slice(0)]
        of_rare = itemgetter(*places)
        defaults = of_rare(tuple(option.default for option in operator.options))
        name = f"{operator.name}_{common.overload}"
        symbols = tuple(k for k, o in enumerate(operator.options) if o.type == "SymInt" and not o.common)
        return cls(name, len(common.operands), defaults, of_rare, itemgetter(*kept), rare, kept, symbols)


_COMMON = {name: _Common.of(made, made.common) for name, made in OPERATORS.items() if made.common is not None}


def _constant(op: str) -> Any:
    """The same for a compiler, which would ask at every call whether each number that it read is what it was."""
    return tuple(None if isinstance(part, itemgetter) else part for part in _COMMON[op])


# What torch.compiler.assume_constant_result does once it has imported all of torch._dynamo.
_constant._dynamo_marked_constant = True  # type: ignore[attr-defined]


class Density(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, call: Call, in_forward: bool, *tensors: Any) -> Any:
        ctx.save_for_backward(*tensors)
        ctx.call = call
        op, backend, dim, options = call
        operands = tensors if dim is None else _halves(tensors, dim)
        needs: Sequence[bool] = _VALUE_ALONE[op]
        if in_forward:
            needs = _needs(op, ctx)[: len(needs)]  # not the weight's
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
    if type(options) is tuple:
        seed, _, *others = options
        return (seed, seed_tensor, *others)
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
    if isinstance(grads, Tensor):
        grads = (grads,)
    # Gradients of a forward pass have a None for the weight, which a common call has not.
    wanted = [grad if need else None for need, grad in zip(needs, grads, strict=False)]
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


def call(
    op: str, backend: str, operands: Sequence[Any], options: Any, dim: int | None = None, noise: Any = None
) -> tuple[Call, Sequence[Any]]:
    """A call and its tensors; of a common one, which the native backend has an overload for, those that are there.

    The options of a common one are a plain tuple. ``noise`` is the caller's ε, which the options have not.
    """
    if backend == "native" and noise is None:
        made = _constant(op) if _compiling() else _COMMON[op]
        name, count, defaults, rare, kept, rare_ones, kept_ones, symbols = made
        present = [t for t in operands if t is not None]
        if len(present) == (count if dim is None else count - 1):
            for k in symbols:
                if isinstance(options[k], _SymInt):
                    return (op, backend, dim, options), operands
            if _compiling():
                kept = itemgetter(*kept_ones)
                common = all([options[k] == default for k, default in rare_ones])
            else:
                common = rare(options) == defaults
            if common:
                return (name, backend, dim, kept(options)), present
    return (op, backend, dim, options), operands


def density(
    op: str, backend: str, operands: Sequence[Any], options: Any, composite: bool, arithmetic: torch.dtype
) -> Any:
    """A density of checked operands (arguments.py), the weight the last of them, on a backend."""
    differentiable = not composite and dispatch.differentiable(*operands)
    in_forward = differentiable and early.wanted(op, backend, options, arithmetic, operands)
    called, operands = call(op, "reference" if composite else backend, operands, options)
    if differentiable:
        return Density.apply(called, in_forward, *dispatch.distinct(operands))
    op, backend, _, options = called
    return kernel(backend, _FWD[op])(*operands, *options, *_VALUE_ALONE[op])[0]


def draw(op: str, backend: str, operands: Sequence[Any], options: Any, composite: bool, drawn: Drawn) -> Any:
    """A sampler's results of checked operands; ``drawn`` has what the options have not, their tensors."""
    tensors = (drawn.seed_tensor, drawn.noise)
    differentiable = not composite and dispatch.differentiable(*operands)
    called, operands = call(op, "reference" if composite else backend, operands, options, noise=drawn.noise)
    if differentiable:
        return Draw.apply(called, *dispatch.distinct((*tensors, *operands)))
    op, backend, _, options = called
    return kernel(backend, _FWD[op])(*operands, *_drawing(options, *tensors))
