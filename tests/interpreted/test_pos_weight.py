"""The weight of the positives in a Bernoulli's density, on Triton."""

import math

import pytest
import torch
from torch.testing import assert_close

import vae_fast as vf
from helpers.named import compare

pytestmark = pytest.mark.usefixtures("small_tiles")

FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
SHAPE = (3, 70)


def operands(dtype=torch.float32, shape=SHAPE):
    logits = torch.randn(shape, dtype=torch.float64) * 3
    x = torch.rand(shape, dtype=torch.float64)
    return {"logits": logits.to(dtype).requires_grad_(), "x": x.to(dtype).requires_grad_()}


@pytest.mark.parametrize("reduction", ("none", "mean"))
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_of_every_dtype(dtype, reduction):
    compare(vf.bernoulli_log_prob, operands(dtype), pos_weight=torch.rand(70).to(dtype) * 4, reduction=reduction)


@pytest.mark.parametrize("size", (SHAPE, (70,), (3, 1), ()), ids=str)
@pytest.mark.parametrize("own", (torch.float32, torch.bfloat16, torch.float64, torch.uint8, torch.bool), ids=str)
def test_of_every_size_and_another_dtype(size, own):
    pos_weight = (torch.rand(size) * 4).to(own) if own != torch.bool else torch.rand(size) < 0.5
    compare(vf.bernoulli_log_prob, operands(), pos_weight=pos_weight, close=3e-6)


@pytest.mark.parametrize("x", (torch.uint8, torch.bool), ids=str)
def test_of_bytes(x):
    values = (torch.rand(SHAPE) * 255).to(x) if x != torch.bool else torch.rand(SHAPE) < 0.5
    scale = 1.0 if x == torch.bool else 1 / 255
    compare(vf.bernoulli_log_prob, operands() | {"x": values}, pos_weight=2.5, x_scale=scale, scale=-0.5)


@pytest.mark.parametrize("reduction", ("none", "sum"))
def test_beside_a_weight(reduction):
    """Which has a gradient, and hides what it leaves out."""
    weight = torch.randint(0, 3, SHAPE).float().requires_grad_()
    tensors = operands() | {"weight": weight}
    compare(vf.bernoulli_log_prob, tensors, pos_weight=torch.rand(70), reduction=reduction)
    pos_weight = torch.where(weight.detach() == 0, torch.nan, 2.0)
    _, grads = compare(vf.bernoulli_log_prob, tensors | {"weight": weight.detach()}, pos_weight=pos_weight)
    assert all(g.isfinite().all() for g in grads.values())


def test_of_any_strides():
    pos_weight = torch.stack([torch.rand(70, 3), torch.full((70, 3), torch.nan)], -1)[..., 0].T
    compare(vf.bernoulli_log_prob, operands(), pos_weight=pos_weight)


@pytest.mark.parametrize("shape", ((0, 5), (5, 0)), ids=str)
def test_of_nothing(shape):
    compare(vf.bernoulli_log_prob, operands(shape=shape), pos_weight=2.0)


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64), ids=str)
def test_both_ends(dtype):
    """p·t·log σ(y) and (1 − t)·log σ(−y) each as near as they are, and what p is of them, out to infinity."""
    info = torch.finfo(dtype)
    y = [0.0, 1e-30, 0.3, 1.0, 17.0, 40.0, 87.0, 103.0, 700.0, 745.0, 1e30, math.inf]
    y = torch.tensor([s * v for v in y for s in (1, -1)], dtype=dtype)[:, None, None]
    t = torch.tensor([0.0, 0.3, 1 - info.eps, 1.0], dtype=dtype)[:, None]
    p = torch.tensor([0.0, 0.25, 1.0, 3.0, 1e4], dtype=dtype)
    shape = torch.broadcast_shapes(y.shape, t.shape, p.shape)
    y, t = (v.expand(shape).clone().requires_grad_() for v in (y, t))
    out = vf.bernoulli_log_prob(y, t, pos_weight=p, event_ndim=0, backend="triton")
    dy, dt = torch.autograd.grad(out.sum(), (y, t))
    y, t, p = y.detach().double(), t.detach().double(), p.double()
    # −log σ(y), −log σ(−y), and what weights them.
    softplus = torch.nn.functional.softplus
    minus, plus = softplus(-y, threshold=40), softplus(y, threshold=40)
    of_one, of_zero = (torch.where(w == 0, 0.0, w * v) for w, v in ((p * t, minus), (1 - t, plus)))
    # Of 0·∞ it is NaN.
    odds = p * minus
    for got, first, second in (
        (out, -of_one, -of_zero),
        (dy, p * t * torch.sigmoid(-y), -(1 - t) * torch.sigmoid(y)),
        (dt, -odds, plus),
    ):
        want, least = first + second, 3 * info.eps * (first.abs() + second.abs()) + 8 * info.tiny
        right = (got.double() == want) | ((got.double() - want).abs() <= least) | (got.isnan() & want.isnan())
        assert right.all(), (got.double()[~right][:3], want[~right][:3])


def test_a_weight_of_1_is_none():
    tensors = operands()
    got, want = (
        torch.autograd.grad(
            vf.bernoulli_log_prob(**tensors, pos_weight=p, backend="triton").sum(), tensors.values()
        )
        for p in (1.0, None)
    )
    for a, b in zip(got, want, strict=True):
        assert_close(a, b)
