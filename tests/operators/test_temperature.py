"""``temperature``: z = μ + τσε, and every gradient of it; a KL does not see it."""

import pytest
import torch

import vae_fast as vf
from helpers.behaviour import with_grads
from helpers.calls import same_bits
from helpers.marks import each_backend, each_tempered
from helpers.published import assert_published, epsilon
from vae_fast.distributions import DiagonalNormal

pytestmark = each_backend

TAUS = (0.0, 0.667, 1.0, 2.0)
SHAPE, SAMPLES = (5, 3), (2, 2)
each_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)


def moments(dtype=torch.float32):
    return [torch.randn(SHAPE, dtype=torch.float64).to(dtype) for _ in range(2)]


@each_dtype
@pytest.mark.parametrize("tau", TAUS)
def test_published(tau, dtype):
    eps = epsilon(SHAPE, SAMPLES, seed=7)
    assert_published(
        lambda m, v: vf.rsample(m, v, SAMPLES, seed=7, temperature=tau),
        lambda m, v: m + tau * torch.exp(v / 2) * eps,
        *moments(dtype),
        compile=(tau, dtype) == (0.667, torch.bfloat16),
    )


@each_dtype
@pytest.mark.parametrize("tau", TAUS)
def test_the_kl_does_not_see_it(tau, dtype):
    eps = epsilon(SHAPE, SAMPLES, seed=7)

    def published(m, v):
        return m + tau * torch.exp(v / 2) * eps, 0.5 * (m**2 + v.exp() - 1 - v).sum(-1)

    def tempered(m, v):
        return vf.rsample_kl(m, v, SAMPLES, seed=7, temperature=tau)

    assert_published(tempered, published, *moments(dtype))
    m, v = moments(dtype)
    assert torch.equal(tempered(m, v)[1], vf.rsample_kl(m, v, SAMPLES, seed=7)[1])


@each_tempered
@each_dtype
def test_one_is_none(call, dtype):
    tensors = [t.requires_grad_() for t in moments(dtype)]
    assert same_bits(call.with_grads(*tensors, temperature=1.0), call.with_grads(*tensors))
    assert same_bits(call.with_grads(*tensors, temperature=1), call.with_grads(*tensors))


@each_tempered
def test_zero_is_the_mean(call):
    mu, logvar = (t.requires_grad_() for t in moments())
    z, *_ = call(mu, logvar, SAMPLES, temperature=0.0)
    assert torch.equal(z, mu.expand(z.shape))
    dmu, dlogvar = torch.autograd.grad(z.sum(), (mu, logvar))
    assert bool((dmu == 4).all()) and bool((dlogvar == 0).all())


@each_tempered
@pytest.mark.parametrize("wrong", [-0.5, -1, float("nan"), -float("inf")])
def test_negative(call, wrong):
    mu = torch.zeros(SHAPE)
    with pytest.raises(ValueError, match="temperature must not be negative"):
        call(mu, mu, temperature=wrong)


@each_tempered
@pytest.mark.parametrize("wrong", ["1", None, torch.ones(())], ids=str)
def test_no_number(call, wrong):
    mu = torch.zeros(SHAPE)
    with pytest.raises(TypeError, match="temperature must be a number"):
        call(mu, mu, temperature=wrong)


def test_normal():
    loc, scale = torch.randn(SHAPE), torch.rand(3) + 0.5
    d = DiagonalNormal(loc, scale)
    want = vf.rsample(loc, scale, 2, seed=3, param="std", temperature=0.5)
    assert torch.equal(d.rsample((2,), seed=3, temperature=0.5), want)
    assert torch.equal(d.sample((2,), seed=3, temperature=0.5), want)


@pytest.mark.parametrize("bounds", [None, (-0.5, 0.5)])
def test_gaussian_of_moments(bounds):
    """Of one tensor, whose gradient is made in one buffer."""
    moments = torch.randn(3, 4, 5)

    def halves(m):
        mu, logvar = m.chunk(2, 1)
        z = vf.rsample(mu, logvar, seed=3, temperature=0.5, bounds=bounds)
        return z, vf.gaussian_kl(mu, logvar, event_ndim=2, bounds=bounds)

    def whole(m):
        return vf.DiagonalGaussian(m, logvar_bounds=bounds).rsample_kl(seed=3, temperature=0.5)

    torch.testing.assert_close(with_grads(whole, moments), with_grads(halves, moments))
    q = vf.DiagonalGaussian(moments, logvar_bounds=bounds)
    assert torch.equal(q.sample(seed=3, temperature=0.5), halves(moments)[0])
    with pytest.raises(ValueError, match="temperature must not be negative"):
        q.sample(seed=3, temperature=-1.0)
