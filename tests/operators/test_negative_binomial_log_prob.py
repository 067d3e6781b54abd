"""negative_binomial_log_prob and poisson_log_prob: values and gradients against the truth, limits, and errors."""

import math

import pytest
import torch
from torch.testing import assert_close

import vae_fast as vf
from helpers import accuracy, counts
from helpers.accuracy import error, units
from helpers.behaviour import with_grads
from helpers.marks import each_backend

pytestmark = each_backend

DTYPES = (torch.float32, torch.float64)


def ours(*tensors, **options):
    mean, theta, x, *logits = tensors
    more = {"zero_logits": logits[0]} if logits else {}
    return vf.negative_binomial_log_prob(mean, theta, x, event_ndim=0, **more, **options)


def results(function, x, parameters, **options):
    """The value, and the gradients by all parameters; x is a constant."""
    return with_grads(lambda mean, theta, *more: function(mean, theta, x, *more, **options), *parameters)


def drawn(dtype, n, low=-30.0):
    """μ from 1e-30 to 1e10 and θ from 1e-8 to 1e8; most of ordinary size."""
    ordinary = 3 * n
    mean = torch.cat([counts.spread(n, low, 10, dtype), counts.spread(ordinary, -3, 4, dtype)])
    theta = torch.cat([counts.spread(n, -8, 8, dtype), counts.spread(ordinary, -2, 4, dtype)])
    return mean, theta, counts.counted(len(mean), dtype)


def assert_within(found, truth, bar, *inputs, dtype):
    for value, (exact, terms) in zip(found, truth, strict=True):
        # Below the normal numbers a unit is no share of the result.
        ordinary = terms > torch.finfo(dtype).tiny / torch.finfo(dtype).eps
        errors = error(value, exact, units(terms, dtype))[ordinary]
        accuracy.assert_within(bar, errors, *(t[torch.from_numpy(ordinary.astype(bool))] for t in inputs))


class TestAccuracy:
    @pytest.mark.parametrize("eps", [0.0, 1e-8])
    @pytest.mark.parametrize("inflated", [False, True], ids=["plain", "inflated"])
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_terms(self, dtype, inflated, eps):
        """≤ 4ε·Σ|terms|, for θ over sixteen decades and counts to 10⁶."""
        n = 300 if dtype == torch.float32 else 100
        mean, theta, x = drawn(dtype, n, low=-6 if eps else -30)
        logits = [(10 * torch.randn(len(x), dtype=torch.float64)).to(dtype)] if inflated else []
        found = results(ours, x, (mean, theta, *logits), eps=eps)
        truth = counts.exact(counts.negative_binomial, mean, theta, x, *logits, eps=eps)
        assert_within(found, truth, 4, mean, theta, x, *logits, dtype=dtype)

    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_of_logarithms(self, dtype):
        mean, theta, x = drawn(dtype, 100)
        log_mean, log_theta = torch.log(mean), torch.log(theta)
        found = results(ours, x, (log_mean, log_theta), param="log_mean", theta_param="log_theta")
        truth = counts.exact(counts.negative_binomial, log_mean, log_theta, x, log_mean=True, log_theta=True)
        # exp's own error besides, which θ·log(1 + μ/θ) and its like double.
        assert_within(found, truth, 6, log_mean, log_theta, x, dtype=dtype)

    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_slope_by_theta_where_it_does_not_cancel(self, dtype):
        """Relative 1e-5 in float32 wherever |exact| ≥ 0.1·Σ|terms|."""
        mean, theta, x = drawn(torch.float32, 300)
        _, _, dtheta = results(ours, x.to(dtype), (mean.to(dtype), theta.to(dtype)))
        truth = counts.exact(counts.negative_binomial, mean, theta, x)
        exact, terms = truth[2]
        clear = abs(exact) >= 0.1 * terms
        relative = error(dtheta, exact, abs(exact) + 1e-37)[clear]
        assert relative.max() <= (1e-5 if dtype == torch.float32 else 1e-13)

    @pytest.mark.parametrize("eps", [0.0, 1e-8])
    @pytest.mark.parametrize("param", ["rate", "log_rate"])
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_poisson(self, dtype, param, eps):
        rate, x = counts.spread(400, -6, 8, dtype), counts.counted(400, dtype)
        raw = torch.log(rate) if param == "log_rate" else rate
        found = with_grads(lambda r: vf.poisson_log_prob(r, x, event_ndim=0, param=param, eps=eps), raw)
        truth = counts.exact(counts.poisson, raw, x, log_rate=param == "log_rate", eps=eps)
        assert_within(found, truth, 4, raw, x, dtype=dtype)


