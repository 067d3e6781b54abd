"""rsample_kl: bit for bit rsample's z, gaussian_kl's kl, and the gradients of both together."""

import pytest
import torch
from torch.testing import assert_close

import vae_fast as vf
from helpers.behaviour import with_grads
from helpers.marks import each_backend

pytestmark = each_backend

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
PARAMS = ("logvar", "logstd", "std", "var", "softplus")
NOISE = {"seed": 11, "offset": 5, "first_sample": 2}

CASES = {
    "one": ((), {}),
    "samples": ((2, 2), {}),
    "elementwise": (2, {"event_ndim": 0}),
    "all_event_dims": ((), {"event_ndim": 3}),
    "free_bits": (3, {"free_bits": 0.4}),
    "bounds": (2, {"bounds": (-0.5, 0.7), "free_bits": 0.01}),
    **{p: (2, {"param": p}) for p in PARAMS},
    **{p + "_eps": ((), {"param": p, "param_eps": 0.2, "bounds": (None, 1.2)}) for p in PARAMS},
}


def fused(case):
    samples, options = CASES[case]
    return lambda mu, r: vf.rsample_kl(mu, r, samples, **NOISE, **options)


def apart(case):
    samples, options = CASES[case]
    kl = {k: v for k, v in options.items() if k in ("event_ndim", "free_bits")}
    form = {k: v for k, v in options.items() if k not in kl}

    def f(mu, r):
        return vf.rsample(mu, r, samples, **NOISE, **form), vf.gaussian_kl(mu, r, **kl, **form)

    return f


def inputs(case, dtype=torch.float64, shape=(4, 2, 3)):
    mu, r = (torch.randn(shape, dtype=torch.float64) for _ in range(2))
    return mu.to(dtype), (0.3 + r.abs() if case.startswith(("std", "var")) else r).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES)
def test_is_rsample_and_gaussian_kl(case, dtype):
    mu, r = inputs(case, dtype, (40, 2, 3))
    upstream = [torch.randn_like(out) for out in fused(case)(mu, r)]
    z, kl, dmu, dr = with_grads(fused(case), mu, r, upstream=upstream)
    want = with_grads(apart(case), mu, r, upstream=upstream)
    assert torch.equal(z, want[0]) and z.dtype == dtype
    assert_close(kl, want[1])
    assert kl.dtype == (torch.float64 if dtype == torch.float64 else torch.float32) and (kl >= 0).all()
    assert dmu.dtype == dr.dtype == dtype
    if dtype in (torch.float32, torch.float64):
        assert_close((dmu, dr), want[2:], rtol=1e-5, atol=1e-5)
    else:
        # Added before rounding: as exact as the float32 computation, rounded once.
        wide = with_grads(fused(case), mu.float(), r.float(), upstream=[g.float() for g in upstream])
        assert torch.equal(dmu, wide[2].to(dtype)) and torch.equal(dr, wide[3].to(dtype))


@pytest.mark.parametrize("used", [0, 1])
def test_one_result_alone(used):
    mu, r = (t.requires_grad_() for t in inputs("samples"))
    out, want = fused("samples")(mu, r)[used], apart("samples")(mu, r)[used]
    g = torch.randn_like(out)
    assert_close(torch.autograd.grad(out, (mu, r), g), torch.autograd.grad(want, (mu, r), g))


def test_free_bits_at_equality():
    mu = torch.tensor([[1.0, 2.0]], requires_grad=True)
    _, kl = vf.rsample_kl(mu, torch.zeros(1, 2), seed=0, free_bits=0.5)
    assert kl.tolist() == [2.5]
    assert torch.autograd.grad(kl.sum(), mu)[0].tolist() == [[0.0, 2.0]]


def test_seed_is_drawn_once_and_noise_is_not_saved():
    mu, lv = torch.zeros(50, 4, requires_grad=True), torch.zeros(50, 4, requires_grad=True)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        z, kl = vf.rsample_kl(mu, lv, (3,))
    assert sorted(t.numel() for t in saved) == [200, 200]
    (dlv,) = torch.autograd.grad(z.sum() + kl.sum(), lv)
    assert_close(dlv, 0.5 * z.detach().sum(0))
