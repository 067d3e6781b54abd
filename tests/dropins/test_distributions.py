"""The drop-in distributions against torch.distributions' own, whose published test cases these restate."""

import copy
import itertools
import math
import pickle

import mpmath
import pytest
import scipy.special
import scipy.stats
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.distributions import Bernoulli, Categorical, Independent, MixtureSameFamily, Normal, constraints

import vae_fast as vf
from vae_fast import front
from vae_fast.distributions import BernoulliVector, DiagonalNormal
from vae_fast.ops import autograd

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def validated(monkeypatch):
    """As PyTorch starts: torch.compile turns validation off for the whole process."""
    monkeypatch.setattr(torch.distributions.Distribution, "_validate_args", True)


# What σ is of the second argument, in PyTorch's words.
SIGMAS = {
    "std": lambda r: r,
    "logvar": lambda r: (0.5 * r).exp(),
    "logstd": lambda r: r.exp(),
    "var": lambda r: r.sqrt(),
    "softplus": torch.nn.functional.softplus,
}
FORMS = [
    *({"param": param} for param in SIGMAS),
    {"param": "softplus", "param_eps": 1e-2},
    {"param": "std", "param_eps": 0.5},
    {"param": "logvar", "bounds": (-0.5, 0.5)},
]
# loc, scale, event_ndim.
SHAPES = [
    ((2, 3), (2, 3), 1),
    ((2, 3), (3,), 1),
    ((2, 3), (2, 1), 2),
    ((3,), (2, 3), 1),
    ((2, 3, 5), (2, 3, 5), 3),
    ((4, 2, 3, 5), (), 3),
    ((5,), (5,), 0),
]


def sigma(raw, param="std", param_eps=0.0, bounds=None):
    raw = raw if bounds is None else raw.clamp(*bounds)
    return SIGMAS[param](raw + param_eps if param == "var" else raw) + (param_eps if param != "var" else 0.0)


def gaussian_pair(loc_shape=(2, 3), scale_shape=(2, 3), event_ndim=1, dtype=torch.float64, **form):
    """Ours and PyTorch's of the same leaves, and the leaves."""
    loc = torch.randn(loc_shape, dtype=dtype, requires_grad=True)
    raw = torch.randn(scale_shape, dtype=dtype)
    if form.get("param", "std") in ("std", "var"):
        raw = raw.exp()
    raw.requires_grad_()
    theirs = Independent(Normal(loc, sigma(raw, **form)), event_ndim)
    return DiagonalNormal(loc, raw, event_ndim, **form), theirs, (loc, raw)


def bernoulli_pair(shape=(2, 3), event_ndim=1, name="logits", dtype=torch.float64):
    leaf = torch.randn(shape, dtype=dtype)
    leaf = (leaf if name == "logits" else leaf.sigmoid()).requires_grad_()
    return (
        BernoulliVector(**{name: leaf}, event_ndim=event_ndim),
        Independent(Bernoulli(**{name: leaf}), event_ndim),
        (leaf,),
    )


def pairs():
    for form in FORMS:
        yield pytest.param(lambda form=form: gaussian_pair(**form), id=f"{form}")
    for shapes in SHAPES:
        yield pytest.param(lambda shapes=shapes: gaussian_pair(*shapes), id=f"std-{shapes}")
    for name, (shape, event_ndim) in itertools.product(
        ("logits", "probs"), [((2, 3), 1), ((2, 3, 5), 3), ((2, 3, 5), 2), ((4,), 0)]
    ):
        yield pytest.param(
            lambda a=(shape, event_ndim, name): bernoulli_pair(*a), id=f"{name}-{shape}-{event_ndim}"
        )


PAIRS = list(pairs())


def assert_same(ours, theirs, leaves, names=""):
    """Values and the gradient of every leaf, for random upstream gradients.

    Both are float64 of order 1 to 100, and a few roundings of either are 1e-14 of that.
    """
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype, names
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    if not theirs.requires_grad:
        return
    upstream = torch.randn_like(theirs)
    graph = dict(retain_graph=True, allow_unused=True, materialize_grads=True)
    got = torch.autograd.grad(ours, leaves, upstream, **graph)
    expected = torch.autograd.grad(theirs, leaves, upstream, **graph)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def value_of(d, shape):
    value = torch.randn(shape, dtype=torch.float64)
    return (value > 0).double() if isinstance(d, BernoulliVector) else value.requires_grad_()


# ---- shapes, moments, densities ---------------------------------------------------------------------------


