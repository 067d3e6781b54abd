"""What a sampler's call draws: its operands and options, the samples it reads, and what its kernels take of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import triton.language as tl
from torch import Tensor

from vae_fast.reference.densities import promoted_dtype
from vae_fast.triton_kernels import launch, layout
from vae_fast.triton_kernels.forms import form_of, is_plain, prior_form_of
from vae_fast.triton_kernels.layout import ACCESS_BYTES, Layout, Request
from vae_fast.triton_kernels.noise import NORMALS
from vae_fast.triton_kernels.operands import Types, check_upstream, readable, shape_of, spec_of, types_of
from vae_fast.triton_kernels.walk import Spec

# Operands, and the place of the noise that is given after them.
OPERANDS = NOISE = 4


class Draw(NamedTuple):
    """A sampler's operands (mu, logvar and a prior's) and options, and those of its KL, if it has one."""

    operands: tuple[Tensor | None, ...]
    options: Any
    # None where there is no KL.
    event_ndim: int | None = None
    free_bits: float | None = None

    @property
    def mu(self) -> Tensor:
        mu = self.operands[0]
        assert mu is not None
        return mu

    @property
    def samples(self) -> int:
        return math.prod(self.options.sample_shape)

    @property
    def has_prior(self) -> bool:
        return self.operands[2] is not None or self.operands[3] is not None

    @property
    def has_more(self) -> bool:
        """Whether it takes the kernel that has more arguments."""
        return self.has_prior or self.options.noise is not None or self.options.temperature != 1.0

    def shape_and_types(self) -> tuple[torch.Size, Types]:
        """What the operands broadcast to, and their dtypes. Raises where no kernel can read them, or the noise."""
        event_ndim, options = self.event_ndim or 0, self.options
        shape, types = shape_of(self.operands, OPERANDS, event_ndim), types_of(self.operands, OPERANDS)
        if self.has_prior:
            # A prior makes no sample of another shape or dtype.
            moments = self.operands[:2]
            if shape_of(moments, 2, event_ndim) != shape:
                raise ValueError(f"a prior of more elements than mu and logvar: {tuple(shape)} together")
            types = types._replace(promoted=promoted_dtype(self.mu, moments[1]))
        if options.noise is not None:
            check_upstream("noise", options.noise, (*options.sample_shape, *shape), self.mu.device)
        return shape, types

    def readable(self) -> Draw:
        return self._replace(operands=tuple([readable(t) for t in self.operands]))

    def arguments(self, groups: int, plan: Layout) -> tuple[Any, ...]:
        o = self.options
        noise = (o.seed, o.seed_tensor, o.offset, o.first_sample, self.samples, groups)
        numbers = (self.free_bits or 0.0, o.param_eps, o.low, o.high)
        return *noise, *plan.space_arguments, *numbers, *((o.temperature,) if self.has_more else ())

    def constants(self, groups: int, plan: Layout, aligned: bool, types: Types) -> dict[str, Any]:
        form, eps, bounded = form_of(self.options)
        constants = {
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
        if self.has_more:
            given = self.operands[3] is not None
            constants["PRIOR"] = prior_form_of(self.options, True) if given else ()
            constants["TEMPERED"] = self.options.temperature != 1.0
        return constants

    def is_light(self, groups: int, plan: Layout, types: Types) -> bool:
        """Whether its kernel needs few registers on Hopper."""
        few = plan.vec > 1 and groups == 1 and types.arithmetic != torch.float64
        return few and is_plain(self.options) and not self.has_prior


def _is_half(types: Types) -> bool:
    return types.promoted.itemsize == torch.float16.itemsize


class Samples(NamedTuple):
    """A tensor that a kernel reads sample by sample, or None, and the stride from one to the next."""

    tensor: Tensor | None
    dims: int
    step: int = 0

    @property
    def of_one(self) -> Spec | None:
        if self.tensor is None:
            return None
        return Spec(self.tensor.shape[self.dims :], self.tensor.stride()[self.dims :])

    def dense(self) -> Samples:
        assert self.tensor is not None
        return Samples(self.tensor.contiguous(), self.dims, self.tensor.shape[self.dims :].numel())


def samples_of(tensor: Tensor | None, dims: int, device: torch.device) -> Samples:
    """A tensor whose first ``dims`` are sample dims, which have one stride together."""
    if tensor is None:
        return Samples(None, dims)
    tensor = readable(tensor if tensor.device == device else tensor.to(device))
    if tensor.numel() == 0:
        # Whatever its strides, it counts as contiguous.
        return Samples(tensor.new_empty(tensor.shape), dims)
    sizes, strides = tensor.shape[:dims], tensor.stride()[:dims]
    walked = [(n, stride) for n, stride in zip(sizes, strides, strict=True) if n != 1]
    for (_, outer), (n, inner) in zip(walked, walked[1:], strict=False):
        if outer != inner * n:
            return Samples(tensor, dims).dense()
    return Samples(tensor, dims, walked[-1][1] if walked else 0)


class Plan(NamedTuple):
    """The layout of a call, whether every row's noise begins with a counter, and the samples as they are read."""

    layout: Layout
    aligned: bool
    samples: tuple[Samples, ...]


def plan_of(
    draw: Draw, types: Types, samples: Sequence[Samples], others: Sequence[Spec | None], step: int, **results: Any
) -> Plan:
    """The plan of a call that reads its operands, ``samples`` and ``others``, in this order.

    ``step`` is from one sample to the next of what is written, ``results`` what of a ``Request`` says where results
    go.
    """
    device = draw.mu.device
    operands = [spec_of(t, device) for t in draw.operands]

    def laid_out(samples: Sequence[Samples]) -> tuple[Layout, bool]:
        request = Request(
            operands=(*operands, *(s.of_one for s in samples), *others),
            **results,
            event_ndim=draw.event_ndim or 0,
            walk_as_anchor=None,
            itemsize=types.itemsize,
            arithmetic=types.arithmetic.itemsize,
            tile_bytes=launch.tile_bytes,
            step=math.gcd(step, *(s.step for s in samples)),
        )
        plan = layout.layout(request)
        offset = 0 if draw.options.noise is not None else draw.options.offset
        aligned = offset % NORMALS == 0 and (plan.rows == 1 or plan.columns % NORMALS == 0)
        aligned = aligned or draw.options.noise is not None
        return (plan if aligned else layout.layout(request._replace(room=NORMALS - 1))), aligned

    plan, aligned = laid_out(samples)
    copied = [plan.operands[OPERANDS + k].copy is not None for k in range(len(samples))]
    if any(copied):
        samples = [s.dense() if copy else s for s, copy in zip(samples, copied, strict=True)]
        plan, aligned = laid_out(samples)
    return Plan(plan, aligned, tuple(samples))
