"""What the densities share: the upstream gradient, sums on their way to a result, and the launch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from vae_fast.reference.densities import MEAN, NONE
from vae_fast.triton_kernels import launch, layout
from vae_fast.triton_kernels.operands import (
    GradientOut,
    Gradients,
    Types,
    arguments,
    fitting,
    readable,
    shape_of,
    spec_of,
    types_of,
)
from vae_fast.triton_kernels.tiles import ABSENT, ALL, COLUMNS, EACH, ROW, add, finish, leave, read, write


@triton.jit
def upstream_of(
    upstream,
    sample,
    datum,
    tile,
    factor,
    T: tl.constexpr,
    MODE: tl.constexpr,
    SAMPLES: tl.constexpr,
    VEC: tl.constexpr,
):
    """The gradient that reaches a term: the upstream one, or 1, times what the reduction makes of it."""
    if MODE == ABSENT:
        return tl.full((1, 1), factor, T)
    elif MODE == COLUMNS:
        return read(upstream, sample, datum, tile, T, MODE, SAMPLES, VEC) * tl.full((), factor, T)
    else:
        return (read(upstream, sample, datum, tile, T, MODE, SAMPLES, VEC).to(tl.float64) * factor).to(T)


@triton.jit
def weight_of(
    weight, sample, datum, tile, T: tl.constexpr, MODE: tl.constexpr, SAMPLES: tl.constexpr, VEC: tl.constexpr
):
    if MODE == ABSENT:
        return tl.full((1, 1), 1.0, T)
    else:
        return read(weight, sample, datum, tile, T, MODE, SAMPLES, VEC)


@triton.jit
def weighted(value, w, MODE: tl.constexpr):
    """w·value; 0 where w is 0, whatever the value."""
    if MODE == ABSENT:
        return value
    else:
        return shown(value * w, w, MODE)


@triton.jit
def shown(value, w, MODE: tl.constexpr):
    """The value, 0 where w is 0."""
    if MODE == ABSENT:
        return value
    else:
        return tl.where(w == 0.0, 0.0, value)


@triton.jit
def give(ptr, sample, datum, tile, sum, value, KIND: tl.constexpr, SAMPLES: tl.constexpr, VEC: tl.constexpr):
    """A tile's part of a gradient or a result: written where it stays, or added to the sum, which is returned."""
    if KIND == EACH:
        write(ptr, sample, datum, tile, value, SAMPLES, VEC)
        return sum
    else:
        return add(sum, value, tile, KIND)


@triton.jit
def deliver(
    out,
    partials,
    ticket,
    sum,
    program,
    tile,
    space,
    factor,
    VALUE: tl.constexpr,
    WALK: tl.constexpr,
    SPACE: tl.constexpr,
    VEC: tl.constexpr,
    ALONE: tl.constexpr,
):
    """A program's sum on its way to the result. ALONE: no other program has a part in it."""
    if VALUE == ALL:
        finish(partials, ticket, out, sum, program, factor, ALONE)
    elif VALUE == ROW:
        if ALONE:
            row = tl.reshape(tile[0], sum.shape)
            tl.store(out + row, (sum * factor).to(out.dtype.element_ty), mask=row < space[0])
        else:
            leave(partials, sum, program, tile, space, VALUE, WALK, SPACE, VEC)


class Density(NamedTuple):
    """How a density is summed, and what else its kernel takes: numbers, then compile-time constants.

    Of its operands the first ``parameters`` decide the dtype of the result.
    """

    parameters: int
    event_ndim: int
    reduction: int
    scale: float
    numbers: tuple[float, ...]
    constants: dict[str, Any]

    def factor(self, shape: Sequence[int]) -> float:
        """What the sum of all terms is multiplied by."""
        data = math.prod(shape[: len(shape) - self.event_ndim])
        return self.scale / data if self.reduction == MEAN else self.scale


