"""log p(x|z) of a Gaussian with diagonal covariance, and its gradients, in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import triton.language as tl
from torch import Tensor

from vae_fast.sigma import SigmaForm
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
from vae_fast.triton_kernels.formulas import clamp
from vae_fast.triton_kernels.kernel import kernel
from vae_fast.triton_kernels.operands import form_constants
from vae_fast.triton_kernels.scale import inside
from vae_fast.triton_kernels.terms import gaussian
from vae_fast.triton_kernels.tiles import ABSENT, EACH, NONE, leave, no_sum, place, read


@kernel
def _kernel(
    mean,
    mean_sample: tl.int64,
    mean_datum: tl.int64,
    logvar,
    logvar_sample: tl.int64,
    logvar_datum: tl.int64,
    x,
    x_sample: tl.int64,
    x_datum: tl.int64,
    weight,
    weight_sample: tl.int64,
    weight_datum: tl.int64,
    upstream,
    upstream_sample: tl.int64,
    upstream_datum: tl.int64,
    dmean,
    dmean_sample: tl.int64,
    dmean_datum: tl.int64,
    dlogvar,
    dlogvar_sample: tl.int64,
    dlogvar_datum: tl.int64,
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
    param_eps: tl.float64,
    low: tl.float64,
    high: tl.float64,
    KIND: tl.constexpr,
    EPS: tl.constexpr,
    BOUNDED: tl.constexpr,
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
    by_x, eps = tl.full((), x_scale, T), tl.full((), param_eps, T)
    lowest, highest = tl.full((), low, T), tl.full((), high, T)
    value = no_sum(VALUE, BLOCK_ROWS, BLOCK_COLUMNS)
    of_mean = no_sum(KINDS[0], BLOCK_ROWS, BLOCK_COLUMNS)
    of_logvar = no_sum(KINDS[1], BLOCK_ROWS, BLOCK_COLUMNS)
    of_x = no_sum(KINDS[2], BLOCK_ROWS, BLOCK_COLUMNS)
    of_weight = no_sum(KINDS[3], BLOCK_ROWS, BLOCK_COLUMNS)
    for step in range(tiles):
        tile = place(program, step, space, WALK, SPACE, SAMPLES, BLOCK_ROWS, BLOCK_COLUMNS, VEC)
        m = read(mean, mean_sample, mean_datum, tile, T, MODES[0], SAMPLES, VEC)
        raw = read(logvar, logvar_sample, logvar_datum, tile, T, MODES[1], SAMPLES, VEC)
        t = read(x, x_sample, x_datum, tile, T, MODES[2], SAMPLES, VEC)
        g = upstream_of(upstream, upstream_sample, upstream_datum, tile, factor, T, MODES[4], SAMPLES, VEC)
        w = weight_of(weight, weight_sample, weight_datum, tile, T, MODES[3], SAMPLES, VEC)
        difference, r = t * by_x - m, raw
        if BOUNDED:
            r = clamp(r, lowest, highest)
        log_prob, slope, draw = gaussian(difference, r, eps, KIND, EPS)
        if KINDS[3] != NONE:
            of_weight = give(
                dweight, dweight_sample, dweight_datum, tile, of_weight, g * log_prob, KINDS[3], SAMPLES, VEC
            )
        if VALUE != NONE:
            log_prob = weighted(log_prob, w, MODES[3])
            if VALUE == EACH:
                log_prob = log_prob * tl.full((), factor, T)
            value = give(out, out_sample, out_datum, tile, value, log_prob, VALUE, SAMPLES, VEC)
        if MODES[3] != ABSENT:
            g = g * w
        slope, draw = shown(g * slope, w, MODES[3]), shown(g * draw, w, MODES[3])
        if BOUNDED:
            draw = inside(raw, draw, lowest, highest)
        if KINDS[0] != NONE:
            of_mean = give(dmean, dmean_sample, dmean_datum, tile, of_mean, slope, KINDS[0], SAMPLES, VEC)
        if KINDS[1] != NONE:
            of_logvar = give(dlogvar, dlogvar_sample, dlogvar_datum, tile, of_logvar, draw, KINDS[1], SAMPLES, VEC)
        if KINDS[2] != NONE:
            of_x = give(dx, dx_sample, dx_datum, tile, of_x, -slope * by_x, KINDS[2], SAMPLES, VEC)
    tile = place(program, 0, space, WALK, SPACE, SAMPLES, BLOCK_ROWS, BLOCK_COLUMNS, VEC)
    leave(dmean, of_mean, program, tile, space, KINDS[0], WALK, SPACE, VEC)
    leave(dlogvar, of_logvar, program, tile, space, KINDS[1], WALK, SPACE, VEC)
    leave(dx, of_x, program, tile, space, KINDS[2], WALK, SPACE, VEC)
    leave(dweight, of_weight, program, tile, space, KINDS[3], WALK, SPACE, VEC)
    deliver(out, partials, ticket, value, program, tile, space, factor, VALUE, WALK, SPACE, VEC, ALONE)


def _run(
    upstream: Tensor | None,
    operands: Sequence[Tensor | None],
    event_ndim: int,
    reduction: int,
    scale: float,
    x_scale: float,
    param: int,
    param_eps: float,
    low: float,
    high: float,
    *needs_and_packed: Any,
) -> tuple[Tensor, ...]:
    form = SigmaForm(param, param_eps, low, high)
    density = Density(2, event_ndim, reduction, scale, (x_scale, *form[1:]), form_constants(form))
    return run(_kernel, operands, upstream, density, *needs_and_packed)


def gaussian_log_prob_fwd(
    mean: Tensor, logvar: Tensor, x: Tensor, weight: Tensor | None, *options: Any
) -> tuple[Tensor, ...]:
    return _run(None, (mean, logvar, x, weight), *options)


def gaussian_log_prob_bwd(
    dlog_prob: Tensor, mean: Tensor, logvar: Tensor, x: Tensor, weight: Tensor | None, *options: Any
) -> tuple[Tensor, ...]:
    return _run(dlog_prob, (mean, logvar, x, weight), *options)
