"""``noise``: the caller's own ε, in the place of a seed's."""

import pytest
import torch
from torch.testing import assert_close

import vae_fast as vf
from helpers.behaviour import LAYOUTS, leaves, with_grads
from helpers.calls import RSAMPLE_KL, RSAMPLE_KL_PRIOR, RSAMPLE_LOG_PROB, same_bits
from helpers.marks import each_backend, each_sampler
from helpers.published import assert_published
from vae_fast.distributions import DiagonalNormal

pytestmark = each_backend

SHAPE = (5, 3)
each_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)


def moments(dtype=torch.float32, shape=SHAPE):
    return [torch.randn(shape, dtype=torch.float64).to(dtype) for _ in range(2)]


def given(call, noise, samples=(), **options):
    return lambda *tensors: call(*tensors, samples, seed=None, noise=noise, **options)


@each_dtype
def test_published(dtype):
    noise = torch.randn(2, *SHAPE)
    assert_published(
        lambda m, v: vf.rsample_kl(m, v, 2, noise=noise),
        lambda m, v: (m + torch.exp(v / 2) * noise.double(), 0.5 * (m**2 + v.exp() - 1 - v).sum(-1)),
        *moments(dtype),
        compile=dtype == torch.bfloat16,
    )


@each_sampler
@each_dtype
def test_antithetic(call, dtype):
    """The mean of a pair is μ, and the gradients by logvar cancel."""
    mu, logvar = (t.requires_grad_() for t in moments(dtype))
    half = torch.randn(3, *SHAPE)
    z, *_ = given(call, torch.cat([half, -half]), 6)(mu, logvar)
    pairs = z.detach().double().view(2, 3, *SHAPE)
    eps = torch.finfo(dtype).eps
    assert_close(pairs.mean(0), mu.detach().double().expand(3, *SHAPE), rtol=4 * eps, atol=8 * eps)
    dmu, dlogvar = torch.autograd.grad(z.sum(), (mu, logvar))
    assert bool((dmu == 6).all()) and bool((dlogvar.abs() <= 1e-5).all())


@each_sampler
@each_dtype
def test_is_what_is_drawn(call, dtype, backend):
    """Of a seed's own normals, bit for bit: the sample, and every gradient. Triton's sums have another order."""
    tensors = [t.requires_grad_() for t in moments(dtype)]
    normals = torch.stack([vf.standard_normal(SHAPE, seed=7, sample=k, dtype=torch.float32) for k in range(2)])
    upstream = [torch.randn_like(out) for out in call(*tensors, 2)]
    drawn = with_grads(lambda *t: call(*t, 2), *tensors, upstream=upstream)
    for noise in (normals, normals.double()):
        got = with_grads(given(call, noise, 2), *tensors, upstream=upstream)
        if backend == "triton":
            sums = slice(1, len(upstream))
            for a, b in zip(got[sums], drawn[sums], strict=True):
                eps = 8 * torch.finfo(b.dtype).eps
                assert_close(a, b, rtol=eps, atol=eps)
            got = (got[0], *drawn[sums], *got[len(upstream) :])
        assert same_bits(got, drawn)


@each_sampler
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "negative"])
def test_any_dtype_and_strides(call, dtype, layout):
    tensors = moments(shape=(5, 4, 3))
    noise = torch.randn(2, 5, 4, 3).to(dtype)
    got = with_grads(given(call, LAYOUTS[layout](noise), 2), *tensors)
    want = with_grads(given(call, noise.float(), 2), *tensors)
    assert_close(got, want, rtol=2e-6, atol=2e-6)
    expanded = torch.randn(4, 1).to(dtype).expand(2, 5, 4, 3)
    got, want = (with_grads(given(call, n, 2), *tensors) for n in (expanded, expanded.float().contiguous()))
    assert_close(got, want, rtol=2e-6, atol=2e-6)


@each_sampler
def test_negative_view(call):
    tensors, noise = moments(), torch.randn(SHAPE)
    assert same_bits(given(call, LAYOUTS["negative"](noise))(*tensors), given(call, noise)(*tensors))


@each_sampler
@pytest.mark.parametrize("shape", [(3,), (1, 5, 3), (2, 5, 1), (2, 5, 4), (), (2, 3, 5)], ids=str)
def test_wrong_shape(call, shape):
    with pytest.raises(ValueError, match="noise has shape"):
        given(call, torch.zeros(shape), 2)(*moments())


@each_sampler
@pytest.mark.parametrize("other", ["seed", "tensor", "generator", "offset", "first_sample", "stream"])
def test_together_with_another_source(call, other):
    mu, noise = torch.zeros(SHAPE), torch.zeros(SHAPE)
    value = {"seed": 1, "tensor": torch.tensor(1), "generator": torch.Generator(mu.device)}.get(other, 1)
    with pytest.raises(ValueError, match="pass noise, or what it is drawn by"):
        call(mu, mu, **{"seed": None, "noise": noise, "seed" if other == "tensor" else other: value})


