"""z = μ + σε, alone and with KL(N(μ, σ²) ‖ N(0, I)), and their gradients: the kernels of rsample.py and
rsample_kl.py.

A row's noise begins at the index of its first element. Where that is no multiple of 4 the row's tiles begin up to 3
columns before it, so that every Philox counter is computed once.
"""

import triton
import triton.language as tl

from vae_fast.triton_kernels.kernel import kernel
from vae_fast.triton_kernels.noise import NORMALS_OF_COUNTER, normals
from vae_fast.triton_kernels.sigma import clamped, dsigma, sigma, within
from vae_fast.triton_kernels.terms import floored, gaussian_kl
from vae_fast.triton_kernels.tiles import (
    ABSENT,
    NONE,
    accumulate,
    add,
    place,
    read,
    store_partial_sum,
    store_sum,
    write,
    zero_sum,
)


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


@kernel
def forward(
    mu,
    mu_sample: tl.int64,
    mu_datum: tl.int64,
    logvar,
    logvar_sample: tl.int64,
    logvar_datum: tl.int64,
    z,
    z_sample: tl.int64,
    z_datum: tl.int64,
    z_draw: tl.int64,
    out,
    partials,
    seed: tl.int64,
    seed_tensor,
    offset: tl.int64,
    first_sample: tl.int64,
    draws: tl.int64,
    groups: tl.int64,
    rows: tl.int64,
    datum_rows: tl.int64,
    columns: tl.int64,
    column_tiles: tl.int64,
    tiles: tl.int64,
    segments: tl.int64,
    free_bits: tl.float64,
    param_eps: tl.float64,
    low: tl.float64,
    high: tl.float64,
    FLOOR: tl.constexpr,
    FORM: tl.constexpr,
    EPS: tl.constexpr,
    BOUNDED: tl.constexpr,
    MODES: tl.constexpr,
    VALUE: tl.constexpr,
    ALONE: tl.constexpr,
    GROUPED: tl.constexpr,
    ALIGNED: tl.constexpr,
    LANES: tl.constexpr,
    T: tl.constexpr,
    WALK: tl.constexpr,
    SPACE: tl.constexpr,
    SAMPLES: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    VEC: tl.constexpr,
):
    program, group, first_draw, last_draw = share_of(draws, groups, GROUPED)
    space = (rows, datum_rows, columns, column_tiles, tiles, segments)
    floor, eps = tl.full((), free_bits, T), tl.full((), param_eps, T)
    lowest, highest = tl.full((), low, T), tl.full((), high, T)
    key = key_of(seed, seed_tensor)
    value = zero_sum(VALUE, BLOCK_ROWS, BLOCK_COLUMNS)
    for step in range(tiles):
        tile, index = place_noise(
            program, step, space, offset, ALIGNED, WALK, SPACE, SAMPLES, BLOCK_ROWS, BLOCK_COLUMNS, VEC
        )
        m = read(mu, mu_sample, mu_datum, tile, T, MODES[0], SAMPLES, VEC)
        raw = read(logvar, logvar_sample, logvar_datum, tile, T, MODES[1], SAMPLES, VEC)
        r = clamped(raw, lowest, highest, BOUNDED)
        if VALUE != NONE:
            kl, _ = gaussian_kl(m, r, eps, FORM, EPS)
            kl, _ = floored(kl, kl, floor, FLOOR)
            value = add(value, kl, tile, VALUE)
        s = sigma(r, eps, FORM, EPS)
        for draw in range(first_draw, last_draw):
            noise = normals(index, first_sample + draw, key, BLOCK_COLUMNS, LANES).to(T)
            write(z + draw * (z_draw * VEC), z_sample, z_datum, tile, m + s * noise, SAMPLES, VEC)
    if VALUE != NONE:
        if group == 0:
            tile, _ = place_noise(
                program, 0, space, offset, ALIGNED, WALK, SPACE, SAMPLES, BLOCK_ROWS, BLOCK_COLUMNS, VEC
            )
            store_sum(out, partials, None, value, program, tile, space, 1.0, VALUE, WALK, SPACE, VEC, ALONE)


@triton.jit
def _two_sum(high, low, value):
    """A sum in two floats and one more value (Knuth's two-sum)."""
    sum = high + value
    part = sum - high
    return sum, low + ((high - (sum - part)) + (value - part))