@pytest.mark.parametrize("pair", PAIRS)
def test_shapes_and_moments(pair):
    ours, theirs, leaves = pair()
    assert ours.batch_shape == theirs.batch_shape and ours.event_shape == theirs.event_shape
    assert ours.has_rsample is theirs.has_rsample and ours.has_enumerate_support is theirs.has_enumerate_support
    assert ours.support.event_dim == theirs.support.event_dim == ours.event_ndim
    assert ours.support.is_discrete is theirs.support.is_discrete
    for name in ("mean", "variance", "stddev"):
        assert_same(getattr(ours, name), getattr(theirs, name), leaves, name)
    torch.testing.assert_close(ours.mode, theirs.mode, equal_nan=True)
    for shape in ((), (6,), (3, 2), (0,)):
        sample = ours.sample(shape)
        assert sample.shape == theirs.sample(shape).shape and sample.dtype == torch.float64
        assert not sample.requires_grad


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("cut", ["samples", "whole", "event", "ones"])
def test_log_prob_and_every_gradient(pair, cut):
    ours, theirs, leaves = pair()
    whole = ours.batch_shape + ours.event_shape
    shape = {
        "samples": (4, 1, *whole),
        "whole": whole,
        "event": ours.event_shape,
        "ones": (1,) * len(ours.batch_shape) + ours.event_shape,
    }[cut]
    value = value_of(ours, shape)
    leaves = (*leaves, value) if value.requires_grad else leaves
    assert_same(ours.log_prob(value), theirs.log_prob(value), leaves)


@pytest.mark.parametrize("pair", PAIRS)
def test_entropy_and_perplexity(pair):
    ours, theirs, leaves = pair()
    assert_same(ours.entropy(), theirs.entropy(), leaves)
    assert_same(ours.perplexity(), theirs.perplexity(), leaves)


def test_entropy_does_not_see_loc():
    d = DiagonalNormal(torch.tensor([math.nan, 0.0]), torch.ones(2), validate_args=False)
    torch.testing.assert_close(d.entropy(), torch.tensor(math.log(2 * math.pi * math.e)))


def test_published_bernoulli_entropies():
    p = torch.tensor([0.7, 0.2, 0.4])
    expected = torch.tensor([0.6108, 0.5004, 0.6730])
    torch.testing.assert_close(BernoulliVector(p, event_ndim=0).entropy(), expected, atol=1e-4, rtol=0.0)
    # 1 − ε, clamped as torch.distributions does: at most ε(1 + log 1/ε) is left of it.
    assert 0 <= BernoulliVector(torch.tensor([0.0])).entropy() < 1e-6


@pytest.mark.parametrize("event_ndim", [0, 1, 2])
def test_float32_is_as_near_the_truth_as_pytorch(event_ndim):
    """Worst error against float64 of the same operands, in units of ε·Σ|terms|; ours at most max(PyTorch's, 3)."""
    loc, raw, x = (10 * torch.randn(64, 32) for _ in range(3))
    scale = raw.abs() + 0.1
    truth = Independent(Normal(loc.double(), scale.double()), event_ndim).log_prob(x.double())
    squares = 0.5 * ((x - loc) / scale).double() ** 2
    terms = squares + scale.double().log().abs() + 0.5 * math.log(2 * math.pi)
    unit = torch.finfo(torch.float32).eps * (terms.sum(tuple(range(-event_ndim, 0))) if event_ndim else terms)
    errors = [
        ((d.log_prob(x).double() - truth).abs() / unit).max()
        for d in (DiagonalNormal(loc, scale, event_ndim), Independent(Normal(loc, scale), event_ndim))
    ]
    # σ is given in float32, so that log σ² and 1/σ² are two more roundings: 4 units more in the table of bars.
    assert errors[0] <= max(errors[1], 3 + 4), errors


@pytest.mark.parametrize("shape", [(), (7,), (2, 5)])
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_rsample_is_loc_and_sigma_times_the_noise(form, shape):
    ours, theirs, leaves = gaussian_pair((4, 1, 3), (2, 3), **form)
    noise = [vf.standard_normal((4, 2, 3), seed=9, sample=k, dtype=torch.float64) for k in range(math.prod(shape))]
    eps = torch.stack(noise).reshape(*shape, 4, 2, 3)
    assert_same(ours.rsample(shape, seed=9), theirs.mean + theirs.stddev * eps, leaves)
    assert torch.equal(ours.sample(shape, seed=9), ours.rsample(shape, seed=9))


