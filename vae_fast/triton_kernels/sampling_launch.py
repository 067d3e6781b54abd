"""The launches of sampling.py's kernels: layouts, groups of samples, and what is left to do after them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import triton.language as tl
from torch import Tensor

from vae_fast.sigma import SigmaForm
from vae_fast.triton_kernels import launch, layout, sampling
from vae_fast.triton_kernels.layout import BUSY, Layout, Spec, ceil_div
from vae_fast.triton_kernels.operands import (
    GradientOut,
    Gradients,
    Types,
    arguments,
    fitting,
    form_constants,
    readable,
    shape_of,
    spec_of,
    types_of,
)

# Samples that a program of a backward pass adds up at least, where others take the rest.
GROUP_SAMPLES = 8


class Draw(NamedTuple):
    """What is drawn, and from which Gaussian: everything but the tensors."""

    sample_shape: Sequence[int]
    seed: int
    seed_tensor: Tensor | None
    offset: int
    first_sample: int
    form: SigmaForm
    # None: no KL.
    event_ndim: int | None = None
    free_bits: float | None = None

    def arguments(self, samples: int, groups: int, plan: Layout) -> tuple[Any, ...]:
        noise = (self.seed, self.seed_tensor, self.offset, self.first_sample, samples, groups)
        return *noise, *plan.space_arguments, self.free_bits or 0.0, *self.form[1:]

    def constants(self, groups: int, plan: Layout, aligned: bool, types: Types) -> dict[str, Any]:
        return {
            "FLOOR": self.free_bits is not None,
            **form_constants(self.form),
            "GROUPED": groups > 1,
            "ALIGNED": aligned,
            "LANES": 8 if types.promoted.itemsize == 2 and aligned else 4,
            "T": tl.float64 if types.arithmetic == torch.float64 else tl.float32,
            "MODES": plan.modes,
            **plan.constants,
        }


def _plan(
    mu: Tensor,
    others: tuple[Spec | None, ...],
    gradients: tuple[Spec | None, ...],
    out: Spec | None,
    draw: Draw,
    types: Types,
    sums_rows: bool,
    step: int,
) -> tuple[Layout, bool]:
    """The layout of a call, and whether every row's noise begins with a counter.

    ``step`` is from one sample to the next.
    """
    operands = (spec_of(mu, mu.device), *others)
    sizes = (types.itemsize, types.arithmetic.itemsize, launch.tile_bytes)
    parts = (operands, gradients, out, draw.event_ndim or 0, sums_rows, False, None, *sizes)
    plan = layout.layout(*parts, step)
    aligned = draw.offset % 4 == 0 and (plan.rows == 1 or plan.columns % 4 == 0)
    return (plan if aligned else layout.layout(*parts, step, 3)), aligned


def forward(mu: Tensor, logvar: Tensor, draw: Draw) -> tuple[Tensor, Tensor | None]:
    """z, and with an ``event_ndim`` the KL of every datum."""
    shape, device = shape_of((mu, logvar), 2, draw.event_ndim or 0), mu.device
    types = types_of((mu, logvar), 2)
    samples = math.prod(draw.sample_shape)
    if not draw.sample_shape and mu.shape == shape:
        z = torch.empty_like(mu, dtype=types.promoted)
    else:
        z = torch.empty((*draw.sample_shape, *shape), dtype=types.promoted, device=device)
    kl = None
    if draw.event_ndim is not None:
        kl = torch.empty(shape[: len(shape) - draw.event_ndim], dtype=types.sums, device=device)
    if shape.numel() == 0 or (z.numel() == 0 and kl is None):
        return z, kl if kl is None else kl.zero_()
    mu_, logvar_ = readable(mu), readable(logvar)
    of_one, step = Spec(shape, z.stride()[len(draw.sample_shape) :]), shape.numel()
    plan, aligned = _plan(mu_, (spec_of(logvar_, device),), (), of_one, draw, types, kl is not None, step)
    target = z if plan.out.copy is None else torch.empty(plan.out.copy, dtype=types.promoted, device=device)
    groups = max(1, min(samples, ceil_div(BUSY, plan.programs)))
    partials = None
    if kl is not None and plan.segments > 1:
        partials = torch.empty((plan.segments, plan.rows), dtype=torch.float64, device=device)
    args = (
        *arguments(mu_, plan.operands[0], plan),
        *arguments(logvar_, plan.operands[1], plan),
        target,
        *plan.strides(plan.out),
        step // plan.vec,
        kl,
        partials,
        *draw.arguments(samples, groups, plan),
    )
    constants = {
        **draw.constants(groups, plan, aligned, types),
        "VALUE": layout.NONE if kl is None else layout.ROW,
        "ALONE": partials is None,
    }
    launch.run(sampling.forward, plan.programs * groups, device, args, constants)
    if partials is not None and kl is not None:
        launch.join(partials, plan.segments, kl)
    if target is not z:
        z.copy_(target.reshape(z.shape))
    return z, kl


def backward(
    dz: Tensor | None,
    dkl: Tensor | None,
    mu: Tensor,
    logvar: Tensor,
    draw: Draw,
    needs: tuple[bool, bool],
    *packed: Any,
) -> tuple[Tensor, ...]:
    """The gradients by μ and logvar of both results together."""
    event_ndim = draw.event_ndim or 0
    shape = shape_of((mu, logvar), 2, event_ndim)
    if dz is not None:
        fitting("dz", dz, (*draw.sample_shape, *shape), mu.device)
    if dkl is not None:
        fitting("dkl", dkl, shape[: len(shape) - event_ndim], mu.device)
    grads = Gradients((mu, logvar), needs, mu.device, *packed)
    if shape.numel() == 0:
        for grad in grads.each:
            if grad is not None:
                grad.zero_()
    elif any(needs):
        _differentiate(readable(dz), readable(dkl), readable(mu), readable(logvar), draw, grads.each, shape)
    return grads.finished()


def _with_one_step(dz: Tensor | None, sample_dims: int) -> tuple[Tensor | None, int]:
    """dz with sample dims that are one, and their stride."""
    if dz is None:
        return None, 0
    if dz.numel() == 0:
        # Whatever its strides, it counts as contiguous.
        return dz.new_empty(dz.shape), 0
    sizes, strides = dz.shape[:sample_dims], dz.stride()[:sample_dims]
    walked = [(n, stride) for n, stride in zip(sizes, strides, strict=True) if n != 1]
    for (_, outer), (n, inner) in zip(walked, walked[1:], strict=False):
        if outer != inner * n:
            return dz.contiguous(), dz.shape[sample_dims:].numel()
    return dz, walked[-1][1] if walked else 0


def _differentiate(
    dz: Tensor | None,
    dkl: Tensor | None,
    mu: Tensor,
    logvar: Tensor,
    draw: Draw,
    grads: Sequence[Tensor | None],
    shape: torch.Size,
) -> None:
    device, types, sample_dims = mu.device, types_of((mu, logvar), 2), len(draw.sample_shape)
    samples = math.prod(draw.sample_shape)

    def planned(dz: Tensor | None, step: int) -> tuple[Layout, bool]:
        of_one = None if dz is None else Spec(shape, dz.stride()[sample_dims:])
        others = (spec_of(logvar, device), of_one, spec_of(dkl, device, True))
        return _plan(mu, others, tuple(spec_of(g, device) for g in grads), None, draw, types, False, step)

    dz, step = _with_one_step(dz, sample_dims)
    plan, aligned = planned(dz, step)
    if dz is not None and plan.operands[2].copy is not None:
        dz, step = dz.contiguous(), shape.numel()
        plan, aligned = planned(dz, step)
    made = [GradientOut(g, p, types.arithmetic, device) for g, p in zip(grads, plan.gradients, strict=True)]
    groups = 1
    if dz is not None and all(p.kind in (layout.NONE, layout.EACH) for p in plan.gradients):
        groups = max(1, min(samples // GROUP_SAMPLES, ceil_div(BUSY, plan.programs)))
    by_group = [
        None
        if groups == 1 or g is None
        else torch.empty((groups, shape.numel()), dtype=types.arithmetic, device=device)
        for g in grads
    ]
    args: list[Any] = [*arguments(mu, plan.operands[0], plan), *arguments(logvar, plan.operands[1], plan)]
    args += (
        *arguments(dz, plan.operands[2], plan),
        step // plan.vec,
        *arguments(dkl, plan.operands[3], plan, True),
    )
    for grad, parts in zip(made, by_group, strict=True):
        if parts is None:
            args += (*grad.arguments(plan), 0)
        else:
            # A group's gradient is dense in C order.
            datum = plan.columns // plan.vec
            args += (parts, datum * plan.datum_rows, datum, datum * plan.rows)
    args += draw.arguments(samples, groups, plan)
    constants = {
        **draw.constants(groups, plan, aligned, types),
        "KINDS": plan.kinds,
        "ONE": samples == 1,
    }
    launch.run(sampling.backward, plan.programs * groups, device, args, constants)
    for grad, parts, out in zip(made, by_group, grads, strict=True):
        if parts is None:
            grad.finish(plan)
        elif out is not None:
            target = out if out.is_contiguous() else torch.empty(out.shape, dtype=out.dtype, device=device)
            launch.join(parts, groups, target)
            if target is not out:
                out.copy_(target)
