"""The launch of density.py's kernel: what is allocated, where results go, and what is left to do after it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor

from vae_fast.checks import dtypes_of
from vae_fast.operators import OPERATORS, PARAMETER, WEIGHT, Operand, Wanted
from vae_fast.reference.densities import MEAN
from vae_fast.triton_kernels import early, launch, layout
from vae_fast.triton_kernels.density_class import (
    BOTH,
    GRADIENTS,
    MOST_NUMBERS,
    MOST_OPERANDS,
    SCALED,
    VALUE,
    Call,
    Class,
    Density,
    Kind,
    Pass,
    class_of,
    pass_of,
)
from vae_fast.triton_kernels.kept import Recent
from vae_fast.triton_kernels.layout import Layout
from vae_fast.triton_kernels.operands import NOTHING, GradientOut, Gradients, argument, key_of, readable

# All that an operator's file needs.
__all__ = ("Density", "launchers")


def launchers(
    density: Density, operands: Sequence[Operand] | None = None
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """A density's <op>_fwd and <op>_bwd, of all its operands or of those that its term takes."""
    operands = operands or OPERATORS[density.name].operands
    allowed = tuple(dtypes_of(o) for o in operands)
    parameters = sum(o.role == PARAMETER for o in operands)
    differentiable = tuple(k for k, o in enumerate(operands) if o.differentiable)
    in_forward = tuple(k for k in differentiable if operands[k].role != WEIGHT)
    forward, backward = Kind(allowed, parameters, in_forward), Kind(allowed, parameters, differentiable)
    # All options but the one that may be another at every step.
    names = OPERATORS[density.name].Options._fields
    decisive = itemgetter(*[k for k, name in enumerate(names) if name != "scale"])
    kept: Recent[Class] = Recent()

    def of(call: Sequence[Tensor | None], upstream: Tensor | None, options: Any, wanted: Wanted) -> Class:
        key = (
            *key_of(*call, upstream, wanted.packed),
            *(wanted.packed_dim, wanted.needs, launch.tile_bytes),
            *decisive(options),
        )
        found = kept.find(key)
        if found is None:
            kind = forward if upstream is None else backward
            found = kept.keep(key, class_of(kind, call, upstream, options, wanted))
        return found

    def fwd(*args: Any) -> tuple[Tensor, ...]:
        """The value, and gradients for an upstream gradient of 1; none by the weight."""
        *tensors, options, wanted = args
        operands = [t if t is None else readable(t) for t in tensors]
        call = Call(density, of(operands, None, options, wanted), operands, None, options)
        gradients = Gradients(operands, in_forward, wanted, call.of.device)
        out = torch.empty(call.of.result, dtype=call.of.types.sums, device=call.of.device)
        grads = gradients.each
        if call.of.apart:
            _launch(call, VALUE, out, [None] * len(grads))
            _launch(call, GRADIENTS, None, grads)
        else:
            _launch(call, BOTH, out, grads)
        return out, *gradients.finished()

    def bwd(upstream: Tensor, *args: Any) -> tuple[Tensor, ...]:
        *tensors, options, wanted = args
        operands, upstream = [t if t is None else readable(t) for t in tensors], readable(upstream)
        call = Call(density, of(operands, upstream, options, wanted), operands, upstream, options)
        kept = early.taken([operands[k] for k in differentiable], wanted.needs)
        gradients = Gradients(operands, differentiable, wanted, call.of.device, kept)
        _launch(call, GRADIENTS if kept is None else SCALED, None, gradients.each)
        return gradients.finished()

    return fwd, bwd


def _fill_empty(call: Call, out: Tensor | None, grads: Sequence[Tensor | None]) -> None:
    """Sums of no elements are 0, their mean over no data NaN."""
    if out is not None:
        mean_of_none = call.options.reduction == MEAN and call.of.data.numel() == 0
        out.fill_(math.nan if mean_of_none else 0.0 * call.factor)
    for grad in grads:
        if grad is not None:
            grad.zero_()


class _Result:
    """A result on its way: what the kernel fills, and what becomes of it afterwards."""

    def __init__(self, out: Tensor, one: Pass, call: Call) -> None:
        self.out, self.plan, self.factor = out, one.plan, call.factor
        self.target: Tensor = out
        self.partials: Tensor | None = None
        self.ticket: Tensor | None = None
        self.joined = one.value == layout.ROW and not one.alone
        plan, device = one.plan, call.of.device
        if one.value == layout.EACH and plan.out.copy is not None:
            self.target = torch.empty(plan.out.copy, dtype=call.of.types.sums, device=device)
        elif self.joined:
            self.partials = torch.empty((plan.segments, plan.rows), dtype=torch.float64, device=device)
        elif one.value == layout.ALL and not one.alone:
            self.partials = torch.empty(plan.programs, dtype=torch.float64, device=device)
            self.ticket = launch.ticket(device)

    def finish(self) -> None:
        """After the kernel was launched."""
        if self.joined and self.partials is not None:
            launch.join(self.partials, self.plan.segments, self.out, self.factor)
        if self.target is not self.out:
            self.out.copy_(self.target.reshape(self.out.shape))


def _read(call: Call, plan: Layout) -> tuple[list[Tensor | None], Tensor | None, list[int]]:
    """The operands, the upstream gradient and all their strides, where some are copied, or passed as numbers."""
    *views, of_upstream = plan.operands
    pointers: list[Tensor | None] = []
    strides: list[int] = []
    for t, view in zip(call.operands, views, strict=True):
        pointer, sample, datum = NOTHING if t is None else argument(t, view, plan)
        pointers.append(pointer)
        strides += (sample, datum)
    strides += [0] * (2 * (MOST_OPERANDS - len(views)))
    upstream, sample, datum = argument(call.upstream, of_upstream, plan, True)
    return pointers, upstream, [*strides, sample, datum]


def _launch(call: Call, making: int, out: Tensor | None, grads: Sequence[Tensor | None]) -> None:
    """One pass over the operands."""
    if call.of.shape.numel() == 0:
        _fill_empty(call, out, grads)
        return
    one = call.of.passes.get(making)
    if one is None:
        one = call.of.passes[making] = pass_of(call, making, out, grads)
    read: Sequence[Tensor | None] = call.operands
    upstream: Tensor | None = call.upstream
    strides: Sequence[int] = one.strides
    if not one.reads_in_place:
        read, upstream, strides = _read(call, one.plan)
    result = None if out is None or one.value_in_place else _Result(out, one, call)
    gradients: Sequence[GradientOut] = ()
    written: Sequence[Tensor | None] = grads
    if not one.gradients_in_place:
        of = one.plan, call.of.types.arithmetic, call.of.device
        on_way = [
            None if g is None else GradientOut(g, p, *of) for g, p in zip(grads, one.plan.gradients, strict=True)
        ]
        written = [None if g is None else g.pointer for g in on_way]
        gradients = [g for g in on_way if g is not None]
    results = (out, None, None) if result is None else (result.target, result.partials, result.ticket)
    numbers = call.density.numbers(call.options)
    one.launch(
        (tuple(read), tuple(written), upstream, *results),
        (*strides, *one.others, call.factor, *numbers, *(0.0,) * (MOST_NUMBERS - len(numbers))),
    )
    if result is not None:
        result.finish()
    for gradient in gradients:
        gradient.finish()
