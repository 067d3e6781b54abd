"""log p(x|z) of a Bernoulli given by its logits or probabilities, and its gradients, in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import triton.language as tl
from torch import Tensor

from vae_fast.reference.bernoulli_log_prob import PROBS
from vae_fast.triton_kernels.density import (
    Density,
    deliver,
    give,
    run,
    shown,
    upstream_of,
    weight_of,
    weighted,
)
from vae_fast.triton_kernels.kernel import kernel
from vae_fast.triton_kernels.terms import bernoulli, bernoulli_of_probs
from vae_fast.triton_kernels.tiles import (
    ABSENT,
    EACH,
    NONE,
    leave,
    no_sum,
    place,
    read,
)


@kernel
def _kernel(
    logits,
    logits_sample: tl.int64,
    logits_datum: tl.int64,
    x,
    x_sample: tl.int64,
    x_datum: tl.int64,
    weight,
    weight_sample: tl.int64,
    weight_datum: tl.int64,
    upstream,
    upstream_sample: tl.int64,
    upstream_datum: tl.int64,
    dlogits,
    dlogits_sample: tl.int64,
    dlogits_datum: tl.int64,
    dx,
    dx_sample: tl.int64,
    dx_datum: tl.int64,
    dweight,
    dweight_sample: tl.int64,
    dweight_datum: tl.int64,
    out,
    out_sample: tl.int64,
    out_datum: tl.int64,
    partials,
    ticket,
    rows: tl.int64,
    datum_rows: tl.int64,
    columns: tl.int64,
    column_tiles: tl.int64,
    tiles: tl.int64,
    segments: tl.int64,
    factor: tl.float64,
    x_scale: tl.float64,
    OF_PROBS: tl.constexpr,
    MODES: tl.constexpr,
    KINDS: tl.constexpr,
    VALUE: tl.constexpr,
    ALONE: tl.constexpr,
    T: tl.constexpr,
    WALK: tl.constexpr,
    SPACE: tl.constexpr,
    SAMPLES: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    VEC: tl.constexpr,
):
    program = tl.program_id(0).to(tl.int64)
    space = (rows, datum_rows, columns, column_tiles, tiles, segments)
    by_x = tl.full((), x_scale, T)
    value = no_sum(VALUE, BLOCK_ROWS, BLOCK_COLUMNS)
    of_logits = no_sum(KINDS[0], BLOCK_ROWS, BLOCK_COLUMNS)
    of_x = no_sum(KINDS[1], BLOCK_ROWS, BLOCK_COLUMNS)
    of_weight = no_sum(KINDS[2], BLOCK_ROWS, BLOCK_COLUMNS)
    for step in range(tiles):
        tile = place(program, step, space, WALK, SPACE, SAMPLES, BLOCK_ROWS, BLOCK_COLUMNS, VEC)
        y = read(logits, logits_sample, logits_datum, tile, T, MODES[0], SAMPLES, VEC)
        t = read(x, x_sample, x_datum, tile, T, MODES[1], SAMPLES, VEC) * by_x
        g = upstream_of(upstream, upstream_sample, upstream_datum, tile, factor, T, MODES[3], SAMPLES, VEC)
        w = weight_of(weight, weight_sample, weight_datum, tile, T, MODES[2], SAMPLES, VEC)
        if OF_PROBS:
            log_prob, slope, odds = bernoulli_of_probs(y, t)
        else:
            log_prob, slope = bernoulli(y, t)
            odds = y
        if KINDS[2] != NONE:
            of_weight = give(
                dweight, dweight_sample, dweight_datum, tile, of_weight, g * log_prob, KINDS[2], SAMPLES, VEC
            )
        if VALUE != NONE:
            log_prob = weighted(log_prob, w, MODES[2])
            if VALUE == EACH:
                log_prob = log_prob * tl.full((), factor, T)
            value = give(out, out_sample, out_datum, tile, value, log_prob, VALUE, SAMPLES, VEC)
        if MODES[2] != ABSENT:
            g = g * w
        if KINDS[0] != NONE:
            slope = shown(g * slope, w, MODES[2])
            of_logits = give(dlogits, dlogits_sample, dlogits_datum, tile, of_logits, slope, KINDS[0], SAMPLES, VEC)
        if KINDS[1] != NONE:
            odds = shown(g * odds, w, MODES[2])
            of_x = give(dx, dx_sample, dx_datum, tile, of_x, odds * by_x, KINDS[1], SAMPLES, VEC)
    tile = place(program, 0, space, WALK, SPACE, SAMPLES, BLOCK_ROWS, BLOCK_COLUMNS, VEC)
    leave(dlogits, of_logits, program, tile, space, KINDS[0], WALK, SPACE, VEC)
    leave(dx, of_x, program, tile, space, KINDS[1], WALK, SPACE, VEC)
    leave(dweight, of_weight, program, tile, space, KINDS[2], WALK, SPACE, VEC)
    deliver(out, partials, ticket, value, program, tile, space, factor, VALUE, WALK, SPACE, VEC, ALONE)


def _run(
    upstream: Tensor | None,
    operands: Sequence[Tensor | None],
    event_ndim: int,
    reduction: int,
    scale: float,
    x_scale: float,
    param: int,
    *needs: bool,
) -> tuple[Tensor, ...]:
    density = Density(1, event_ndim, reduction, scale, (x_scale,), {"OF_PROBS": param == PROBS})
    return run(_kernel, operands, upstream, density, *needs)


def bernoulli_log_prob_fwd(logits: Tensor, x: Tensor, weight: Tensor | None, *options: Any) -> tuple[Tensor, ...]:
    return _run(None, (logits, x, weight), *options)


def bernoulli_log_prob_bwd(
    dlog_prob: Tensor, logits: Tensor, x: Tensor, weight: Tensor | None, *options: Any
) -> tuple[Tensor, ...]:
    return _run(dlog_prob, (logits, x, weight), *options)
