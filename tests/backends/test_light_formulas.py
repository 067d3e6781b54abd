"""The densities of half types on GPUs (csrc/light.h): every bfloat16 and float16, at the worst of the estimates.

The bar is theirs: a term, and a gradient before it is rounded, is within 1e-5 of the parts that it is a sum of.
"""

import ctypes

import instruction_sets
import numpy as np
import pytest
import stated_errors
import torch

pytestmark = instruction_sets.needed

BAR = 1e-5
# Units that a GPU's estimates may be off by, either way.
TILTS = (-2.0, 0.0, 2.0)
HALF_LOG_2PI = 0.5 * np.log(2 * np.pi)


@pytest.fixture(scope="module", params=[s for s in instruction_sets.SETS if stated_errors.has_fma(s)][:1])
def library(request, tmp_path_factory):
    """Of one instruction set that has a fused multiply-add, as a GPU has."""
    path = instruction_sets.compiled("light_formulas", request.param, tmp_path_factory.mktemp("light"))
    return ctypes.CDLL(str(path))


def apply(library, which, operands, results, tilt=0.0, light=True):
    """Results in float64."""
    stacked = np.ascontiguousarray(np.stack(operands), np.float32)
    out = np.empty((results, stacked.shape[1]), np.float32)
    pointers = (ctypes.c_void_p(a.ctypes.data) for a in (stacked, out))
    library.light_apply(which, int(light), ctypes.c_double(tilt), *pointers, ctypes.c_int64(stacked.shape[1]))
    return out.astype(np.float64)


def everything(dtype):
    """Every number of a half type but NaN and infinities."""
    numbers = torch.arange(-(1 << 15), 1 << 15).to(torch.int16).view(dtype).float().numpy()
    return numbers[np.isfinite(numbers)]


def pairs(dtype, others):
    numbers = everything(dtype)
    return np.tile(numbers, len(others)), np.repeat(np.float32(others), len(numbers))


def within(got, want, parts):
    with np.errstate(over="ignore", invalid="ignore"):
        want, far = want.astype(np.float32).astype(np.float64), np.abs(got - want)
        # Two numbers below float32's normal ones are 2^-149 apart.
        right = (got == want) | (far <= BAR * parts + 2.0**-149)
    assert right.all(), [(got[k], want[k], parts[k]) for k in np.flatnonzero(~right)[:3]]


def bernoulli(y, t):
    size, e = np.abs(y), np.exp(-np.abs(y))
    wrong, loss, s = np.where(y > 0, 1 - t, t), np.log1p(e), e / (1 + e)
    term, slope = -(size * wrong + loss), np.where(y > 0, s - wrong, wrong - s)
    return (term, size * np.abs(wrong) + loss), (slope, np.abs(wrong) + s)


def gaussian(mean, raw, x):
    # A difference of 0 makes 0 of whatever σ.
    inverse = np.where(x == mean, 0, np.exp(-raw))
    square, slope = 0.5 * (x - mean) ** 2 * inverse, (x - mean) * inverse
    term, parts = -(square + raw / 2 + HALF_LOG_2PI), square + np.abs(raw) / 2 + HALF_LOG_2PI
    return (term, parts), (slope, np.abs(slope)), (square - 0.5, square + 0.5)


def spread(x):
    """½(e^x − 1 − x)."""
    near, grown = np.clip(x, -0.5, 0.5), np.expm1(np.minimum(x, 700))
    series = sum(near**k / np.prod(np.arange(1.0, k + 1)) for k in range(16, 1, -1))
    return np.where(np.abs(x) < 0.5, series, grown - x) / 2


def kl(mu, raw):
    square, spread_, growth = mu * mu / 2, spread(raw), np.expm1(np.minimum(raw, 700)) / 2
    return (square + spread_,) * 2, (mu, np.abs(mu)), (growth, np.abs(growth))


def check(library, which, operands, wanted):
    wide = [o.astype(np.float64) for o in operands]
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        expected = wanted(*wide)
    for tilt in TILTS:
        got = apply(library, which, operands, len(operands) + 1, tilt)
        for found, (want, parts) in zip(got, expected, strict=False):
            within(found, want, parts)


halves = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)


@halves
def test_bernoulli(library, dtype):
    check(library, 0, pairs(dtype, (0.0, 1.0, 0.5, 0.25, 0.99609375, 1 / 256, 2.0**-20)), bernoulli)


@halves
def test_gaussian(library, dtype):
    raw, x = pairs(dtype, (0.0, 1.0, -0.00390625, 300.0, 1e-20, 1e15))
    check(library, 1, (np.full_like(raw, 0.5) * (x != 0), raw, x), gaussian)


@halves
@pytest.mark.parametrize("which", [2, 3], ids=("of a sample", "by itself"))
def test_kl(library, dtype, which):
    raw, mu = pairs(dtype, (0.0, 1.0, -0.0078125, 200.0))
    more = (np.zeros_like(raw),) * (2 if which == 3 else 0)
    check(library, which, (mu, raw, *more), lambda mu, raw, *_: kl(mu, raw))


@halves
def test_scale(library, dtype):
    raw = everything(dtype)
    with np.errstate(over="ignore", under="ignore"):
        sigma = np.exp(raw.astype(np.float64) / 2)
    for tilt in TILTS:
        got = apply(library, 4, (raw,), 2, tilt)
        within(got[0], sigma, sigma)
        within(got[1], sigma / 2, sigma / 2)


@pytest.mark.parametrize("which", range(5))
def test_what_is_not_finite(library, which):
    """As the formulas of float32 have it."""
    values = [0.0, 1.0, -1.0, 120.0, -120.0, 3e38, -3e38, np.inf, -np.inf, np.nan]
    n = (2, 3, 2, 4, 1)[which]
    operands = [a.ravel() for a in np.meshgrid(*[np.float32(values)] * min(n, 3))]
    operands += [np.zeros_like(operands[0])] * (n - 3)
    results = 2 if which == 4 else n + 1
    got, want = (apply(library, which, operands, results, light=light) for light in (True, False))
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=1e-30)
