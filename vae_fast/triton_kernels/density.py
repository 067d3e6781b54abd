"""The kernel of every density: a pass over its operands that sums terms, and makes gradients.

What an element's term is and what its derivatives are, ``TERM`` says; <op>.py has one for each density. Here stands
what they share: operands of any layout, weights, upstream gradients, and sums on their way to results.
"""

import triton
import triton.language as tl

from vae_fast.triton_kernels.early import anew
from vae_fast.triton_kernels.kernel import kernel
from vae_fast.triton_kernels.tiles import (
    ABSENT,
    COLUMNS,
    EACH,
    NONE,
    accumulate,
    place,
    read,
    store_partial_sum,
    store_sum,
    zero_sum,
)


@triton.jit
def upstream_of(
    upstream,
    sample,
    datum,
    tile,
    factor,
    T: tl.constexpr,
    MODE: tl.constexpr,
    SAMPLES: tl.constexpr,
    VEC: tl.constexpr,
):
    """The gradient that reaches a term: the upstream one, or 1, times what the reduction makes of it."""
    if MODE == ABSENT:
        return tl.full((1, 1), factor, T)
    elif MODE == COLUMNS:
        return read(upstream, sample, datum, tile, T, MODE, SAMPLES, VEC) * tl.full((), factor, T)
    else:
        return (read(upstream, sample, datum, tile, T, MODE, SAMPLES, VEC).to(tl.float64) * factor).to(T)


@triton.jit
def read_operands(
    operands,
    strides,
    tile,
    T: tl.constexpr,
    MODES: tl.constexpr,
    N: tl.constexpr,
    SAMPLES: tl.constexpr,
    VEC: tl.constexpr,
):
    """The values of the first N, of one that is not given 0."""
    values: tl.tuple = ()
    for k in tl.static_range(N):
        if MODES[k] == ABSENT:
            values = values + (tl.full((1, 1), 0.0, T),)
        else:
            sample, datum = strides[k]
            values = values + (read(operands[k], sample, datum, tile, T, MODES[k], SAMPLES, VEC),)
    return values


@triton.jit
def zero_sums(KINDS: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_COLUMNS: tl.constexpr):
    sums: tl.tuple = ()
    for k in tl.static_range(len(KINDS)):
        sums = sums + (zero_sum(KINDS[k], BLOCK_ROWS, BLOCK_COLUMNS),)
    return sums


@triton.jit
def accumulate_gradients(
    gradients, strides, tile, sums, values, KINDS: tl.constexpr, SAMPLES: tl.constexpr, VEC: tl.constexpr
):
    """A tile's part of every gradient: written, or added to the sums, which are returned."""
    results: tl.tuple = ()
    for k in tl.static_range(len(KINDS)):
        if KINDS[k] == NONE:
            results = results + (sums[k],)
        else:
            sample, datum = strides[k]
            sum = accumulate(gradients[k], sample, datum, tile, sums[k], values[k], KINDS[k], SAMPLES, VEC)
            results = results + (sum,)
    return results


@triton.jit
def weighted(slopes, w, N: tl.constexpr, WEIGHT: tl.constexpr):
    """The gradients by the first N operands: 0 where the weight is 0, whatever they are."""
    results: tl.tuple = ()
    for k in tl.static_range(N):
        results = results + (zero_where_unweighted(slopes[k], w, WEIGHT),)
    return results


@triton.jit
def zero_where_unweighted(value, w, WEIGHT: tl.constexpr):
    """The value; 0 where the weight is 0, whatever it is."""
    if WEIGHT == ABSENT:
        return value
    else:
        return tl.where(w == 0.0, 0.0, value)


