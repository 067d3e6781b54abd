"""The launches of sampling.py's kernels: layouts, groups of samples, and what is left to do after them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import triton.language as tl
from torch import Tensor

from vae_fast.operators import Wanted
from vae_fast.triton_kernels import launch, layout, sampling
from vae_fast.triton_kernels.layout import ACCESS_BYTES, BUSY, Layout, Request, ceil_div
from vae_fast.triton_kernels.noise import NORMALS
from vae_fast.triton_kernels.operands import (
    Argument,
    GradientOut,
    Gradients,
    Types,
    argument,
    check_upstream,
    form_of,
    is_plain,
    readable,
    shape_of,
    spec_of,
    types_of,
)
from vae_fast.triton_kernels.walk import Spec

# Samples that a program of a backward pass adds up at least, where others take the rest.
GROUP_SAMPLES = 8


class Draw(NamedTuple):
    """What is drawn: an operator's options, and those of its KL (``event_ndim`` is None where it has none)."""

    options: Any
    event_ndim: int | None = None
    free_bits: float | None = None

    @property
    def samples(self) -> int:
        return math.prod(self.options.sample_shape)

    def arguments(self, groups: int, plan: Layout) -> tuple[Any, ...]:
        o = self.options
        noise = (o.seed, o.seed_tensor, o.offset, o.first_sample, self.samples, groups)
        return *noise, *plan.space_arguments, self.free_bits or 0.0, o.param_eps, o.low, o.high

    def constants(self, groups: int, plan: Layout, aligned: bool, types: Types) -> dict[str, Any]:
        form, eps, bounded = form_of(self.options)
        return {
            "FLOOR": self.free_bits is not None,
            "FORM": form,
            "EPS": eps,
            "BOUNDED": bounded,
            "GROUPED": groups > 1,
            "ALIGNED": aligned,
            "LANES": ACCESS_BYTES // types.promoted.itemsize if _is_half(types) and aligned else NORMALS,
            "T": tl.float64 if types.arithmetic == torch.float64 else tl.float32,
            "MODES": plan.modes,
            **plan.constants,
        }

    def is_light(self, groups: int, plan: Layout, types: Types) -> bool:
        """Whether its kernel needs few registers on Hopper."""
        return plan.vec > 1 and groups == 1 and types.arithmetic != torch.float64 and is_plain(self.options)


def _is_half(types: Types) -> bool:
    return types.promoted.itemsize == torch.float16.itemsize


def _plan(draw: Draw, types: Types, specs: Sequence[Spec | None], step: int, **results: Any) -> tuple[Layout, bool]:
    """The layout of a call, and whether every row's noise begins with a counter.

    ``step`` is from one sample to the next, ``results`` what of a ``Request`` says where results go.
    """
    request = Request(
        operands=tuple(specs),
        **results,
        event_ndim=draw.event_ndim or 0,
        walk_as_anchor=None,
        itemsize=types.itemsize,
        arithmetic=types.arithmetic.itemsize,
        tile_bytes=launch.tile_bytes,
        step=step,
    )
    plan = layout.layout(request)
    aligned = draw.options.offset % NORMALS == 0 and (plan.rows == 1 or plan.columns % NORMALS == 0)
    return (plan if aligned else layout.layout(request._replace(room=NORMALS - 1))), aligned


def forward(mu: Tensor, logvar: Tensor, draw: Draw) -> tuple[Tensor, Tensor | None]:
    """z, and with an ``event_ndim`` the KL of every datum."""
    shape, device = shape_of((mu, logvar), 2, draw.event_ndim or 0), mu.device
    types, sample_shape = types_of((mu, logvar), 2), draw.options.sample_shape
    if not sample_shape and mu.shape == shape:
        z = torch.empty_like(mu, dtype=types.promoted)
    else:
        z = torch.empty((*sample_shape, *shape), dtype=types.promoted, device=device)
    kl = None
    if draw.event_ndim is not None:
        kl = torch.empty(shape[: len(shape) - draw.event_ndim], dtype=types.sums, device=device)
    if shape.numel() == 0 or (z.numel() == 0 and kl is None):
        return z, kl if kl is None else kl.zero_()
    _draw(readable(mu), readable(logvar), draw, types, z, kl)
    return z, kl


