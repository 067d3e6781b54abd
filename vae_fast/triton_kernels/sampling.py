"""The samplers' kernels: of a plain call, and of one that has more, a prior, noise of its own or a temperature.

Two of each direction, since each argument makes a launch longer. Pointers come first, then integers, then numbers.
What they do is sampling_tiles.py's.
"""

import triton.language as tl

from vae_fast.triton_kernels.kernel import kernel
from vae_fast.triton_kernels.sampling_tiles import backward_tiles, forward_tiles


@kernel
def forward(
    mu, logvar, z, out, partials, seed_tensor,
    mu_sample: tl.int64, mu_datum: tl.int64, logvar_sample: tl.int64, logvar_datum: tl.int64,
    z_sample: tl.int64, z_datum: tl.int64, z_draw: tl.int64,
    seed: tl.int64, offset: tl.int64, first_sample: tl.int64, draws: tl.int64, groups: tl.int64,
    rows: tl.int64, datum_rows: tl.int64, columns: tl.int64, column_tiles: tl.int64, tiles: tl.int64,
    segments: tl.int64,
    free_bits: tl.float64, param_eps: tl.float64, low: tl.float64, high: tl.float64,
    FLOOR: tl.constexpr, FORM: tl.constexpr, EPS: tl.constexpr, BOUNDED: tl.constexpr, MODES: tl.constexpr,
    VALUE: tl.constexpr, ALONE: tl.constexpr,
    GROUPED: tl.constexpr, ALIGNED: tl.constexpr, LANES: tl.constexpr, T: tl.constexpr, WALK: tl.constexpr,
    SPACE: tl.constexpr, SAMPLES: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_COLUMNS: tl.constexpr,
    VEC: tl.constexpr,
):  # fmt: skip
    """z, and the KL to N(0, I) of every datum."""
    operands = (
        (mu, mu_sample, mu_datum),
        (logvar, logvar_sample, logvar_datum),
        (None, 0, 0),
        (None, 0, 0),
    )
    space = (rows, datum_rows, columns, column_tiles, tiles, segments)
    numbers = (free_bits, param_eps, low, high, 1.0)
    forward_tiles(
        operands, None, (z, z_sample, z_datum, z_draw), out, partials,
        seed, seed_tensor, offset, first_sample, draws, groups, space, numbers,
        FLOOR, FORM, EPS, BOUNDED, (), False, MODES, VALUE, ALONE, GROUPED, ALIGNED, LANES,
        T, WALK, SPACE, SAMPLES, BLOCK_ROWS, BLOCK_COLUMNS, VEC,
    )  # fmt: skip


@kernel
def forward_of_more(
    mu, logvar, prior_mu, prior_logvar, noise, z, out, partials, seed_tensor,
    mu_sample: tl.int64, mu_datum: tl.int64, logvar_sample: tl.int64, logvar_datum: tl.int64,
    prior_mu_sample: tl.int64, prior_mu_datum: tl.int64, prior_logvar_sample: tl.int64,
    prior_logvar_datum: tl.int64,
    noise_sample: tl.int64, noise_datum: tl.int64, noise_draw: tl.int64,
    z_sample: tl.int64, z_datum: tl.int64, z_draw: tl.int64,
    seed: tl.int64, offset: tl.int64, first_sample: tl.int64, draws: tl.int64, groups: tl.int64,
    rows: tl.int64, datum_rows: tl.int64, columns: tl.int64, column_tiles: tl.int64, tiles: tl.int64,
    segments: tl.int64,
    free_bits: tl.float64, param_eps: tl.float64, low: tl.float64, high: tl.float64, temperature: tl.float64,
    FLOOR: tl.constexpr, FORM: tl.constexpr, EPS: tl.constexpr, BOUNDED: tl.constexpr, MODES: tl.constexpr,
    VALUE: tl.constexpr, ALONE: tl.constexpr,
    PRIOR: tl.constexpr, TEMPERED: tl.constexpr,
    GROUPED: tl.constexpr, ALIGNED: tl.constexpr, LANES: tl.constexpr, T: tl.constexpr, WALK: tl.constexpr,
    SPACE: tl.constexpr, SAMPLES: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_COLUMNS: tl.constexpr,
    VEC: tl.constexpr,
):  # fmt: skip
    """The same of any call."""
    operands = (
        (mu, mu_sample, mu_datum),
        (logvar, logvar_sample, logvar_datum),
        (prior_mu, prior_mu_sample, prior_mu_datum),
        (prior_logvar, prior_logvar_sample, prior_logvar_datum),
    )
    space = (rows, datum_rows, columns, column_tiles, tiles, segments)
    given, numbers = (noise, noise_sample, noise_datum, noise_draw), (free_bits, param_eps, low, high, temperature)
    forward_tiles(
        operands, given, (z, z_sample, z_datum, z_draw), out, partials,
        seed, seed_tensor, offset, first_sample, draws, groups, space, numbers,
        FLOOR, FORM, EPS, BOUNDED, PRIOR, TEMPERED, MODES, VALUE, ALONE, GROUPED, ALIGNED, LANES,
        T, WALK, SPACE, SAMPLES, BLOCK_ROWS, BLOCK_COLUMNS, VEC,
    )  # fmt: skip


