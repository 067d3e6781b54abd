"""rsample_kl to a prior: rsample's z, bit for bit, gaussian_kl's divergence, and the gradients of both together."""

import pytest
import torch
from torch.testing import assert_close

import vae_fast as vf
from helpers.behaviour import with_grads
from helpers.calls import RSAMPLE_KL_PRIOR, same_bits
from helpers.marks import each_backend
from helpers.published import compiled

pytestmark = each_backend

NOISE = {"seed": 11, "offset": 5, "first_sample": 2, "stream": 3}
SHAPE = (4, 2, 3)
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
# Of the prior's mean and its scale: full, a feature, a datum, other dims left out, one.
SHAPES = [(SHAPE, SHAPE), ((3,), (3,)), ((4, 1, 1), (4, 1, 1)), ((2, 1), (1, 3)), ((), ()), ((3,), SHAPE)]

CASES = {
    "plain": {},
    "elementwise": {"event_ndim": 0},
    "all_event_dims": {"event_ndim": 3, "sample_shape": (2, 2)},
    "free_bits": {"free_bits": 0.4, "sample_shape": 3},
    "bounds": {"bounds": (-0.5, 0.7), "free_bits": 0.01, "bounds_grad": "pass"},
    "softplus": {"param": "softplus", "param_eps": 0.1, "sample_shape": 2},
    "of_another_form": {"param": "softplus", "prior_param": "logvar", "prior_bounds": (-1.0, 1.0)},
    "tempered": {"temperature": 0.5, "sample_shape": 2},
}


def fused(case):
    def f(mu, r, prior_mu, prior_r):
        return vf.rsample_kl(mu, r, prior_mu=prior_mu, prior_logvar=prior_r, **NOISE, **CASES[case])

    return f


def apart(case):
    of_kl = ("event_ndim", "free_bits", "prior_param", "prior_param_eps", "prior_bounds")
    of_sample = ("sample_shape", "temperature")
    sample = {k: v for k, v in CASES[case].items() if k not in of_kl}
    kl = {k: v for k, v in CASES[case].items() if k not in of_sample}

    def f(mu, r, *prior):
        return vf.rsample(mu, r, **NOISE, **sample), vf.gaussian_kl(mu, r, *prior, **kl)

    return f


def inputs(dtype=torch.float64, prior_shapes=(SHAPE, SHAPE), shape=SHAPE):
    return [torch.randn(s, dtype=torch.float64).to(dtype) for s in (shape, shape, *prior_shapes)]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES)
