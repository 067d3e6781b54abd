"""The kernels on pairs at tiles of 256 bytes: several tiles of either side, chunks of dims, parts."""

import functools

import pytest
import torch

import vae_fast as vf
from vae_fast.triton_kernels import logistic_mixture_log_prob, pairs

pytestmark = pytest.mark.usefixtures("small_tiles")

CLOSE = {torch.float32: 2e-5, torch.float64: 1e-13}


@pytest.fixture
def chunks(monkeypatch):
    """Of four dims, where there are more; and parts of several tiles, of which a call would else need many."""
    monkeypatch.setattr(pairs, "MOST_DIMS", 4)
    monkeypatch.setattr(pairs, "BUSY", 8)
    pairs._tiles.cache_clear()
    yield
    pairs._tiles.cache_clear()


def compare(function, drawn, dtype):
    """Results and gradients as the reference's in float64, of the largest of each."""
    found = []
    for backend, own in (("triton", dtype), ("reference", torch.float64)):
        leaves = [t.to(dtype).to(own).requires_grad_() for t in drawn]
        outs = function(*leaves, backend=backend)
        outs = outs if isinstance(outs, tuple) else (outs,)
        upstream = [torch.cos(torch.arange(float(o.numel()))).view(o.shape).to(o.dtype) for o in outs]
        found.append([*outs, *torch.autograd.grad(outs, leaves, upstream)])
    for got, want in zip(*found, strict=True):
        assert got.shape == want.shape and got.dtype == dtype
        assert (got - want).abs().max() <= CLOSE[dtype] * want.abs().max().clamp(min=1.0)


@pytest.mark.usefixtures("chunks")
@pytest.mark.parametrize("dtype", CLOSE, ids=str)
@pytest.mark.parametrize("own", (False, True), ids=("shared", "own"))
@pytest.mark.parametrize("weights", ("none", "shared", "own"))
@pytest.mark.parametrize("shape", ((9, 19, 6), (21, 5, 2)), ids=str)
def test_mixture(shape, weights, own, dtype):
    n, k, d = shape
    of = (n, k) if own else (k,)
    drawn = [torch.randn(*of, d), 0.5 * torch.randn(*of, d), torch.randn(n, d)]
    if weights != "none":
        drawn.append(torch.randn((n, k) if weights == "own" else (k,)))

    def call(mu, logvar, z, log_weight=None, *, backend):
        return vf.gaussian_mixture_log_prob(mu, logvar, z, log_weight=log_weight, per_dim=True, backend=backend)

    compare(call, drawn, dtype)


@pytest.mark.parametrize("dtype", CLOSE, ids=str)
def test_mixture_of_one_chunk(dtype):
    drawn = [torch.randn(19, 3), 0.5 * torch.randn(19, 3), torch.randn(9, 3)]
    compare(vf.gaussian_mixture_log_prob, drawn, dtype)


@pytest.mark.usefixtures("chunks")
@pytest.mark.parametrize("dtype", CLOSE, ids=str)
@pytest.mark.parametrize("options", ({}, {"scales": [0.2 * k for k in range(1, 11)]}, {"kernel": "rbf"}), ids=str)
def test_mmd(options, dtype):
    """Of more constants than a launch takes, too."""
    drawn = [torch.randn(13, 6), 1.3 * torch.randn(22, 6) + 0.2]
    for unbiased in (True, False):
        compare(functools.partial(vf.mmd, unbiased=unbiased, **options), drawn, dtype)


@pytest.mark.parametrize("dtype", CLOSE, ids=str)
@pytest.mark.parametrize("options", ({}, {"density_below": 1e-2, "levels": 16}), ids=str)
def test_logistics(options, dtype, monkeypatch):
    """Of several tiles of pixels, the last not full; coefficients and none."""
    monkeypatch.setattr(logistic_mixture_log_prob, "_PIXELS", 4)
    x = torch.randint(0, 16, (5, 2), dtype=torch.uint8)

    def call(logits, mean, log_scale, coefficients=None, *, backend):
        return vf.logistic_mixture_log_prob(
            logits, mean, log_scale - 2, x, coefficients=coefficients, backend=backend, **options
        )

    drawn = [torch.randn(5, 3), torch.randn(5, 2, 3), torch.randn(5, 2, 3), torch.randn(5, 1, 3)]
    compare(call, drawn, dtype)
    compare(call, drawn[:3], dtype)


def test_gradients_that_nobody_wants():
    mu, logvar, z = torch.randn(7, 3), torch.randn(7, 3), torch.randn(5, 3)
    for k in range(3):
        leaves = [t.clone().requires_grad_(j == k) for j, t in enumerate((mu, logvar, z))]
        got, want = (
            torch.autograd.grad(vf.gaussian_mixture_log_prob(*leaves, backend=b).sum(), leaves[k])[0]
            for b in ("triton", "reference")
        )
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize(
    "change", ({"z": (5, 2)}, {"rate": (7, 4)}, {"log_weight": (6,)}, {"mu": (5, 7, 3)}), ids=str
)
def test_raw_operators_refuse_shapes(change):
    shapes = {"z": (5, 3), "mu": (7, 3), "rate": (7, 3), "log_rate": (7, 3), "log_weight": (7,)} | change
    with pytest.raises(ValueError, match="z|fit"):
        torch.ops.vae_fast_triton.gaussian_mixture_log_prob_fwd(*map(torch.zeros, shapes.values()), False)


@pytest.mark.parametrize("wrong", ({"y": (4, 2)}, {"x": (4,)}, {"constants": []}), ids=str)
def test_mmd_refuses_shapes(wrong):
    given = {"x": (4, 3), "y": (5, 3), "constants": [1.0]} | wrong
    x, y, constants = given.values()
    with pytest.raises(ValueError, match="must be"):
        torch.ops.vae_fast_triton.mmd_fwd(torch.zeros(x), torch.zeros(y), constants, False, True, True, True)