def test_samples_follow_pytorchs_generators():
    d = DiagonalNormal(torch.zeros(3), torch.ones(3))
    torch.manual_seed(3)
    first, second = d.rsample(), d.rsample()
    torch.manual_seed(3)
    assert torch.equal(first, d.rsample()) and not torch.equal(first, second)
    g = [torch.Generator().manual_seed(4) for _ in range(2)]
    assert torch.equal(d.sample((2,), generator=g[0]), d.sample((2,), generator=g[1]))
    b = BernoulliVector(torch.full((64,), 0.5))
    assert torch.equal(b.sample(generator=g[0]), b.sample(generator=g[1]))
    assert not torch.equal(b.sample(generator=g[0]), b.sample())
    whole = DiagonalNormal(torch.zeros(4, 3), 1.0).sample((3,), seed=1)
    assert torch.equal(DiagonalNormal(torch.zeros(2, 3), 1.0).sample((3,), seed=1, offset=6), whole[:, 2:])
    assert torch.equal(DiagonalNormal(torch.zeros(4, 3), 1.0).sample((2,), seed=1, first_sample=1), whole[1:])


def test_gradients_of_a_sample():
    loc, scale = torch.randn(5, 5, requires_grad=True), torch.rand(5, 5, requires_grad=True)
    DiagonalNormal(loc, scale).rsample(seed=5).sum().backward()
    assert torch.equal(loc.grad, torch.ones(5, 5))
    assert torch.equal(scale.grad, vf.standard_normal((5, 5), seed=5))


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_gradcheck(form):
    _, _, (loc, raw) = gaussian_pair((2, 3), (3,), **form)
    x = torch.randn(4, 2, 3, dtype=torch.float64, requires_grad=True)

    def f(loc, raw, x):
        d = DiagonalNormal(loc, raw, validate_args=False, **form)
        return d.log_prob(x), d.entropy(), d.rsample((2,), seed=1), d.scale

    assert gradcheck(f, (loc, raw, x))


# ---- samples: statistics, each failing by chance once in a million ------------------------------------------


@pytest.mark.parametrize("loc, scale", list(itertools.product([-1.0, 0.0, 1.0], [0.1, 1.0, 10.0])))
def test_normal_samples(loc, scale):
    d = DiagonalNormal(torch.full((10,), loc), scale)
    samples = d.sample((5000,)).double().flatten().numpy()
    assert scipy.stats.kstest(samples, "norm", (loc, scale)).pvalue > 1e-6


def test_a_tiny_scale():
    d = DiagonalNormal(torch.tensor([1.0, 0.0]), torch.tensor([1e-5, 1e-5]))
    torch.testing.assert_close(d.sample((1, 2)), torch.tensor([1.0, 0.0]).expand(1, 2, 2), atol=1e-4, rtol=0.0)


@pytest.mark.parametrize("name", ["logits", "probs"])
def test_bernoulli_samples(name):
    p = torch.tensor([0.7, 0.2, 0.4, 0.0, 1.0])
    d = BernoulliVector(**{name: p if name == "probs" else p.logit()}, validate_args=False)
    n = 20_000
    samples = d.sample((n,))
    assert set(samples.unique().tolist()) == {0.0, 1.0} and not samples.requires_grad
    for count, q in zip(samples.sum(0).tolist(), p.tolist(), strict=True):
        assert scipy.stats.binomtest(int(count), n, q).pvalue > 1e-6


@pytest.mark.parametrize("pair", [gaussian_pair, bernoulli_pair])
def test_entropy_by_monte_carlo(pair):
    d, _, _ = pair()
    information = -d.log_prob(d.sample((20_000,))).detach()
    # Five standard errors of the mean: 6e-7 for each of two.
    assert ((information.mean(0) - d.entropy()).abs() < 5 * information.std(0) / math.sqrt(20_000)).all()


def test_moments_by_monte_carlo():
    d, _, _ = gaussian_pair(param="softplus")
    samples = d.sample((50_000,))
    error = d.stddev.detach() / math.sqrt(50_000)
    # Five standard errors; that of a variance is √2 σ²/√n.
    assert ((samples.mean(0) - d.mean).abs() < 5 * error).all()
    assert ((samples.var(0) - d.variance).abs() < 5 * math.sqrt(2) * d.stddev * error).all()


@pytest.mark.parametrize("param", SIGMAS)
def test_the_mode_is_the_most_likely(param):
    d, _, _ = gaussian_pair(param=param)
    for step in (-0.1, 0.1):
        assert (d.log_prob(d.mode) > d.log_prob(d.mode + step * d.stddev)).all()
    b = BernoulliVector(torch.tensor([0.1, 0.9, 0.5]), event_ndim=0)
    torch.testing.assert_close(b.mode, torch.tensor([0.0, 1.0, math.nan]), equal_nan=True)


