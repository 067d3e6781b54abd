"""The count densities: every branch of their term and launch, once, on tensors of a tile or two."""

import pytest
import torch
from torch.testing import assert_close

import vae_fast as vf
from helpers.calls import COUNT, INFLATED, POISSON

pytestmark = pytest.mark.usefixtures("small_tiles")

SHAPE = (2, 35)
EACH = (COUNT, INFLATED, POISSON)
CLOSE = {torch.float32: 1e-5, torch.float64: 1e-13, torch.bfloat16: 1e-2, torch.float16: 2e-3}


def compare(call, tensors, weight=None, **options):
    """Results and gradients on Triton, against the reference's in float64 of the same values."""
    dtype = tensors[0].dtype
    leaves = [*tensors, *([] if weight is None else [weight])]
    both = []
    for backend in ("triton", "reference"):
        own = [
            (
                t.detach().double() if backend == "reference" and t.is_floating_point() else t.detach().clone()
            ).requires_grad_(t.requires_grad)
            for t in leaves
        ]
        given = {} if weight is None else {"weight": own[-1]}
        outs = call(*own[: len(tensors)], backend=backend, **given, **options)
        wanted = [t for t in own if t.requires_grad]
        upstream = [torch.linspace(0.5, 1.5, o.numel(), dtype=o.dtype).view(o.shape) for o in outs]
        both.append((*outs, *torch.autograd.grad(outs, wanted, upstream)))
    for got, want in zip(*both, strict=True):
        assert got.shape == want.shape
        assert_close(got.double(), want, rtol=0, atol=CLOSE[dtype] * max(1.0, want.abs().max().item()))


@pytest.mark.parametrize("dtype", CLOSE, ids=str)
@pytest.mark.parametrize("call", EACH, ids=str)
def test_dtypes(call, dtype):
    compare(call, call.draw(SHAPE, dtype))


@pytest.mark.parametrize("x", (torch.uint8, torch.bool, torch.int16, torch.int32, torch.int64), ids=str)
def test_counts(x):
    mean, _ = POISSON.draw(SHAPE)
    compare(POISSON, (mean, torch.randint(-6, 13, SHAPE).clamp(min=0).to(x)))


@pytest.mark.parametrize("call", EACH, ids=str)
def test_logarithms_and_weights(call):
    """Of all parameters, with ε, weights of one value a datum, and counts beyond 8 and between two."""
    words = {"param": "log_rate"} if call is POISSON else {"param": "log_mean", "theta_param": "log_theta"}
    tensors = call.draw(SHAPE)
    tensors[-1] = torch.tensor([0.0, 0.5, 1.0, 8.0, 9.0, 300.0, 2.5]).repeat(2, 5)
    weight = torch.tensor([[0.5], [0.0]]).requires_grad_()
    compare(call, tensors, weight, reduction="mean", scale=-1.0, eps=0.01, **words)


def test_broadcast_parameters():
    """One θ a feature and one mean a datum; the value is a pass of its own."""
    mean, theta, pi, x = INFLATED.draw(SHAPE)
    feature, datum = (t.detach().requires_grad_() for t in (theta[0], mean[:, :1]))
    compare(INFLATED, (datum, feature, pi, x), reduction="sum")


def test_a_theta_without_end():
    """Poisson's, where θ is ∞."""
    mean, _, x = COUNT.draw(SHAPE)
    got = vf.negative_binomial_log_prob(mean, torch.inf, x, backend="triton")
    assert_close(got, vf.poisson_log_prob(mean, x, backend="triton"))


@pytest.mark.parametrize("dtype", (torch.float32, torch.float16), ids=str)
def test_shares_of_a_library(dtype):
    """A softmax over two event dims, with a library a datum and without one."""
    draw = [torch.randn(2, 5, 7).to(dtype).requires_grad_() for _ in range(2)]
    theta, library = (t.to(dtype).requires_grad_() for t in (torch.rand(7).add(0.5), torch.randn(2, 1, 1)))
    x = torch.randint(0, 12, (2, 5, 7))
    for given in ({"log_library": library, "zero_logits": draw[1]}, {}):
        wanted = [draw[0], theta, *given.values()]
        results = []
        for backend in ("triton", "reference"):
            options = {"param": "softmax", "event_ndim": 2, "backend": backend}
            log_prob = vf.negative_binomial_log_prob(draw[0], theta, x, **given, **options)
            results.append((log_prob, *torch.autograd.grad(log_prob, wanted, torch.tensor([1.0, -0.5]))))
        for got, want in zip(*results, strict=True):
            assert got.dtype == want.dtype
            assert_close(got, want, rtol=CLOSE[dtype], atol=CLOSE[dtype])
