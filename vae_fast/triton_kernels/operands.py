"""From tensors to what kernels take, and from what they fill to gradients."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple, overload

import torch
from torch import Tensor

from vae_fast.checks import FLOATS, TARGETS
from vae_fast.reference.densities import arithmetic_dtype, compute_dtype, promoted_dtype
from vae_fast.sigma import SigmaForm
from vae_fast.triton_kernels import launch, layout
from vae_fast.triton_kernels.layout import Gradient, Layout, Spec

# Elements whose bytes, eight of each at most, fit 63 bits.
_MOST = 2**60


def _together(a: torch.Size, b: torch.Size) -> torch.Size:
    """What two shapes broadcast to. PyTorch's own function takes longer than all the rest of a launch's checks."""
    long, short = (a, b) if len(a) >= len(b) else (b, a)
    merged, shift = list(long), len(long) - len(short)
    for d, n in enumerate(short, shift):
        if merged[d] == 1:
            merged[d] = n
        elif n != 1 and n != merged[d]:
            raise ValueError(f"operands of shapes {tuple(a)} and {tuple(b)} do not broadcast")
    return torch.Size(merged)


def shape_of(operands: Sequence[Tensor | None], parameters: int, event_ndim: int) -> torch.Size:
    """What the operands broadcast to. Raises where no kernel can read them.

    That is checked in a backward pass too: since its forward pass an operand may have been given other data.
    """
    anchor = operands[0]
    assert anchor is not None
    shape, device = anchor.shape, anchor.device
    for k, t in enumerate(operands):
        if t is None:
            continue
        if t.dtype not in (FLOATS if k < parameters else TARGETS):
            raise TypeError(f"an operand of {t.dtype}")
        if t.device != device and (t.ndim or t.device.type != "cpu"):
            raise ValueError(f"operands on {device} and on {t.device}")
        if t.shape != shape:
            shape = _together(shape, t.shape)
    if shape != anchor.shape and math.prod(max(n, 1) for n in shape) > _MOST:
        raise ValueError(f"operands of shape {tuple(shape)} together: more elements than 64 bits can count")
    if event_ndim > len(shape):
        raise ValueError(f"event_ndim={event_ndim} does not fit operands of shape {tuple(shape)}")
    return shape


def fitting(name: str, gradient: Tensor, shape: Sequence[int], device: torch.device) -> None:
    """Raises where ``gradient`` is not one of a result of this shape."""
    if gradient.shape != shape:
        raise ValueError(f"{name} has shape {tuple(gradient.shape)}, and not {tuple(shape)} as the result has")
    if gradient.dtype not in FLOATS:
        raise TypeError(f"{name} is of {gradient.dtype}")
    if gradient.device != device and (gradient.ndim or gradient.device.type != "cpu"):
        raise ValueError(f"{name} is on {gradient.device}, the operands on {device}")


class Types(NamedTuple):
    """What dtypes the operands of a call make.

    What its parameters promote to, what sums of that come out in, and what is computed in; ``itemsize`` is the size
    of the parameters' elements, the least one: an access that has 16 bytes of those has as many of the others.
    """

    promoted: torch.dtype
    sums: torch.dtype
    arithmetic: torch.dtype
    itemsize: int


def types_of(operands: Sequence[Tensor | None], parameters: int) -> Types:
    """The first ``parameters`` of the operands are the parameters."""
    first = operands[0]
    assert first is not None
    dtype = first.dtype
    for k, t in enumerate(operands):
        if t is not None and t.dtype != dtype and (k < parameters or t.dtype == torch.float64):
            break
    else:
        sums = compute_dtype(dtype)
        return Types(dtype, sums, sums, dtype.itemsize)
    promoted = promoted_dtype(first, *operands[1:parameters])
    sizes = [t.element_size() for t in operands[:parameters] if t is not None and t.ndim]
    least = min(sizes, default=promoted.itemsize)
    return Types(promoted, compute_dtype(promoted), arithmetic_dtype(promoted, *operands), least)


def spec_of(tensor: Tensor | None, device: torch.device, leading: bool = False) -> Spec | None:
    if tensor is None:
        return None
    return Spec(tensor.shape, tensor.stride(), leading, _is_number(tensor, device))


def _is_number(tensor: Tensor, device: torch.device) -> bool:
    """Whether a tensor is passed by its value: 0-d and on the CPU, where the kernel is not; or a Python number."""
    if tensor.ndim or tensor.device.type != "cpu":
        return False
    return device.type != "cpu" or tensor.dtype == torch.float64


@overload
def readable(tensor: Tensor) -> Tensor: ...
@overload
def readable(tensor: None) -> None: ...
@overload
def readable(tensor: Tensor | None) -> Tensor | None: ...
def readable(tensor: Tensor | None) -> Tensor | None:
    """The tensor as a kernel can read it: no view that is negated on the fly."""
    return tensor.resolve_neg() if tensor is not None and tensor.is_neg() else tensor


def form_constants(form: SigmaForm) -> dict[str, Any]:
    """What of a parametrisation of σ a kernel is compiled for."""
    return {"KIND": form.kind, "EPS": form.eps != 0.0, "BOUNDED": form.bounded}


def bits_of(number: float) -> int:
    """The bits of a float64, as the signed integer that tiles.read takes for a number."""
    return int(struct.unpack("<q", struct.pack("<d", number))[0])


def arguments(
    tensor: Tensor | None, view: layout.View, plan: Layout, leading: bool = False
) -> tuple[Any, int, int]:
    """(pointer, sample stride, datum stride) of an operand as tiles.read takes them."""
    if tensor is None or view.mode == layout.ABSENT:
        return None, 0, 0
    if view.mode == layout.NUMBER:
        return None, bits_of(tensor.item()), 0
    if view.copy is not None:
        tensor = layout.copied(tensor, view, plan, leading)
    return tensor, *plan.strides(view)


class Gradients:
    """The tensors of gradients, of which the first two may be the halves of one, ``packed``'s."""

    def __init__(
        self,
        operands: Sequence[Tensor | None],
        needs: Sequence[bool],
        device: torch.device,
        packed: Tensor | None = None,
        packed_dim: int = 0,
    ) -> None:
        self.operands, self.whole = operands, None if packed is None else torch.empty_like(packed)
        halves = () if self.whole is None else self.whole.chunk(2, packed_dim)
        self.each: list[Tensor | None] = [
            *halves,
            *(
                torch.empty_like(t, device=device) if need and t is not None else None
                for t, need in list(zip(operands, needs, strict=False))[len(halves) :]
            ),
        ]

    def finished(self) -> tuple[Tensor, ...]:
        """As the raw operators return them, each on its operand's device; one not asked for has shape (0,)."""
        anchor = self.operands[0]
        assert anchor is not None
        out = [
            anchor.new_empty(0) if g is None or t is None else g.to(t.device)
            for g, t in zip(self.each, self.operands, strict=False)
        ]
        return tuple(out) if self.whole is None else (self.whole, anchor.new_empty(0), *out[2:])


