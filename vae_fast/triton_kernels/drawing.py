"""A sampler's call: its operands and options, the samples it reads, and what its kernels take of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import triton.language as tl
from torch import Tensor

from vae_fast.checks import FLOATS
from vae_fast.operators import OPERATORS
from vae_fast.reference.densities import promoted_dtype
from vae_fast.triton_kernels import launch, layout
from vae_fast.triton_kernels.forms import ALIKE, are_half, form_of, is_plain, parts_of, prior_form_of
from vae_fast.triton_kernels.layout import ACCESS_BYTES, Layout, Request
from vae_fast.triton_kernels.noise import NORMALS
from vae_fast.triton_kernels.operands import Types, check_upstream, readable, shape_of, spec_of, types_of
from vae_fast.triton_kernels.walk import Spec

# Where the options of a sample's noise end. In the place of a temperature some samplers have what is no number.
_TEMPERATURE = OPERATORS["rsample"].Options._fields.index("temperature")
# mu and logvar; with a prior's; the place of the noise that is given, which comes after all these.
MOMENTS, OPERANDS, NOISE = 2, 4, 4


class Draw:
    """A sampler's operands and options, and those of its KL (``event_ndim`` is None where it has none).

    ``operands`` are mu and logvar, and a prior's where there is one. ``more`` says whether the call takes the
    kernel that has more arguments, ``heavy`` whether registers hold no whole tile of it.
    """

    __slots__ = ("event_ndim", "free_bits", "heavy", "more", "mu", "operands", "options", "samples", "temperature")

    def __init__(
        self,
        operands: tuple[Any, ...],
        options: Any,
        event_ndim: int | None = None,
        free_bits: float | None = None,
    ) -> None:
        self.operands: tuple[Any, ...] = tuple([t if t is None else readable(t) for t in operands])
        self.mu: Tensor = self.operands[0]
        self.options, self.event_ndim, self.free_bits = options, event_ndim, free_bits
        self.samples = math.prod(options.sample_shape)
        self.heavy = False
        # Not every sampler has one.
        self.temperature: float = getattr(options, "temperature", 1.0)
        self.more = len(operands) > MOMENTS or options.noise is not None or self.temperature != 1.0

    def shape_and_types(self) -> tuple[torch.Size, Types]:
        """What the operands broadcast to, and their dtypes. Raises where no kernel can read them, or the noise."""
        operands, options, event_ndim = self.operands, self.options, self.event_ndim or 0
        n = len(operands)
        shape, types = shape_of(operands, (FLOATS,) * n, event_ndim), types_of(operands, n)
        if len(operands) > MOMENTS:
            # A prior makes no sample of another shape or dtype.
            mu, logvar, *_ = operands
            if shape_of((mu, logvar), (FLOATS,) * MOMENTS, event_ndim) != shape:
                raise ValueError(f"a prior of more elements than mu and logvar: {tuple(shape)} together")
            types = types._replace(promoted=promoted_dtype(mu, logvar))
        if options.noise is not None:
            check_upstream("noise", options.noise, (*options.sample_shape, *shape), self.mu.device)
        return shape, types

    @property
    def key(self) -> tuple[Any, ...]:
        """What the options say of a call's class: all but the seed, and where in its noise a sample begins.

        A temperature is a number that may be another one at every call.
        """
        o = self.options
        seed = None if o.seed_tensor is None else o.seed_tensor.dtype
        decided = o.offset % NORMALS, seed, self.temperature != 1.0, self.event_ndim
        rest = o[_TEMPERATURE + hasattr(o, "temperature") :]
        return *decided, launch.tile_bytes, *o.sample_shape, None, *rest

    def numbers(self, groups: int, plan: Layout) -> tuple[Any, ...]:
        """What a kernel takes behind its strides."""
        o = self.options
        noise = (o.seed, o.offset, o.first_sample, self.samples, groups)
        numbers = (self.free_bits or 0.0, o.param_eps, o.low, o.high)
        return *noise, *plan.space_arguments, *numbers, *((self.temperature,) if self.more else ())

    def constants(self, groups: int, plan: Layout, aligned: bool, types: Types) -> dict[str, Any]:
        to_prior = len(self.operands) > MOMENTS and self.operands[-1] is not None
        form, eps, bounded = form_of(self.options, not to_prior and are_half(self.operands))
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
        if self.more:
            constants["PRIOR"] = prior_form_of(self.options) if to_prior else ALIKE
            constants["TEMPERED"] = self.temperature != 1.0
        return constants

    def in_few_registers(self, groups: int, plan: Layout, types: Types) -> bool:
        """Whether its kernel needs few registers on Hopper."""
        few = plan.vec > 1 and groups == 1 and types.arithmetic != torch.float64
        return few and is_plain(self.options) and len(self.operands) == MOMENTS

    @property
    def parts(self) -> int:
        """In how many a tile is taken, where registers do not hold a whole one."""
        if self.heavy:
            return 2
        return parts_of(self.options, self.operands[-1]) if len(self.operands) > MOMENTS else 1


def _is_half(types: Types) -> bool:
    return types.promoted.itemsize == torch.float16.itemsize


# A tensor that is read sample by sample, or None, and the stride from one to the next.
Samples = tuple[Tensor | None, int]
NO_SAMPLES: Samples = (None, 0)
# Where results go, in the words of ``Request``: gradients, out, value.
Results = tuple[tuple[Spec | None, ...], Spec | None, int]


def samples_of(tensor: Tensor, dims: int, device: torch.device) -> Samples:
    """A tensor whose first ``dims`` are sample dims, which have one stride together."""
    tensor = readable(tensor if tensor.device == device else tensor.to(device))
    if tensor.numel() == 0:
        # Whatever its strides, it counts as contiguous.
        return tensor.new_empty(tensor.shape), 0
    if not dims:
        return tensor, 0
    sizes, strides = tensor.shape[:dims], tensor.stride()[:dims]
    walked = [(n, stride) for n, stride in zip(sizes, strides, strict=True) if n != 1]
    for (_, outer), (n, inner) in zip(walked, walked[1:], strict=False):
        if outer != inner * n:
            return _dense(tensor, dims)
    return tensor, walked[-1][1] if walked else 0


def _dense(tensor: Tensor, dims: int) -> Samples:
    return tensor.contiguous(), tensor.shape[dims:].numel()


def plan_of(
    draw: Draw,
    types: Types,
    samples: Sequence[Samples],
    others: tuple[Any, ...],
    results: Results,
    step: int,
    sums: int = 0,
) -> tuple[Layout, bool, Sequence[Samples]]:
    """The layout of a call, whether every row's noise begins with a counter, and the samples as they are read.

    The call reads its operands, ``samples`` and ``others``, in this order. ``step`` is from one sample to the next
    of what is written. The last ``sums`` of the samples have one value a row: a step of theirs of any size leaves
    the other accesses as wide as they are.
    """
    device, options = draw.mu.device, draw.options
    dims = len(options.sample_shape)
    specs: list[Spec | None] = [None if t is None else spec_of(t, device) for t in draw.operands]
    specs += (None,) * (OPERANDS - len(specs))
    for k, (t, each) in enumerate(samples):
        if t is None:
            specs.append(None)
        else:
            specs.append(Spec(t.shape[dims:], t.stride()[dims:]))
            if k < len(samples) - sums:
                step = math.gcd(step, each)
    request = Request(
        (*specs, *others),
        *results,
        draw.event_ndim or 0,
        None,
        types.itemsize,
        types.arithmetic.itemsize,
        launch.tile_bytes // draw.parts,
        step,
    )
    plan = layout.layout(request)
    for k, (t, _) in enumerate(samples):
        if t is not None and plan.operands[OPERANDS + k].copy is not None:
            copied = (*samples[:k], _dense(t, dims), *samples[k + 1 :])
            return plan_of(draw, types, copied, others, results, step, sums)
    if options.noise is None and (options.offset % NORMALS or (plan.rows != 1 and plan.columns % NORMALS)):
        return layout.layout(request._replace(room=NORMALS - 1)), False, samples
    return plan, True, samples