# ---- expand, to_event, subclasses ---------------------------------------------------------------------------


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("lead", [(), (2,), (3, 1)])
def test_expand(pair, lead):
    ours, theirs, leaves = pair()
    shape = torch.Size(lead) + ours.batch_shape
    a, b = ours.expand(shape), theirs.expand(shape)
    assert type(a) is type(ours) and a.batch_shape == shape and a.event_shape == ours.event_shape
    value = value_of(ours, shape + ours.event_shape)
    for d, e in ((a, b), (a.expand((7, *shape)), b.expand((7, *shape)))):
        assert d.sample((2,)).shape == e.sample((2,)).shape
        torch.testing.assert_close(d.log_prob(value), e.log_prob(value))
    assert_same(a.log_prob(value), b.log_prob(value), leaves)
    assert_same(a.entropy(), b.entropy(), leaves)
    assert_same(a.mean, b.mean, leaves)
    if ours.batch_shape:
        with pytest.raises(RuntimeError):
            ours.expand((*shape[:-1], 11))


def test_what_is_expanded_is_drawn_independently():
    d = DiagonalNormal(torch.zeros(3), torch.ones(3)).expand((2,))
    first, second = d.rsample()
    assert not torch.equal(first, second)
    assert not torch.equal(*BernoulliVector(torch.full((64,), 0.5)).expand((2,)).sample())


@pytest.mark.parametrize("pair", [gaussian_pair, bernoulli_pair])
def test_subclasses_expand(pair):
    d, _, leaves = pair()
    cls, arguments = type(d), dict(zip(("logits",) if len(leaves) == 1 else ("loc", "scale"), leaves, strict=True))

    class Sub(cls):
        pass

    class Custom(cls):
        def __init__(self, *args):
            super().__init__(**arguments)

    assert type(Sub(**arguments).expand((2, 2))) is Sub
    with pytest.raises(NotImplementedError):
        Custom().expand((2, 2))
    filled = Custom.__new__(Custom)
    assert Custom().expand((2, 2), _instance=filled) is filled and filled.batch_shape == (2, 2)
    assert Sub(**arguments, validate_args=False).expand((2, 2))._validate_args is False


def test_to_event():
    loc, scale = torch.randn(4, 2, 3), torch.rand(3) + 0.1
    x = torch.randn(4, 2, 3)
    d = DiagonalNormal(loc, scale, 0)
    for n in range(4):
        e = d.to_event(n)
        assert e.event_ndim == n and e.event_shape == loc.shape[3 - n :] and e.batch_shape == loc.shape[: 3 - n]
        torch.testing.assert_close(e.log_prob(x), Independent(Normal(loc, scale), n).log_prob(x))
        assert e.to_event(-n).event_shape == () and e.to_event(0) is e
    assert d.to_event().batch_shape == () and d.event_ndim == 0
    for n in (4, -1):
        with pytest.raises(ValueError, match="to_event"):
            d.to_event(n)


def test_in_a_mixture():
    weights, x = Categorical(torch.ones(4)), torch.randn(7, 3)
    loc, scale = torch.randn(4, 3), torch.rand(4, 3) + 0.1
    ours = MixtureSameFamily(weights, DiagonalNormal(loc, scale))
    theirs = MixtureSameFamily(weights, Independent(Normal(loc, scale), 1))
    torch.testing.assert_close(ours.log_prob(x), theirs.log_prob(x))
    torch.testing.assert_close(ours.variance, theirs.variance)
    assert ours.sample((2,)).shape == (2, 3)


# ---- arguments and validation -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "cls, arguments",
    [
        (DiagonalNormal, {"loc": torch.tensor([0.0, math.nan]), "scale": 1.0}),
        (DiagonalNormal, {"loc": torch.zeros(2), "scale": torch.tensor([1.0, -1.0])}),
        (DiagonalNormal, {"loc": torch.zeros(2), "scale": torch.tensor([1.0, 0.0])}),
        (DiagonalNormal, {"loc": torch.zeros(2), "scale": -1.0}),
        (DiagonalNormal, {"loc": torch.zeros(2), "scale": torch.tensor([0.0, math.nan]), "param": "logvar"}),
        (BernoulliVector, {"probs": torch.tensor([0.5, 1.1])}),
        (BernoulliVector, {"probs": torch.tensor([0.5, -0.1])}),
        (BernoulliVector, {"logits": torch.tensor([0.0, math.nan])}),
    ],
)
def test_parameters_are_validated_as_pytorch_does(cls, arguments, monkeypatch):
    with pytest.raises(ValueError, match="to satisfy the constraint"):
        cls(**arguments)
    cls(**arguments, validate_args=False)
    monkeypatch.setattr(torch.distributions.Distribution, "_validate_args", False)
    cls(**arguments)
    with pytest.raises(ValueError, match="to satisfy the constraint"):
        cls(**arguments, validate_args=True)


