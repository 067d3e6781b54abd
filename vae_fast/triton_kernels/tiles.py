"""Tiles: from a program's number to rows and columns, what is read and written there, and sums in a fixed order.

A tile is a block [BLOCK_ROWS, BLOCK_COLUMNS] of the space of layout.py. Everything that is the same for all tensors
of a call travels as one tuple, ``tile``: (row, sample, datum, row_mask, start, column, mask), rows as [BLOCK_ROWS,
1] and columns as [1, BLOCK_COLUMNS]; ``start`` is the tile's first column. Strides and column counts come divided
by VEC, so that the compiler sees how many neighbouring elements are one access.
"""

import triton
import triton.language as tl

from vae_fast.triton_kernels import layout, walk

ABSENT = tl.constexpr(walk.ABSENT)
COLUMNS = tl.constexpr(walk.COLUMNS)
REPEATED = tl.constexpr(walk.REPEATED)
NUMBER = tl.constexpr(walk.NUMBER)
NONE = tl.constexpr(layout.NONE)
EACH = tl.constexpr(layout.EACH)
ROW = tl.constexpr(layout.ROW)
COLUMN = tl.constexpr(layout.COLUMN)
ALL = tl.constexpr(layout.ALL)
ROWS = tl.constexpr(layout.ROWS)
TILES = tl.constexpr(layout.TILES)
FLAT = tl.constexpr(layout.FLAT)
SHORT = tl.constexpr(layout.SHORT)
JOIN_BLOCK = tl.constexpr(layout.JOIN_BLOCK)


@triton.jit
def tile_of(program, step, column_tiles, tiles, segments, WALK: tl.constexpr, SPACE: tl.constexpr):
    """(row tile, column tile) of a program's step."""
    if WALK == ROWS:
        if SPACE == FLAT:
            return program * 0, program * tiles + step
        elif SPACE == SHORT:
            return program, program * 0
        else:
            return program // segments, program % segments * tiles + step
    elif WALK == TILES:
        at = program * tiles + step
        if SPACE == FLAT:
            return at * 0, at
        elif SPACE == SHORT:
            return at, at * 0
        else:
            return at // column_tiles, at % column_tiles
    else:
        return program // column_tiles * tiles + step, program % column_tiles


@triton.jit
def rows_of(row_tile, rows, datum_rows, BLOCK_ROWS: tl.constexpr, SAMPLES: tl.constexpr):
    """(row, sample, datum, row_mask)."""
    row = (row_tile * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS))[:, None]
    if SAMPLES:
        return row, row // datum_rows, row % datum_rows, row < rows
    else:
        return row, row * 0, row, row < rows


