"""The launches of sampling.py's kernels: layouts, groups of samples, and what is left to do after them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vae_fast.triton_kernels import launch, layout, sampling
from vae_fast.triton_kernels.drawing import MOMENTS, NO_SAMPLES, NOISE, OPERANDS, Draw, Samples, plan_of, samples_of
from vae_fast.triton_kernels.layout import BUSY, Layout, ceil_div
from vae_fast.triton_kernels.noise import NORMALS
from vae_fast.triton_kernels.operands import (
    NOTHING,
    Argument,
    GradientOut,
    Types,
    argument,
    check_upstream,
    readable,
    spec_of,
)
from vae_fast.triton_kernels.walk import Spec

# Samples that a program of a backward pass adds up at least, where others take the rest.
GROUP_SAMPLES = 8


def forward(draw: Draw) -> tuple[Tensor, Tensor | None]:
    """z, and with an ``event_ndim`` the KL of every datum."""
    shape, types = draw.shape_and_types()
    mu, sample_shape = draw.mu, draw.options.sample_shape
    if not sample_shape and mu.shape == shape:
        z = torch.empty_like(mu, dtype=types.promoted)
    else:
        z = torch.empty((*sample_shape, *shape), dtype=types.promoted, device=mu.device)
    kl = None
    if draw.event_ndim is not None:
        kl = torch.empty(shape[: len(shape) - draw.event_ndim], dtype=types.sums, device=mu.device)
    if shape.numel() == 0 or (z.numel() == 0 and kl is None):
        return z, kl if kl is None else kl.zero_()
    _draw(draw, types, z, kl)
    return z, kl


def _draw(draw: Draw, types: Types, z: Tensor, kl: Tensor | None) -> None:
    """Fills z and the KL."""
    device, sample_dims = z.device, len(draw.options.sample_shape)
    of_one = Spec(z.shape[sample_dims:], z.stride()[sample_dims:])
    step, value = math.prod(of_one.shape), layout.NONE if kl is None else layout.ROW
    given = draw.options.noise
    noise = NO_SAMPLES if given is None else samples_of(given, sample_dims, device)
    plan, aligned, (noise,) = plan_of(draw, types, (noise,), (), ((), of_one, value), step)
    target = z if plan.out.copy is None else torch.empty(plan.out.copy, dtype=types.promoted, device=device)
    groups = max(1, min(draw.samples, ceil_div(BUSY, plan.programs)))
    partials = None
    if kl is not None and plan.segments > 1:
        partials = torch.empty((plan.segments, plan.rows), dtype=torch.float64, device=device)
    args = (
        *read_operands(draw, noise, plan),
        target,
        *plan.strides(plan.out),
        step // plan.vec,
        kl,
        partials,
        *draw.arguments(groups, plan),
    )
    constants = {**draw.constants(groups, plan, aligned, types), "VALUE": value, "ALONE": partials is None}
    registers = launch.FEW_REGISTERS if draw.is_light(groups, plan, types) else launch.ALL_REGISTERS
    kernel = sampling.forward_of_more if draw.more else sampling.forward
    launch.run(kernel, plan.programs * groups, device, args, constants, registers)
    if partials is not None and kl is not None:
        launch.join(partials, plan.segments, kl)
    if target is not z:
        z.copy_(target.reshape(z.shape))


def read_operands(draw: Draw, noise: Samples, plan: Layout) -> list[Any]:
    """The operands, and the noise that is given, as kernels take them."""
    args: list[Any] = []
    for t, view in zip(draw.operands, plan.operands, strict=False):
        args += argument(t, view, plan)
    if draw.more:
        for _ in range(len(draw.operands), OPERANDS):
            args += NOTHING
        args += (*argument(noise[0], plan.operands[NOISE], plan), noise[1] // plan.vec)
    return args


class Upstream(NamedTuple):
    """The gradients that reach z and its KL."""

    dz: Tensor | None
    dkl: Tensor | None = None


def backward(upstream: Upstream, draw: Draw, grads: Sequence[Tensor | None]) -> None:
    """Fills the gradients of both results together by every operand."""
    shape, types = draw.shape_and_types()
    device, (dz, dkl) = draw.mu.device, upstream
    if dz is not None:
        check_upstream("dz", dz, (*draw.options.sample_shape, *shape), device)
    if dkl is not None:
        check_upstream("dkl", dkl, shape[: len(shape) - (draw.event_ndim or 0)], device)
    if shape.numel() == 0:
        for grad in grads:
            if grad is not None:
                grad.zero_()
    elif any([grad is not None for grad in grads]):
        _differentiate(upstream, draw, types, grads)


class Groups:
    """A gradient to which several groups of samples have each their part, and which is their sum."""

    def __init__(self, out: Tensor, groups: int, plan: Layout, types: Types) -> None:
        self.out, self.groups, self.plan = out, groups, plan
        self.parts = torch.empty((groups, plan.rows * plan.columns), dtype=types.arithmetic, device=out.device)

    def argument(self) -> Argument:
        """A group's gradient is dense in C order."""
        datum = self.plan.columns // self.plan.vec
        return self.parts, datum * self.plan.datum_rows, datum

    def finish(self) -> None:
        """After the kernel was launched."""
        out = self.out
        target = out if out.is_contiguous() else torch.empty(out.shape, dtype=out.dtype, device=out.device)
        launch.join(self.parts, self.groups, target)
        if target is not out:
            out.copy_(target)