@pytest.mark.parametrize("pair", [gaussian_pair, bernoulli_pair])
def test_values_are_validated_as_pytorch_does(pair):
    ours, theirs, _ = pair((4, 3)) if pair is bernoulli_pair else pair((4, 3), (4, 3))
    bad = [torch.full((4, 3), math.nan), torch.zeros(4, 2), torch.zeros(5, 3), 0.5]
    bad += [torch.full((4, 3), 0.5)] if pair is bernoulli_pair else []
    for value in bad:
        for d in (ours, theirs, ours.expand((2, 4))):
            with pytest.raises(ValueError):
                d.log_prob(value)
    for d in (ours, ours.expand((2, 4))):
        # Independent broadcasts a value along its event; a vector's own event shape is a distribution's rule.
        with pytest.raises(ValueError, match="must match event_shape"):
            d.log_prob(torch.zeros(4, 1))
    free = BernoulliVector(logits=torch.zeros(3), validate_args=False)
    torch.testing.assert_close(free.log_prob(torch.full((3,), 0.5)), torch.tensor(-3 * math.log(2)))


def test_the_support():
    d, _, _ = gaussian_pair()
    assert d.support.check(torch.zeros(2, 3)).all() and not d.support.check(torch.full((3,), math.nan))
    assert DiagonalNormal(0.0, 1.0, 0).support is constraints.real
    b, _, _ = bernoulli_pair()
    assert b.support.check(torch.ones(3)) and not b.support.check(torch.full((3,), 0.5))


def test_numbers():
    d = DiagonalNormal(0.2, 0.6, 0)
    assert d.batch_shape == () and d.sample().shape == () and d.sample((1,)).shape == (1,)
    assert d.loc == torch.tensor(0.2) and d.scale == torch.tensor(0.6)
    torch.testing.assert_close(d.log_prob(torch.ones(3)), Normal(0.2, 0.6).log_prob(torch.ones(3)))
    e = DiagonalNormal(1.0, torch.full((3,), 2.0, dtype=torch.float64))
    assert e.batch_shape == () and e.sample().dtype == torch.float64 and torch.equal(e.loc, torch.ones(3).double())
    f = DiagonalNormal(torch.zeros(2, 3), -2.0, param="logvar")
    torch.testing.assert_close(f.scale, torch.full((2, 3), math.exp(-1.0)))
    assert BernoulliVector(0.3, event_ndim=0).sample((2, 3)).shape == (2, 3)
    torch.testing.assert_close(BernoulliVector(logits=0.0, event_ndim=0).entropy(), torch.tensor(math.log(2)))


def test_arguments_that_do_not_fit():
    with pytest.raises(ValueError, match="loc of shape .* scale of shape"):
        DiagonalNormal(torch.zeros(2, 3), torch.ones(4))
    with pytest.raises(ValueError, match="event_ndim=2"):
        DiagonalNormal(torch.zeros(3), torch.ones(3), 2)
    with pytest.raises(ValueError, match="event_ndim=1"):
        BernoulliVector(0.5)
    with pytest.raises(ValueError, match="param"):
        DiagonalNormal(torch.zeros(3), torch.ones(3), param="precision")
    with pytest.raises(TypeError, match="scale must be a dense tensor"):
        DiagonalNormal(torch.zeros(3), torch.ones(3, dtype=torch.int64))
    with pytest.raises(TypeError, match="loc must be a number"):
        DiagonalNormal("0", 1.0)
    with pytest.raises(TypeError, match="logits must be a dense tensor"):
        BernoulliVector(logits=torch.zeros(3, dtype=torch.complex64))
    for arguments in ({}, {"probs": torch.ones(2), "logits": torch.ones(2)}):
        with pytest.raises(ValueError, match="either probs or logits"):
            BernoulliVector(**arguments)
    with pytest.raises(NotImplementedError, match="reparameterised"):
        BernoulliVector(torch.ones(2)).rsample()


def test_repr():
    d = DiagonalNormal(torch.zeros(2, 3), torch.ones(3), param="softplus", param_eps=0.1)
    assert repr(d) == "DiagonalNormal(loc: (2, 3), scale: (3,), 1, param='softplus', param_eps=0.1)"
    assert "logits: torch.Size([3])" in repr(BernoulliVector(logits=torch.zeros(3)))


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int32, torch.int64, torch.float16])
def test_values_of_any_dtype(dtype):
    b, n = BernoulliVector(logits=torch.randn(2, 3)), DiagonalNormal(torch.randn(2, 3), 1.5)
    x = torch.tensor([[0, 1, 0], [1, 1, 0]])
    for d in (b, n):
        assert torch.equal(d.log_prob(x.to(dtype)), d.log_prob(x.float()))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types(dtype):
    loc, scale = torch.randn(2, 3, dtype=dtype), torch.rand(2, 3, dtype=dtype) + 0.5
    d, single = DiagonalNormal(loc, scale), Independent(Normal(loc.float(), scale.float()), 1)
    assert d.rsample().dtype == d.scale.dtype == dtype
    x = torch.randn(2, 3).to(dtype)
    assert d.log_prob(x).dtype == torch.float32
    torch.testing.assert_close(d.log_prob(x), single.log_prob(x.float()))
    torch.testing.assert_close(d.entropy(), single.entropy())


