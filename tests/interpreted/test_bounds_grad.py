"""Bounds that pass their gradient on, on Triton: outside them it is the value's slope at the bound."""

import pytest
import torch
from torch.testing import assert_close

import vae_fast as vf
from helpers.named import compare, differentiated

pytestmark = pytest.mark.usefixtures("small_tiles")

FLOATS = (torch.float32, torch.bfloat16, torch.float64)
PARAMS = ("logvar", "logstd", "std", "var", "softplus")
SHAPE = (2, 30)
BOUNDS = (0.5, 1.25)
OPERANDS = {
    vf.rsample: ("mu", "logvar"),
    vf.rsample_kl: ("mu", "logvar", "prior_mu", "prior_logvar"),
    vf.gaussian_kl: ("mu", "logvar", "prior_mu", "prior_logvar"),
    vf.gaussian_log_prob: ("mean", "logvar", "x"),
}


def drawn(function, dtype=torch.float32):
    """Scales on both sides of the bounds and between them."""
    tensors = {name: torch.randn(SHAPE, dtype=torch.float64) for name in OPERANDS[function]}
    tensors |= {name: 0.1 + 1.7 * torch.rand_like(t) for name, t in tensors.items() if name.endswith("logvar")}
    return {name: t.to(dtype).requires_grad_() for name, t in tensors.items()}


def seed_of(function):
    return {"seed": 3} if function in (vf.rsample, vf.rsample_kl) else {}


@pytest.mark.parametrize("bounds_grad", ("zero", "pass"))
@pytest.mark.parametrize("param", PARAMS)
@pytest.mark.parametrize("function", OPERANDS)
def test_like_the_reference(function, param, bounds_grad):
    eps, bounds = (0.0, BOUNDS) if bounds_grad == "pass" else (0.125, (None, 1.0))
    options = {"param": param, "param_eps": eps, "bounds": bounds, "bounds_grad": bounds_grad}
    compare(function, drawn(function), **seed_of(function), **options)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("function", OPERANDS)
def test_of_every_dtype(function, dtype):
    compare(function, drawn(function, dtype), **seed_of(function), bounds=BOUNDS, bounds_grad="pass")


@pytest.mark.parametrize(("function", "samples"), ((vf.rsample, (16,)), (vf.rsample_kl, (3,))), ids=("16", "3"))
def test_of_samples(function, samples):
    compare(function, drawn(function), seed=3, sample_shape=samples, bounds=BOUNDS, bounds_grad="pass")


@pytest.mark.parametrize("function", OPERANDS)
def test_the_slope_is_that_at_the_bound(function):
    """As of arguments clamped before; with "zero" it is 0 there."""
    tensors, seed = drawn(function), seed_of(function)
    clamped = {
        name: (t.detach().clamp(*BOUNDS) if name.endswith("logvar") else t.detach()).requires_grad_()
        for name, t in tensors.items()
    }
    of = {}
    for key, operands, options in (
        ("pass", tensors, {"bounds": BOUNDS, "bounds_grad": "pass"}),
        ("zero", tensors, {"bounds": BOUNDS}),
        ("clamped", clamped, {}),
    ):
        outs, of[key] = differentiated(function, operands, torch.ones_like, backend="triton", **seed, **options)
    for name, t in tensors.items():
        assert_close(of["pass"][name], of["clamped"][name], rtol=1e-6, atol=1e-6)
        if name.endswith("logvar"):
            outside = (t < BOUNDS[0]) | (t > BOUNDS[1])
            assert (of["zero"][name][outside] == 0).all() and of["pass"][name][outside].any()


def test_a_weight_of_0_hides_the_slope():
    weight = torch.zeros(SHAPE)
    weight[0] = 1.0
    tensors = drawn(vf.gaussian_kl)
    _, grads = compare(vf.gaussian_kl, tensors, weight=weight, bounds=BOUNDS, bounds_grad="pass")
    assert all((g[1] == 0).all() for g in grads.values())
