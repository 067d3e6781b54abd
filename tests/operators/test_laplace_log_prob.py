"""laplace_log_prob: against truth, against PyTorch, extremes."""

import math

import pytest
import torch
from torch.distributions import Laplace
from torch.testing import assert_close

import vae_fast as vf
from helpers import accuracy
from helpers.behaviour import with_grads
from helpers.marks import each_backend
from vae_fast.checking import measure, more_formulas

pytestmark = each_backend

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
by_either = pytest.mark.parametrize("param", ["scale", "log_scale"])


def drawn(param, dtype, spread):
    """loc, b and x; every seventh x is loc."""
    n = 1500 if dtype == torch.float64 else 50_000
    loc, raw, x = (spread * torch.randn(n, dtype=torch.float64) for _ in range(3))
    raw = raw.abs() + 0.01 if param == "scale" else raw
    loc, raw, x = (t.to(dtype) for t in (loc, raw, x))
    loc[::7] = x[::7]
    return loc, raw, x


@by_either
@pytest.mark.parametrize("spread", [1.0, 6.0], ids=["near", "wide"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_terms(dtype, param, spread):
    """Within the check's bar, and no worse than PyTorch."""
    args = drawn(param, dtype, spread)

    def ours(*args):
        return vf.laplace_log_prob(*args, event_ndim=0, param=param)

    def torchs(loc, b, x):
        return Laplace(loc, b.exp() if param == "log_scale" else b, validate_args=False).log_prob(x)

    by_log = param == "log_scale"
    value, slopes = accuracy.truth(more_formulas.laplace, *args, log_scale=by_log)
    results, theirs = with_grads(ours, *args), with_grads(torchs, *args)
    accuracy.assert_terms(measure.count_bar(by_log), results, theirs, (value, *slopes.values()), *args)


@by_either
def test_at_loc(param):
    """Nothing but the logarithm, whatever the scale; the slope by loc is 0, as sign's is."""
    raw = torch.tensor([1e-38, 1.0, 1e38]) if param == "scale" else torch.tensor([-300.0, 0.0, 300.0])
    loc = torch.tensor([1e30, -3.0, 0.0])
    log_b = raw.log() if param == "scale" else raw
    log_prob, dloc, _, dx = with_grads(
        lambda *t: vf.laplace_log_prob(*t, event_ndim=0, param=param), loc, raw, loc.clone()
    )
    assert_close(log_prob, -(log_b + math.log(2)))
    assert (dloc == 0).all() and (dx == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_scale_beyond_its_type(dtype):
    """Of e^±raw beyond the dtype's numbers: |d|/b is finite where it is a number."""
    far = 120.0 if dtype == torch.float32 else 900.0
    raw = torch.tensor([-far, far, -far], dtype=dtype)
    difference = torch.tensor([-far, far, -far], dtype=torch.float64).mul(0.7).exp().to(dtype)
    zero = torch.zeros_like(raw)
    log_prob, *_ = with_grads(
        lambda *t: vf.laplace_log_prob(*t, event_ndim=0, param="log_scale"), zero, raw, difference
    )
    size = torch.exp(difference.double().log() - raw.double())
    assert_close(log_prob.double(), -(size + raw.double() + math.log(2)), rtol=1e-5, atol=0)


def test_numbers_and_bytes():
    """A number for b; pixels as they are."""
    x = torch.randint(0, 256, (3, 4), dtype=torch.uint8)
    loc = torch.rand(3, 4)
    want = Laplace(loc, 0.25).log_prob(x / 255).sum(-1)
    assert_close(vf.laplace_log_prob(loc, 0.25, x, x_scale=1 / 255), want)


def test_an_unknown_param():
    t = torch.ones(2)
    with pytest.raises(ValueError, match="param must be one of 'scale', 'log_scale', got 'std'"):
        vf.laplace_log_prob(t, t, t, param="std")