# ---- Bernoulli's own ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bernoulli_in_the_tails(dtype):
    """torch.distributions' published values and gradients, 0 and 1 as probabilities and large logits included."""
    eps = torch.finfo(dtype).eps
    for name, at, x, value, gradient in [
        ("probs", 0.0, 0.0, 0.0, 0.0),
        ("probs", 0.0, 1.0, math.log(eps), 0.0),
        ("probs", 1e-4, 1.0, math.log(1e-4), 1e4),
        ("probs", 1 - 1e-4, 0.0, math.log(1e-4), -1e4),
        ("probs", 1.0, 0.0, math.log(eps), 0.0),
        ("logits", math.inf, 1.0, 0.0, 0.0),
        ("logits", math.log(9999.0), 0.0, -math.log(1e4), -0.9999),
        ("logits", 1e3, 1.0, 0.0, 0.0),
        ("logits", -1e3, 1.0, -1e3, 1.0),
        ("logits", 88.0, 0.0, -88.0, -1.0),
    ]:
        leaf = torch.tensor([at], dtype=dtype, requires_grad=True)
        log_prob = BernoulliVector(**{name: leaf}).log_prob(torch.tensor([x], dtype=dtype))
        log_prob.backward()
        # 1 − 1e-4 in float32 has 6e-8 · 1e4 of its complement left as error.
        torch.testing.assert_close(log_prob.item(), value, rtol=1e-3, atol=1e-6)
        torch.testing.assert_close(leaf.grad.item(), gradient, rtol=1e-3, atol=1e-6)


def test_a_tail_that_pytorch_loses():
    logits, x = torch.tensor([-15.0]), torch.zeros(1)
    truth = Bernoulli(logits=logits.double()).log_prob(x.double()).float()
    assert Bernoulli(logits=logits).log_prob(x) == 0
    torch.testing.assert_close(BernoulliVector(logits=logits).log_prob(x), truth[0], rtol=3e-7, atol=0.0)


@pytest.mark.parametrize("given, other", [("logits", "probs"), ("probs", "logits")])
def test_the_other_parameter_is_lazy(given, other):
    d, theirs, (leaf,) = bernoulli_pair(name=given)
    assert given in vars(d) and other not in vars(d)
    assert other not in vars(d.expand((4, 2)))
    assert_same(getattr(d, other), getattr(theirs.base_dist, other), (leaf,))
    assert other in vars(d) and other in vars(d.expand((4, 2)))
    with torch.no_grad():
        e, _, _ = bernoulli_pair(name=given)
        # As in torch.distributions: its graph is there however it was first asked for.
        assert getattr(e, other).requires_grad


def asks(d):
    """All that a training step may ask of a distribution, but for its other parameter."""
    d.mode, d.variance, d.stddev, d.support, d.param_shape, d.expand((4, *d.batch_shape)), d.to_event()
    d.entropy(), d.perplexity(), repr(d), d.enumerate_support()
    for p, q in ((d, d), (d, Bernoulli(0.3)), (Bernoulli(logits=0.3), d)):
        torch.distributions.kl_divergence(p, q)


@pytest.mark.parametrize("given, other", [("logits", "probs"), ("probs", "logits")])
def test_what_is_not_asked_for_is_not_computed(given, other):
    """PyTorch's published cases of both lazy parameters, and everything else that can do with the one given."""
    d, theirs, _ = bernoulli_pair(event_ndim=0, name=given)
    asks(d)
    (d.log_prob if given == "logits" else lambda x: x)(torch.ones(2, 3))
    (d.sample if given == "probs" else lambda: None)()
    assert other not in vars(d)
    torch.distributions.kl_divergence(d, theirs.base_dist), torch.distributions.kl_divergence(theirs.base_dist, d)
    assert other not in vars(theirs.base_dist)
    e = d.expand((5, 2, 3))
    assert e.param_shape == (5, 2, 3) and torch.equal(e.entropy()[0], d.entropy())


def test_enumerate_support():
    d = BernoulliVector(torch.tensor([[0.7, 0.2, 0.4]]), event_ndim=0)
    theirs = Bernoulli(torch.tensor([[0.7, 0.2, 0.4]]))
    for expand in (True, False):
        assert torch.equal(d.enumerate_support(expand), theirs.enumerate_support(expand))
    torch.testing.assert_close(d.log_prob(d.enumerate_support()).exp().sum(0), torch.ones(1, 3))
    with pytest.raises(NotImplementedError, match="not enumerated"):
        BernoulliVector(torch.ones(3)).enumerate_support()
    with pytest.raises(NotImplementedError):
        DiagonalNormal(0.0, 1.0, 0).enumerate_support()


