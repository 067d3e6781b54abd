"""A sampler's calls by classes: what shapes, strides, dtypes and options decide of them, worked out once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vae_fast.triton_kernels import launch, layout, sampling
from vae_fast.triton_kernels.drawing import MOMENTS, NO_SAMPLES, NOISE, OPERANDS, Draw, Samples, plan_of, samples_of
from vae_fast.triton_kernels.launch import Launch
from vae_fast.triton_kernels.layout import BUSY, Layout, ceil_div
from vae_fast.triton_kernels.noise import NORMALS
from vae_fast.triton_kernels.operands import Types, check_upstream, is_in_place, spec_of
from vae_fast.triton_kernels.walk import Spec

# Samples that a program of a backward pass adds up at least, where others take the rest.
GROUP_SAMPLES = 8
# Where the KL's upstream gradient has its strides among a backward pass's others: behind dz's three, and three of
# the noise that is given, which the kernel of more takes.
OF_DKL = {False: 3, True: 6}


class Pass(NamedTuple):
    """A pass of a class of calls, as far as it is the same for all of them."""

    plan: Layout
    types: Types
    launch: Launch
    # In how many groups samples are shared out.
    groups: int
    # What the kernel takes of the operands, and of the rest that it reads or writes.
    strides: tuple[int, ...]
    others: tuple[int, ...]
    # Whether dense copies are read of the noise that is given, and of the samples' gradient.
    dense: tuple[bool, ...]
    # Whether all else is read where it lies.
    in_place: bool


class Forward(NamedTuple):
    """What a class of forward passes makes: z as mu is, or of a shape; perhaps a KL; in a pass, if of anything."""

    types: Types
    z: tuple[int, ...] | None
    kl: torch.Size | None
    one: Pass | None


def empty_z(draw: Draw, types: Types, shape: tuple[int, ...] | None, device: torch.device | str) -> Tensor:
    """Room for z, as mu lies or of a shape."""
    if shape is None:
        return torch.empty_like(draw.mu, dtype=types.promoted, device=device)
    return torch.empty(shape, dtype=types.promoted, device=device)


def forward_class(draw: Draw, given: Tensor | None) -> Forward:
    """The class of a call. Raises where no kernel can read its operands, or its noise."""
    shape, types = draw.shape_and_types()
    sample_shape, kl = draw.options.sample_shape, None
    z_shape = None if not sample_shape and draw.mu.shape == shape else (*sample_shape, *shape)
    if draw.event_ndim is not None:
        kl = shape[: len(shape) - draw.event_ndim]
    z = empty_z(draw, types, z_shape, "meta")
    empty = shape.numel() == 0 or (z.numel() == 0 and kl is None)
    return Forward(types, z_shape, kl, None if empty else _forward_pass(draw, types, given, z))


def _forward_pass(draw: Draw, types: Types, given: Tensor | None, z: Tensor) -> Pass:
    device, dims = draw.mu.device, len(draw.options.sample_shape)
    of_one = Spec(z.shape[dims:], z.stride()[dims:])
    step, value = math.prod(of_one.shape), layout.NONE if draw.event_ndim is None else layout.ROW
    before = NO_SAMPLES if given is None else samples_of(given, dims, device)
    plan, aligned, (noise,) = plan_of(draw, types, (before,), (), ((), of_one, value), step)
    groups = max(1, min(draw.samples, ceil_div(BUSY, plan.programs)))
    alone = value == layout.NONE or plan.segments == 1
    constants = {**draw.constants(groups, plan, aligned, types), "VALUE": value, "ALONE": alone}
    registers = launch.FEW_REGISTERS if draw.in_few_registers(groups, plan, types) else launch.ALL_REGISTERS
    kernel = sampling.forward_of_more if draw.more else sampling.forward
    return Pass(
        plan,
        types,
        Launch(kernel, plan.programs * groups, device, constants, registers),
        groups,
        operand_strides(draw, plan),
        (*of_noise(draw, plan, noise), *plan.strides(plan.out), step // plan.vec),
        (noise is not before,),
        are_in_place(draw, plan),
    )


def operand_strides(draw: Draw, plan: Layout) -> tuple[int, ...]:
    """The operands', of as many as the kernel takes."""
    views = plan.operands[: OPERANDS if draw.more else MOMENTS]
    return tuple([stride for view in views for stride in plan.strides(view)])


