"""From tensors to what kernels take, and from what they fill to gradients."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple, overload

import torch
from torch import Tensor

from vae_fast.checks import FLOATS
from vae_fast.operators import Wanted
from vae_fast.reference.densities import arithmetic_dtype, compute_dtype, promoted_dtype
from vae_fast.triton_kernels import launch, layout
from vae_fast.triton_kernels.layout import Gradient, Layout
from vae_fast.triton_kernels.walk import ABSENT, NUMBER, Spec, View

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


def shape_of(
    operands: Sequence[Tensor | None], allowed: Sequence[tuple[torch.dtype, ...]], event_ndim: int
) -> torch.Size:
    """What the operands, each of ``allowed`` dtypes, broadcast to. Raises where no kernel can read them.

    That is checked in a backward pass too: since its forward pass an operand may have been given other data.
    """
    anchor = operands[0]
    assert anchor is not None
    shape, device = anchor.shape, anchor.device
    for t, dtypes in zip(operands, allowed, strict=True):
        if t is None:
            continue
        if t.dtype not in dtypes:
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


def check_upstream(name: str, gradient: Tensor, shape: Sequence[int], device: torch.device) -> None:
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
    first, *others = operands[:parameters]
    assert first is not None
    dtype = first.dtype
    for k, t in enumerate(operands):
        if t is not None and t.dtype != dtype and (k < parameters or t.dtype == torch.float64):
            break
    else:
        sums = compute_dtype(dtype)
        return Types(dtype, sums, sums, dtype.itemsize)
    promoted = promoted_dtype(first, *others)
    sizes = [t.element_size() for t in (first, *others) if t is not None and t.ndim]
    least = min(sizes, default=promoted.itemsize)
    return Types(promoted, compute_dtype(promoted), arithmetic_dtype(promoted, *operands), least)


def spec_of(tensor: Tensor | None, device: torch.device, leading: bool = False) -> Spec | None:
    if tensor is None:
        return None
    return Spec(tensor.shape, tensor.stride(), leading, _is_number(tensor, device))


def key_of(*tensors: Tensor | None) -> list[Any]:
    """What a call's class depends on of its tensors, flat, for that is hashed sooner."""
    key: list[Any] = []
    for t in tensors:
        if t is None:
            key.append(None)
        else:
            key += (t.shape, t.stride(), t.dtype, t.device)
    return key


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


def bits_of(number: float) -> int:
    """The bits of a float64, as the signed integer that tiles.read takes for a number."""
    return int(struct.unpack("<q", struct.pack("<d", number))[0])


# A tensor as kernels take it: a pointer, and strides over samples and over data.
Argument = tuple[Tensor | None, int, int]
NOTHING: Argument = (None, 0, 0)


def argument(tensor: Tensor | None, view: View, plan: Layout, leading: bool = False) -> Argument:
    """An operand as tiles.read takes it."""
    if tensor is None or view.mode == ABSENT:
        return NOTHING
    if view.mode == NUMBER:
        return None, bits_of(tensor.item()), 0
    if view.copy is not None:
        tensor = _copied(tensor, view, plan, leading)
    return tensor, *plan.strides(view)


def is_in_place(view: View) -> bool:
    """Whether an operand is read where it lies, and so by a pointer and strides that its class decides."""
    return view.mode != NUMBER and view.copy is None


def _copied(tensor: Tensor, view: View, plan: Layout, leading: bool = False) -> Tensor:
    """The copy that a view asks for: contiguous in walking order."""
    missing = (1,) * (plan.ndim - tensor.ndim)
    shape = (*tensor.shape, *missing) if leading else (*missing, *tensor.shape)
    assert view.copy is not None
    if tensor.dtype == torch.bool:
        # Byte by byte, for PyTorch is free to take any byte of a bool for 0 or 1.
        return _copied(tensor.view(torch.uint8), view, plan, leading).view(torch.bool)
    walked = tensor.reshape(shape).permute(plan.order)
    for dim, (size, n) in enumerate(zip(walked.shape, view.copy, strict=True)):
        # Where the operand repeats one number the copy has it once.
        walked = walked.narrow(dim, 0, 1) if n == 1 < size else walked
    return walked.expand(view.copy).contiguous()


class Gradients:
    """The tensors of gradients, one for each operand; None for those that are not ``wanted``.

    ``made`` are the operands' places that ``wanted.needs`` are of. The first two gradients may be the halves of
    one, ``wanted.packed``'s; or all may be ``kept`` ones (early.py), to be scaled where they are.
    """

    def __init__(
        self,
        operands: Sequence[Tensor | None],
        made: Sequence[int],
        wanted: Wanted,
        device: torch.device,
        kept: Sequence[Tensor] | None = None,
    ) -> None:
        self.operands, self.made = operands, made
        self.whole = None if wanted.packed is None else torch.empty_like(wanted.packed)
        self.each: list[Tensor | None] = [None] * len(operands)
        for n, (k, need) in enumerate(zip(made, wanted.needs, strict=True)):
            operand = operands[k]
            if need and operand is not None and (self.whole is None or k > 1):
                self.each[k] = torch.empty_like(operand, device=device) if kept is None else kept[n]
        if self.whole is not None:
            self.each[0], self.each[1] = self.whole.chunk(2, wanted.packed_dim)

    def finished(self) -> tuple[Tensor, ...]:
        """As the raw operators return them, each on its operand's device; one not asked for has shape (0,)."""
        anchor = self.operands[0]
        assert anchor is not None
        out = []
        for k in self.made:
            grad, operand = self.each[k], self.operands[k]
            out.append(anchor.new_empty(0) if grad is None or operand is None else grad.to(operand.device))
        return tuple(out) if self.whole is None else (self.whole, anchor.new_empty(0), *out[2:])


class GradientOut:
    """A gradient on its way: what the kernel fills, and what becomes of it afterwards."""

    def __init__(
        self, tensor: Tensor, made: Gradient, plan: Layout, compute: torch.dtype, device: torch.device
    ) -> None:
        self.tensor, self.made, self.plan = tensor, made, plan
        self.filled = tensor
        self.partials: Tensor | None = None
        if made.temporary is not None:
            dtype = compute if made.kind == layout.FULL else tensor.dtype
            self.filled = torch.empty(made.temporary, dtype=dtype, device=device)
        if made.partials:
            shape = (made.partials, self.filled.numel())
            self.partials = torch.empty(shape, dtype=torch.float64, device=device)

    @property
    def pointer(self) -> Tensor:
        """What the kernel fills."""
        return self.filled if self.partials is None else self.partials

    def finish(self) -> None:
        """After the kernel was launched."""
        if self.partials is not None:
            launch.join(self.partials, self.made.partials, self.filled)
        if self.filled is not self.tensor:
            value = self.filled
            if self.made.kind == layout.FULL:
                value = value.sum(self.made.summed, keepdim=True)
            self.tensor.copy_(value.permute(self.plan.inverse).reshape(self.tensor.shape))