@kernel
def backward(
    mu, logvar, dz, dkl, dmu, dlogvar, seed_tensor,
    mu_sample: tl.int64, mu_datum: tl.int64, logvar_sample: tl.int64, logvar_datum: tl.int64,
    dz_sample: tl.int64, dz_datum: tl.int64, dz_draw: tl.int64, dkl_sample: tl.int64, dkl_datum: tl.int64,
    dmu_sample: tl.int64, dmu_datum: tl.int64, dmu_group: tl.int64,
    dlogvar_sample: tl.int64, dlogvar_datum: tl.int64, dlogvar_group: tl.int64,
    seed: tl.int64, offset: tl.int64, first_sample: tl.int64, draws: tl.int64, groups: tl.int64,
    rows: tl.int64, datum_rows: tl.int64, columns: tl.int64, column_tiles: tl.int64, tiles: tl.int64,
    segments: tl.int64,
    free_bits: tl.float64, param_eps: tl.float64, low: tl.float64, high: tl.float64,
    FLOOR: tl.constexpr, FORM: tl.constexpr, EPS: tl.constexpr, BOUNDED: tl.constexpr, MODES: tl.constexpr,
    KINDS: tl.constexpr, ONE: tl.constexpr,
    GROUPED: tl.constexpr, ALIGNED: tl.constexpr, LANES: tl.constexpr, T: tl.constexpr, WALK: tl.constexpr,
    SPACE: tl.constexpr, SAMPLES: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_COLUMNS: tl.constexpr,
    VEC: tl.constexpr,
):  # fmt: skip
    """The gradients of both by μ and logvar."""
    operands = (
        (mu, mu_sample, mu_datum),
        (logvar, logvar_sample, logvar_datum),
        (None, 0, 0),
        (None, 0, 0),
    )
    gradients = (
        (dmu, dmu_sample, dmu_datum, dmu_group),
        (dlogvar, dlogvar_sample, dlogvar_datum, dlogvar_group),
        (None, 0, 0, 0),
        (None, 0, 0, 0),
    )
    space = (rows, datum_rows, columns, column_tiles, tiles, segments)
    numbers = (free_bits, param_eps, low, high, 1.0)
    backward_tiles(
        operands, None, (dz, dz_sample, dz_datum, dz_draw), (dkl, dkl_sample, dkl_datum), gradients,
        seed, seed_tensor, offset, first_sample, draws, groups, space, numbers,
        FLOOR, FORM, EPS, BOUNDED, (), False, MODES, KINDS, ONE, GROUPED, ALIGNED, LANES,
        T, WALK, SPACE, SAMPLES, BLOCK_ROWS, BLOCK_COLUMNS, VEC,
    )  # fmt: skip


@kernel
def backward_of_more(
    mu, logvar, prior_mu, prior_logvar, noise, dz, dkl, dmu, dlogvar, dprior_mu, dprior_logvar, seed_tensor,
    mu_sample: tl.int64, mu_datum: tl.int64, logvar_sample: tl.int64, logvar_datum: tl.int64,
    prior_mu_sample: tl.int64, prior_mu_datum: tl.int64, prior_logvar_sample: tl.int64,
    prior_logvar_datum: tl.int64,
    noise_sample: tl.int64, noise_datum: tl.int64, noise_draw: tl.int64,
    dz_sample: tl.int64, dz_datum: tl.int64, dz_draw: tl.int64, dkl_sample: tl.int64, dkl_datum: tl.int64,
    dmu_sample: tl.int64, dmu_datum: tl.int64, dmu_group: tl.int64,
    dlogvar_sample: tl.int64, dlogvar_datum: tl.int64, dlogvar_group: tl.int64,
    dprior_mu_sample: tl.int64, dprior_mu_datum: tl.int64, dprior_logvar_sample: tl.int64,
    dprior_logvar_datum: tl.int64,
    seed: tl.int64, offset: tl.int64, first_sample: tl.int64, draws: tl.int64, groups: tl.int64,
    rows: tl.int64, datum_rows: tl.int64, columns: tl.int64, column_tiles: tl.int64, tiles: tl.int64,
    segments: tl.int64,
    free_bits: tl.float64, param_eps: tl.float64, low: tl.float64, high: tl.float64, temperature: tl.float64,
    FLOOR: tl.constexpr, FORM: tl.constexpr, EPS: tl.constexpr, BOUNDED: tl.constexpr, MODES: tl.constexpr,
    KINDS: tl.constexpr, ONE: tl.constexpr,
    PRIOR: tl.constexpr, TEMPERED: tl.constexpr,
    GROUPED: tl.constexpr, ALIGNED: tl.constexpr, LANES: tl.constexpr, T: tl.constexpr, WALK: tl.constexpr,
    SPACE: tl.constexpr, SAMPLES: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_COLUMNS: tl.constexpr,
    VEC: tl.constexpr,
):  # fmt: skip
    """The same of any call, and by the prior."""
    operands = (
        (mu, mu_sample, mu_datum),
        (logvar, logvar_sample, logvar_datum),
        (prior_mu, prior_mu_sample, prior_mu_datum),
        (prior_logvar, prior_logvar_sample, prior_logvar_datum),
    )
    gradients = (
        (dmu, dmu_sample, dmu_datum, dmu_group),
        (dlogvar, dlogvar_sample, dlogvar_datum, dlogvar_group),
        (dprior_mu, dprior_mu_sample, dprior_mu_datum, 0),
        (dprior_logvar, dprior_logvar_sample, dprior_logvar_datum, 0),
    )
    space = (rows, datum_rows, columns, column_tiles, tiles, segments)
    given, numbers = (noise, noise_sample, noise_datum, noise_draw), (free_bits, param_eps, low, high, temperature)
    backward_tiles(
        operands, given, (dz, dz_sample, dz_datum, dz_draw), (dkl, dkl_sample, dkl_datum), gradients,
        seed, seed_tensor, offset, first_sample, draws, groups, space, numbers,
        FLOOR, FORM, EPS, BOUNDED, PRIOR, TEMPERED, MODES, KINDS, ONE, GROUPED, ALIGNED, LANES,
        T, WALK, SPACE, SAMPLES, BLOCK_ROWS, BLOCK_COLUMNS, VEC,
    )  # fmt: skip