def of_noise(draw: Draw, plan: Layout, noise: Samples) -> tuple[int, ...]:
    """The strides of the noise that is given, if the kernel takes any."""
    return (*plan.strides(plan.operands[NOISE]), noise[1] // plan.vec) if draw.more else ()


def are_in_place(draw: Draw, plan: Layout) -> bool:
    return all([is_in_place(view) for view in plan.operands[:OPERANDS]])


class Upstream(NamedTuple):
    """The gradients that reach z and its KL."""

    dz: Tensor | None
    dkl: Tensor | None = None


class Backward(NamedTuple):
    """What a class of backward passes makes: gradients of 0, nothing, or those that a pass makes."""

    empty: bool
    one: Pass | None
    # Whether the KL's upstream gradient is read where it lies, and every gradient written where it is returned.
    reads_in_place: bool
    writes_in_place: bool


def backward_class(
    upstream: Upstream, draw: Draw, given: Tensor | None, grads: Sequence[Tensor | None]
) -> Backward:
    """The class of a call. Raises where no kernel can read its operands, its noise or its upstream gradients."""
    shape, types = draw.shape_and_types()
    device, (dz, dkl) = draw.mu.device, upstream
    if dz is not None:
        check_upstream("dz", dz, (*draw.options.sample_shape, *shape), device)
    if dkl is not None:
        check_upstream("dkl", dkl, shape[: len(shape) - (draw.event_ndim or 0)], device)
    if shape.numel() == 0 or all([grad is None for grad in grads]):
        return Backward(shape.numel() == 0, None, True, True)
    one = _backward_pass(upstream, draw, types, given, grads)
    made = one.plan.gradients
    writes = one.groups == 1 and all([g.temporary is None and not g.partials for g in made])
    return Backward(False, one, is_in_place(one.plan.operands[-1]), writes)


def are_each(gradients: Sequence[layout.Gradient]) -> bool:
    """Whether every gradient is made element by element, or not at all."""
    return all([p.kind in (layout.NONE, layout.EACH) for p in gradients])


def _backward_pass(
    upstream: Upstream, draw: Draw, types: Types, given: Tensor | None, grads: Sequence[Tensor | None]
) -> Pass:
    device, dims = draw.mu.device, len(draw.options.sample_shape)
    before = tuple([NO_SAMPLES if t is None else samples_of(t, dims, device) for t in (given, upstream.dz)])
    of_grads: list[Spec | None] = [None if g is None else spec_of(g, device) for g in grads]
    of_grads += (None,) * (OPERANDS - len(grads))
    results = (tuple(of_grads), None, layout.NONE)
    dkl = spec_of(upstream.dkl, device, True)
    plan, aligned, after = plan_of(draw, types, before, (dkl,), results, 0)
    noise, dz = after
    groups = 1
    # The gradients of the prior, which come of the KL alone, are made of all samples at once.
    if draw.samples >= 2 * GROUP_SAMPLES and dz[0] is not None and are_each(plan.gradients[:MOMENTS]):
        groups = max(1, min(draw.samples // GROUP_SAMPLES, ceil_div(BUSY, plan.programs)))
    *_, of_dz, of_dkl = plan.operands
    others = [*of_noise(draw, plan, noise), *plan.strides(of_dz), dz[1] // plan.vec, *plan.strides(of_dkl)]
    datum = plan.columns // plan.vec
    for k, (made, grad) in enumerate(zip(plan.gradients, of_grads, strict=True)):
        in_groups = groups > 1 and k < MOMENTS and grad is not None
        if k < MOMENTS:
            # A group's gradient is dense in C order.
            strides = (datum * plan.datum_rows, datum) if in_groups else plan.strides(made.view)
            others += (*strides, datum * plan.rows if in_groups else 0)
        elif draw.more:
            others += plan.strides(made.view)
    one = draw.samples == 1
    constants = {**draw.constants(groups, plan, aligned, types), "KINDS": plan.kinds, "ONE": one}
    registers = launch.ALL_REGISTERS
    if one and draw.in_few_registers(groups, plan, types):
        # Both results' gradients need more where rows share a tile, and a temperature besides.
        more = dkl is not None and (plan.constants["BLOCK_ROWS"] > 1 or draw.options.temperature != 1.0)
        levels = (launch.FEW_REGISTERS, launch.MORE_REGISTERS, launch.ALL_REGISTERS)
        registers = levels[(constants["LANES"] != NORMALS) + more]
    kernel = sampling.backward_of_more if draw.more else sampling.backward
    return Pass(
        plan,
        types,
        Launch(kernel, plan.programs * groups, device, constants, registers),
        groups,
        operand_strides(draw, plan),
        tuple(others),
        tuple([a is not b for a, b in zip(after, before, strict=True)]),
        are_in_place(draw, plan),
    )
