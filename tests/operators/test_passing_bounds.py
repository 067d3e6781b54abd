"""``bounds_grad="pass"``: outside its bounds an argument of σ has the gradient of the value at the bound."""

import itertools

import pytest
import torch
from torch.testing import assert_close

import vae_fast as vf
from helpers.behaviour import as_tuple, sigma_of, with_grads
from helpers.calls import CALLS, GAUSSIAN, LOG_PROBS, RSAMPLE, same_bits
from helpers.cases import PARAMS
from helpers.marks import each_backend
from helpers.published import assert_published, epsilon, passing_clamp
from vae_fast.distributions import DiagonalNormal

pytestmark = each_backend

SHAPE, BOUNDS = (6, 3), (0.3, 1.1)
each_gaussian = pytest.mark.parametrize("call", [c for c in CALLS if c.has("bounds")], ids=str)
each_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)


def inputs(call, dtype=torch.float64, shape=SHAPE):
    """A third of the arguments of σ below the bounds, within and above."""
    drawn = [t.detach() for t in call.draw(shape, torch.float64)]
    scales = [name.endswith("logvar") for name in call.operands]
    return [(0.1 + 1.5 * torch.rand_like(t) if s else t).to(dtype) for t, s in zip(drawn, scales, strict=True)]


def normal(mean, raw, param="logvar", clamp=passing_clamp):
    return torch.distributions.Normal(mean, sigma_of(param, 0.0)(clamp(raw, *BOUNDS)), validate_args=False)


def published(call, param="logvar"):
    """The textbook's, of a clamp that passes gradients."""
    eps = epsilon(SHAPE, seed=7)

    def kl(mu, raw, prior_mu=None, prior_raw=None):
        one = torch.distributions.Normal(torch.zeros_like(mu), torch.ones_like(mu))
        prior = one if prior_mu is None else normal(prior_mu, prior_raw, param)
        return torch.distributions.kl_divergence(normal(mu, raw, param), prior).sum(-1)

    def sample(mu, raw, *prior):
        q = normal(mu, raw, param)
        z = mu + q.scale * eps[: len(mu)]
        if call in LOG_PROBS:
            p = normal(*prior, param) if prior else torch.distributions.Normal(torch.zeros_like(mu), 1.0)
            return z, q.log_prob(z).sum(-1), p.log_prob(z).sum(-1)
        return (z,) if call is RSAMPLE else (z, kl(mu, raw, *prior))

    def log_prob(mean, raw, x):
        return normal(mean, raw, param).log_prob(x).sum(-1)

    return log_prob if call is GAUSSIAN else kl if call.density else sample


@each_gaussian
@each_dtype
@pytest.mark.parametrize("param", PARAMS)
def test_published(call, dtype, param):
    options = {"param": param, "bounds": BOUNDS, "bounds_grad": "pass"}
    compile = (dtype, param) == (torch.bfloat16, "softplus") and call in (RSAMPLE, GAUSSIAN)
    assert_published(lambda *t: call(*t, **options), published(call, param), *inputs(call, dtype), compile=compile)


@each_gaussian
def test_derivatives_of_the_second_order(call):
    tensors = tuple(inputs(call, shape=(2, 3)))

    def value(*t):
        return sum((out**2).sum() for out in call(*t, bounds=BOUNDS, bounds_grad="pass"))

    def formula(*t):
        return sum((out**2).sum() for out in as_tuple(published(call)(*t)))

    want = torch.autograd.functional.hessian(formula, tensors)
    assert_close(torch.autograd.functional.hessian(value, tensors), want)


@each_gaussian
def test_forward_mode_and_vmap(call):
    """Of the composite path, which transforms see."""
    tensors = tuple(inputs(call))
    tangents = tuple(torch.randn_like(t) for t in tensors)

    def f(*t):
        return call(*t, bounds=BOUNDS, bounds_grad="pass")

    formula = published(call)
    got, want = (torch.func.jvp(g, tensors, tangents) for g in (f, formula))
    for ours, theirs in zip(got, want, strict=True):
        assert_close(ours, theirs if isinstance(theirs, tuple) else (theirs,))
    if not call.density:
        return  # each row of a mapped sample draws the noise of the first
    grads = torch.func.vmap(torch.func.grad(lambda *t: f(*t)[0].sum(), tuple(range(len(tensors)))))(*tensors)
    assert_close(grads, with_grads(formula, *tensors)[1:])


@each_gaussian
def test_zero_is_the_default(call):
    tensors = [t.requires_grad_() for t in inputs(call, torch.float32)]
    default = call.with_grads(*tensors, bounds=BOUNDS)
    assert same_bits(call.with_grads(*tensors, bounds=BOUNDS, bounds_grad="zero"), default)
    k = call.operands.index("logvar")
    *_, grads = default[: -len(tensors)], default[-len(tensors) :]
    outside = (tensors[k] < BOUNDS[0]) | (tensors[k] > BOUNDS[1])
    assert bool((grads[k][outside] == 0).all()) and bool((grads[k][~outside] != 0).any())
    passing = call.with_grads(*tensors, bounds=BOUNDS, bounds_grad="pass")[-len(tensors) :]
    # At one bound with its prior σ is σp, and the slope of a KL is 0.
    assert bool((passing[k][outside] != 0).any())
    assert_close(passing[k][~outside], grads[k][~outside], rtol=2e-6, atol=2e-6)
    for i, (ours, theirs) in enumerate(zip(passing, grads, strict=True)):
        assert call.operands[i].endswith("logvar") or same_bits([ours], [theirs])


