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

from vae_fast.triton_kernels.walk import (
    COLUMNS,
    NOTHING,
    NUMBER,
    Placed,
    Spec,
    View,
    Walk,
    cut_of,
    split,
    walking_order,
)

# How a gradient, or a result, is made: not at all; one value an element; a sum of each row, of each column, of all;
# or one value an element, of a tensor of full size that is summed afterwards.
NONE, EACH, ROW, COLUMN, ALL, FULL = range(6)
# In what order programs walk the tiles: along a row, one after the other, down a column.
ROWS, TILES, COLUMN_TILES = range(3)
# Shapes of the space, for which the way from a program to its tile is shorter: one row; rows no longer than a tile.
FLAT, SHORT, LONG = range(3)

# Bytes of the widest access to memory.
ACCESS_BYTES = 16
# Bytes of a tile in the type that is computed in: 8 float32 or 4 float64 for each thread of four warps, one or two
# accesses an operand. With 16 elements a thread, some kernels of half types ran out of registers.
TILE_BYTES = 4096
# Columns of a tile at least, and its elements.
LEAST_COLUMNS = 8
# Programs that a GPU of any size is busy with; where a row or a sample is cut, then into no more than these need.
BUSY = 512
# Partial sums that one program adds up at the end, and how many of them at a time.
MOST_PARTIALS = 4096
JOIN_BLOCK = 1024
# Columns of a tile whose rows are summed up, and rows of tiles in a slab at least.
COLUMN_TILE, SLAB_TILES = 128, 8
MOST_SLABS = 256


class Request(NamedTuple):
    """What a layout depends on.

    ``gradients[k]`` is the gradient of ``operands[k]`` as it will be returned; ``out`` a result of one value an
    element, ``value`` how the kernel makes its result (NONE, EACH, ROW or ALL). The dims from ``walk_as_anchor`` on
    are walked as operand 0 holds them (None: all in C order). An access is as wide as elements of ``itemsize``
    bytes ask for, a tile as large as a type computed in of ``arithmetic`` bytes allows. ``step`` is one more stride
    that kernels add up. Tiles may begin up to ``room`` columns before a row's first.
    """

    operands: tuple[Spec | None, ...]
    gradients: tuple[Spec | None, ...]
    out: Spec | None
    value: int
    event_ndim: int
    walk_as_anchor: int | None
    itemsize: int
    arithmetic: int
    tile_bytes: int
    step: int = 0
    room: int = 0


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


class Tiles(NamedTuple):
    """A tile's rows and columns, how many tiles a row has and a program walks, and how many programs there are.

    ``segments`` are the programs that share a row's tiles, or, for COLUMN_TILES, a column's.
    """

    block_rows: int
    block_columns: int
    column_tiles: int
    tiles: int
    segments: int
    programs: int

    @property
    def walked(self) -> tuple[int, int, int]:
        """What a program needs to know of them."""
        return self.column_tiles, self.tiles, self.segments


