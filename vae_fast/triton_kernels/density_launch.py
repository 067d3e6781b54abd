"""The launch of density.py's kernel: how a call is laid out, where results go, and what is left to do after it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import triton.language as tl
from torch import Tensor

from vae_fast.operators import OPERATORS, PARAMETER, WEIGHT, Wanted
from vae_fast.reference.densities import MEAN, NONE
from vae_fast.triton_kernels import density as engine
from vae_fast.triton_kernels import launch, layout
from vae_fast.triton_kernels.layout import Layout, Request
from vae_fast.triton_kernels.operands import (
    Argument,
    GradientOut,
    Gradients,
    Types,
    argument,
    check_upstream,
    readable,
    shape_of,
    spec_of,
    types_of,
)

# What the kernel has room for: operands beside the weight, and numbers.
MOST_OPERANDS, MOST_NUMBERS = 4, 4
# Operands, the weight among them, for which a kernel of few registers has enough.
FEW_OPERANDS = 3


def _never(options: Any) -> bool:
    return False


class Density(NamedTuple):
    """A density: its name in the table of operators, its term (see density.py), and what the term takes of a call.

    Numbers are arguments, in the type that is computed in; a kernel is compiled for the constants. ``is_light`` says
    of which calls FEW_REGISTERS hold a tile: where it is wrong registers are spilled, which tests look for.
    """

    name: str
    term: Any
    numbers: Callable[[Any], tuple[float, ...]]
    constants: Callable[[Any, Sequence[Tensor | None]], tuple[Any, ...]]
    is_light: Callable[[Any], bool] = _never


class _Call(NamedTuple):
    """A density's operands, the weight at the end, its options, and what follows from them alone."""

    density: Density
    operands: tuple[Tensor | None, ...]
    options: Any
    shape: torch.Size
    types: Types
    device: torch.device

    @property
    def data(self) -> torch.Size:
        return self.shape[: len(self.shape) - self.options.event_ndim]

    @property
    def factor(self) -> float:
        """What the sum of all terms is multiplied by."""
        scale: float = self.options.scale
        return scale / self.data.numel() if self.options.reduction == MEAN else scale

    @property
    def value(self) -> int:
        """How the kernel makes the result."""
        if self.options.reduction != NONE:
            return layout.ALL
        return layout.ROW if self.options.event_ndim else layout.EACH


def launchers(density: Density) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """A density's <op>_fwd and <op>_bwd."""

    def fwd(*args: Any) -> tuple[Tensor, ...]:
        *operands, options, wanted = args
        return _run(density, None, tuple(operands), options, wanted)

    def bwd(upstream: Tensor, *args: Any) -> tuple[Tensor, ...]:
        *operands, options, wanted = args
        return _run(density, upstream, tuple(operands), options, wanted)

    return fwd, bwd


def _run(
    density: Density, upstream: Tensor | None, operands: tuple[Tensor | None, ...], options: Any, wanted: Wanted
) -> tuple[Tensor, ...]:
    """The gradients that are wanted. Without an upstream gradient the value comes before them, which are those for
    an upstream of 1, and there is none by the weight.
    """
    operator = OPERATORS[density.name]
    anchor, parameters = operands[0], sum(o.role == PARAMETER for o in operator.operands)
    assert anchor is not None
    device, shape = anchor.device, shape_of(operands, parameters, options.event_ndim)
    call = _Call(density, operands, options, shape, types_of(operands, parameters), device)
    result_shape = call.data if options.reduction == NONE else torch.Size()
    out = None
    if upstream is None:
        out = torch.empty(result_shape, dtype=call.types.sums, device=device)
    else:
        check_upstream("the upstream gradient", upstream, result_shape, device)
    differentiable = [
        k for k, o in enumerate(operator.operands) if o.differentiable and (out is None or o.role != WEIGHT)
    ]
    gradients = Gradients([operands[k] for k in differentiable], wanted, device)
    grads: list[Tensor | None] = [None] * len(operands)
    for k, grad in zip(differentiable, gradients.each, strict=True):
        grads[k] = grad
    if shape.numel() == 0:
        _fill_empty(call, out, grads)
    elif out is not None and any(g is not None and g.shape != shape for g in grads):
        # Sums of two orders: the value in one pass, the gradients in another.
        _launch(call, None, out, [None] * len(grads))
        _launch(call, None, None, grads)
    else:
        _launch(call, upstream, out, grads)
    return (*(() if out is None else (out,)), *gradients.finished())


def _fill_empty(call: _Call, out: Tensor | None, grads: Sequence[Tensor | None]) -> None:
    """Sums of no elements are 0, their mean over no data NaN."""
    if out is not None:
        mean_of_none = call.options.reduction == MEAN and call.data.numel() == 0
        out.fill_(math.nan if mean_of_none else 0.0 * call.factor)
    for grad in grads:
        if grad is not None:
            grad.zero_()


