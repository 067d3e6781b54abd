"""The kernels of a sample and its log-densities: z = μ + σε, log q(z), log p(z), and the gradients of all three.

Operands come in the order mu, logvar, prior_mu, prior_logvar; pointers come first, then integers, then numbers.
Each has a pointer, the stride of a sample and that of a datum, of what is not there any three; MODES are theirs,
then that of the noise that is given, and of upstream gradients. What there is a sample of, of the call, has one
stride more, from one to the next.
"""

import triton
import triton.language as tl

from vae_fast.triton_kernels import forms
from vae_fast.triton_kernels.arithmetic import constant, divide
from vae_fast.triton_kernels.density import zero_sums
from vae_fast.triton_kernels.kernel import kernel
from vae_fast.triton_kernels.noise_tiles import key_of, noise_of, place_noise, share_of
from vae_fast.triton_kernels.sampling_tiles import two_sum
from vae_fast.triton_kernels.sigma import clamped, dsigma, sigma, within
from vae_fast.triton_kernels.terms import HALF_LOG_2PI, gaussian, log_scale
from vae_fast.triton_kernels.terms_to_prior import clamped_prior, within_prior
from vae_fast.triton_kernels.tiles import (
    ABSENT,
    NONE,
    ROW,
    SHORT,
    accumulate,
    add,
    read,
    store_partial_sum,
    write,
    zero_sum,
)

SAME = tl.constexpr(forms.SAME)
# Places in MODES.
NOISE, DZ, DLOG_Q, DLOG_P = tl.constexpr(4), tl.constexpr(5), tl.constexpr(6), tl.constexpr(7)


@triton.jit
def _numbers_in(numbers, T: tl.constexpr):
    """eps and the bounds, in T."""
    return tl.full((), numbers[0], T), tl.full((), numbers[1], T), tl.full((), numbers[2], T)


@triton.jit
def _operand(
    operands, k: tl.constexpr, tile, T: tl.constexpr, MODES: tl.constexpr, SAMPLES: tl.constexpr, VEC: tl.constexpr
):
    ptr, sample, datum = operands[k]
    return read(ptr, sample, datum, tile, T, MODES[k], SAMPLES, VEC)


@triton.jit
def _of_prior(difference, prior_r, eps, FORM: tl.constexpr, EPS: tl.constexpr, PRIOR: tl.constexpr):
    if len(PRIOR) == 0:
        return gaussian(difference, prior_r, eps, FORM, EPS)
    elif PRIOR[0] == SAME:
        return gaussian(difference, prior_r, eps, FORM, EPS)
    else:
        prior_eps = tl.full((), PRIOR[1], tl.float64).to(prior_r.dtype)
        return gaussian(difference, prior_r, prior_eps, PRIOR[0], PRIOR[1] != 0.0)


@triton.jit
def _log_p(
    z,
    operands,
    tile,
    numbers,
    FORM: tl.constexpr,
    EPS: tl.constexpr,
    BOUNDED: tl.constexpr,
    PRIOR: tl.constexpr,
    MODES: tl.constexpr,
    T: tl.constexpr,
    SAMPLES: tl.constexpr,
    VEC: tl.constexpr,
):
    """log p's term, its derivatives by the prior's mean, which is minus that by z, and by its other argument."""
    difference = z
    if MODES[2] != ABSENT:
        difference = z - _operand(operands, 2, tile, T, MODES, SAMPLES, VEC)
    if MODES[3] != ABSENT:
        prior_raw = _operand(operands, 3, tile, T, MODES, SAMPLES, VEC)
        prior_r = clamped_prior(prior_raw, numbers[1], numbers[2], BOUNDED, PRIOR)
        term, slope, draw = _of_prior(difference, prior_r, numbers[0], FORM, EPS, PRIOR)
        return term, slope, within_prior(prior_raw, draw, numbers[1], numbers[2], BOUNDED, PRIOR)
    else:
        return -tl.fma(difference * 0.5, difference, constant(z, HALF_LOG_2PI)), difference, difference