@triton.jit
def columns_of(column_tile, columns, BLOCK_COLUMNS: tl.constexpr, VEC: tl.constexpr):
    """(start, column, mask)."""
    column = tl.arange(0, BLOCK_COLUMNS)[None, :]
    left = tl.minimum(columns - column_tile * (BLOCK_COLUMNS // VEC), BLOCK_COLUMNS // VEC).to(tl.int32)
    return column_tile * BLOCK_COLUMNS, column, column // VEC < left


@triton.jit
def place(
    program,
    step,
    space,
    WALK: tl.constexpr,
    SPACE: tl.constexpr,
    SAMPLES: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    VEC: tl.constexpr,
):
    """The tile of a program's step; space = (rows, datum_rows, columns/VEC, column_tiles, tiles, segments)."""
    rows, datum_rows, columns, column_tiles, tiles, segments = space
    row_tile, column_tile = tile_of(program, step, column_tiles, tiles, segments, WALK, SPACE)
    row, sample, datum, row_mask = rows_of(row_tile, rows, datum_rows, BLOCK_ROWS, SAMPLES)
    start, column, mask = columns_of(column_tile, columns, BLOCK_COLUMNS, VEC)
    return row, sample, datum, row_mask, start, column, row_mask & mask


@triton.jit
def row_start(sample_stride, datum_stride, tile, SAMPLES: tl.constexpr):
    if SAMPLES:
        return tile[1] * sample_stride + tile[2] * datum_stride
    else:
        return tile[2] * datum_stride


@triton.jit
def read(ptr, sample, datum, tile, T: tl.constexpr, MODE: tl.constexpr, SAMPLES: tl.constexpr, VEC: tl.constexpr):
    """An operand's values in T. A number comes as the bits of a float64 in the place of a stride."""
    if MODE == NUMBER:
        return tl.full((1, 1), 0.0, T) + sample.to(tl.int64).to(tl.float64, bitcast=True).to(T)
    elif MODE == REPEATED:
        return tl.load(ptr + row_start(sample, datum, tile, SAMPLES), mask=tile[3], other=0).to(T)
    else:
        at = row_start(sample * VEC, datum * VEC, tile, SAMPLES) + tile[4] + tile[5]
        return tl.load(ptr + at, mask=tile[6], other=0).to(T)


@triton.jit
def narrow(value, dtype: tl.constexpr):
    """The value in a result's dtype; half types by way of float32."""
    if dtype == tl.bfloat16 or dtype == tl.float16:
        return value.to(tl.float32).to(dtype)
    else:
        return value.to(dtype)


@triton.jit
def write(ptr, sample, datum, tile, value, SAMPLES: tl.constexpr, VEC: tl.constexpr):
    """One value an element."""
    at = row_start(sample * VEC, datum * VEC, tile, SAMPLES) + tile[4] + tile[5]
    tl.store(ptr + at, narrow(tl.broadcast_to(value, tile[6].shape), ptr.dtype.element_ty), mask=tile[6])


@triton.jit
def zero_sum(KIND: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_COLUMNS: tl.constexpr):
    """The start of a sum; a 0 that nobody reads where there is none."""
    if KIND == ROW:
        return tl.zeros((BLOCK_ROWS,), tl.float64)
    elif KIND == COLUMN:
        return tl.zeros((BLOCK_COLUMNS,), tl.float64)
    else:
        return tl.zeros((), tl.float64)


@triton.jit
def add(sum, value, tile, KIND: tl.constexpr):
    """The sum with a tile's values: added up in their own dtype within the tile, in float64 across tiles."""
    if KIND == ROW or KIND == COLUMN or KIND == ALL:
        value = tl.where(tile[6], value, 0.0)
        if KIND == ROW:
            return sum + tl.sum(value, 1).to(tl.float64)
        elif KIND == COLUMN:
            return sum + tl.sum(value, 0).to(tl.float64)
        else:
            return sum + tl.sum(tl.sum(value, 1), 0).to(tl.float64)
    else:
        return sum


@triton.jit
def accumulate(ptr, sample, datum, tile, sum, value, KIND: tl.constexpr, SAMPLES: tl.constexpr, VEC: tl.constexpr):
    """A tile's part of a gradient or a result: written where it stays, or added to the sum, which is returned."""
    if KIND == EACH:
        write(ptr, sample, datum, tile, value, SAMPLES, VEC)
        return sum
    else:
        return add(sum, value, tile, KIND)


@triton.jit
def store_partial_sum(
    partials,
    sum,
    program,
    tile,
    space,
    KIND: tl.constexpr,
    WALK: tl.constexpr,
    SPACE: tl.constexpr,
    VEC: tl.constexpr,
):
    """Writes a program's sum to its place among the partial ones, [segment, row], [slab, column] or [program]."""
    rows, _, columns, column_tiles, _, segments = space
    if KIND == ALL:
        tl.store(partials + program, sum)
    elif KIND == ROW:
        row = tl.reshape(tile[0], sum.shape)
        segment = program * 0 if SPACE == SHORT else program % segments
        tl.store(partials + segment * rows + row, sum, mask=row < rows)
    elif KIND == COLUMN:
        width = columns * VEC
        column = tile[4] + tl.reshape(tile[5], sum.shape)
        tl.store(partials + program // column_tiles * width + column, sum, mask=column < width)


@triton.jit
def total_of(partials, n, BLOCK: tl.constexpr):
    """Σ of n float64 in a fixed order, read past the first-level cache: another program may have written them."""
    sum = tl.zeros((BLOCK,), tl.float64)
    for first in range(0, n, BLOCK):
        at = first + tl.arange(0, BLOCK)
        sum += tl.load(partials + at, mask=at < n, other=0.0, cache_modifier=".cg")
    return tl.sum(sum, 0)


@triton.jit
def store_total(partials, ticket, out, sum, program, factor, ALONE: tl.constexpr):
    """Writes the sum of all programs' sums, times ``factor``: the last one to draw a ticket adds them in order."""
    T: tl.constexpr = out.dtype.element_ty
    if ALONE:
        tl.store(out, (sum * factor).to(T))
    else:
        tl.store(partials + program, sum)
        # Every thread's stores before the ticket, every thread's loads after it.
        tl.debug_barrier()
        drawn = tl.atomic_add(ticket, 1, sem="acq_rel")
        tl.debug_barrier()
        if drawn == tl.num_programs(0) - 1:
            tl.store(out, (total_of(partials, tl.num_programs(0), JOIN_BLOCK) * factor).to(T))
            # For the next kernel on this stream.
            tl.store(ticket, 0)


@triton.jit
def store_sum(
    out,
    partials,
    ticket,
    sum,
    program,
    tile,
    space,
    factor,
    VALUE: tl.constexpr,
    WALK: tl.constexpr,
    SPACE: tl.constexpr,
    VEC: tl.constexpr,
    ALONE: tl.constexpr,
):
    """A program's sum on its way to the result. ALONE: no other program has a part in it."""
    if VALUE == ALL:
        store_total(partials, ticket, out, sum, program, factor, ALONE)
    elif VALUE == ROW:
        if ALONE:
            row = tl.reshape(tile[0], sum.shape)
            tl.store(out + row, (sum * factor).to(out.dtype.element_ty), mask=row < space[0])
        else:
            store_partial_sum(partials, sum, program, tile, space, VALUE, WALK, SPACE, VEC)
