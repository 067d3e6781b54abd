"""A density's calls by classes: what shapes, strides, dtypes and options decide of them, worked out once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import triton.language as tl
from torch import Tensor

from vae_fast.operators import Wanted
from vae_fast.reference.densities import MEAN, NONE
from vae_fast.triton_kernels import density as engine
from vae_fast.triton_kernels import launch, layout
from vae_fast.triton_kernels.launch import Launch
from vae_fast.triton_kernels.layout import Layout, Request
from vae_fast.triton_kernels.operands import Types, check_upstream, is_in_place, shape_of, spec_of, types_of
from vae_fast.triton_kernels.walk import View

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


class Pass(NamedTuple):
    """A pass over the operands, as far as it is the same for all calls of a class."""

    plan: Layout
    launch: Launch
    value: int
    alone: bool
    # What the kernel takes of everything that is read, and of the rest.
    strides: tuple[int, ...]
    others: tuple[int, ...]
    # Whether everything is read where it lies, the value written where it is returned, and so the gradients.
    reads_in_place: bool
    value_in_place: bool
    gradients_in_place: bool


# What a pass makes; SCALED: gradients, of those that were kept for an upstream gradient of 1.
BOTH, VALUE, GRADIENTS, SCALED = range(4)


class Class(NamedTuple):
    """What operands' shapes, strides and dtypes, and options, make of a call; its passes come as they are met."""

    device: torch.device
    # What the operands broadcast to, and its data dims; the value's shape.
    shape: torch.Size
    data: torch.Size
    result: torch.Size
    types: Types
    # What the sum of all terms is divided by.
    divisor: int
    # Whether the value and the gradients are sums of two orders: each in a pass of its own.
    apart: bool
    passes: dict[int, Pass]


class Call(NamedTuple):
    """A call: its class, and what is its own. The operands have the weight at the end."""

    density: Density
    of: Class
    operands: Sequence[Tensor | None]
    upstream: Tensor | None
    options: Any

    @property
    def factor(self) -> float:
        """What the sum of all terms is multiplied by."""
        return float(self.options.scale / self.of.divisor)


class Kind(NamedTuple):
    """A direction of a density: what its operands may be, and of which it makes gradients."""

    allowed: tuple[tuple[torch.dtype, ...], ...]
    parameters: int
    made: tuple[int, ...]


def class_of(
    kind: Kind, operands: Sequence[Tensor | None], upstream: Tensor | None, options: Any, wanted: Wanted
) -> Class:
    """The class of a call. Raises where no kernel can read its operands, or its upstream gradient."""
    anchor = operands[0]
    assert anchor is not None
    device = anchor.device
    shape = shape_of(operands, kind.allowed, options.event_ndim)
    data = shape[: len(shape) - options.event_ndim]
    result = data if options.reduction == NONE else torch.Size()
    if upstream is not None:
        check_upstream("the upstream gradient", upstream, result, device)
    needed = [operands[k] for k, need in zip(kind.made, wanted.needs, strict=True) if need]
    # The mean over no data is NaN, which is written where there is none.
    divisor = data.numel() or 1 if options.reduction == MEAN else 1
    apart = upstream is None and any([t is not None and t.shape != shape for t in needed])
    return Class(device, shape, data, result, types_of(operands, kind.parameters), divisor, apart, {})


def _value(options: Any) -> int:
    """How the kernel makes a result."""
    if options.reduction != NONE:
        return layout.ALL
    return layout.ROW if options.event_ndim else layout.EACH


def _plan(call: Call, out: Tensor | None, grads: Sequence[Tensor | None]) -> Layout:
    options, types, device = call.options, call.of.types, call.of.device
    value = layout.NONE if out is None else _value(options)
    specs = [None if t is None else spec_of(t, device) for t in call.operands]
    specs.append(spec_of(call.upstream, device, True))
    return layout.layout(
        Request(
            tuple(specs),
            tuple([None if g is None else spec_of(g, device) for g in grads]),
            spec_of(out, device) if value == layout.EACH else None,
            value,
            options.event_ndim,
            len(call.of.data) if options.reduction == NONE else 0,
            types.itemsize,
            types.arithmetic.itemsize,
            launch.tile_bytes // call.density.parts(options, call.operands),
        )
    )


def _strides(plan: Layout, views: Sequence[View]) -> list[int]:
    """Those of as many tensors as there may be."""
    strides: list[int] = []
    for view in views:
        strides += plan.strides(view)
    return strides + [0] * (2 * (MOST_OPERANDS - len(views)))


def pass_of(call: Call, making: int, out: Tensor | None, grads: Sequence[Tensor | None]) -> Pass:
    """A class's pass, of a call that is of it."""
    density, options, operands, types = call.density, call.options, call.operands, call.of.types
    plan = _plan(call, out, grads)
    value = layout.NONE if out is None else _value(options)
    alone = plan.programs == 1 if value == layout.ALL else plan.segments == 1
    double = types.arithmetic == torch.float64
    made = plan.gradients
    in_place = all([g.temporary is None and not g.partials for g in made])
    constants = {
        "TERM": density.term,
        "CONSTANTS": density.constants(options, operands),
        "MODES": plan.modes,
        "KINDS": plan.kinds,
        "VALUE": value,
        "ALONE": alone,
        # Only what is written where it belongs can have been kept there.
        "KEPT": making == SCALED and in_place,
        "T": tl.float64 if double else tl.float32,
        **plan.constants,
    }
    crowded = sum([t is not None for t in operands]) > FEW_OPERANDS or grads[-1] is not None
    # Sums of columns are kept for each that a thread has.
    crowded = crowded or layout.COLUMN in plan.kinds
    few = plan.vec > 1 and not double and not crowded and density.in_few_registers(options, operands)
    registers = launch.FEW_REGISTERS if few else launch.ALL_REGISTERS
    *views, of_upstream = plan.operands
    return Pass(
        plan,
        Launch(engine.density, plan.programs, call.of.device, constants, registers),
        value,
        alone,
        (*_strides(plan, views), *plan.strides(of_upstream)),
        (*_strides(plan, [g.view for g in made]), *plan.strides(plan.out), *plan.space_arguments),
        all([is_in_place(view) for view in plan.operands]),
        plan.out.copy is None and (alone or value in (layout.NONE, layout.EACH)),
        in_place,
    )