@each_gaussian
def test_without_bounds_it_says_nothing(call):
    tensors = [t.requires_grad_() for t in inputs(call, torch.float32)]
    assert same_bits(call.with_grads(*tensors, bounds_grad="pass"), call.with_grads(*tensors))


@each_gaussian
@pytest.mark.parametrize("wrong", ["none", 1, None, True])
def test_unknown(call, wrong):
    with pytest.raises(ValueError, match="bounds_grad must be one of 'zero', 'pass'"):
        call(*inputs(call), bounds=BOUNDS, bounds_grad=wrong)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("eps", [1e-6, 0.3])
def test_gaussian_nll_loss(dtype, full, eps):
    """nn.GaussianNLLLoss in its place: loss, gradients, and those of the second order."""
    mean, x = torch.randn(8, 3), torch.randn(8, 3)
    var = torch.rand(8, 3) * torch.tensor([[1.0], [1e-9]]).repeat(4, 1)
    tensors = [t.to(dtype) for t in (mean, var, x)]
    constant = 0.0 if full else 0.5 * torch.log(torch.tensor(2 * torch.pi, dtype=torch.float64)).item()
    form = {"param": "var", "bounds": (eps, None), "bounds_grad": "pass"}
    for reduction, event_ndim in itertools.product(("mean", "sum", "none"), (0, 1)):
        if (reduction, event_ndim) in (("mean", 1), ("none", 1)):
            continue  # a mean over elements there, over data here
        theirs = torch.nn.GaussianNLLLoss(full=full, eps=eps, reduction=reduction)
        options = {"reduction": reduction, "scale": -1.0, "event_ndim": event_ndim, **form}

        def loss(m, v, t, options=options):
            n = m.numel() if options["reduction"] == "sum" else 1
            return vf.gaussian_log_prob(m, v, t, **options) - n * constant

        def published(m, v, t, theirs=theirs):
            return theirs(m, t, v)

        got, want = with_grads(loss, *tensors), with_grads(published, *(t.double() for t in tensors))
        rtol = 1e-12 if dtype == torch.float64 else 1e-5
        for ours, truth in zip(got, want, strict=True):
            assert_close(ours.double(), truth, rtol=rtol, atol=rtol * float(truth.abs().max()))
    if dtype == torch.float64 and eps == 0.3:
        second = [
            torch.autograd.functional.hessian(lambda *t, f=f: f(*t).sum(), (*tensors,)) for f in (loss, published)
        ]
        assert_close(*second)


def test_weights_and_bounds():
    """A weight of 0 hides the element from a bound that passes gradients too."""
    mean, raw, x = inputs(GAUSSIAN)
    weight = torch.rand(SHAPE, dtype=torch.float64)
    weight[::2] = 0.0

    def ours(*t):
        return vf.gaussian_log_prob(*t[:3], weight=t[3], bounds=BOUNDS, bounds_grad="pass")

    def formula(mean, raw, x, weight):
        return (weight * normal(mean, raw).log_prob(x)).sum(-1)

    got = with_grads(ours, mean, raw, x, weight)
    assert_close(got, with_grads(formula, mean, raw, x, weight))
    assert bool((got[2][::2] == 0).all())


def test_normal():
    loc, raw = torch.randn(SHAPE), torch.rand(SHAPE) * 1.5
    x = torch.randn(SHAPE)

    def drop_in(loc, raw):
        d = DiagonalNormal(loc, raw, param="logvar", bounds=BOUNDS, bounds_grad="pass")
        one = torch.distributions.kl_divergence(d, DiagonalNormal(0.0, 1.0, 0).expand(SHAPE).to_event(1))
        return d.rsample(seed=3), d.log_prob(x), d.entropy(), d.variance, one

    def formula(loc, raw):
        n = normal(loc, raw)
        one = torch.distributions.Normal(0.0, 1.0)
        kl = torch.distributions.kl_divergence(n, one).sum(-1)
        z = loc + n.scale * epsilon(SHAPE, seed=3)
        return z, n.log_prob(x.double()).sum(-1), n.entropy().sum(-1), n.variance, kl

    assert_published(drop_in, formula, loc, raw)
    d = DiagonalNormal(loc, raw, param="logvar", bounds=BOUNDS, bounds_grad="pass", validate_args=False)
    assert "bounds_grad='pass'" in repr(d)
    again = d.expand((2, 6))
    assert_close(again.rsample(seed=1).shape, (2, 6, 3))