@each_sampler
@pytest.mark.parametrize("wrong", [torch.zeros(SHAPE, dtype=torch.int64), torch.zeros(SHAPE).bool(), 1.0], ids=str)
def test_no_floating_tensor(call, wrong):
    mu = torch.zeros(SHAPE)
    wrong = wrong.to(mu.device) if isinstance(wrong, torch.Tensor) else wrong
    with pytest.raises(TypeError, match="noise must be a dense tensor of a floating dtype"):
        given(call, wrong)(mu, mu)


@each_sampler
def test_is_a_constant(call):
    mu, logvar, noise = leaves(*moments(), torch.randn(SHAPE))
    z, *_ = given(call, noise)(mu, logvar)
    assert torch.autograd.grad(z.sum(), (mu, noise), allow_unused=True)[1] is None
    z, *_ = given(call, noise)(mu.detach(), logvar.detach())
    assert not z.requires_grad


@each_sampler
def test_draws_nothing(call):
    tensors, noise = moments(), torch.randn(SHAPE)
    state = torch.get_rng_state()
    given(call, noise)(*tensors)
    assert torch.equal(state, torch.get_rng_state())


@each_sampler
def test_changed_between_the_passes(call):
    """It is kept, not copied: autograd sees what is written into it."""
    mu, logvar, noise = *leaves(*moments()), torch.randn(SHAPE)
    z, *_ = given(call, noise)(mu, logvar)
    noise.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.sum().backward()


@each_sampler
def test_second_derivatives(call):
    noise = torch.randn(2, *SHAPE)

    def value(mu, logvar):
        return sum((out**2).sum() for out in given(call, noise, 2)(mu, logvar))

    def published(mu, logvar):
        q = torch.distributions.Normal(mu, torch.exp(logvar / 2))
        z, outs = mu + q.scale * noise.double(), []
        if call is RSAMPLE_KL:
            outs = [0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum(-1)]
        elif call is RSAMPLE_LOG_PROB:
            outs = [d.log_prob(z).sum(-1) for d in (q, torch.distributions.Normal(torch.zeros_like(mu), 1.0))]
        return sum((out**2).sum() for out in (z, *outs))

    tensors = tuple(moments(torch.float64))
    want = torch.autograd.functional.hessian(published, tensors)
    assert_close(torch.autograd.functional.hessian(value, tensors), want)
    assert_close(torch.func.hessian(value, (0, 1))(*tensors), want)


@each_sampler
def test_vmap(call):
    """Mapped with the moments, or the same for each of them."""
    tensors, noise = moments(shape=(4, 5, 3)), torch.randn(4, 5, 3)
    for in_dims, of in (((0, 0, 0), lambda k: noise[k]), ((0, 0, None), lambda k: noise[0])):
        each = noise if in_dims[-1] == 0 else noise[0]
        got = torch.func.vmap(lambda m, v, n: given(call, n)(m, v), in_dims)(*tensors, each)
        loop = [given(call, of(k))(*(t[k] for t in tensors)) for k in range(4)]
        assert_close(got, tuple(torch.stack(outs) for outs in zip(*loop, strict=True)))


@each_sampler
@pytest.mark.parametrize(("shape", "samples"), [((0, 3), ()), ((5, 3), (0,)), ((0,), (2, 2))], ids=str)
def test_empty(call, shape, samples):
    tensors = leaves(*(torch.zeros(shape) for _ in range(2)))
    outs = given(call, torch.zeros(*samples, *shape), samples)(*tensors)
    assert outs[0].shape == (*samples, *shape)
    grads = torch.autograd.grad([o.sum() for o in outs], tensors)
    assert all(g.shape == shape and bool((g == 0).all()) for g in grads)


def test_to_a_prior():
    tensors, noise = [t.detach() for t in RSAMPLE_KL_PRIOR.draw(SHAPE)], torch.randn(2, *SHAPE)
    z, kl = RSAMPLE_KL_PRIOR(*tensors, 2, seed=None, noise=noise)
    assert same_bits([z], [vf.rsample(*tensors[:2], 2, noise=noise)])
    assert_close(kl, vf.gaussian_kl(*tensors))


def test_normal_and_gaussian_of_moments():
    mu, logvar = moments()
    noise = torch.randn(SHAPE)
    want = vf.rsample(mu, logvar, noise=noise)
    assert torch.equal(DiagonalNormal(mu, logvar, param="logvar").rsample(noise=noise), want)
    packed = torch.cat([mu, logvar], 1).requires_grad_()
    q = vf.DiagonalGaussian(packed, logvar_bounds=None)
    for z in (q.sample(noise=noise), q.rsample_kl(noise=noise)[0]):
        assert torch.equal(z, want)
        (grad,) = torch.autograd.grad(z.sum(), packed, retain_graph=True)
        assert_close(grad, torch.cat([torch.ones_like(mu), 0.5 * (want - mu)], 1))
    for other in ({"seed": 1}, {"stream": 1}, {"generator": torch.Generator("cpu")}):
        with pytest.raises(ValueError, match="pass noise, or what it is drawn by"):
            q.sample(noise=noise, **other)