@triton.jit
def _store(
    out,
    partials,
    sum,
    draw,
    draws,
    program,
    tile,
    space,
    SPACE: tl.constexpr,
    ALONE: tl.constexpr,
):
    """A program's sum of a sample's rows: [draw, row], or a part of it, [segment, draw, row]."""
    row, rows = tl.reshape(tile[0], sum.shape), space[0]
    if ALONE:
        tl.store(out + draw * rows + row, sum.to(out.dtype.element_ty), mask=row < rows)
    else:
        segment = program * 0 if SPACE == SHORT else program % space[5]
        tl.store(partials + (segment * draws + draw) * rows + row, sum, mask=row < rows)


@kernel
def forward(
    mu, logvar, prior_mu, prior_logvar, noise, z, log_q, log_p, partials_q, partials_p, seed_tensor,
    mu_sample: tl.int64, mu_datum: tl.int64, logvar_sample: tl.int64, logvar_datum: tl.int64,
    prior_mu_sample: tl.int64, prior_mu_datum: tl.int64, prior_logvar_sample: tl.int64,
    prior_logvar_datum: tl.int64,
    noise_sample: tl.int64, noise_datum: tl.int64, noise_draw: tl.int64,
    z_sample: tl.int64, z_datum: tl.int64, z_draw: tl.int64,
    seed: tl.int64, offset: tl.int64, first_sample: tl.int64, draws: tl.int64, groups: tl.int64,
    rows: tl.int64, datum_rows: tl.int64, columns: tl.int64, column_tiles: tl.int64, tiles: tl.int64,
    segments: tl.int64,
    param_eps: tl.float64, low: tl.float64, high: tl.float64,
    FORM: tl.constexpr, EPS: tl.constexpr, BOUNDED: tl.constexpr, PRIOR: tl.constexpr, MODES: tl.constexpr,
    ALONE: tl.constexpr,
    GROUPED: tl.constexpr, ALIGNED: tl.constexpr, LANES: tl.constexpr, T: tl.constexpr, WALK: tl.constexpr,
    SPACE: tl.constexpr, SAMPLES: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_COLUMNS: tl.constexpr,
    VEC: tl.constexpr,
):  # fmt: skip
    """z, log q and log p of every sample. ALONE: no other program has a part in a row's sums."""
    operands = (
        (mu, mu_sample, mu_datum),
        (logvar, logvar_sample, logvar_datum),
        (prior_mu, prior_mu_sample, prior_mu_datum),
        (prior_logvar, prior_logvar_sample, prior_logvar_datum),
    )
    space = (rows, datum_rows, columns, column_tiles, tiles, segments)
    given = (noise, noise_sample, noise_datum, noise_draw)
    numbers = _numbers_in((param_eps, low, high), T)
    program, group, first_draw, last_draw = share_of(draws, groups, GROUPED)
    key = key_of(seed, seed_tensor)
    for draw in range(first_draw, last_draw):
        sum_q = zero_sum(ROW, BLOCK_ROWS, BLOCK_COLUMNS)
        sum_p = zero_sum(ROW, BLOCK_ROWS, BLOCK_COLUMNS)
        for step in range(tiles):
            tile, index = place_noise(
                program, step, space, offset, ALIGNED, WALK, SPACE, SAMPLES, BLOCK_ROWS, BLOCK_COLUMNS, VEC
            )
            m = _operand(operands, 0, tile, T, MODES, SAMPLES, VEC)
            r = clamped(_operand(operands, 1, tile, T, MODES, SAMPLES, VEC), numbers[1], numbers[2], BOUNDED)
            eps = noise_of(
                draw, given, tile, index, first_sample, key, LANES, T, MODES[NOISE], SAMPLES, BLOCK_COLUMNS, VEC
            )
            size, slope = log_scale(r, numbers[0], FORM, EPS)
            term = -tl.fma(eps * 0.5, eps, tl.broadcast_to(size + constant(size, HALF_LOG_2PI), eps.shape))
            sum_q = add(sum_q, term, tile, ROW)
            value = m + sigma(r, numbers[0], FORM, EPS) * eps
            term, dmean, draw_p = _log_p(
                value, operands, tile, numbers, FORM, EPS, BOUNDED, PRIOR, MODES, T, SAMPLES, VEC
            )
            sum_p = add(sum_p, term, tile, ROW)
            write(z + draw * (z_draw * VEC), z_sample, z_datum, tile, value, SAMPLES, VEC)
        tile, index = place_noise(
            program, 0, space, offset, ALIGNED, WALK, SPACE, SAMPLES, BLOCK_ROWS, BLOCK_COLUMNS, VEC
        )
        _store(log_q, partials_q, sum_q, draw, draws, program, tile, space, SPACE, ALONE)
        _store(log_p, partials_p, sum_p, draw, draws, program, tile, space, SPACE, ALONE)


