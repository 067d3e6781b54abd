"""How tensors lie over the dims of a call: which dims are rows and which columns, and what has to be copied first.

Dims come in walking order, those of one element left out. What comes of a tensor is a ``View``: a stride over
samples and one over data, and columns that are neighbours in memory, or one value for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

# What a kernel reads of an operand: nothing, an element a column, one a row, or a number that is an argument.
ABSENT, COLUMNS, REPEATED, NUMBER = range(4)


class Spec(NamedTuple):
    """A tensor over the space: its shape and strides, or a 0-d tensor that is passed as a number."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    # Its dims are the space's first ones: an upstream gradient.
    leading: bool = False
    number: bool = False


class View(NamedTuple):
    """What a kernel sees of a tensor, and the shape to copy it to first, in walking order (None: no copy)."""

    mode: int
    sample: int
    datum: int
    copy: tuple[int, ...] | None


NOTHING = View(ABSENT, 0, 0, None)


class Walk:
    """The space's dims of more than one element in walking order, and a tensor's strides over them."""

    def __init__(self, shape: tuple[int, ...], order: Sequence[int]) -> None:
        self.shape, self.order = shape, tuple(order)
        self.dims = [d for d in self.order if shape[d] != 1]
        self.sizes = [shape[d] for d in self.dims]

    def strides(self, spec: Spec) -> list[int]:
        shift = 0 if spec.leading else len(self.shape) - len(spec.shape)
        result = []
        for d in self.dims:
            own = d - shift
            there = 0 <= own < len(spec.shape) and spec.shape[own] != 1
            result.append(spec.stride[own] if there else 0)
        return result

    def repeated(self, spec: Spec) -> list[bool]:
        """Along which dims an operand repeats its elements."""
        shift = len(self.shape) - len(spec.shape)
        return [d < shift or spec.shape[d - shift] == 1 for d in self.dims]

    def dense(self, kept: Sequence[bool]) -> list[int]:
        """The strides of a contiguous copy that has the kept dims only."""
        strides, step = [0] * len(self.sizes), 1
        for k in reversed(range(len(self.sizes))):
            if kept[k]:
                strides[k] = step
                step *= self.sizes[k]
        return strides

    def copied_shape(self, strides: Sequence[int]) -> tuple[int, ...]:
        """The shape, all dims in walking order, of such a copy."""
        kept = {d for d, stride in zip(self.dims, strides, strict=True) if stride != 0}
        return tuple(self.shape[d] if d in kept else 1 for d in self.order)


def fits(sizes: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether dims are one with a stride of 0, or of 1."""
    if not any(strides):
        return True
    step = 1
    for n, stride in zip(reversed(sizes), reversed(strides), strict=True):
        if stride != step:
            return False
        step *= n
    return True


class Placed:
    """One tensor on its way to a view."""

    def __init__(self, walk: Walk, spec: Spec, written: bool) -> None:
        self.walk, self.written = walk, written
        self.strides = walk.strides(spec)
        self.copied = False

    def copy(self, kept: Sequence[bool]) -> None:
        self.strides = self.walk.dense(kept)
        self.copied = True

    def breaks(self, rows: int) -> set[int]:
        """The row dims that do not follow the one before them in memory."""
        sizes, strides = self.walk.sizes, self.strides
        return {k for k in range(1, rows) if strides[k - 1] != strides[k] * sizes[k]}

    def view(self, rows: int, cut: int) -> View:
        strides = self.strides
        mode = COLUMNS if any(strides[rows:]) or self.written else REPEATED
        sample = strides[cut - 1] if cut else 0
        datum = strides[rows - 1] if rows > cut else 0
        return View(mode, sample, datum, self.walk.copied_shape(strides) if self.copied else None)


def split(placed: Sequence[Placed], walk: Walk, fixed: int | None) -> int:
    """How many of the walk's dims are rows. Tensors that do not fit are marked for a copy."""
    n = len(walk.sizes)
    if fixed is not None:
        rows = sum(d < fixed for d in walk.dims)
        for p in placed:
            if not fits(walk.sizes[rows:], p.strides[rows:]):
                # The event whole; of the rows what the tensor has.
                p.copy([stride != 0 or k >= rows for k, stride in enumerate(p.strides)])
        return rows
    for p in placed:
        if n and p.strides[-1] not in (0, 1):
            p.copy([stride != 0 for stride in p.strides])
    rows = n
    while rows and all(fits(walk.sizes[rows - 1 :], p.strides[rows - 1 :]) for p in placed):
        rows -= 1
    return rows


def cut_of(placed: Sequence[Placed], rows: int) -> int:
    """Where rows divide into samples and data: the one place at which tensors may break. 0: nowhere."""
    while True:
        breaks = [p.breaks(rows) for p in placed]
        places = set().union(*breaks) if breaks else set()
        if len(places) <= 1:
            return places.pop() if places else 0
        worst = max(range(len(placed)), key=lambda k: len(breaks[k]))
        p = placed[worst]
        repeated = not any(p.strides[rows:])
        p.copy([k < rows or not repeated for k in range(len(p.strides))])


def walking_order(shape: tuple[int, ...], first: int, anchor: Spec) -> list[int]:
    """The dims, those from ``first`` on as the anchor holds them in memory; dims of size 1 keep their place."""
    order = list(range(len(shape)))
    shift = len(shape) - len(anchor.shape)
    places = [d for d in range(first, len(shape)) if shape[d] != 1]
    moving = sorted(places, key=lambda d: 0 if d < shift else -abs(anchor.stride[d - shift]))
    for place, d in zip(places, moving, strict=True):
        order[place] = d
    return order