class TestLimits:
    def test_an_infinite_theta_is_poisson(self):
        x = torch.tensor([0.0, 1, 2, 8, 9, 40, 1000])
        rate = torch.tensor([0.3, 1e-20, 2.0, 7.0, 30.0, 1.0, 900.0])
        theta = torch.full_like(x, math.inf)
        value, dmean, dtheta = results(ours, x, (rate, theta))
        want = with_grads(lambda r: vf.poisson_log_prob(r, x, event_ndim=0), rate)
        assert_close((value, dmean), want, rtol=5e-7, atol=0)
        assert (dtheta == 0).all()

    def test_no_mean(self):
        """μ = 0 is certain of 0."""
        x, mean = torch.tensor([0.0, 3.0]), torch.zeros(2)
        value, dmean, _ = results(ours, x, (mean, torch.ones(2)))
        assert value.tolist() == [0.0, -math.inf] and dmean.tolist() == [-1.0, math.inf]

    def test_fractions_go_on_by_the_gamma_function(self):
        x = torch.tensor([0.25, 1.5, 7.75, 8.5, 20.5], dtype=torch.float64)
        mean, theta = torch.full_like(x, 2.0), torch.full_like(x, 1.7)
        want = torch.lgamma(x + theta) - torch.lgamma(theta) - torch.lgamma(x + 1)
        want = want + theta * torch.log(theta / (theta + mean)) + x * torch.log(mean / (theta + mean))
        assert_close(ours(mean, theta, x), want)
        want = torch.xlogy(x, mean) - mean - torch.lgamma(x + 1)
        assert_close(vf.poisson_log_prob(mean, x, event_ndim=0), want)

    def test_published_in_float32_is_wrong_where_ours_is_not(self):
        """Zero inflation that hardly is: the published formula says 0."""
        value = ours(torch.tensor([1e-6]), torch.tensor([1.0]), torch.zeros(1), torch.tensor([-20.0]))
        assert_close(value, torch.tensor([-1e-6]), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    "dtype", [torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.bool], ids=str
)
def test_integers_are_counts(dtype):
    x = torch.tensor([[0, 1, 1, 0], [1, 0, 0, 1]]).to(dtype)
    mean, theta = torch.rand(2, 4) + 0.5, torch.rand(4) + 0.5
    want = vf.negative_binomial_log_prob(mean, theta, x.float())
    assert_close(vf.negative_binomial_log_prob(mean, theta, x), want, rtol=2e-7, atol=0)
    assert_close(vf.poisson_log_prob(mean, x), vf.poisson_log_prob(mean, x.float()), rtol=2e-7, atol=0)


@pytest.mark.parametrize("bad", [-1.0, 0.5, math.nan, math.inf])
def test_validation(bad):
    ones = torch.ones(3)
    for f in (
        lambda x: vf.negative_binomial_log_prob(ones, ones, x, validate=True),
        lambda x: vf.poisson_log_prob(ones, x, validate=True),
    ):
        f(ones)
        with pytest.raises(ValueError, match="no counts"):
            f(torch.tensor([1.0, bad, 0.0]))
    with pytest.raises(ValueError, match="theta has values that are not positive"):
        vf.negative_binomial_log_prob(ones, 0 * ones, ones, validate=True)


def test_words():
    ones = torch.ones(3)
    with pytest.raises(ValueError, match="param must be one of 'mean', 'log_mean', got 'logits'"):
        vf.negative_binomial_log_prob(ones, ones, ones, param="logits")
    with pytest.raises(ValueError, match="theta_param must be one of"):
        vf.negative_binomial_log_prob(ones, ones, ones, theta_param="mean")