def _draw(mu: Tensor, logvar: Tensor, draw: Draw, types: Types, z: Tensor, kl: Tensor | None) -> None:
    """Fills z and the KL."""
    device, sample_dims = mu.device, len(draw.options.sample_shape)
    of_one = Spec(z.shape[sample_dims:], z.stride()[sample_dims:])
    step, value = math.prod(of_one.shape), layout.NONE if kl is None else layout.ROW
    specs = (spec_of(mu, device), spec_of(logvar, device))
    plan, aligned = _plan(draw, types, specs, step, gradients=(), out=of_one, value=value)
    target = z if plan.out.copy is None else torch.empty(plan.out.copy, dtype=types.promoted, device=device)
    groups = max(1, min(draw.samples, ceil_div(BUSY, plan.programs)))
    partials = None
    if kl is not None and plan.segments > 1:
        partials = torch.empty((plan.segments, plan.rows), dtype=torch.float64, device=device)
    args = (
        *argument(mu, plan.operands[0], plan),
        *argument(logvar, plan.operands[1], plan),
        target,
        *plan.strides(plan.out),
        step // plan.vec,
        kl,
        partials,
        *draw.arguments(groups, plan),
    )
    constants = {**draw.constants(groups, plan, aligned, types), "VALUE": value, "ALONE": partials is None}
    registers = launch.FEW_REGISTERS if draw.is_light(groups, plan, types) else launch.ALL_REGISTERS
    launch.run(sampling.forward, plan.programs * groups, device, args, constants, registers)
    if partials is not None and kl is not None:
        launch.join(partials, plan.segments, kl)
    if target is not z:
        z.copy_(target.reshape(z.shape))


class Upstream(NamedTuple):
    """The gradients that reach z and its KL."""

    dz: Tensor | None
    dkl: Tensor | None = None


def backward(upstream: Upstream, mu: Tensor, logvar: Tensor, draw: Draw, wanted: Wanted) -> tuple[Tensor, ...]:
    """The gradients by μ and logvar of both results together."""
    event_ndim, sample_shape = draw.event_ndim or 0, draw.options.sample_shape
    shape = shape_of((mu, logvar), 2, event_ndim)
    dz, dkl = upstream
    if dz is not None:
        check_upstream("dz", dz, (*sample_shape, *shape), mu.device)
    if dkl is not None:
        check_upstream("dkl", dkl, shape[: len(shape) - event_ndim], mu.device)
    gradients = Gradients((mu, logvar), (0, 1), wanted, mu.device)
    if shape.numel() == 0:
        for grad in gradients.each:
            if grad is not None:
                grad.zero_()
    elif any(wanted.needs):
        given = Upstream(readable(dz), readable(dkl))
        _differentiate(given, readable(mu), readable(logvar), draw, gradients.each, shape)
    return gradients.finished()


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


class _Groups:
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


def _differentiate(
    upstream: Upstream, mu: Tensor, logvar: Tensor, draw: Draw, grads: Sequence[Tensor | None], shape: torch.Size
) -> None:
    device, types, sample_dims = mu.device, types_of((mu, logvar), 2), len(draw.options.sample_shape)
    dkl = upstream.dkl

    def planned(dz: Tensor | None, step: int) -> tuple[Layout, bool]:
        of_one = None if dz is None else Spec(shape, dz.stride()[sample_dims:])
        specs = (spec_of(mu, device), spec_of(logvar, device), of_one, spec_of(dkl, device, True))
        of_grads = tuple(spec_of(g, device) for g in grads)
        return _plan(draw, types, specs, step, gradients=of_grads, out=None, value=layout.NONE)

    dz, step = _with_one_step(upstream.dz, sample_dims)
    plan, aligned = planned(dz, step)
    if dz is not None and plan.operands[2].copy is not None:
        dz, step = dz.contiguous(), shape.numel()
        plan, aligned = planned(dz, step)
    groups = 1
    if dz is not None and all(p.kind in (layout.NONE, layout.EACH) for p in plan.gradients):
        groups = max(1, min(draw.samples // GROUP_SAMPLES, ceil_div(BUSY, plan.programs)))
    args: list[Any] = [*argument(mu, plan.operands[0], plan), *argument(logvar, plan.operands[1], plan)]
    args += (*argument(dz, plan.operands[2], plan), step // plan.vec)
    args += argument(dkl, plan.operands[3], plan, True)
    filled: list[GradientOut | _Groups] = []
    for grad, made in zip(grads, plan.gradients, strict=True):
        if groups == 1 or grad is None:
            filled.append(GradientOut(grad, made, plan, types.arithmetic, device))
            args += (*filled[-1].argument(), 0)
        else:
            filled.append(_Groups(grad, groups, plan, types))
            args += (*filled[-1].argument(), plan.columns // plan.vec * plan.rows)
    args += draw.arguments(groups, plan)
    one = draw.samples == 1
    constants = {**draw.constants(groups, plan, aligned, types), "KINDS": plan.kinds, "ONE": one}
    registers = launch.ALL_REGISTERS
    if one and draw.is_light(groups, plan, types):
        registers = launch.FEW_REGISTERS if constants["LANES"] == NORMALS else launch.MORE_REGISTERS
    launch.run(sampling.backward, plan.programs * groups, device, args, constants, registers)
    for part in filled:
        part.finish()