def _are_each(gradients: Sequence[layout.Gradient]) -> bool:
    """Whether every gradient is made element by element, or not at all."""
    return all([p.kind in (layout.NONE, layout.EACH) for p in gradients])


def _differentiate(upstream: Upstream, draw: Draw, types: Types, grads: Sequence[Tensor | None]) -> None:
    device, sample_dims, dkl = draw.mu.device, len(draw.options.sample_shape), readable(upstream.dkl)
    # σ's gradient alone goes with the noise.
    given = None if upstream.dz is None or grads[1] is None else draw.options.noise
    noise = NO_SAMPLES if given is None else samples_of(given, sample_dims, device)
    dz = NO_SAMPLES if upstream.dz is None else samples_of(upstream.dz, sample_dims, device)
    of_grads: list[Spec | None] = [None if g is None else spec_of(g, device) for g in grads]
    of_grads += (None,) * (OPERANDS - len(grads))
    results = (tuple(of_grads), None, layout.NONE)
    plan, aligned, (noise, dz) = plan_of(draw, types, (noise, dz), (spec_of(dkl, device, True),), results, 0)
    groups = 1
    # The gradients of the prior, which come of the KL alone, are made of all samples at once.
    if draw.samples >= 2 * GROUP_SAMPLES and dz[0] is not None and _are_each(plan.gradients[:MOMENTS]):
        groups = max(1, min(draw.samples // GROUP_SAMPLES, ceil_div(BUSY, plan.programs)))
    *_, of_dz, of_dkl = plan.operands
    args = read_operands(draw, noise, plan)
    args += (*argument(dz[0], of_dz, plan), dz[1] // plan.vec, *argument(dkl, of_dkl, plan, True))
    filled: list[GradientOut | Groups] = []
    for k, made in enumerate(plan.gradients[: OPERANDS if draw.more else MOMENTS]):
        grad, step = grads[k] if k < len(grads) else None, 0
        if grad is None:
            args += NOTHING
        else:
            if groups == 1 or k >= MOMENTS:
                filled.append(GradientOut(grad, made, plan, types.arithmetic, device))
            else:
                filled.append(Groups(grad, groups, plan, types))
                step = plan.columns // plan.vec * plan.rows
            args += filled[-1].argument()
        if k < MOMENTS:
            args.append(step)
    args += draw.arguments(groups, plan)
    one = draw.samples == 1
    constants = {**draw.constants(groups, plan, aligned, types), "KINDS": plan.kinds, "ONE": one}
    registers = launch.ALL_REGISTERS
    if one and draw.is_light(groups, plan, types):
        # Both results' gradients need more where rows share a tile, and a temperature besides.
        more = dkl is not None and (plan.constants["BLOCK_ROWS"] > 1 or draw.options.temperature != 1.0)
        levels = (launch.FEW_REGISTERS, launch.MORE_REGISTERS, launch.ALL_REGISTERS)
        registers = levels[(constants["LANES"] != NORMALS) + more]
    kernel = sampling.backward_of_more if draw.more else sampling.backward
    launch.run(kernel, plan.programs * groups, device, args, constants, registers)
    for part in filled:
        part.finish()
