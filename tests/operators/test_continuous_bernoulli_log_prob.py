"""continuous_bernoulli_log_prob: against truth, against PyTorch, and that it is a density."""

import math

import pytest
import torch
from torch.distributions import ContinuousBernoulli
from torch.testing import assert_close

import vae_fast as vf
from helpers import accuracy
from helpers.behaviour import with_grads
from helpers.marks import each_backend
from vae_fast.checking import more_formulas

pytestmark = each_backend

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def ours(y, x):
    return vf.continuous_bernoulli_log_prob(y, x, event_ndim=0)


@pytest.mark.parametrize("spread", [0.01, 1.0, 8.0, 100.0])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_terms(dtype, spread):
    """≤ 3ε·Σ|terms| (of the reference 4: a series, and PyTorch's logarithm); no worse than PyTorch.

    PyTorch has the logits by way of probabilities, and a Taylor series from 0.499 to 0.501.
    """
    n = 1500 if dtype == torch.float64 else 50_000
    y = (spread * torch.randn(n, dtype=torch.float64)).to(dtype)
    x = torch.rand(n, dtype=torch.float64).to(dtype)
    x[::7], x[3::7], x[5::7] = 0.0, 1.0, 0.5
    value, slopes = accuracy.truth(more_formulas.continuous_bernoulli, y, x)
    results = with_grads(ours, y, x)
    theirs = with_grads(lambda y, x: ContinuousBernoulli(logits=y, validate_args=False).log_prob(x), y, x)
    accuracy.assert_terms(accuracy.bar(3, 4), results, theirs, (value, *slopes.values()), y, x)


@pytest.mark.parametrize("y", [-30.0, -2.0, -1.999, 0.0, 1e-6, 0.3, 2.0, 2.001, 12.0])
def test_it_integrates_to_one(y):
    """By Simpson's rule, and its mean is the slope's."""
    n = 4000
    x = torch.linspace(0, 1, n + 1, dtype=torch.float64)
    weights = torch.full_like(x, 2.0)
    weights[1::2], weights[0], weights[-1] = 4.0, 1.0, 1.0
    logits = torch.full_like(x, y)
    log_prob, slope, _ = with_grads(ours, logits, x)
    density = log_prob.exp() * weights / (3 * n)
    assert_close(density.sum(), torch.tensor(1.0, dtype=torch.float64), rtol=1e-9, atol=0)
    assert_close((density * x).sum(), (x - slope)[0], rtol=1e-9, atol=0)


def test_far_logits():
    """The nearer the matching target, the higher: log|y| at it, −|y| at the other end."""
    y = torch.tensor([1e30, -1e30, 1e30, -1e30, math.inf, -math.inf])
    x = torch.tensor([1.0, 0.0, 0.0, 1.0, 0.0, 1.0])
    log_prob, slope, dx = with_grads(ours, y, x)
    far = 30 * math.log(10)
    assert_close(log_prob, torch.tensor([far, far, -1e30, -1e30, -math.inf, -math.inf]))
    assert_close(slope, torch.tensor([0.0, 0.0, -1.0, 1.0, -1.0, 1.0]))
    assert_close(dx, y)


def test_bytes():
    y, x = torch.randn(3, 4), torch.randint(0, 256, (3, 4), dtype=torch.uint8)
    want = ContinuousBernoulli(logits=y).log_prob(x / 255).sum(-1)
    assert_close(vf.continuous_bernoulli_log_prob(y, x, x_scale=1 / 255), want)
