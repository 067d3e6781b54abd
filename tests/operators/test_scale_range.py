"""Every parametrisation of σ over the whole range of every dtype: finite wherever the exact value is, and right."""

import functools
import itertools
import math

import numpy as np
import pytest
import torch

import vae_fast as vf
from helpers import accuracy, unlike_forms
from helpers.accuracy import mp
from helpers.behaviour import with_grads
from helpers.marks import each_backend
from helpers.whole_range import (
    CALLS,
    DTYPES,
    EPS,
    FORMS,
    arguments,
    assert_right,
    columns,
    ends,
    errors,
    findings,
    numbers,
)
from vae_fast.checking import forms, formulas

pytestmark = each_backend


@pytest.mark.parametrize(("param", "eps"), FORMS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("call", CALLS)
def test_whole_range(call, dtype, param, eps, backend):
    # A pack of CPU numbers takes the way that one of them needs: here all need the same.
    assert_right(findings(call, dtype, param, eps, alike=16 if backend == "native" else 1))


@pytest.mark.parametrize(("own", "prior"), unlike_forms.PAIRS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_priors_of_unlike_forms(dtype, own, prior):
    assert_right(unlike_forms.findings(own, prior, dtype, 40))


@functools.cache
def sigmas(dtype, param, eps):
    """(r, σ and dσ/dr) where σ is a number of the dtype computed in."""
    form = forms.Form(param, eps)
    r = torch.tensor(arguments(param, dtype), dtype=torch.float64).to(dtype)
    (sigma, _), slopes = accuracy.truth(
        formulas.sample, form, torch.zeros_like(r), r, torch.ones_like(r), numbers=accuracy.digits
    )
    held = sigma <= torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).max
    return r[torch.from_numpy(np.asarray(held, bool))], sigma[held], slopes["logvar"][0][held]


@pytest.mark.parametrize(("param", "eps"), FORMS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_samples(dtype, param, eps):
    """z = σε within 2ε·|z| (4 of a σ that is rounded itself), its gradient by r within 3 (5)."""
    r, sigma, slope = sigmas(dtype, param, eps)
    mu, noise = torch.zeros_like(r), accuracy.wide(vf.standard_normal(r.shape, seed=3, dtype=torch.float64))
    more = 2 * forms.Form(param, eps).rounded
    z, _, dr = with_grads(lambda m, r: vf.rsample(m, r, seed=3, param=param, param_eps=eps), mu, r)
    for bound, result, exact in ((2 + more, z, sigma * noise), (3 + more, dr, slope * noise)):
        accuracy.assert_within(bound, errors(result, exact, abs(exact)), r)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_derivative_of_an_infinite_sigma(dtype):
    """½e^(½r) is finite where e^(½r) is not."""
    edge = 2 * math.log(torch.finfo(dtype).max)
    r = torch.tensor([edge + 0.2, edge + 1.3, edge + 1.5], dtype=dtype)
    dr = with_grads(lambda m, r: vf.rsample(m, r, seed=3), torch.zeros_like(r), r)[2]
    noise = vf.standard_normal(r.shape, seed=3, dtype=torch.float64).cpu()
    exact = np.array([mp.exp(mp.mpf(v) / 2) / 2 for v in r.tolist()])
    assert (errors(dr / noise.to(dr), exact, exact)[:2] <= 4).all() and dr[2].isinf()


@pytest.mark.parametrize("param", EPS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_bounds(dtype, param):
    """What lies outside the bounds counts as the bound, without a gradient."""
    low, high = (0.25, 3.0) if param in ("std", "var") else (-60.0, 20.0)
    r = torch.tensor(arguments(param, dtype), dtype=torch.float64).to(dtype)
    m, x, p = torch.full_like(r, 0.5), torch.zeros_like(r), r.flip(0)
    for function, inputs in ((vf.gaussian_kl, (m, r, x, p)), (vf.gaussian_log_prob, (m, r, x))):
        clamped = [t.clamp(low, high) if k % 2 else t for k, t in enumerate(inputs)]
        got = with_grads(lambda *a, f=function: f(*a, event_ndim=0, param=param, bounds=(low, high)), *inputs)
        want = with_grads(lambda *a, f=function: f(*a, event_ndim=0, param=param), *clamped)
        for k, (result, wanted) in enumerate(zip(got, want, strict=True)):
            if k and k % 2 == 0 and k <= len(inputs):
                raw = inputs[k - 1]
                wanted = torch.where((raw < low) | (raw > high), 0.0, wanted)
            if param == "logvar" and accuracy.is_light(*inputs):
                # With bounds, and to a prior, half types have float32's formulas.
                close = 2 * accuracy.LIGHT + (torch.finfo(dtype).eps if result.dtype == dtype else 0.0)
                torch.testing.assert_close(result, wanted, rtol=close, atol=2 * accuracy.LIGHT)
            else:
                assert torch.equal(result, wanted)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_where_sigma_is_0(dtype):
    """The limits from above, 0 where the difference is; ∞ − ∞ is NaN, as in PyTorch's form."""
    inf, zero = math.inf, torch.zeros(3, dtype=dtype)
    x = torch.tensor([0.0, 1.0, -1.0], dtype=dtype)
    for param in ("std", "var"):
        kl, _, dr = with_grads(lambda m, r, p=param: vf.gaussian_kl(m, r, event_ndim=0, param=p), x, zero)
        assert kl.tolist() == [inf] * 3 and dr.tolist() == [-inf] * 3
        log_prob, dmean, dr, _ = with_grads(
            lambda m, r, x, p=param: vf.gaussian_log_prob(m, r, x, event_ndim=0, param=p), zero, zero, x
        )
        assert log_prob[0] == inf and log_prob[1:].isnan().all() and dmean.tolist() == [0.0, inf, -inf]
        assert dr.tolist() == [-inf, inf, inf]
    # −∞ is where σ is 0 of a softplus, whose log σ has a slope of 1.
    below = torch.full((3,), -inf, dtype=dtype)
    kl, _, dr = with_grads(lambda m, r: vf.gaussian_kl(m, r, event_ndim=0, param="softplus"), x, below)
    assert kl.tolist() == [inf] * 3 and dr.tolist() == [-1.0] * 3


# ---- Bernoulli ---------------------------------------------------------------------------------------------


@functools.cache
def bernoulli_cases(param, dtype):
    info = torch.finfo(dtype)
    t = numbers([0.0, info.smallest_normal * info.eps, info.tiny, 1e-3, 0.31, 0.5, 0.97, 1 - info.eps, 1.0], dtype)
    if param == "logits":
        values, formula = arguments("logstd", dtype), formulas.bernoulli
    else:
        small = [v for v in ends(dtype) if v < 1]
        values = numbers([0.0, *small, *(1 - v for v in small if v > info.eps / 4), 1.0], dtype)
        formula = formulas.bernoulli_of_probs
    inputs = columns(itertools.product(values, t), dtype)
    value, slopes = accuracy.truth(formula, *inputs, numbers=accuracy.digits)
    return inputs, (value, *slopes.values())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("param", ["logits", "probs"])
def test_bernoulli(param, dtype):
    inputs, results = bernoulli_cases(param, dtype)
    got = with_grads(lambda y, x: vf.bernoulli_log_prob(y, x, event_ndim=0, param=param), *inputs)
    of_value = accuracy.bar(3, 3, of=inputs if param == "logits" else ())
    bars = (of_value, 4 if param == "probs" else 3, 3)
    rows = zip(("value", "dlogits", "dx"), bars, got, results, strict=True)
    assert_right((name, bound, errors(value, *exact), inputs) for name, bound, value, exact in rows)