@kernel
def backward(
    mu,
    mu_sample: tl.int64,
    mu_datum: tl.int64,
    logvar,
    logvar_sample: tl.int64,
    logvar_datum: tl.int64,
    dz,
    dz_sample: tl.int64,
    dz_datum: tl.int64,
    dz_draw: tl.int64,
    dkl,
    dkl_sample: tl.int64,
    dkl_datum: tl.int64,
    dmu,
    dmu_sample: tl.int64,
    dmu_datum: tl.int64,
    dmu_group: tl.int64,
    dlogvar,
    dlogvar_sample: tl.int64,
    dlogvar_datum: tl.int64,
    dlogvar_group: tl.int64,
    seed: tl.int64,
    seed_tensor,
    offset: tl.int64,
    first_sample: tl.int64,
    draws: tl.int64,
    groups: tl.int64,
    rows: tl.int64,
    datum_rows: tl.int64,
    columns: tl.int64,
    column_tiles: tl.int64,
    tiles: tl.int64,
    segments: tl.int64,
    free_bits: tl.float64,
    param_eps: tl.float64,
    low: tl.float64,
    high: tl.float64,
    FLOOR: tl.constexpr,
    FORM: tl.constexpr,
    EPS: tl.constexpr,
    BOUNDED: tl.constexpr,
    MODES: tl.constexpr,
    KINDS: tl.constexpr,
    ONE: tl.constexpr,
    GROUPED: tl.constexpr,
    ALIGNED: tl.constexpr,
    LANES: tl.constexpr,
    T: tl.constexpr,
    WALK: tl.constexpr,
    SPACE: tl.constexpr,
    SAMPLES: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    VEC: tl.constexpr,
):
    program, group, first_draw, last_draw = share_of(draws, groups, GROUPED)
    space = (rows, datum_rows, columns, column_tiles, tiles, segments)
    floor, eps = tl.full((), free_bits, T), tl.full((), param_eps, T)
    lowest, highest = tl.full((), low, T), tl.full((), high, T)
    key = key_of(seed, seed_tensor)
    of_mu = zero_sum(KINDS[0], BLOCK_ROWS, BLOCK_COLUMNS)
    of_logvar = zero_sum(KINDS[1], BLOCK_ROWS, BLOCK_COLUMNS)
    for step in range(tiles):
        tile, index = place_noise(
            program, step, space, offset, ALIGNED, WALK, SPACE, SAMPLES, BLOCK_ROWS, BLOCK_COLUMNS, VEC
        )
        raw = read(logvar, logvar_sample, logvar_datum, tile, T, MODES[1], SAMPLES, VEC)
        r = clamped(raw, lowest, highest, BOUNDED)
        dm = tl.zeros((BLOCK_ROWS, BLOCK_COLUMNS), T)
        dr = tl.zeros((BLOCK_ROWS, BLOCK_COLUMNS), T)
        if MODES[2] != ABSENT:
            if ONE:
                dm += read(dz, dz_sample, dz_datum, tile, T, MODES[2], SAMPLES, VEC)
                if KINDS[1] != NONE:
                    dr = dm * normals(index, first_sample, key, BLOCK_COLUMNS, LANES).to(T)
            else:
                dm_low, dr_low = dm, dr
                for draw in range(first_draw, last_draw):
                    d = read(dz + draw * (dz_draw * VEC), dz_sample, dz_datum, tile, T, MODES[2], SAMPLES, VEC)
                    dm, dm_low = _two_sum(dm, dm_low, d)
                    if KINDS[1] != NONE:
                        dr, dr_low = _two_sum(
                            dr, dr_low, d * normals(index, first_sample + draw, key, BLOCK_COLUMNS, LANES).to(T)
                        )
                # An infinite or NaN sum is not to be corrected.
                dm = tl.where(tl.abs(dm) < float("inf"), dm + dm_low, dm)
                dr = tl.where(tl.abs(dr) < float("inf"), dr + dr_low, dr)
            if KINDS[1] != NONE:
                dr = dr * dsigma(r, eps, FORM, EPS)
        if MODES[3] != ABSENT:
            m = read(mu, mu_sample, mu_datum, tile, T, MODES[0], SAMPLES, VEC)
            g = read(dkl, dkl_sample, dkl_datum, tile, T, MODES[3], SAMPLES, VEC)
            kl, draw_kl = gaussian_kl(m, r, eps, FORM, EPS)
            _, g = floored(kl, g, floor, FLOOR)
            # Of the groups of samples one adds the KL's part.
            dm = tl.where(group == 0, dm + g * m, dm)
            dr = tl.where(group == 0, dr + g * draw_kl, dr)
        dr = within(raw, dr, lowest, highest, BOUNDED)
        if KINDS[0] != NONE:
            of_mu = accumulate(
                dmu + group * (dmu_group * VEC), dmu_sample, dmu_datum, tile, of_mu, dm, KINDS[0], SAMPLES, VEC
            )
        if KINDS[1] != NONE:
            of_logvar = accumulate(
                dlogvar + group * (dlogvar_group * VEC),
                dlogvar_sample,
                dlogvar_datum,
                tile,
                of_logvar,
                dr,
                KINDS[1],
                SAMPLES,
                VEC,
            )
    tile, _ = place_noise(program, 0, space, offset, ALIGNED, WALK, SPACE, SAMPLES, BLOCK_ROWS, BLOCK_COLUMNS, VEC)
    store_partial_sum(dmu, of_mu, program, tile, space, KINDS[0], WALK, SPACE, VEC)
    store_partial_sum(dlogvar, of_logvar, program, tile, space, KINDS[1], WALK, SPACE, VEC)
