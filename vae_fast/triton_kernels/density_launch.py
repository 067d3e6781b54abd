"""The launch of density.py's kernel: how a call is laid out, where results go, and what is left to do after it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import triton.language as tl
from torch import Tensor

from vae_fast.checks import dtypes_of
from vae_fast.operators import OPERATORS, PARAMETER, WEIGHT, Operand
from vae_fast.reference.densities import MEAN, NONE
from vae_fast.triton_kernels import density as engine
from vae_fast.triton_kernels import launch, layout
from vae_fast.triton_kernels.layout import Layout, Request
from vae_fast.triton_kernels.operands import (
    NOTHING,
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

# What the kernel has room for: operands, the weight among them, and numbers.
MOST_OPERANDS, MOST_NUMBERS = 5, 4
# Operands, the weight among them, for which a kernel of few registers has enough.
FEW_OPERANDS = 3


def _nothing(*_call: Any) -> tuple[()]:
    return ()


def _never(*_call: Any) -> bool:
    return False


def _whole(*_call: Any) -> int:
    return 1


class Density(NamedTuple):
    """A density: its name in the table of operators, its term (density.py), and what the term takes of a call.

    Numbers are arguments, in the type that is computed in; a kernel is compiled for the constants.
    ``in_few_registers`` says of which calls FEW_REGISTERS hold a tile, ``parts`` in how many a tile is taken where
    all of them do not: where they are wrong registers are spilled, which tests look for.
    """

    name: str
    term: Any
    numbers: Callable[[Any], tuple[float, ...]] = _nothing
    constants: Callable[[Any, Sequence[Tensor | None]], tuple[Any, ...]] = _nothing
    in_few_registers: Callable[[Any, Sequence[Tensor | None]], bool] = _never
    parts: Callable[[Any, Sequence[Tensor | None]], int] = _whole


class _Call(NamedTuple):
    """A density's operands, the weight at the end, its options, and what follows from them alone."""

    density: Density
    operands: Sequence[Tensor | None]
    options: Any
    device: torch.device
    # What the operands broadcast to, and its data dims.
    shape: torch.Size
    data: torch.Size
    types: Types
    # What the sum of all terms is multiplied by.
    factor: float


