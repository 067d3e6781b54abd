"""The noise of a tile: where it is, among a seed's normals or in memory, and which samples a program has.

A row's noise begins at the index of its first element. Where that is no multiple of 4 the row's tiles begin up to 3
columns before it, so that every Philox counter is computed once.
"""

import triton
import triton.language as tl

from vae_fast.triton_kernels.noise import NORMALS_OF_COUNTER, normals
from vae_fast.triton_kernels.tiles import ABSENT, place, read


@triton.jit
def place_noise(
    program,
    step,
    space,
    offset,
    ALIGNED: tl.constexpr,
    WALK: tl.constexpr,
    SPACE: tl.constexpr,
    SAMPLES: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    VEC: tl.constexpr,
):
    """A tile as tiles.place gives it, and an index [rows, 1] of the counter that every row begins with."""
    tile = place(program, step, space, WALK, SPACE, SAMPLES, BLOCK_ROWS, BLOCK_COLUMNS, VEC)
    row, sample, datum, row_mask, start, column, mask = tile
    columns = space[2]
    first = row * (columns * VEC) + offset
    if not ALIGNED:
        column = column - (first & (NORMALS_OF_COUNTER - 1)).to(tl.int32)
        at = start + column
        mask = row_mask & (at >= 0) & (at < columns)
    return (row, sample, datum, row_mask, start, column, mask), first + start


@triton.jit
def share_of(draws, groups, GROUPED: tl.constexpr):
    """(program, group, first sample, the one after the last): a program's tile, and its samples."""
    program = tl.program_id(0).to(tl.int64)
    if GROUPED:
        group = program % groups
        return program // groups, group, draws * group // groups, draws * (group + 1) // groups
    else:
        return program, program * 0, draws * 0, draws


@triton.jit
def key_of(seed, seed_tensor):
    if seed_tensor is None:
        return seed.to(tl.int64)
    else:
        return tl.load(seed_tensor)


@triton.jit
def noise_of(
    draw,
    given,
    tile,
    index,
    first_sample,
    key,
    LANES: tl.constexpr,
    T: tl.constexpr,
    MODE: tl.constexpr,
    SAMPLES: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    VEC: tl.constexpr,
):
    """A sample's ε, one number an element: given noise may be one value a row."""
    if MODE == ABSENT:
        return normals(index, first_sample + draw, key, BLOCK_COLUMNS, LANES).to(T)
    else:
        ptr, sample, datum, step = given
        noise = read(ptr + draw * (step * VEC), sample, datum, tile, T, MODE, SAMPLES, VEC)
        return tl.broadcast_to(noise, tile[6].shape)