# ---- cdf, for single numbers --------------------------------------------------------------------------------


def test_cdf_and_icdf():
    ours, theirs, leaves = gaussian_pair((5,), (5,), 0, param="logvar")
    x = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    assert_same(ours.cdf(x), theirs.base_dist.cdf(x), (*leaves, x))
    torch.testing.assert_close(ours.icdf(ours.cdf(x)), x)
    (density,) = torch.autograd.grad(ours.cdf(x).sum(), x)
    torch.testing.assert_close(density, ours.log_prob(x).exp())
    half = DiagonalNormal(torch.zeros(5).half(), 1.0, 0)
    assert half.cdf(torch.zeros(5).half()).dtype == half.icdf(torch.full((5,), 0.5).half()).dtype == torch.float16
    for call in (ours.to_event(1).cdf, ours.to_event(1).icdf):
        with pytest.raises(NotImplementedError, match="event_ndim=0"):
            call(x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_both_tails_of_the_cdf(dtype):
    """PyTorch's ½(1 + erf) is 0 for z below −6 in float32, and its inverse −∞."""
    d, eps = DiagonalNormal(torch.zeros((), dtype=dtype), 1.0, 0), torch.finfo(dtype).eps
    z = torch.linspace(-12 if dtype == torch.float32 else -37, 6, 60, dtype=torch.float64).to(dtype)
    z.requires_grad_()
    p = d.cdf(z)
    (density,) = torch.autograd.grad(p.sum(), z)
    for at, got, slope in zip(z.tolist(), p.tolist(), density.tolist(), strict=True):
        # −z/√2 is rounded, which e^(−z²/2) multiplies by z²; the error function has two units of its own.
        assert abs(got / mpmath.ncdf(at) - 1) < (2 * at**2 + 4) * eps
        assert abs(slope / mpmath.npdf(at) - 1) < (2 * at**2 + 4) * eps
    small = torch.tensor([1e-30, 1e-9, 0.3, 0.5, 0.9], dtype=dtype)
    expected = torch.from_numpy(scipy.special.ndtri(small.double().numpy()))
    torch.testing.assert_close(d.icdf(small).double(), expected, rtol=4 * eps, atol=0.0)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_a_variance_is_rounded_once(form):
    """That of a half type is not the square of a rounded σ."""
    raw = torch.rand(64).add(0.5).bfloat16()
    d = DiagonalNormal(torch.zeros(64).bfloat16(), raw, **form)
    truth = sigma(raw.double(), **form).square()
    assert d.variance.dtype == torch.bfloat16
    assert ((d.variance.double() - truth).abs() <= 0.51 * 2**-7 * truth).all()


# ---- compilers, transforms, copies, and which kernels run ---------------------------------------------------


def elbo(loc, raw, x, eps):
    q = DiagonalNormal(loc, raw, param="logvar", validate_args=False)
    p = DiagonalNormal(torch.zeros(3), 1.0, validate_args=False)
    z = q.rsample(seed=3) + eps
    likelihood = BernoulliVector(logits=z, validate_args=False)
    kl = torch.distributions.kl_divergence(q, p)
    return likelihood.log_prob(x) - kl + q.expand((2, 4)).entropy().sum(0) + q.log_prob(z) + likelihood.entropy()


def operands():
    loc, raw = (torch.randn(4, 3, requires_grad=True) for _ in range(2))
    return loc, raw, torch.rand(4, 3).round(), torch.zeros(4, 3)


def test_compiles_whole():
    arguments = operands()
    compiled = torch.compile(elbo, fullgraph=True)
    expected, got = elbo(*arguments), compiled(*arguments)
    torch.testing.assert_close(got, expected)
    grads = [torch.autograd.grad(out.sum(), arguments[:2]) for out in (got, expected)]
    torch.testing.assert_close(*grads)


def test_samples_compile_whole():
    @torch.compile(fullgraph=True)
    def draw(loc):
        b = BernoulliVector(logits=loc, validate_args=False)
        return DiagonalNormal(loc, 1.0, validate_args=False).rsample((2,)), b.sample((2,))

    (z, x), (z2, _) = draw(torch.zeros(4, 3)), draw(torch.zeros(4, 3))
    assert z.shape == x.shape == (2, 4, 3) and not torch.equal(z, z2) and ((x == 0) | (x == 1)).all()


def test_vmap():
    arguments = operands()
    rows = torch.vmap(lambda *row: elbo(*row).sum())(*(a.unsqueeze(1).expand(4, 4, 3) for a in arguments))
    expected = torch.stack([elbo(*(a[i].expand(4, 3) for a in arguments)).sum() for i in range(4)])
    torch.testing.assert_close(rows, expected)


def test_forward_mode_and_second_derivatives():
    arguments = [a.detach().double() for a in operands()]
    tangents = [torch.randn_like(a) for a in arguments]

    def total(*tensors):
        return elbo(*tensors).sum()

    _, slope = torch.func.jvp(total, tuple(arguments), tuple(tangents))
    gradients = torch.func.grad(total, (0, 1, 2, 3))(*arguments)
    torch.testing.assert_close(slope, sum((g * t).sum() for g, t in zip(gradients, tangents, strict=True)))
    leaves = [a.requires_grad_() for a in arguments]
    assert gradgradcheck(total, leaves)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_trace_draws_anew():
    def draw(loc, scale):
        return DiagonalNormal(loc, scale, validate_args=False).rsample()

    traced = torch.jit.trace(draw, (torch.zeros(3), torch.ones(3)), check_trace=False)
    assert not torch.equal(*(traced(torch.zeros(3), torch.ones(3)) for _ in range(2)))


@pytest.mark.parametrize(
    "d",
    [
        DiagonalNormal(torch.randn(2, 3), torch.rand(3) + 0.1, param="softplus", param_eps=0.1),
        DiagonalNormal(torch.randn(2, 3), 1.0).expand((4, 2)),
        BernoulliVector(logits=torch.randn(2, 3)),
        BernoulliVector(torch.rand(2, 3), event_ndim=2),
    ],
    ids=str,
)
@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda d: pickle.loads(pickle.dumps(d))])
def test_copies(d, copied):
    e = copied(d)
    assert repr(e) == repr(d) and e.batch_shape == d.batch_shape and e.event_shape == d.event_shape
    x = d.sample()
    assert torch.equal(e.log_prob(x), d.log_prob(x)) and torch.equal(e.entropy(), d.entropy())


