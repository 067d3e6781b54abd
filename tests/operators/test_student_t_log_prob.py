"""student_t_log_prob: against truth, against PyTorch, limits and extremes."""

import math

import pytest
import torch
from torch.distributions import Cauchy, Normal, StudentT
from torch.testing import assert_close

import vae_fast as vf
from helpers import accuracy
from helpers.accuracy import units
from helpers.behaviour import with_grads
from helpers.marks import each_backend
from vae_fast.checking import measure, more_formulas

pytestmark = each_backend

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
by_either = pytest.mark.parametrize("param", ["scale", "log_scale"])


def drawn(param, dtype, spread, degrees):
    """loc, σ, ν and x; every seventh x is loc. ν is spread evenly by its logarithm."""
    n = 400 if dtype == torch.float64 else 30_000
    loc, raw, x = (spread * torch.randn(n, dtype=torch.float64) for _ in range(3))
    raw = raw.abs() + 0.01 if param == "scale" else raw
    df = accuracy.magnitudes(n, torch.float64, *degrees).abs()
    loc, raw, df, x = (t.to(dtype) for t in (loc, raw, df, x))
    loc[::7] = x[::7]
    return loc, raw, df, x


@by_either
@pytest.mark.parametrize("spread", [1.0, 6.0], ids=["near", "wide"])
@pytest.mark.parametrize("degrees", [(0.5, 100), (1e-4, 1e4)], ids=["ordinary", "any"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_terms(dtype, param, spread, degrees):
    """Within the check's bar, and no worse than PyTorch."""
    args = drawn(param, dtype, spread, degrees)

    def ours(*args):
        return vf.student_t_log_prob(*args, event_ndim=0, param=param)

    def torchs(loc, sigma, df, x):
        sigma = sigma.exp() if param == "log_scale" else sigma
        return StudentT(df, loc, sigma, validate_args=False).log_prob(x)

    by_log = param == "log_scale"
    value, slopes = accuracy.truth(more_formulas.student_t, *args, log_scale=by_log)
    results, theirs = with_grads(ours, *args), with_grads(torchs, *args)
    accuracy.assert_terms(measure.count_bar(by_log), results, theirs, (value, *slopes.values()), *args)


def test_an_infinite_df_is_a_gaussian():
    """With its gradients; none by ν."""
    loc, x = torch.randn(2, 50)
    sigma, df = torch.rand(50) + 0.1, torch.full((50,), math.inf)
    log_prob, dloc, dsigma, ddf, dx = with_grads(
        lambda *t: vf.student_t_log_prob(*t, event_ndim=0), loc, sigma, df, x
    )
    want = with_grads(lambda m, s, x: Normal(m, s).log_prob(x), loc, sigma, x)
    for got, by_torch in zip((log_prob, dloc, dsigma, dx), want, strict=True):
        assert_close(got, by_torch, rtol=1e-5, atol=1e-5)
    assert (ddf == 0).all()


def test_one_degree_is_cauchy():
    loc, x = torch.randn(2, 50, dtype=torch.float64)
    sigma = torch.rand(50, dtype=torch.float64) + 0.1
    got = vf.student_t_log_prob(loc, sigma, 1.0, x, event_ndim=0)
    assert_close(got, Cauchy(loc, sigma).log_prob(x))


@pytest.mark.parametrize("df", [1e5, 1e6, 1e7, 1e8])
def test_many_degrees(df):
    """The gradient by ν, about −(y⁴ − 2y² − 1)/4ν²: what PyTorch subtracts is ν² times what is left."""
    y = torch.linspace(-3, 3, 61)
    degrees = torch.full_like(y, df)
    _, _, _, ddf, _ = with_grads(
        lambda *t: vf.student_t_log_prob(*t, event_ndim=0),
        *(torch.zeros_like(y), torch.ones_like(y), degrees, y),
    )
    args = [accuracy.digits(t) for t in (0 * y, 1 + 0 * y, degrees, y)]
    _, slopes = more_formulas.student_t(*args, f=accuracy.MP)[:2]
    truth, terms = slopes["df"]
    accuracy.assert_within(4, accuracy.error(ddf, truth, units(terms, torch.float32)), y)
    near = -(y.double() ** 4 - 2 * y.double() ** 2 - 1) / (4 * df**2)
    assert_close(ddf.double(), near, rtol=0, atol=1000 / df**3 + 2e-5 / df**2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_far_out(dtype):
    """Where ((x − loc)/σ)² is beyond the dtype, the logarithm is not: −(ν + 1)·log|y| and its slopes."""
    big = torch.finfo(dtype).max / 4
    x = torch.tensor([big, -big, big**0.6, 1.0], dtype=dtype)
    sigma = torch.tensor([1.0, 0.1, 1e-10, torch.finfo(dtype).tiny], dtype=dtype)
    df = torch.tensor([3.0, 0.5, 30.0, 2.0], dtype=dtype)
    log_prob, dloc, dsigma, ddf, _ = with_grads(
        lambda *t: vf.student_t_log_prob(*t, event_ndim=0), torch.zeros_like(x), sigma, df, x
    )
    x, sigma, df = (accuracy.digits(t) for t in (x, sigma, df))
    value, slopes, _ = more_formulas.student_t(0 * x, sigma, df, x, f=accuracy.MP)
    for out, (truth, terms) in ((log_prob, value), (dloc, slopes["loc"]), (ddf, slopes["df"])):
        accuracy.assert_within(4, accuracy.error(out, truth, units(terms, dtype)), out)
    assert dsigma[:3].isfinite().all()


def test_a_df_of_its_own_shape():
    """One a feature, one for all, a number: its gradient is summed to its shape."""
    loc, x = torch.randn(2, 6, 3, dtype=torch.float64)
    sigma = torch.rand(3, dtype=torch.float64) + 0.5
    for df in (torch.tensor([2.0, 5.0, 9.0], dtype=torch.float64), torch.tensor(4.0, dtype=torch.float64)):
        got = with_grads(vf.student_t_log_prob, loc, sigma, df, x)
        want = with_grads(lambda m, s, v, x: StudentT(v, m, s).log_prob(x).sum(-1), loc, sigma, df, x)
        for ours, theirs in zip(got, want, strict=True):
            assert_close(ours, theirs)
    assert_close(
        vf.student_t_log_prob(loc, sigma, 4, x), StudentT(4.0, loc, sigma).log_prob(x).sum(-1), check_dtype=False
    )


@pytest.mark.parametrize("place", range(4), ids=("loc", "sigma", "df", "x"))
def test_what_is_not_a_number_shows_in_every_gradient(place):
    """Each depends on every operand; a gradient that stayed finite would hide it."""
    operands = [torch.tensor([0.5, 1.5], requires_grad=True) for _ in range(4)]
    with torch.no_grad():
        operands[place][1] = torch.nan
    value = vf.student_t_log_prob(*operands, event_ndim=0)
    gradients = torch.autograd.grad(value.sum(), operands)
    for result in (value, *gradients):
        assert result[0].isfinite() and result[1].isnan()
