"""KL(N(μ, σ²) ‖ N(μp, σp²)) and its gradients, in one pass."""

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
from vae_fast.triton_kernels.terms import gaussian_kl, gaussian_kl_to_prior
from vae_fast.triton_kernels.tiles import ABSENT, EACH, NONE, leave, no_sum, place, read


@kernel
def _kernel(
    mu,
    mu_sample: tl.int64,
    mu_datum: tl.int64,
    logvar,
    logvar_sample: tl.int64,
    logvar_datum: tl.int64,
    prior_mu,
    prior_mu_sample: tl.int64,
    prior_mu_datum: tl.int64,
    prior_logvar,
    prior_logvar_sample: tl.int64,
    prior_logvar_datum: tl.int64,
    weight,
    weight_sample: tl.int64,
    weight_datum: tl.int64,
    upstream,
    upstream_sample: tl.int64,
    upstream_datum: tl.int64,
    dmu,
    dmu_sample: tl.int64,
    dmu_datum: tl.int64,
    dlogvar,
    dlogvar_sample: tl.int64,
    dlogvar_datum: tl.int64,
    dprior_mu,
    dprior_mu_sample: tl.int64,
    dprior_mu_datum: tl.int64,
    dprior_logvar,
    dprior_logvar_sample: tl.int64,
    dprior_logvar_datum: tl.int64,
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
    free_bits: tl.float64,
    param_eps: tl.float64,
    low: tl.float64,
    high: tl.float64,
    FLOOR: tl.constexpr,
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
    floor, eps = tl.full((), free_bits, T), tl.full((), param_eps, T)
    lowest, highest = tl.full((), low, T), tl.full((), high, T)
    value = no_sum(VALUE, BLOCK_ROWS, BLOCK_COLUMNS)
    of_mu = no_sum(KINDS[0], BLOCK_ROWS, BLOCK_COLUMNS)
    of_logvar = no_sum(KINDS[1], BLOCK_ROWS, BLOCK_COLUMNS)
    of_prior_mu = no_sum(KINDS[2], BLOCK_ROWS, BLOCK_COLUMNS)
    of_prior_logvar = no_sum(KINDS[3], BLOCK_ROWS, BLOCK_COLUMNS)
    of_weight = no_sum(KINDS[4], BLOCK_ROWS, BLOCK_COLUMNS)
    for step in range(tiles):
        tile = place(program, step, space, WALK, SPACE, SAMPLES, BLOCK_ROWS, BLOCK_COLUMNS, VEC)
        dm = read(mu, mu_sample, mu_datum, tile, T, MODES[0], SAMPLES, VEC)
        raw = read(logvar, logvar_sample, logvar_datum, tile, T, MODES[1], SAMPLES, VEC)
        g = upstream_of(upstream, upstream_sample, upstream_datum, tile, factor, T, MODES[5], SAMPLES, VEC)
        w = weight_of(weight, weight_sample, weight_datum, tile, T, MODES[4], SAMPLES, VEC)
        r = raw
        if MODES[2] != ABSENT:
            dm = dm - read(prior_mu, prior_mu_sample, prior_mu_datum, tile, T, MODES[2], SAMPLES, VEC)
        if BOUNDED:
            r = clamp(r, lowest, highest)
        if MODES[3] != ABSENT:
            prior_raw = read(prior_logvar, prior_logvar_sample, prior_logvar_datum, tile, T, MODES[3], SAMPLES, VEC)
            prior_r = prior_raw
            if BOUNDED:
                prior_r = clamp(prior_r, lowest, highest)
            kl, slope, draw, dprior_raw = gaussian_kl_to_prior(dm, r, prior_r, eps, KIND, EPS)
        else:
            kl, draw = gaussian_kl(dm, r, eps, KIND, EPS)
            slope = dm
        if FLOOR:
            below = kl <= floor
            kl = tl.where(below, floor, kl)
        if KINDS[4] != NONE:
            of_weight = give(
                dweight, dweight_sample, dweight_datum, tile, of_weight, g * kl, KINDS[4], SAMPLES, VEC
            )
        if MODES[4] != ABSENT:
            g = g * w
        if FLOOR:
            g = tl.where(below, 0.0, g)
        if VALUE != NONE:
            kl = weighted(kl, w, MODES[4])
            if VALUE == EACH:
                kl = kl * tl.full((), factor, T)
            value = give(out, out_sample, out_datum, tile, value, kl, VALUE, SAMPLES, VEC)
        slope, draw = shown(g * slope, w, MODES[4]), shown(g * draw, w, MODES[4])
        if BOUNDED:
            draw = inside(raw, draw, lowest, highest)
        if KINDS[0] != NONE:
            of_mu = give(dmu, dmu_sample, dmu_datum, tile, of_mu, slope, KINDS[0], SAMPLES, VEC)
        if KINDS[1] != NONE:
            of_logvar = give(dlogvar, dlogvar_sample, dlogvar_datum, tile, of_logvar, draw, KINDS[1], SAMPLES, VEC)
        if KINDS[2] != NONE:
            of_prior_mu = give(
                dprior_mu, dprior_mu_sample, dprior_mu_datum, tile, of_prior_mu, -slope, KINDS[2], SAMPLES, VEC
            )
        if KINDS[3] != NONE:
            dprior_raw = shown(g * dprior_raw, w, MODES[4])
            if BOUNDED:
                dprior_raw = inside(prior_raw, dprior_raw, lowest, highest)
            of_prior_logvar = give(
                dprior_logvar,
                dprior_logvar_sample,
                dprior_logvar_datum,
                tile,
                of_prior_logvar,
                dprior_raw,
                KINDS[3],
                SAMPLES,
                VEC,
            )
    tile = place(program, 0, space, WALK, SPACE, SAMPLES, BLOCK_ROWS, BLOCK_COLUMNS, VEC)
    leave(dmu, of_mu, program, tile, space, KINDS[0], WALK, SPACE, VEC)
    leave(dlogvar, of_logvar, program, tile, space, KINDS[1], WALK, SPACE, VEC)
    leave(dprior_mu, of_prior_mu, program, tile, space, KINDS[2], WALK, SPACE, VEC)
    leave(dprior_logvar, of_prior_logvar, program, tile, space, KINDS[3], WALK, SPACE, VEC)
    leave(dweight, of_weight, program, tile, space, KINDS[4], WALK, SPACE, VEC)
    deliver(out, partials, ticket, value, program, tile, space, factor, VALUE, WALK, SPACE, VEC, ALONE)


def _run(
    upstream: Tensor | None,
    operands: Sequence[Tensor | None],
    event_ndim: int,
    reduction: int,
    scale: float,
    free_bits: float | None,
    param: int,
    param_eps: float,
    low: float,
    high: float,
    *needs_and_packed: Any,
) -> tuple[Tensor, ...]:
    form = SigmaForm(param, param_eps, low, high)
    constants = {"FLOOR": free_bits is not None, **form_constants(form)}
    density = Density(4, event_ndim, reduction, scale, (free_bits or 0.0, *form[1:]), constants)
    return run(_kernel, operands, upstream, density, *needs_and_packed)


def gaussian_kl_fwd(
    mu: Tensor,
    logvar: Tensor,
    prior_mu: Tensor | None,
    prior_logvar: Tensor | None,
    weight: Tensor | None,
    *options: Any,
) -> tuple[Tensor, ...]:
    return _run(None, (mu, logvar, prior_mu, prior_logvar, weight), *options)


def gaussian_kl_bwd(
    dkl: Tensor,
    mu: Tensor,
    logvar: Tensor,
    prior_mu: Tensor | None,
    prior_logvar: Tensor | None,
    weight: Tensor | None,
    *options: Any,
) -> tuple[Tensor, ...]:
    return _run(dkl, (mu, logvar, prior_mu, prior_logvar, weight), *options)