def test_nothing_reads_the_device_without_validation():
    """On the meta device there is nothing to read: what needs a number raises."""
    meta = {"device": "meta", "requires_grad": True}
    for loc, scale in [(torch.zeros(4, 3, **meta), torch.ones(3, **meta)), (torch.zeros(4, 3, **meta), 1.0)]:
        q = DiagonalNormal(loc, scale, param="softplus", param_eps=0.1, validate_args=False)
        x = q.rsample((2,))
        b = BernoulliVector(logits=x, validate_args=False)
        outs = [q.log_prob(x), q.entropy(), q.scale, q.expand((5, 4)).variance, b.log_prob(x), b.entropy(), b.mode]
        for p in (q, DiagonalNormal(loc, 1.0, validate_args=False), Independent(Normal(loc, 1.0, False), 1, False)):
            outs += [torch.distributions.kl_divergence(q, p), torch.distributions.kl_divergence(p, q)]
        outs += [torch.distributions.kl_divergence(b, b), b.sample()]
        assert all(out.device.type == "meta" for out in outs)
        sum(out.sum() for out in outs).backward()
    assert loc.grad.shape == (4, 3)
    with pytest.raises((RuntimeError, NotImplementedError)):
        DiagonalNormal(loc, 1.0, validate_args=True)


@pytest.fixture
def calls(monkeypatch):
    """The raw operators that the operators ask for, as (backend, name)."""
    asked, kernel = [], autograd.kernel

    def recorded(backend, name, *args):
        asked.append((backend, name.removesuffix("_common")))
        return kernel(backend, name, *args)

    monkeypatch.setattr(autograd, "kernel", recorded)
    monkeypatch.setattr(front.state, "on", False)
    return asked


@pytest.mark.parametrize("backend", ["reference", "native"])
def test_every_method_is_the_fused_operator_of_the_backend(calls, backend):
    if not vf.backends()[backend].available:
        pytest.skip(f"{backend}: {vf.backends()[backend].reason}")
    q = DiagonalNormal(torch.zeros(3, requires_grad=True), torch.ones(3), backend=backend).expand((2,)).to_event()
    b = BernoulliVector(logits=torch.zeros(3), backend=backend).expand((2,)).to_event()
    z = q.rsample()
    q.log_prob(z), q.entropy(), torch.distributions.kl_divergence(q, q)
    b.log_prob(b.sample())
    ops = ["rsample", *2 * ["gaussian_log_prob"], "gaussian_kl", "bernoulli_log_prob"]
    assert calls == [(backend, f"{op}_fwd") for op in ops]


def test_a_named_backend_does_not_fall_back():
    q = DiagonalNormal(torch.zeros(3), 1.0, backend="nothing")
    for call in (q.rsample, q.entropy, lambda: q.log_prob(torch.zeros(3))):
        with pytest.raises(ValueError, match="unknown backend 'nothing'"):
            call()