def test_is_rsample_and_gaussian_kl(case, dtype):
    tensors = inputs(dtype)
    upstream = [torch.randn_like(out) for out in fused(case)(*tensors)]
    z, kl, *grads = with_grads(fused(case), *tensors, upstream=upstream)
    want_z, want_kl, *want = with_grads(apart(case), *tensors, upstream=upstream)
    assert torch.equal(z, want_z) and z.dtype == dtype
    assert_close(kl, want_kl)
    assert kl.dtype == (torch.float64 if dtype == torch.float64 else torch.float32) and (kl >= 0).all()
    assert all(g.dtype == dtype for g in grads)
    if dtype in (torch.float32, torch.float64):
        assert_close(grads, want, rtol=1e-5, atol=1e-5)
        return
    # Added before rounding: as exact as the float32 computation, rounded once.
    wide = with_grads(fused(case), *(t.float() for t in tensors), upstream=[g.float() for g in upstream])
    assert same_bits(grads, [g.to(dtype) for g in wide[2:]])


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("case", ["plain", "free_bits", "of_another_form"])
def test_priors_of_smaller_shapes(shapes, dtype, case):
    tensors = inputs(dtype, shapes)
    got, want = (with_grads(f(case), *tensors) for f in (fused, apart))
    assert same_bits(got[:1], want[:1])
    assert [g.shape for g in got[2:]] == [t.shape for t in tensors]
    assert_close(got[1:], want[1:], rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("numbers", [(0.3, -0.2), (0.3, None), (None, -0.2), (1, 0)], ids=str)
def test_numbers(numbers):
    """Of one of them, and of the other none: 0 and σp = 1. They promote nothing."""
    mu, r, *_ = inputs(torch.float32)
    z, kl = fused("plain")(mu, r, *numbers)
    assert torch.equal(z, vf.rsample(mu, r, **NOISE)) and kl.dtype == torch.float32
    assert_close(kl, vf.gaussian_kl(mu, r, *(0.0 if n is None else n for n in numbers)))
    one = [torch.tensor(float(n or 0.0)) for n in numbers]
    assert_close(with_grads(lambda m, v: fused("plain")(m, v, *numbers), mu, r), with_grads(
        lambda m, v: fused("plain")(m, v, *one), mu, r))  # fmt: skip


def test_standard_numbers_are_no_prior():
    mu, r, *_ = inputs(torch.float32)
    assert_close(fused("plain")(mu, r, 0.0, 0.0), vf.rsample_kl(mu, r, **NOISE))


@pytest.mark.parametrize("used", [0, 1])
def test_one_result_alone(used):
    tensors = [t.requires_grad_() for t in inputs()]
    outs = [f("free_bits")(*tensors)[used] for f in (fused, apart)]
    g = torch.randn_like(outs[0])
    got, want = (torch.autograd.grad(out, tensors, g, allow_unused=True) for out in outs)
    # A sample has no gradient by a prior: autograd's own None, or zeros.
    want = [torch.zeros_like(t) if w is None else w for w, t in zip(want, tensors, strict=True)]
    got = [torch.zeros_like(t) if w is None else w for w, t in zip(got, tensors, strict=True)]
    assert_close(got, want)


@pytest.mark.parametrize("wanted", range(4))
def test_one_gradient_alone(wanted):
    """What is asked for does not change what comes."""
    tensors = inputs()
    everything = with_grads(fused("softplus"), *tensors)
    leaves = [t.detach().requires_grad_(k == wanted) for k, t in enumerate(tensors)]
    outs = fused("softplus")(*leaves)
    (alone,) = torch.autograd.grad(outs, leaves[wanted], [torch.ones_like(o) for o in outs])
    assert_close(alone, everything[2 + wanted])


def test_free_bits_at_equality():
    mu = torch.tensor([[1.0, 2.0]], requires_grad=True)
    prior = torch.zeros(1, 2, requires_grad=True)
    _, kl = vf.rsample_kl(mu, 0.0, seed=0, prior_mu=prior, prior_logvar=0.0, free_bits=0.5)
    assert kl.tolist() == [2.5]
    dmu, dprior = torch.autograd.grad(kl.sum(), (mu, prior))
    assert dmu.tolist() == [[0.0, 2.0]] and dprior.tolist() == [[0.0, -2.0]]


@pytest.mark.parametrize("shapes", [((2, 4, 2, 3), ()), ((), (5, 1, 1, 1)), ((4, 2, 3, 1), ())], ids=str)
def test_a_prior_that_would_enlarge_the_shape(shapes):
    with pytest.raises(ValueError, match="prior"):
        fused("plain")(*inputs(prior_shapes=shapes))
    narrow = [torch.zeros(1, 3), torch.zeros(3), torch.zeros(5, 3), torch.zeros(3)]
    with pytest.raises(ValueError, match=r"the prior makes the shape of mu and logvar, \(1, 3\), into \(5, 3\)"):
        fused("plain")(*narrow)


def test_a_prior_that_does_not_broadcast():
    with pytest.raises(ValueError, match="do not broadcast"):
        fused("plain")(*inputs(prior_shapes=((5,), ())))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_wider_prior(dtype):
    """The divergence is computed in float64, with nothing rounded; the sample is of its moments' dtype."""
    mu, r, *prior = [*inputs(dtype)[:2], *inputs(torch.float64)[2:]]
    z, kl, *grads = with_grads(fused("plain"), mu, r, *prior)
    assert z.dtype == dtype and kl.dtype == torch.float64
    assert [g.dtype for g in grads] == [dtype, dtype, torch.float64, torch.float64]
    wide = with_grads(fused("plain"), mu.double(), r.double(), *prior)
    eps = torch.finfo(dtype).eps
    assert_close(kl, wide[1])
    assert_close(grads[2:], list(wide[4:]))
    assert_close([t.double() for t in (z, *grads[:2])], [wide[0], *wide[2:4]], rtol=4 * eps, atol=8 * eps)


def test_a_narrower_prior():
    mu, r, *prior = [*inputs(torch.float64)[:2], *inputs(torch.float32)[2:]]
    got, want = (with_grads(f("plain"), mu, r, *prior) for f in (fused, apart))
    assert [t.dtype for t in got] == [torch.float64] * 4 + [torch.float32] * 2
    assert_close(got, want)


def test_noise_is_not_saved():
    tensors = [t.requires_grad_() for t in RSAMPLE_KL_PRIOR.draw((50, 4))]
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        vf.rsample_kl(*tensors[:2], 3, prior_mu=tensors[2], prior_logvar=tensors[3])
    assert sorted(t.numel() for t in saved) == [200] * 4


def test_compiled():
    tensors = inputs(torch.float32)
    f = fused("of_another_form")
    assert_close(with_grads(compiled(f), *tensors), with_grads(f, *tensors), rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("case", ["plain", "bounds"])
def test_second_derivatives(case):
    """Of both results together, and of the two operators beside each other."""
    tensors = tuple(inputs(shape=(2, 2), prior_shapes=((2, 2), (2,))))

    def total(f):
        options = CASES[case] | {"event_ndim": 1}

        def value(mu, r, *prior):
            if f is fused:
                outs = vf.rsample_kl(mu, r, prior_mu=prior[0], prior_logvar=prior[1], seed=3, **options)
            else:
                bounds = {k: v for k, v in options.items() if k.startswith("bounds")}
                outs = vf.rsample(mu, r, seed=3, **bounds), vf.gaussian_kl(mu, r, *prior, **options)
            return sum((out**2).sum() for out in outs)

        return value

    got, want = (torch.autograd.functional.hessian(total(f), tensors) for f in (fused, apart))
    assert_close(got, want)