class Layout(NamedTuple):
    # The walk over the broadcast shape's dims, and the way back.
    order: tuple[int, ...]
    inverse: tuple[int, ...]
    ndim: int
    rows: int
    columns: int
    # Rows of one sample.
    datum_rows: int
    # Elements in an access; 1 where not all rows begin and end at such.
    vec: int
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
    return max(tile_bytes // max(itemsize, 4), LEAST_COLUMNS)


def power_of_two(n: int) -> int:
    """The least power of two that is n at least."""
    return 1 << max(n - 1, 0).bit_length()


def _broadcast_shape(operands: Sequence[Spec | None]) -> tuple[int, ...]:
    present = [s for s in operands if s is not None]
    ndim = max(len(s.shape) for s in present)
    sizes = [1] * ndim
    for s in present:
        for k, n in enumerate(s.shape):
            d = k if s.leading else k + ndim - len(s.shape)
            sizes[d] = n if sizes[d] == 1 else sizes[d]
    return tuple(sizes)


def _kind(walk: Walk, spec: Spec, rows: int) -> int:
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


def _kinds(request: Request, walk: Walk, rows: int) -> tuple[list[int], int]:
    """How every gradient is made, and the order of tiles.

    One order serves one kind of sums; what else there is goes by way of a tensor of full size.
    """
    kinds = [NONE if s is None else _kind(walk, s, rows) for s in request.gradients]
    if request.value == ROW or request.room:
        # Where rows begin at different places of a tile there are no columns.
        kinds = [FULL if k == COLUMN else k for k in kinds]
    if request.value == ROW:
        return kinds, ROWS
    if COLUMN in kinds:
        return [FULL if k == ROW else k for k in kinds], COLUMN_TILES
    return kinds, ROWS if ROW in kinds else TILES


def _tiles(request: Request, n_rows: int, n_columns: int, order: int, sums_all: bool) -> Tiles:
    tile = tile_of(request.tile_bytes, request.arithmetic)
    if request.room:
        # Rows at any address: every element of a thread has one of its own, in registers.
        tile //= 2
    reach = n_columns + request.room
    widest = COLUMN_TILE if order == COLUMN_TILES else tile
    block_columns = min(power_of_two(max(reach, LEAST_COLUMNS)), widest)
    block_rows = max(tile // block_columns, 1)
    row_tiles, column_tiles = ceil_div(n_rows, block_rows), ceil_div(reach, block_columns)
    segments = 1
    if order == ROWS:
        segments = min(column_tiles, max(1, ceil_div(BUSY, row_tiles)), MOST_PARTIALS)
        tiles = ceil_div(column_tiles, segments)
        segments = ceil_div(column_tiles, tiles)
        programs = row_tiles * segments
    elif order == COLUMN_TILES:
        slabs = min(ceil_div(row_tiles, SLAB_TILES), MOST_SLABS)
        tiles = ceil_div(row_tiles, slabs)
        segments = ceil_div(row_tiles, tiles)
        programs = column_tiles * segments
    else:
        count = row_tiles * column_tiles
        tiles = ceil_div(count, MOST_PARTIALS) if sums_all else 1
        programs = ceil_div(count, tiles)
    return Tiles(block_rows, block_columns, column_tiles, tiles, segments, programs)


def _gradient(walk: Walk, spec: Spec | None, kind: int, view: View, tiles: Tiles) -> Gradient:
    if spec is None:
        return Gradient(NONE, NOTHING, None, (), 0)
    repeated = walk.repeated(spec)
    temporary = view.copy
    if kind not in (EACH, FULL):
        own = walk.dense([not r for r in repeated])
        temporary = None if walk.strides(spec) == own else walk.copied_shape(own)
    over = {d for d, r in zip(walk.dims, repeated, strict=True) if r and kind == FULL}
    summed = tuple(k for k, d in enumerate(walk.order) if d in over)
    partials = {ROW: tiles.segments, COLUMN: tiles.segments, ALL: tiles.programs}.get(kind, 0)
    return Gradient(kind, view, temporary, summed, partials)


@functools.lru_cache(maxsize=4096)
def layout(request: Request) -> Layout:
    """The layout of a call."""
    anchor, shape, first = request.operands[0], _broadcast_shape(request.operands), request.walk_as_anchor
    assert anchor is not None
    ndim = len(shape)
    walk = Walk(shape, range(ndim) if first is None else walking_order(shape, first, anchor))

    # What is read and written, as rows and columns that suit all of it.
    read = [None if s is None or s.number else Placed(walk, s, False) for s in request.operands]
    # A gradient of a broadcast operand is not written element by element, unless it turns out to be FULL.
    written = [None if s is None or _kind(walk, s, 0) != EACH else Placed(walk, s, True) for s in request.gradients]
    out = None if request.out is None else Placed(walk, request.out, True)
    placed = [p for p in (*read, *written, out) if p is not None]
    rows = split(placed, walk, ndim - request.event_ndim if request.value == ROW else None)
    cut = cut_of(placed, rows)
    n_rows, n_columns = math.prod(walk.sizes[:rows]), math.prod(walk.sizes[rows:])
    n_samples = math.prod(walk.sizes[:cut])
    kinds, order = _kinds(request, walk, rows)

    def view(p: Placed | None) -> View:
        return NOTHING if p is None else p.view(rows, cut)

    dense = Placed(walk, Spec((1,) * ndim, (0,) * ndim), True)
    dense.copy([True] * len(walk.sizes))
    views = tuple(
        View(NUMBER, 0, 0, None) if s is not None and s.number else view(p)
        for s, p in zip(request.operands, read, strict=True)
    )
    each = [view(dense if kind == FULL else p) for kind, p in zip(kinds, written, strict=True)]
    out_view = view(out)

    vec = ACCESS_BYTES // request.itemsize
    steps = [n_columns, request.step]
    steps += [n for v in (*views, *each, out_view) if v.mode == COLUMNS for n in (v.sample, v.datum)]
    if request.room or any(n % vec for n in steps):
        vec = 1
    tiles = _tiles(request, n_rows, n_columns, order, request.value == ALL or ALL in kinds)
    gradients = zip(request.gradients, kinds, each, strict=True)
    return Layout(
        order=walk.order,
        inverse=tuple(walk.order.index(d) for d in range(ndim)),
        ndim=ndim,
        rows=n_rows,
        columns=n_columns,
        datum_rows=n_rows // n_samples,
        vec=vec,
        segments=tiles.segments,
        programs=tiles.programs,
        operands=views,
        gradients=tuple(_gradient(walk, spec, kind, v, tiles) for spec, kind, v in gradients),
        out=out_view,
        space_arguments=(n_rows, n_rows // n_samples, n_columns // vec, *tiles.walked),
        modes=tuple(v.mode for v in views),
        kinds=tuple(EACH if kind == FULL else kind for kind in kinds),
        constants={
            "WALK": order,
            "SPACE": FLAT if n_rows == 1 else SHORT if tiles.column_tiles == 1 else LONG,
            "SAMPLES": n_samples > 1,
            "BLOCK_ROWS": tiles.block_rows,
            "BLOCK_COLUMNS": tiles.block_columns,
            "VEC": vec,
        },
    )