@kernel
def density(
    # Operands and their gradients, the weight and its own at the end: each a pointer, or None.
    operands, gradients, upstream, out, partials, ticket,
    # As many as a density can have (MOST_OPERANDS of density_class.py).
    sample0: tl.int64, datum0: tl.int64, sample1: tl.int64, datum1: tl.int64,
    sample2: tl.int64, datum2: tl.int64, sample3: tl.int64, datum3: tl.int64,
    sample4: tl.int64, datum4: tl.int64, upstream_sample: tl.int64, upstream_datum: tl.int64,
    dsample0: tl.int64, ddatum0: tl.int64, dsample1: tl.int64, ddatum1: tl.int64,
    dsample2: tl.int64, ddatum2: tl.int64, dsample3: tl.int64, ddatum3: tl.int64,
    dsample4: tl.int64, ddatum4: tl.int64,
    out_sample: tl.int64, out_datum: tl.int64,
    rows: tl.int64, datum_rows: tl.int64, columns: tl.int64,
    column_tiles: tl.int64, tiles: tl.int64, segments: tl.int64,
    factor: tl.float64,
    number0: tl.float64, number1: tl.float64, number2: tl.float64, number3: tl.float64,
    TERM: tl.constexpr, CONSTANTS: tl.constexpr,
    MODES: tl.constexpr, KINDS: tl.constexpr, VALUE: tl.constexpr, ALONE: tl.constexpr,
    KEPT: tl.constexpr, T: tl.constexpr, WALK: tl.constexpr, SPACE: tl.constexpr, SAMPLES: tl.constexpr,
    BLOCK_ROWS: tl.constexpr, BLOCK_COLUMNS: tl.constexpr, VEC: tl.constexpr,
):  # fmt: skip
    """A call's sums and gradients. MODES are the operands' and, at the end, the upstream gradient's.

    KEPT: the gradients are there for an upstream gradient of 1, each of an element, and no sum is wanted.

    ``TERM(operands, g, numbers, CONSTANTS)`` gives elements' terms, and g times their derivatives by each operand
    but the weight. That multiplies g and the term; where it is 0 all results are 0, but its own gradient, the term.
    """
    N: tl.constexpr = len(KINDS) - 1
    WEIGHT: tl.constexpr = MODES[N]
    UPSTREAM: tl.constexpr = MODES[N + 1]
    program = tl.program_id(0).to(tl.int64)
    space = (rows, datum_rows, columns, column_tiles, tiles, segments)
    strides = ((sample0, datum0), (sample1, datum1), (sample2, datum2), (sample3, datum3), (sample4, datum4))
    dstrides = (
        (dsample0, ddatum0),
        (dsample1, ddatum1),
        (dsample2, ddatum2),
        (dsample3, ddatum3),
        (dsample4, ddatum4),
    )
    numbers = tl.full((), number0, T), tl.full((), number1, T), tl.full((), number2, T), tl.full((), number3, T)
    value = zero_sum(VALUE, BLOCK_ROWS, BLOCK_COLUMNS)
    sums = zero_sums(KINDS, BLOCK_ROWS, BLOCK_COLUMNS)
    steps = tiles
    if KEPT:
        steps = anew(
            gradients, dstrides, upstream, program, space, factor,
            KINDS, WALK, SPACE, SAMPLES, BLOCK_ROWS, BLOCK_COLUMNS, VEC,
        )  # fmt: skip
    for step in range(steps):
        tile = place(program, step, space, WALK, SPACE, SAMPLES, BLOCK_ROWS, BLOCK_COLUMNS, VEC)
        values = read_operands(operands, strides, tile, T, MODES, N, SAMPLES, VEC)
        reaching = upstream_of(upstream, upstream_sample, upstream_datum, tile, factor, T, UPSTREAM, SAMPLES, VEC)
        g = reaching
        w = reaching
        if WEIGHT != ABSENT:
            sample, datum = strides[N]
            w = read(operands[N], sample, datum, tile, T, WEIGHT, SAMPLES, VEC)
            g = reaching * w
        term, slopes = TERM(values, g, numbers, CONSTANTS)
        if VALUE != NONE:
            summand = term
            if WEIGHT != ABSENT:
                summand = zero_where_unweighted(term * w, w, WEIGHT)
            if VALUE == EACH:
                summand = summand * tl.full((), factor, T)
            value = accumulate(out, out_sample, out_datum, tile, value, summand, VALUE, SAMPLES, VEC)
        slopes = weighted(slopes, w, N, WEIGHT) + (reaching * term,)
        sums = accumulate_gradients(gradients, dstrides, tile, sums, slopes, KINDS, SAMPLES, VEC)
    tile = place(program, 0, space, WALK, SPACE, SAMPLES, BLOCK_ROWS, BLOCK_COLUMNS, VEC)
    for k in tl.static_range(len(KINDS)):
        store_partial_sum(gradients[k], sums[k], program, tile, space, KINDS[k], WALK, SPACE, VEC)
    store_sum(out, partials, ticket, value, program, tile, space, factor, VALUE, WALK, SPACE, VEC, ALONE)