def run(
    kernel: Any,
    operands: Sequence[Tensor | None],
    upstream: Tensor | None,
    density: Density,
    *needs_and_packed: Any,
) -> tuple[Tensor, ...]:
    """Runs a density's kernel: the gradients of the operands that are needed, ``packed`` as ``Gradients``.

    ``operands`` are all there are, the weight at the end. Without an upstream gradient the density's value comes
    before the gradients, which are those for an upstream of 1, and has none by the weight.
    """
    anchor = operands[0]
    assert anchor is not None
    device, shape = anchor.device, shape_of(operands, density.parameters, density.event_ndim)
    types = types_of(operands, density.parameters)
    data = shape[: len(shape) - density.event_ndim] if density.reduction == NONE else torch.Size()
    if upstream is not None:
        fitting("the upstream gradient", upstream, data, device)
    n = len(operands) if upstream is not None else len(operands) - 1
    needs, packed = needs_and_packed[:n], needs_and_packed[n:]
    made = Gradients(operands[:n], needs, device, *packed)
    grads = [*made.each, *[None] * (len(operands) - n)]
    out = torch.empty(data, dtype=types.sums, device=device) if upstream is None else None
    if shape.numel() == 0:
        _of_nothing(out, grads, shape, density)
    elif out is not None and any(g is not None and g.shape != shape for g in grads):
        # Sums of two orders: the value in one pass, the gradients in another.
        _launch(kernel, operands, [None] * len(grads), None, out, shape, density, types)
        _launch(kernel, operands, grads, None, None, shape, density, types)
    else:
        _launch(kernel, operands, grads, upstream, out, shape, density, types)
    return (*(() if out is None else (out,)), *made.finished())


def _of_nothing(out: Tensor | None, grads: Sequence[Tensor | None], shape: Sequence[int], density: Density) -> None:
    """Sums of no elements are 0, their mean over no data NaN."""
    if out is not None:
        mean_of_none = density.reduction == MEAN and math.prod(shape[: len(shape) - density.event_ndim]) == 0
        out.fill_(math.nan if mean_of_none else 0.0 * density.factor(shape))
    for grad in grads:
        if grad is not None:
            grad.zero_()


def _launch(
    kernel: Any,
    operands: Sequence[Tensor | None],
    grads: Sequence[Tensor | None],
    upstream: Tensor | None,
    out: Tensor | None,
    shape: torch.Size,
    density: Density,
    types: Types,
) -> None:
    """The kernel's arguments: (pointer, stride, stride) of every operand, of the upstream gradient, of every
    gradient and of the result; partial sums and ticket; the space; the factor and the density's numbers.
    """
    anchor = operands[0]
    assert anchor is not None
    device = anchor.device
    operands, upstream = [readable(t) for t in operands], readable(upstream)
    event_ndim, factor = density.event_ndim, density.factor(shape)
    value = layout.NONE
    if out is not None:
        value = layout.ALL if density.reduction != NONE else layout.ROW if event_ndim else layout.EACH
    plan = layout.layout(
        (*(spec_of(t, device) for t in operands), spec_of(upstream, device, True)),
        tuple(spec_of(g, device) for g in grads),
        spec_of(out, device) if value == layout.EACH else None,
        event_ndim,
        value == layout.ROW,
        value == layout.ALL,
        len(shape) - event_ndim if density.reduction == NONE else 0,
        types.itemsize,
        types.arithmetic.itemsize,
        launch.tile_bytes,
    )
    made = [GradientOut(g, p, types.arithmetic, device) for g, p in zip(grads, plan.gradients, strict=True)]
    args: list[Any] = []
    for t, view in zip(operands, plan.operands, strict=False):
        args += arguments(t, view, plan)
    args += arguments(upstream, plan.operands[-1], plan, True)
    for grad in made:
        args += grad.arguments(plan)
    alone = plan.programs == 1 if value == layout.ALL else plan.segments == 1
    target, partials, ticket = out, None, None
    if value == layout.EACH and plan.out.copy is not None:
        target = torch.empty(plan.out.copy, dtype=types.sums, device=device)
    elif value == layout.ROW and not alone:
        partials = torch.empty((plan.segments, plan.rows), dtype=torch.float64, device=device)
    elif value == layout.ALL and not alone:
        partials = torch.empty(plan.programs, dtype=torch.float64, device=device)
        ticket = launch.ticket(device)
    args += (target, *plan.strides(plan.out), partials, ticket)
    args += (*plan.space_arguments, factor, *density.numbers)
    constants = {
        **density.constants,
        "MODES": plan.modes,
        "KINDS": plan.kinds,
        "VALUE": value,
        "ALONE": alone,
        "T": tl.float64 if types.arithmetic == torch.float64 else tl.float32,
        **plan.constants,
    }
    crowded = sum(t is not None for t in operands) > 3 or grads[-1] is not None
    launch.run(kernel, plan.programs, device, args, constants, crowded)
    if value == layout.ROW and partials is not None and out is not None:
        launch.join(partials, plan.segments, out, factor)
    if out is not None and target is not None and target is not out:
        out.copy_(target.reshape(out.shape))
    for grad in made:
        grad.finish(plan)
