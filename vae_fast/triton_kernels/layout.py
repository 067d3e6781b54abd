"""How a call's elements are laid over programs: rows and columns, each tensor's strides over them, and tiles.

The elements of an operator's broadcast shape are R rows of N columns. A row is a (sample, datum): what a kernel
sees of a tensor is a stride over each of the two, and a stride of 1 or 0 over the columns. Where rows are sums of
their own the columns are the event; elsewhere as many trailing dims are columns as every tensor allows, so that
dense tensors are one row. A tensor that does not fit is copied first, over no more dims than it must.

Everything here is a function of shapes, strides and dtypes, and so is every order of summation. A layout is made
once and kept: the calls that follow find it by one look-up.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

# What a kernel reads of an operand, or how a gradient is made.
ABSENT, COLUMNS, REPEATED, NUMBER = range(4)
NONE, EACH, ROW, COLUMN, ALL, FULL = range(6)
# In what order programs walk the tiles: along a row, one after the other, down a column.
ROWS, TILES, COLUMN_TILES = range(3)
# Shapes of the space, for which the way from a program to its tile is shorter: one row; rows no longer than a tile.
FLAT, SHORT, LONG = range(3)

# Bytes of a tile in the type that is computed in: 8 float32 or 4 float64 for each thread of four warps, one or two
# accesses of 16 bytes an operand. With 16 elements a thread, some kernels of half types ran out of registers.
TILE_BYTES = 4096
# Programs that a GPU of any size is busy with; where a row or a sample is cut, then into no more than these need.
BUSY = 512
# Partial sums that one program adds up at the end.
MOST_PARTIALS = 4096
# Columns of a tile whose rows are summed up, and rows of tiles in a slab at least.
COLUMN_TILE, SLAB_TILES = 128, 8
MOST_SLABS = 256


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


class Gradient(NamedTuple):
    """How a gradient is made: its kind, its view for EACH and FULL, and what is left to do.

    ``temporary`` is the shape of what the kernel or the join fills, in walking order, where that is not the
    gradient itself; FULL sums it over ``summed``.
    """

    kind: int
    view: View
    temporary: tuple[int, ...] | None
    summed: tuple[int, ...]
    partials: int


class Layout(NamedTuple):
    # The walk over the broadcast shape's dims, and the way back.
    order: tuple[int, ...]
    inverse: tuple[int, ...]
    ndim: int
    rows: int
    columns: int
    # Rows of one sample.
    datum_rows: int
    # Elements in an access of 16 bytes; 1 where not all rows begin and end at such.
    vec: int
    # Programs that share a row's tiles, or, for COLUMN_TILES, a column's.
    segments: int
    programs: int
    operands: tuple[View, ...]
    gradients: tuple[Gradient, ...]
    out: View
    # What every kernel takes of it: the numbers of tiles.place, modes and kinds, and the rest of its constants.
    space_arguments: tuple[int, ...]
    modes: tuple[int, ...]
    kinds: tuple[int, ...]
    constants: dict[str, Any]

    def strides(self, view: View) -> tuple[int, int]:
        """A view's strides as kernels take them: in accesses where they go along the columns."""
        unit = self.vec if view.mode == COLUMNS else 1
        return view.sample // unit, view.datum // unit


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def tile_of(tile_bytes: int, itemsize: int) -> int:
    """Elements of a tile of an operand of this size."""
    return max(tile_bytes // max(itemsize, 4), 8)


def power_of_two(n: int) -> int:
    """The least power of two that is n at least."""
    return 1 << max(n - 1, 0).bit_length()


_NOTHING = View(ABSENT, 0, 0, None)


class _Walk:
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


def _fits(sizes: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether dims are one with a stride of 0, or of 1."""
    if not any(strides):
        return True
    step = 1
    for n, stride in zip(reversed(sizes), reversed(strides), strict=True):
        if stride != step:
            return False
        step *= n
    return True


class _Placed:
    """One tensor on its way to a view."""

    def __init__(self, walk: _Walk, spec: Spec, written: bool) -> None:
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


def _split(placed: Sequence[_Placed], walk: _Walk, fixed: int | None) -> int:
    """How many of the walk's dims are rows. Tensors that do not fit are marked for a copy."""
    n = len(walk.sizes)
    if fixed is not None:
        rows = sum(d < fixed for d in walk.dims)
        for p in placed:
            if not _fits(walk.sizes[rows:], p.strides[rows:]):
                # The event whole; of the rows what the tensor has.
                p.copy([stride != 0 or k >= rows for k, stride in enumerate(p.strides)])
        return rows
    for p in placed:
        if n and p.strides[-1] not in (0, 1):
            p.copy([stride != 0 for stride in p.strides])
    rows = n
    while rows and all(_fits(walk.sizes[rows - 1 :], p.strides[rows - 1 :]) for p in placed):
        rows -= 1
    return rows


def _cut(placed: Sequence[_Placed], rows: int) -> int:
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


def _walking_order(shape: tuple[int, ...], first: int, anchor: Spec) -> list[int]:
    """The dims, those from ``first`` on as the anchor holds them in memory; dims of size 1 keep their place."""
    order = list(range(len(shape)))
    shift = len(shape) - len(anchor.shape)
    places = [d for d in range(first, len(shape)) if shape[d] != 1]
    moving = sorted(places, key=lambda d: 0 if d < shift else -abs(anchor.stride[d - shift]))
    for place, d in zip(places, moving, strict=True):
        order[place] = d
    return order


def _kind(walk: _Walk, spec: Spec, rows: int) -> int:
    """How the gradient of an operand of this shape is made of one value an element."""
    repeated = walk.repeated(spec)
    if not any(repeated):
        return EACH
    if all(repeated):
        return ALL
    over_rows, over_columns = repeated[:rows], repeated[rows:]
    if all(over_columns) and not any(over_rows):
        return ROW
    if all(over_rows) and not any(over_columns):
        return COLUMN
    return FULL


@functools.lru_cache(maxsize=4096)
def layout(
    operands: tuple[Spec | None, ...],
    gradients: tuple[Spec | None, ...],
    out: Spec | None,
    event_ndim: int,
    sums_rows: bool,
    sums_all: bool,
    walk_as_anchor: int | None,
    itemsize: int,
    arithmetic: int,
    tile_bytes: int,
    step: int = 0,
    room: int = 0,
) -> Layout:
    """The layout of a call.

    ``gradients[k]`` is the gradient of ``operands[k]`` as it will be returned; ``out`` a result of one value an
    element; ``sums_rows`` and ``sums_all`` say which sums the kernel makes. ``walk_as_anchor`` is the first of the
    dims that are walked as operand 0 holds them (None: all in C order). An access is as wide as elements of
    ``itemsize`` bytes ask for, a tile as large as a type computed in of ``arithmetic`` bytes allows.
    ``step`` is one more stride that kernels add up. Tiles may begin up to ``room`` columns before a row's first.
    """
    present = [s for s in operands if s is not None]
    ndim = max(len(s.shape) for s in present)
    sizes = [1] * ndim
    for s in present:
        for k, n in enumerate(s.shape):
            d = k if s.leading else k + ndim - len(s.shape)
            sizes[d] = n if sizes[d] == 1 else sizes[d]
    shape = tuple(sizes)
    anchor = operands[0]
    assert anchor is not None
    order = list(range(ndim)) if walk_as_anchor is None else _walking_order(shape, walk_as_anchor, anchor)
    walk = _Walk(shape, order)

    def place(spec: Spec | None, written: bool = False) -> _Placed | None:
        return None if spec is None or spec.number else _Placed(walk, spec, written)

    read = [place(s) for s in operands]
    # A gradient of a broadcast operand is not written element by element, unless it turns out to be FULL.
    written = [place(s, True) if s is not None and _kind(walk, s, 0) == EACH else None for s in gradients]
    placed_out = place(out, True)
    placed = [p for p in (*read, *written, placed_out) if p is not None]
    rows = _split(placed, walk, ndim - event_ndim if sums_rows else None)
    cut = _cut(placed, rows)
    kinds = [NONE if s is None else _kind(walk, s, rows) for s in gradients]
    n_rows, n_columns = math.prod(walk.sizes[:rows]), math.prod(walk.sizes[rows:])
    n_samples = math.prod(walk.sizes[:cut])

    # One order of tiles serves one kind of sums; what else there is goes by way of a tensor of full size.
    if sums_rows or room:
        # Where rows begin at different places of a tile there are no columns.
        kinds = [FULL if k == COLUMN else k for k in kinds]
    if sums_rows:
        walk_kind = ROWS
    elif COLUMN in kinds:
        kinds = [FULL if k == ROW else k for k in kinds]
        walk_kind = COLUMN_TILES
    else:
        walk_kind = ROWS if ROW in kinds else TILES

    vec = 16 // itemsize
    views = tuple(_NOTHING if p is None else p.view(rows, cut) for p in read)
    views = tuple(
        View(NUMBER, 0, 0, None) if s is not None and s.number else v for s, v in zip(operands, views, strict=True)
    )
    dense = _Placed(walk, Spec((1,) * ndim, (0,) * ndim), True)
    dense.copy([True] * len(walk.sizes))
    out_view = _NOTHING if placed_out is None else placed_out.view(rows, cut)
    each = [
        dense.view(rows, cut) if kind == FULL else _NOTHING if p is None else p.view(rows, cut)
        for kind, p in zip(kinds, written, strict=True)
    ]
    steps = [n_columns, step]
    steps += [n for v in (*views, *each, out_view) if v.mode == COLUMNS for n in (v.sample, v.datum)]
    if room or any(n % vec for n in steps):
        vec = 1

    # Tiles.
    tile = tile_of(tile_bytes, arithmetic)
    if room:
        # Rows at any address: every element of a thread has one of its own, in registers.
        tile //= 2
    reach = n_columns + room
    block_columns = min(power_of_two(max(reach, 8)), COLUMN_TILE if walk_kind == COLUMN_TILES else tile)
    block_rows = max(tile // block_columns, 1)
    row_tiles, column_tiles = ceil_div(n_rows, block_rows), ceil_div(reach, block_columns)
    segments = 1
    if walk_kind == ROWS:
        segments = min(column_tiles, max(1, ceil_div(BUSY, row_tiles)), MOST_PARTIALS)
        tiles = ceil_div(column_tiles, segments)
        segments = ceil_div(column_tiles, tiles)
        programs = row_tiles * segments
    elif walk_kind == COLUMN_TILES:
        slabs = min(ceil_div(row_tiles, SLAB_TILES), MOST_SLABS)
        tiles = ceil_div(row_tiles, slabs)
        segments = ceil_div(row_tiles, tiles)
        programs = column_tiles * segments
    else:
        count = row_tiles * column_tiles
        tiles = ceil_div(count, MOST_PARTIALS) if sums_all or ALL in kinds else 1
        programs = ceil_div(count, tiles)

    made = []
    for spec, kind, view in zip(gradients, kinds, each, strict=True):
        if spec is None:
            made.append(Gradient(NONE, _NOTHING, None, (), 0))
            continue
        repeated = walk.repeated(spec)
        temporary = view.copy
        if kind not in (EACH, FULL):
            own = walk.dense([not r for r in repeated])
            temporary = None if walk.strides(spec) == own else walk.copied_shape(own)
        over = {d for d, r in zip(walk.dims, repeated, strict=True) if r and kind == FULL}
        summed = tuple(k for k, d in enumerate(order) if d in over)
        count = {ROW: segments, COLUMN: segments, ALL: programs}.get(kind, 0)
        made.append(Gradient(kind, view, temporary, summed, count))

    return Layout(
        order=tuple(order),
        inverse=tuple(order.index(d) for d in range(ndim)),
        ndim=ndim,
        rows=n_rows,
        columns=n_columns,
        datum_rows=n_rows // n_samples,
        vec=vec,
        segments=segments,
        programs=programs,
        operands=views,
        gradients=tuple(made),
        out=out_view,
        space_arguments=(n_rows, n_rows // n_samples, n_columns // vec, column_tiles, tiles, segments),
        modes=tuple(v.mode for v in views),
        kinds=tuple(EACH if kind == FULL else kind for kind in kinds),
        constants={
            "WALK": walk_kind,
            "SPACE": FLAT if n_rows == 1 else SHORT if column_tiles == 1 else LONG,
            "SAMPLES": n_samples > 1,
            "BLOCK_ROWS": block_rows,
            "BLOCK_COLUMNS": block_columns,
            "VEC": vec,
        },
    )


def copied(tensor: Tensor, view: View, plan: Layout, leading: bool = False) -> Tensor:
    """The copy that a view asks for: contiguous in walking order."""
    missing = (1,) * (plan.ndim - tensor.ndim)
    shape = (*tensor.shape, *missing) if leading else (*missing, *tensor.shape)
    assert view.copy is not None
    if tensor.dtype == torch.bool:
        # Byte by byte, for PyTorch is free to take any byte of a bool for 0 or 1.
        return copied(tensor.view(torch.uint8), view, plan, leading).view(torch.bool)
    return tensor.reshape(shape).permute(plan.order).expand(view.copy).contiguous()
