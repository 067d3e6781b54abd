"""What the samplers' kernels do with a tile: z = μ + τσε, the KL beside it, and the gradients of both.

Operands come in the order mu, logvar, prior_mu, prior_logvar, each as (pointer, stride of a sample, stride of a
datum), of what is not there any three; MODES are theirs, then that of the noise that is given, and of upstream
gradients. What there is a sample of, of the call, has a fourth: the stride from one to the next.
"""

import triton
import triton.language as tl

from vae_fast.triton_kernels.density import zero_sums
from vae_fast.triton_kernels.noise_tiles import key_of, noise_of, place_noise, share_of
from vae_fast.triton_kernels.sigma import clamped, dsigma, sigma, within
from vae_fast.triton_kernels.terms import floored, gaussian_kl
from vae_fast.triton_kernels.terms_to_prior import clamped_prior, gaussian_kl_to_prior, within_prior
from vae_fast.triton_kernels.tiles import (
    ABSENT,
    NONE,
    accumulate,
    add,
    read,
    store_partial_sum,
    store_sum,
    write,
    zero_sum,
)

# Places in MODES.
NOISE, DZ, DKL = tl.constexpr(4), tl.constexpr(5), tl.constexpr(6)


@triton.jit
def _tempered(a, numbers, TEMPERED: tl.constexpr):
    if TEMPERED:
        return a * numbers[4]
    else:
        return a


@triton.jit
def _numbers_in(numbers, T: tl.constexpr):
    """The floor of the KL, eps, the bounds and the temperature, in T."""
    values: tl.tuple = ()
    for k in tl.static_range(5):
        values = values + (tl.full((), numbers[k], T),)
    return values


@triton.jit
def _kl_of(
    m,
    r,
    operands,
    tile,
    numbers,
    FLOOR: tl.constexpr,
    FORM: tl.constexpr,
    EPS: tl.constexpr,
    BOUNDED: tl.constexpr,
    PRIOR: tl.constexpr,
    MODES: tl.constexpr,
    T: tl.constexpr,
    SAMPLES: tl.constexpr,
    VEC: tl.constexpr,
):
    """The KL before its floor, its derivatives by μ, r and the prior's argument, and that argument."""
    dm = m
    if MODES[2] != ABSENT:
        ptr, sample, datum = operands[2]
        dm = m - read(ptr, sample, datum, tile, T, MODES[2], SAMPLES, VEC)
    if MODES[3] != ABSENT:
        ptr, sample, datum = operands[3]
        prior_raw = read(ptr, sample, datum, tile, T, MODES[3], SAMPLES, VEC)
        prior_r = clamped_prior(prior_raw, numbers[2], numbers[3], BOUNDED, PRIOR)
        kl, slope, draw, dprior_raw = gaussian_kl_to_prior(dm, r, prior_r, numbers[1], FORM, EPS, PRIOR)
        return kl, slope, draw, dprior_raw, prior_raw
    else:
        kl, draw = gaussian_kl(dm, r, numbers[1], FORM, EPS)
        return kl, dm, draw, draw, r