class _Result:
    """A result on its way: what the kernel fills, and what becomes of it afterwards."""

    def __init__(self, out: Tensor | None, value: int, plan: Layout, types: Types, device: torch.device) -> None:
        self.out, self.plan = out, plan
        self.alone = plan.programs == 1 if value == layout.ALL else plan.segments == 1
        self.target, self.partials, self.ticket = out, None, None
        self.joined = value == layout.ROW and not self.alone
        if value == layout.EACH and plan.out.copy is not None:
            self.target = torch.empty(plan.out.copy, dtype=types.sums, device=device)
        elif self.joined:
            self.partials = torch.empty((plan.segments, plan.rows), dtype=torch.float64, device=device)
        elif value == layout.ALL and not self.alone:
            self.partials = torch.empty(plan.programs, dtype=torch.float64, device=device)
            self.ticket = launch.ticket(device)

    def finish(self, factor: float) -> None:
        """After the kernel was launched."""
        if self.out is None or self.target is None:
            return
        if self.joined and self.partials is not None:
            launch.join(self.partials, self.plan.segments, self.out, factor)
        if self.target is not self.out:
            self.out.copy_(self.target.reshape(self.out.shape))


def _plan(
    call: _Call,
    operands: Sequence[Tensor | None],
    upstream: Tensor | None,
    out: Tensor | None,
    grads: Sequence[Tensor | None],
) -> Layout:
    value, event_ndim, device = layout.NONE if out is None else call.value, call.options.event_ndim, call.device
    request = Request(
        operands=(*(spec_of(t, device) for t in operands), spec_of(upstream, device, True)),
        gradients=tuple(spec_of(g, device) for g in grads),
        out=spec_of(out, device) if value == layout.EACH else None,
        value=value,
        event_ndim=event_ndim,
        walk_as_anchor=len(call.shape) - event_ndim if call.options.reduction == NONE else 0,
        itemsize=call.types.itemsize,
        arithmetic=call.types.arithmetic.itemsize,
        tile_bytes=launch.tile_bytes,
    )
    return layout.layout(request)


def _strides(these: Sequence[Argument]) -> list[int]:
    strides = [stride for a in these for stride in (a.sample, a.datum)]
    return strides + [0] * (2 * MOST_OPERANDS - len(strides))


def _launch(call: _Call, upstream: Tensor | None, out: Tensor | None, grads: Sequence[Tensor | None]) -> None:
    options, types, device = call.options, call.types, call.device
    operands, upstream = [readable(t) for t in call.operands], readable(upstream)
    plan = _plan(call, operands, upstream, out, grads)
    value = layout.NONE if out is None else call.value
    result = _Result(out, value, plan, types, device)
    gradients = zip(grads, plan.gradients, strict=True)
    filled = [GradientOut(grad, made, plan, types.arithmetic, device) for grad, made in gradients]

    *modes, weight_mode, upstream_mode = plan.modes
    *views, upstream_view = plan.operands
    *kinds, dweight_kind = plan.kinds
    *read, weight = (argument(t, view, plan) for t, view in zip(operands, views, strict=True))
    *written, dweight = (grad.argument for grad in filled)
    reaching = argument(upstream, upstream_view, plan, True)
    numbers = call.density.numbers(options)
    args = (
        tuple(a.pointer for a in read),
        tuple(a.pointer for a in written),
        *(weight.pointer, dweight.pointer, reaching.pointer, result.target, result.partials, result.ticket),
        *_strides(read),
        *_strides(written),
        *(weight.sample, weight.datum, dweight.sample, dweight.datum, reaching.sample, reaching.datum),
        *plan.strides(plan.out),
        *plan.space_arguments,
        call.factor,
        *numbers,
        *(0.0,) * (MOST_NUMBERS - len(numbers)),
    )
    constants = {
        "TERM": call.density.term,
        "CONSTANTS": call.density.constants(options, operands),
        "MODES": tuple(modes),
        "WEIGHT": weight_mode,
        "UPSTREAM": upstream_mode,
        "KINDS": tuple(kinds),
        "DWEIGHT": dweight_kind,
        "VALUE": value,
        "ALONE": result.alone,
        "T": tl.float64 if types.arithmetic == torch.float64 else tl.float32,
        **plan.constants,
    }
    crowded = sum(t is not None for t in operands) > FEW_OPERANDS or dweight.pointer is not None
    few = plan.vec > 1 and types.arithmetic != torch.float64 and not crowded and call.density.is_light(options)
    registers = launch.FEW_REGISTERS if few else launch.ALL_REGISTERS
    launch.run(engine.density, plan.programs, device, args, constants, registers)
    result.finish(call.factor)
    for grad in filled:
        grad.finish()
