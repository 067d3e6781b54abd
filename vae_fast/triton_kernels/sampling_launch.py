"""The launches of sampling.py's kernels: what is allocated, and what is left to do after them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vae_fast.triton_kernels import launch
from vae_fast.triton_kernels.drawing import MOMENTS, OPERANDS, Draw, samples_of
from vae_fast.triton_kernels.kept import Recent
from vae_fast.triton_kernels.layout import Layout
from vae_fast.triton_kernels.operands import GradientOut, Types, argument, key_of, readable
from vae_fast.triton_kernels.sampling_class import (
    OF_DKL,
    Backward,
    Forward,
    Pass,
    Upstream,
    backward_class,
    empty_z,
    forward_class,
)

_forwards: Recent[Forward] = Recent()


def forward(draw: Draw) -> tuple[Tensor, Tensor | None]:
    """z, and with an ``event_ndim`` the KL of every datum."""
    given, device = readable(draw.options.noise), draw.mu.device
    key = (*key_of(*draw.operands, given), *draw.key)
    found = _forwards.find(key) or _forwards.keep(key, forward_class(draw, given))
    z = empty_z(draw, found.types, found.z, device)
    kl = None if found.kl is None else torch.empty(found.kl, dtype=found.types.sums, device=device)
    if found.one is None:
        return z, kl if kl is None else kl.zero_()
    _draw(draw, found.one, given, z, kl)
    return z, kl


def read_operands(draw: Draw, one: Pass) -> tuple[list[Tensor | None], Sequence[int]]:
    """The operands as the kernel takes them, and their strides."""
    missing = (None,) * ((OPERANDS if draw.more else MOMENTS) - len(draw.operands))
    if one.in_place:
        return [*draw.operands, *missing], one.strides
    pointers: list[Tensor | None] = []
    strides: list[int] = []
    for t, view in zip(draw.operands, one.plan.operands, strict=False):
        pointer, sample, datum = argument(t, view, one.plan)
        pointers.append(pointer)
        strides += (sample, datum)
    return [*pointers, *missing], [*strides, *(0,) * (2 * len(missing))]


def read_samples(given: Tensor | None, draw: Draw, dense: bool) -> Tensor | None:
    """Noise that is given, or a gradient of samples, as the kernel reads it."""
    if given is None:
        return None
    dims = len(draw.options.sample_shape)
    read, _ = samples_of(given, dims, draw.mu.device)
    return read.contiguous() if dense and read is not None else read


def _draw(draw: Draw, one: Pass, given: Tensor | None, z: Tensor, kl: Tensor | None) -> None:
    """Fills z and the KL."""
    plan, device = one.plan, z.device
    target = z if plan.out.copy is None else torch.empty(plan.out.copy, dtype=z.dtype, device=device)
    partials = None
    if kl is not None and plan.segments > 1:
        partials = torch.empty((plan.segments, plan.rows), dtype=torch.float64, device=device)
    pointers, strides = read_operands(draw, one)
    if draw.more:
        pointers.append(read_samples(given, draw, one.dense[0]))
    one.launch(
        (*pointers, target, kl, partials, draw.options.seed_tensor),
        (*strides, *one.others, *draw.numbers(one.groups, plan)),
    )
    if partials is not None and kl is not None:
        launch.join(partials, plan.segments, kl)
    if target is not z:
        z.copy_(target.reshape(z.shape))


_backwards: Recent[Backward] = Recent()


def backward(upstream: Upstream, draw: Draw, grads: Sequence[Tensor | None]) -> None:
    """Fills the gradients of both results together by every operand."""
    dz, dkl, noise = readable(upstream.dz), readable(upstream.dkl), readable(draw.options.noise)
    # σ's gradient alone goes with the noise.
    given = None if dz is None or grads[1] is None else noise
    upstream = Upstream(dz, dkl)
    key = (*key_of(*draw.operands, noise, *upstream, *grads), *draw.key)
    found = _backwards.find(key) or _backwards.keep(key, backward_class(upstream, draw, given, grads))
    if found.empty:
        for grad in grads:
            if grad is not None:
                grad.zero_()
    elif found.one is not None:
        _differentiate(upstream, draw, given, grads, found, found.one)


class Groups:
    """A gradient to which several groups of samples have each their part, and which is their sum."""

    def __init__(self, out: Tensor, groups: int, plan: Layout, types: Types) -> None:
        self.out, self.groups = out, groups
        self.parts = torch.empty((groups, plan.rows * plan.columns), dtype=types.arithmetic, device=out.device)

    @property
    def pointer(self) -> Tensor:
        """What the kernel fills, each group's gradient dense in C order."""
        return self.parts

    def finish(self) -> None:
        """After the kernel was launched."""
        out = self.out
        target = out if out.is_contiguous() else torch.empty(out.shape, dtype=out.dtype, device=out.device)
        launch.join(self.parts, self.groups, target)
        if target is not out:
            out.copy_(target)


def _differentiate(
    upstream: Upstream,
    draw: Draw,
    given: Tensor | None,
    grads: Sequence[Tensor | None],
    found: Backward,
    one: Pass,
) -> None:
    plan, device = one.plan, draw.mu.device
    pointers, strides = read_operands(draw, one)
    others: Sequence[int] = one.others
    if draw.more:
        pointers.append(read_samples(given, draw, one.dense[0]))
    dkl = upstream.dkl
    if not found.reads_in_place:
        dkl, sample, datum = argument(dkl, plan.operands[-1], plan, True)
        at = OF_DKL[draw.more]
        others = (*others[:at], sample, datum, *others[at + 2 :])
    written, filled = list(grads), []
    if not found.writes_in_place:
        for k, grad in enumerate(grads):
            if grad is not None:
                part: GradientOut | Groups
                if one.groups == 1 or k >= MOMENTS:
                    part = GradientOut(grad, plan.gradients[k], plan, one.types.arithmetic, device)
                else:
                    part = Groups(grad, one.groups, plan, one.types)
                filled.append(part)
                written[k] = part.pointer
    # Of a prior too where the kernel takes one.
    count = OPERANDS if draw.more else MOMENTS
    written = [*written[:count], *(None,) * (count - len(written))]
    one.launch(
        (*pointers, read_samples(upstream.dz, draw, one.dense[1]), dkl, *written, draw.options.seed_tensor),
        (*strides, *others, *draw.numbers(one.groups, plan)),
    )
    for part in filled:
        part.finish()