@triton.jit
def _plus(high, low, value, ONE: tl.constexpr):
    if ONE:
        return high + value, low
    else:
        return two_sum(high, low, value)


@triton.jit
def _whole(high, low):
    """A sum in two floats; an infinite or NaN one is not to be corrected."""
    return tl.where(tl.abs(high) < float("inf"), high + low, high)


@kernel
def backward(
    mu, logvar, prior_mu, prior_logvar, noise, dz, dlog_q, dlog_p, dmu, dlogvar, dprior_mu, dprior_logvar,
    seed_tensor,
    mu_sample: tl.int64, mu_datum: tl.int64, logvar_sample: tl.int64, logvar_datum: tl.int64,
    prior_mu_sample: tl.int64, prior_mu_datum: tl.int64, prior_logvar_sample: tl.int64,
    prior_logvar_datum: tl.int64,
    noise_sample: tl.int64, noise_datum: tl.int64, noise_draw: tl.int64,
    dz_sample: tl.int64, dz_datum: tl.int64, dz_draw: tl.int64,
    dlog_q_sample: tl.int64, dlog_q_datum: tl.int64, dlog_q_draw: tl.int64,
    dlog_p_sample: tl.int64, dlog_p_datum: tl.int64, dlog_p_draw: tl.int64,
    dmu_sample: tl.int64, dmu_datum: tl.int64, dmu_group: tl.int64,
    dlogvar_sample: tl.int64, dlogvar_datum: tl.int64, dlogvar_group: tl.int64,
    dprior_mu_sample: tl.int64, dprior_mu_datum: tl.int64, dprior_mu_group: tl.int64,
    dprior_logvar_sample: tl.int64, dprior_logvar_datum: tl.int64, dprior_logvar_group: tl.int64,
    seed: tl.int64, offset: tl.int64, first_sample: tl.int64, draws: tl.int64, groups: tl.int64,
    rows: tl.int64, datum_rows: tl.int64, columns: tl.int64, column_tiles: tl.int64, tiles: tl.int64,
    segments: tl.int64,
    param_eps: tl.float64, low: tl.float64, high: tl.float64,
    FORM: tl.constexpr, EPS: tl.constexpr, BOUNDED: tl.constexpr, PRIOR: tl.constexpr, MODES: tl.constexpr,
    KINDS: tl.constexpr, PATH: tl.constexpr, DRAWS: tl.constexpr, ONE: tl.constexpr,
    GROUPED: tl.constexpr, ALIGNED: tl.constexpr, LANES: tl.constexpr, T: tl.constexpr, WALK: tl.constexpr,
    SPACE: tl.constexpr, SAMPLES: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_COLUMNS: tl.constexpr,
    VEC: tl.constexpr,
):  # fmt: skip
    """The gradients of all three by every operand; each has the stride from one group of samples to the next.

    DRAWS: whether ε is needed; ONE: whether there is one sample. What reaches z is g: dz, log p's slope, and where
    PATH log q's.
    """
    operands = (
        (mu, mu_sample, mu_datum),
        (logvar, logvar_sample, logvar_datum),
        (prior_mu, prior_mu_sample, prior_mu_datum),
        (prior_logvar, prior_logvar_sample, prior_logvar_datum),
    )
    gradients = (
        (dmu, dmu_sample, dmu_datum, dmu_group),
        (dlogvar, dlogvar_sample, dlogvar_datum, dlogvar_group),
        (dprior_mu, dprior_mu_sample, dprior_mu_datum, dprior_mu_group),
        (dprior_logvar, dprior_logvar_sample, dprior_logvar_datum, dprior_logvar_group),
    )
    space = (rows, datum_rows, columns, column_tiles, tiles, segments)
    given = (noise, noise_sample, noise_datum, noise_draw)
    numbers = _numbers_in((param_eps, low, high), T)
    program, group, first_draw, last_draw = share_of(draws, groups, GROUPED)
    key = key_of(seed, seed_tensor)
    sums = zero_sums(KINDS, BLOCK_ROWS, BLOCK_COLUMNS)
    for step in range(tiles):
        tile, index = place_noise(
            program, step, space, offset, ALIGNED, WALK, SPACE, SAMPLES, BLOCK_ROWS, BLOCK_COLUMNS, VEC
        )
        raw = _operand(operands, 1, tile, T, MODES, SAMPLES, VEC)
        r = clamped(raw, numbers[1], numbers[2], BOUNDED)
        s = sigma(r, numbers[0], FORM, EPS)
        zero = tl.zeros((BLOCK_ROWS, BLOCK_COLUMNS), T)
        dm, dm_low, dr, dr_low, of_q, of_q_low = zero, zero, zero, zero, zero, zero
        mean, mean_low, scale, scale_low = zero, zero, zero, zero
        for draw in range(first_draw, last_draw):
            g, eps = zero, zero
            if DRAWS:
                eps = noise_of(
                    draw, given, tile, index, first_sample, key, LANES, T, MODES[NOISE], SAMPLES, BLOCK_COLUMNS, VEC
                )
            if MODES[DZ] != ABSENT:
                g += read(dz + draw * (dz_draw * VEC), dz_sample, dz_datum, tile, T, MODES[DZ], SAMPLES, VEC)
            if MODES[DLOG_P] != ABSENT:
                m = _operand(operands, 0, tile, T, MODES, SAMPLES, VEC)
                _, slope, draw_p = _log_p(
                    m + s * eps, operands, tile, numbers, FORM, EPS, BOUNDED, PRIOR, MODES, T, SAMPLES, VEC
                )
                up = _upstream(
                    dlog_p, dlog_p_sample, dlog_p_datum, dlog_p_draw, draw, tile, T, MODES[DLOG_P], SAMPLES, VEC
                )
                g -= up * slope
                if KINDS[2] != NONE:
                    mean, mean_low = _plus(mean, mean_low, up * slope, ONE)
                if KINDS[3] != NONE:
                    scale, scale_low = _plus(scale, scale_low, up * draw_p, ONE)
            if MODES[DLOG_Q] != ABSENT:
                up = _upstream(
                    dlog_q, dlog_q_sample, dlog_q_datum, dlog_q_draw, draw, tile, T, MODES[DLOG_Q], SAMPLES, VEC
                )
                if PATH:
                    g -= up * (eps * divide(constant(s, 1.0), s))
                else:
                    of_q, of_q_low = _plus(of_q, of_q_low, up + zero, ONE)
            dm, dm_low = _plus(dm, dm_low, g, ONE)
            if KINDS[1] != NONE:
                dr, dr_low = _plus(dr, dr_low, g * eps, ONE)
        dr = _whole(dr, dr_low)
        if KINDS[1] != NONE:
            dr = dr * dsigma(r, numbers[0], FORM, EPS)
            if MODES[DLOG_Q] != ABSENT and not PATH:
                _, half_slope = log_scale(r, numbers[0], FORM, EPS)
                dr -= _whole(of_q, of_q_low) * half_slope
            dr = within(raw, dr, numbers[1], numbers[2], BOUNDED)
        values = (_whole(dm, dm_low), dr, _whole(mean, mean_low), _whole(scale, scale_low))
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


@triton.jit
def _upstream(
    ptr,
    sample,
    datum,
    step,
    draw,
    tile,
    T: tl.constexpr,
    MODE: tl.constexpr,
    SAMPLES: tl.constexpr,
    VEC: tl.constexpr,
):
    """The gradient of a sample's sum: ``step`` is from one sample to the next, in elements."""
    return read(ptr + draw * step, sample, datum, tile, T, MODE, SAMPLES, VEC)