@triton.jit
def forward_tiles(
    operands,
    given,
    z,
    out,
    partials,
    seed,
    seed_tensor,
    offset,
    first_sample,
    draws,
    groups,
    space,
    numbers,
    FLOOR: tl.constexpr,
    FORM: tl.constexpr,
    EPS: tl.constexpr,
    BOUNDED: tl.constexpr,
    PRIOR: tl.constexpr,
    TEMPERED: tl.constexpr,
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
    numbers = _numbers_in(numbers, T)
    key = key_of(seed, seed_tensor)
    mu, mu_sample, mu_datum = operands[0]
    logvar, logvar_sample, logvar_datum = operands[1]
    z, z_sample, z_datum, z_draw = z
    value = zero_sum(VALUE, BLOCK_ROWS, BLOCK_COLUMNS)
    for step in range(space[4]):
        tile, index = place_noise(
            program, step, space, offset, ALIGNED, WALK, SPACE, SAMPLES, BLOCK_ROWS, BLOCK_COLUMNS, VEC
        )
        m = read(mu, mu_sample, mu_datum, tile, T, MODES[0], SAMPLES, VEC)
        raw = read(logvar, logvar_sample, logvar_datum, tile, T, MODES[1], SAMPLES, VEC)
        r = clamped(raw, numbers[2], numbers[3], BOUNDED)
        if VALUE != NONE:
            kl, _, _, _, _ = _kl_of(
                m, r, operands, tile, numbers, FLOOR, FORM, EPS, BOUNDED, PRIOR, MODES, T, SAMPLES, VEC
            )
            kl, _ = floored(kl, kl, numbers[0], FLOOR)
            value = add(value, kl, tile, VALUE)
        s = _tempered(sigma(r, numbers[1], FORM, EPS), numbers, TEMPERED)
        for draw in range(first_draw, last_draw):
            noise = noise_of(
                draw, given, tile, index, first_sample, key, LANES, T, MODES[NOISE], SAMPLES, BLOCK_COLUMNS, VEC
            )
            write(z + draw * (z_draw * VEC), z_sample, z_datum, tile, m + s * noise, SAMPLES, VEC)
    if VALUE != NONE:
        if group == 0:
            tile, _ = place_noise(
                program, 0, space, offset, ALIGNED, WALK, SPACE, SAMPLES, BLOCK_ROWS, BLOCK_COLUMNS, VEC
            )
            store_sum(out, partials, None, value, program, tile, space, 1.0, VALUE, WALK, SPACE, VEC, ALONE)


@triton.jit
def two_sum(high, low, value):
    """A sum in two floats and one more value (Knuth's two-sum)."""
    sum = high + value
    part = sum - high
    return sum, low + ((high - (sum - part)) + (value - part))


@triton.jit
def backward_tiles(
    operands,
    given,
    dz,
    dkl,
    gradients,
    seed,
    seed_tensor,
    offset,
    first_sample,
    draws,
    groups,
    space,
    numbers,
    FLOOR: tl.constexpr,
    FORM: tl.constexpr,
    EPS: tl.constexpr,
    BOUNDED: tl.constexpr,
    PRIOR: tl.constexpr,
    TEMPERED: tl.constexpr,
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
    """``gradients`` are the operands', each with the stride from one group of samples to the next."""
    program, group, first_draw, last_draw = share_of(draws, groups, GROUPED)
    numbers = _numbers_in(numbers, T)
    key = key_of(seed, seed_tensor)
    mu, mu_sample, mu_datum = operands[0]
    logvar, logvar_sample, logvar_datum = operands[1]
    dz, dz_sample, dz_datum, dz_draw = dz
    dkl, dkl_sample, dkl_datum = dkl
    sums = zero_sums(KINDS, BLOCK_ROWS, BLOCK_COLUMNS)
    for step in range(space[4]):
        tile, index = place_noise(
            program, step, space, offset, ALIGNED, WALK, SPACE, SAMPLES, BLOCK_ROWS, BLOCK_COLUMNS, VEC
        )
        raw = read(logvar, logvar_sample, logvar_datum, tile, T, MODES[1], SAMPLES, VEC)
        r = clamped(raw, numbers[2], numbers[3], BOUNDED)
        dm = tl.zeros((BLOCK_ROWS, BLOCK_COLUMNS), T)
        dr = tl.zeros((BLOCK_ROWS, BLOCK_COLUMNS), T)
        dprior_mean, dprior_raw = dm, dr
        if MODES[DZ] != ABSENT:
            if ONE:
                dm += read(dz, dz_sample, dz_datum, tile, T, MODES[DZ], SAMPLES, VEC)
                if KINDS[1] != NONE:
                    dr = dm * noise_of(
                        0,
                        given,
                        tile,
                        index,
                        first_sample,
                        key,
                        LANES,
                        T,
                        MODES[NOISE],
                        SAMPLES,
                        BLOCK_COLUMNS,
                        VEC,
                    )
            else:
                dm_low, dr_low = dm, dr
                for draw in range(first_draw, last_draw):
                    d = read(dz + draw * (dz_draw * VEC), dz_sample, dz_datum, tile, T, MODES[DZ], SAMPLES, VEC)
                    dm, dm_low = two_sum(dm, dm_low, d)
                    if KINDS[1] != NONE:
                        noise = noise_of(
                            draw,
                            given,
                            tile,
                            index,
                            first_sample,
                            key,
                            LANES,
                            T,
                            MODES[NOISE],
                            SAMPLES,
                            BLOCK_COLUMNS,
                            VEC,
                        )
                        dr, dr_low = two_sum(dr, dr_low, d * noise)
                # An infinite or NaN sum is not to be corrected.
                dm = tl.where(tl.abs(dm) < float("inf"), dm + dm_low, dm)
                dr = tl.where(tl.abs(dr) < float("inf"), dr + dr_low, dr)
            if KINDS[1] != NONE:
                dr = dr * _tempered(dsigma(r, numbers[1], FORM, EPS), numbers, TEMPERED)
        if MODES[DKL] != ABSENT:
            m = read(mu, mu_sample, mu_datum, tile, T, MODES[0], SAMPLES, VEC)
            g = read(dkl, dkl_sample, dkl_datum, tile, T, MODES[DKL], SAMPLES, VEC)
            kl, slope, draw_kl, dprior, prior_raw = _kl_of(
                m, r, operands, tile, numbers, FLOOR, FORM, EPS, BOUNDED, PRIOR, MODES, T, SAMPLES, VEC
            )
            _, g = floored(kl, g, numbers[0], FLOOR)
            # Of the groups of samples one adds the KL's part; all write the prior's gradients, which are the same.
            dm = tl.where(group == 0, dm + g * slope, dm)
            dr = tl.where(group == 0, dr + g * draw_kl, dr)
            dprior_mean = -(g * slope)
            dprior_raw = within_prior(prior_raw, g * dprior, numbers[2], numbers[3], BOUNDED, PRIOR)
        dr = within(raw, dr, numbers[2], numbers[3], BOUNDED)
        values = (dm, dr, dprior_mean, dprior_raw)
        results: tl.tuple = ()
        for k in tl.static_range(4):
            if KINDS[k] == NONE:
                results = results + (sums[k],)
            else:
                ptr, sample, datum, from_group = gradients[k]
                sum = accumulate(
                    ptr + group * (from_group * VEC),
                    sample,
                    datum,
                    tile,
                    sums[k],
                    values[k],
                    KINDS[k],
                    SAMPLES,
                    VEC,
                )
                results = results + (sum,)
        sums = results
    tile, _ = place_noise(program, 0, space, offset, ALIGNED, WALK, SPACE, SAMPLES, BLOCK_ROWS, BLOCK_COLUMNS, VEC)
    for k in tl.static_range(4):
        store_partial_sum(gradients[k][0], sums[k], program, tile, space, KINDS[k], WALK, SPACE, VEC)