def launchers(
    density: Density, operands: Sequence[Operand] | None = None
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """A density's <op>_fwd and <op>_bwd, of all its operands or of those that its term takes."""
    operands = operands or OPERATORS[density.name].operands
    parameters = sum(o.role == PARAMETER for o in operands)
    allowed = tuple(dtypes_of(o) for o in operands)
    differentiable = tuple(k for k, o in enumerate(operands) if o.differentiable)
    in_forward = tuple(k for k in differentiable if operands[k].role != WEIGHT)

    def fwd(*args: Any) -> tuple[Tensor, ...]:
        """The value, and gradients for an upstream gradient of 1; none by the weight."""
        *operands, options, wanted = args
        call = _call(density, operands, options, allowed, parameters)
        gradients = Gradients(operands, in_forward, wanted, call.device)
        result_shape = call.data if options.reduction == NONE else ()
        out = torch.empty(result_shape, dtype=call.types.sums, device=call.device)
        grads = gradients.each
        if any(g is not None and g.shape != call.shape for g in grads):
            # Sums of two orders: the value in one pass, the gradients in another.
            _launch(call, None, out, [None] * len(grads))
            _launch(call, None, None, grads)
        else:
            _launch(call, None, out, grads)
        return out, *gradients.finished()

    def bwd(upstream: Tensor, *args: Any) -> tuple[Tensor, ...]:
        *operands, options, wanted = args
        call = _call(density, operands, options, allowed, parameters)
        result_shape = call.data if options.reduction == NONE else ()
        check_upstream("the upstream gradient", upstream, result_shape, call.device)
        gradients = Gradients(operands, differentiable, wanted, call.device)
        _launch(call, upstream, None, gradients.each)
        return gradients.finished()

    return fwd, bwd


def _call(
    density: Density,
    operands: Sequence[Tensor | None],
    options: Any,
    allowed: Sequence[tuple[torch.dtype, ...]],
    parameters: int,
) -> _Call:
    anchor = operands[0]
    assert anchor is not None
    event_ndim, scale = options.event_ndim, options.scale
    shape = shape_of(operands, allowed, event_ndim)
    data = shape[: len(shape) - event_ndim]
    # The mean over no data is NaN, which _fill_empty says.
    factor = scale / (data.numel() or 1) if options.reduction == MEAN else scale
    return _Call(density, operands, options, anchor.device, shape, data, types_of(operands, parameters), factor)


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

    def __init__(self, out: Tensor | None, value: int, plan: Layout, call: _Call) -> None:
        self.out, self.plan, self.factor = out, plan, call.factor
        self.alone = plan.programs == 1 if value == layout.ALL else plan.segments == 1
        self.target, self.partials, self.ticket = out, None, None
        self.joined = value == layout.ROW and not self.alone
        if value == layout.EACH and plan.out.copy is not None:
            self.target = torch.empty(plan.out.copy, dtype=call.types.sums, device=call.device)
        elif self.joined:
            self.partials = torch.empty((plan.segments, plan.rows), dtype=torch.float64, device=call.device)
        elif value == layout.ALL and not self.alone:
            self.partials = torch.empty(plan.programs, dtype=torch.float64, device=call.device)
            self.ticket = launch.ticket(call.device)

    def finish(self) -> None:
        """After the kernel was launched."""
        if self.out is None or self.target is None:
            return
        if self.joined and self.partials is not None:
            launch.join(self.partials, self.plan.segments, self.out, self.factor)
        if self.target is not self.out:
            self.out.copy_(self.target.reshape(self.out.shape))


def _value(call: _Call) -> int:
    """How the kernel makes a result."""
    if call.options.reduction != NONE:
        return layout.ALL
    return layout.ROW if call.options.event_ndim else layout.EACH


def _plan(
    call: _Call,
    operands: Sequence[Tensor | None],
    upstream: Tensor | None,
    out: Tensor | None,
    grads: Sequence[Tensor | None],
) -> Layout:
    options, types, device = call.options, call.types, call.device
    value = layout.NONE if out is None else _value(call)
    specs = [None if t is None else spec_of(t, device) for t in operands]
    specs.append(spec_of(upstream, device, True))
    return layout.layout(
        Request(
            tuple(specs),
            tuple([None if g is None else spec_of(g, device) for g in grads]),
            spec_of(out, device) if value == layout.EACH else None,
            value,
            options.event_ndim,
            len(call.data) if options.reduction == NONE else 0,
            types.itemsize,
            types.arithmetic.itemsize,
            launch.tile_bytes // call.density.parts(options, operands),
        )
    )


def _together(these: list[Argument]) -> tuple[tuple[Tensor | None, ...], list[int]]:
    """Their pointers, and the strides of as many as there may be."""
    pointers: list[Tensor | None] = []
    strides: list[int] = []
    for pointer, sample, datum in these:
        pointers.append(pointer)
        strides += (sample, datum)
    return tuple(pointers), strides + [0] * (2 * (MOST_OPERANDS - len(pointers)))


def _launch(call: _Call, upstream: Tensor | None, out: Tensor | None, grads: Sequence[Tensor | None]) -> None:
    """One pass over the operands."""
    if call.shape.numel() == 0:
        _fill_empty(call, out, grads)
        return
    density, options, types, device = call.density, call.options, call.types, call.device
    operands, upstream = [t if t is None else readable(t) for t in call.operands], readable(upstream)
    plan = _plan(call, operands, upstream, out, grads)
    value = layout.NONE if out is None else _value(call)
    result = _Result(out, value, plan, call)
    gradients = [
        None if g is None else GradientOut(g, p, plan, types.arithmetic, device)
        for g, p in zip(grads, plan.gradients, strict=True)
    ]
    *views, upstream_view = plan.operands
    read = [NOTHING if t is None else argument(t, view, plan) for t, view in zip(operands, views, strict=True)]
    pointers, strides = _together(read)
    written, dstrides = _together([NOTHING if g is None else g.argument() for g in gradients])
    upstream_pointer, *upstream_strides = argument(upstream, upstream_view, plan, True)
    numbers = density.numbers(options)
    args = (
        pointers,
        written,
        *(upstream_pointer, result.target, result.partials, result.ticket),
        *strides,
        *dstrides,
        *upstream_strides,
        *plan.strides(plan.out),
        *plan.space_arguments,
        call.factor,
        *numbers,
        *(0.0,) * (MOST_NUMBERS - len(numbers)),
    )
    double = types.arithmetic == torch.float64
    constants = {
        "TERM": density.term,
        "CONSTANTS": density.constants(options, operands),
        "MODES": plan.modes,
        "KINDS": plan.kinds,
        "VALUE": value,
        "ALONE": result.alone,
        "T": tl.float64 if double else tl.float32,
        **plan.constants,
    }
    crowded = sum([t is not None for t in operands]) > FEW_OPERANDS or grads[-1] is not None
    # Sums of columns are kept for each that a thread has.
    crowded = crowded or layout.COLUMN in plan.kinds
    few = plan.vec > 1 and not double and not crowded and density.in_few_registers(options, operands)
    registers = launch.FEW_REGISTERS if few else launch.ALL_REGISTERS
    launch.run(engine.density, plan.programs, device, args, constants, registers)
    result.finish()
    for gradient in gradients:
        if gradient is not None:
            gradient.finish()
