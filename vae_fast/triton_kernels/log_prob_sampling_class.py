"""Calls of log_prob_sampling.py's kernels by classes: what shapes, strides, dtypes and options decide of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

from vae_fast.operators import Q_GRADS
from vae_fast.triton_kernels import launch, layout, log_prob_sampling
from vae_fast.triton_kernels.drawing import NO_SAMPLES, Draw, Samples, plan_of, samples_of
from vae_fast.triton_kernels.layout import BUSY, Layout, ceil_div
from vae_fast.triton_kernels.operands import Types, check_upstream, spec_of
from vae_fast.triton_kernels.sampling_class import (
    GROUP_SAMPLES,
    Pass,
    are_each,
    are_in_place,
    empty_z,
    of_noise,
    operand_strides,
)
from vae_fast.triton_kernels.walk import Spec

_PATH = Q_GRADS["path"]


class Forward(NamedTuple):
    """What a class of forward passes makes: z as mu is, or of a shape; both sums; in a pass, if of anything."""

    types: Types
    z: tuple[int, ...] | None
    sums: tuple[int, ...]
    one: Pass | None


def forward_class(draw: Draw, given: Tensor | None) -> Forward:
    """The class of a call. Raises where no kernel can read its operands, or its noise."""
    shape, types = draw.shape_and_types()
    samples, event_ndim = draw.options.sample_shape, draw.event_ndim or 0
    z_shape = None if not samples and draw.mu.shape == shape else (*samples, *shape)
    sums = (*samples, *shape[: len(shape) - event_ndim])
    z = empty_z(draw, types, z_shape, "meta")
    return Forward(types, z_shape, sums, _forward_pass(draw, types, given, z) if z.numel() else None)


def _constants(draw: Draw, groups: int, plan: Layout, aligned: bool, types: Types) -> dict[str, Any]:
    constants = draw.constants(groups, plan, aligned, types)
    # There are none.
    del constants["FLOOR"], constants["TEMPERED"]
    return constants


def _forward_pass(draw: Draw, types: Types, given: Tensor | None, z: Tensor) -> Pass:
    device, dims = draw.mu.device, len(draw.options.sample_shape)
    of_one = Spec(z.shape[dims:], z.stride()[dims:])
    step = math.prod(of_one.shape)
    before = NO_SAMPLES if given is None else samples_of(given, dims, device)
    plan, aligned, (noise,) = plan_of(draw, types, (before,), (), ((), of_one, layout.ROW), step)
    groups = max(1, min(draw.samples, ceil_div(BUSY, plan.programs)))
    constants = {**_constants(draw, groups, plan, aligned, types), "ALONE": plan.segments == 1}
    return Pass(
        plan,
        types,
        launch.Launch(log_prob_sampling.forward, plan.programs * groups, device, constants),
        groups,
        operand_strides(draw, plan),
        (*of_noise(draw, plan, noise), *plan.strides(plan.out), step // plan.vec),
        (noise is not before,),
        are_in_place(draw, plan),
    )


class Upstream(NamedTuple):
    """The gradients that reach z and its log-densities."""

    dz: Tensor | None
    dlog_q: Tensor | None
    dlog_p: Tensor | None

    def draws(self, draw: Draw, of_logvar: bool) -> bool:
        """Whether gradients go with the noise."""
        through_z = self.dz is not None and of_logvar
        return through_z or self.dlog_p is not None or (self.dlog_q is not None and _is_path(draw))


def _is_path(draw: Draw) -> bool:
    return bool(draw.options.q_grad == _PATH)


def over_event(gradient: Tensor | None, draw: Draw) -> Tensor | None:
    """The gradient of sums over the event, with dims of 1 in its place."""
    if gradient is None:
        return None
    return gradient.reshape((*gradient.shape, *(1,) * (draw.event_ndim or 0)))


class Backward(NamedTuple):
    """What a class of backward passes makes: gradients of 0, nothing, or those that a pass makes."""

    empty: bool
    one: Pass | None
    # Whether every gradient is written where it is returned.
    writes_in_place: bool


def backward_class(
    upstream: Upstream, draw: Draw, given: Tensor | None, grads: Sequence[Tensor | None]
) -> Backward:
    """The class of a call. Raises where no kernel can read its operands, its noise or its upstream gradients."""
    shape, types = draw.shape_and_types()
    samples, device, (dz, *of_sums) = draw.options.sample_shape, draw.mu.device, upstream
    if dz is not None:
        check_upstream("dz", dz, (*samples, *shape), device)
    data = shape[: len(shape) - (draw.event_ndim or 0)]
    for name, gradient in zip(("dlog_q", "dlog_p"), of_sums, strict=True):
        if gradient is not None:
            check_upstream(name, gradient, (*samples, *data), device)
    if shape.numel() == 0 or all([grad is None for grad in grads]):
        return Backward(shape.numel() == 0, None, True)
    one = _backward_pass(upstream, draw, types, given, grads)
    writes = one.groups == 1 and all([g.temporary is None and not g.partials for g in one.plan.gradients])
    return Backward(False, one, writes)


def _backward_pass(
    upstream: Upstream, draw: Draw, types: Types, given: Tensor | None, grads: Sequence[Tensor | None]
) -> Pass:
    device, dims = draw.mu.device, len(draw.options.sample_shape)
    read = (given, upstream.dz, over_event(upstream.dlog_q, draw), over_event(upstream.dlog_p, draw))
    before: Sequence[Samples] = [NO_SAMPLES if t is None else samples_of(t, dims, device) for t in read]
    of_grads = tuple([None if g is None else spec_of(g, device) for g in grads])
    plan, aligned, after = plan_of(draw, types, before, (), (of_grads, None, layout.NONE), 0, sums=2)
    groups = 1
    if draw.samples >= 2 * GROUP_SAMPLES and are_each(plan.gradients):
        groups = max(1, min(draw.samples // GROUP_SAMPLES, ceil_div(BUSY, plan.programs)))
    noise, *of_results = after
    others = [*of_noise(draw, plan, noise)]
    *_, of_dz, of_dlog_q, of_dlog_p = plan.operands
    views = of_dz, of_dlog_q, of_dlog_p
    # The sums' have a step in elements.
    for (_, step), view, unit in zip(of_results, views, (plan.vec, 1, 1), strict=True):
        others += (*plan.strides(view), step // unit)
    datum = plan.columns // plan.vec
    for made, grad in zip(plan.gradients, of_grads, strict=True):
        in_groups = groups > 1 and grad is not None
        # A group's gradient is dense in C order.
        strides = (datum * plan.datum_rows, datum) if in_groups else plan.strides(made.view)
        others += (*strides, datum * plan.rows if in_groups else 0)
    draws = upstream.draws(draw, grads[1] is not None)
    constants = _constants(draw, groups, plan, aligned, types)
    constants |= {"KINDS": plan.kinds, "PATH": _is_path(draw), "DRAWS": draws, "ONE": draw.samples == 1}
    return Pass(
        plan,
        types,
        launch.Launch(log_prob_sampling.backward, plan.programs * groups, device, constants),
        groups,
        operand_strides(draw, plan),
        tuple(others),
        tuple([a is not b for a, b in zip(after, before, strict=True)]),
        are_in_place(draw, plan),
    )