class GradientOut:
    """A gradient on its way: what the kernel fills, and what becomes of it afterwards."""

    def __init__(self, tensor: Tensor | None, plan: Gradient, compute: torch.dtype, device: torch.device) -> None:
        self.tensor, self.plan = tensor, plan
        self.filled = tensor
        self.partials: Tensor | None = None
        if tensor is not None and plan.temporary is not None:
            dtype = compute if plan.kind == layout.FULL else tensor.dtype
            self.filled = torch.empty(plan.temporary, dtype=dtype, device=device)

    def arguments(self, plan: Layout) -> tuple[Any, int, int]:
        if self.filled is None:
            return None, 0, 0
        if self.plan.partials:
            shape = (self.plan.partials, self.filled.numel())
            self.partials = torch.empty(shape, dtype=torch.float64, device=self.filled.device)
            return self.partials, 0, 0
        return self.filled, *plan.strides(self.plan.view)

    def finish(self, plan: Layout) -> None:
        """After the kernel was launched."""
        if self.tensor is None or self.filled is None:
            return
        if self.partials is not None:
            launch.join(self.partials, self.plan.partials, self.filled)
        if self.filled is not self.tensor:
            value = self.filled
            if self.plan.kind == layout.FULL:
                value = value.sum(self.plan.summed, keepdim=True)
            self.tensor.copy_(value.permute(plan.inverse).reshape(self.tensor.shape))
