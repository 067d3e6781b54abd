"""The distributions of counts against torch.distributions' own; zero-inflated ones against mixtures of those."""

import copy
import math
import pickle

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.distributions import Independent, kl_divergence
from torch.distributions import NegativeBinomial as TorchNegativeBinomial
from torch.distributions import Poisson as TorchPoisson

import vae_fast as vf
from vae_fast.distributions import NegativeBinomial, Poisson, ZeroInflatedNegativeBinomial
from vae_fast.ops import autograd

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def validated(monkeypatch):
    """As PyTorch starts: torch.compile turns validation off for the whole process."""
    monkeypatch.setattr(torch.distributions.Distribution, "_validate_args", True)


class Inflated:
    """What a zero-inflated count is by definition: 0 with probability σ(π), else ``base``'s."""

    def __init__(self, base, logits):
        self.base, self.logits = base, logits
        self.batch_shape, self.event_shape = base.batch_shape, base.event_shape

    def log_prob(self, value):
        counted = torch.nn.functional.logsigmoid(-self.logits) + self.base.log_prob(value)
        with_zero = torch.logaddexp(torch.nn.functional.logsigmoid(self.logits), counted)
        return torch.where(value == 0, with_zero, counted)

    @property
    def mean(self):
        return torch.sigmoid(-self.logits) * self.base.mean

    @property
    def variance(self):
        """E[x²] − E[x]²."""
        square = self.base.variance + self.base.mean.square()
        return torch.sigmoid(-self.logits) * square - self.mean.square()


# Of (logits or mean's logarithm, θ).
SHAPES = [
    ((2, 3), (2, 3)),
    ((2, 3), (3,)),
    ((2, 3), (2, 1)),
    ((3,), (2, 3)),
    ((2, 1, 3), (4, 1)),
    ((2, 3), ()),
    ((), ()),
]


def leaf(shape, seed, f=lambda t: t):
    t = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return f(t).requires_grad_()


def by_logits(shapes, **options):
    logits, count = leaf(shapes[0], 1), leaf(shapes[1], 2, torch.exp)
    return (
        NegativeBinomial(count, logits=logits, **options),
        TorchNegativeBinomial(count, logits=logits),
        (count, logits),
    )


def by_probs(shapes, **options):
    probs, count = leaf(shapes[0], 1, torch.sigmoid), leaf(shapes[1], 2, torch.exp)
    return NegativeBinomial(count, probs, **options), TorchNegativeBinomial(count, probs), (count, probs)


def by_mean(shapes, **options):
    mu, theta = leaf(shapes[0], 1, lambda t: 2 * t.exp()), leaf(shapes[1], 2, torch.exp)
    theirs = TorchNegativeBinomial(theta, logits=mu.log() - theta.log())
    return NegativeBinomial(mu=mu, theta=theta, **options), theirs, (mu, theta)


def by_number(shapes, **options):
    logits = leaf(shapes[0], 1)
    return NegativeBinomial(2.5, logits=logits, **options), TorchNegativeBinomial(2.5, logits=logits), (logits,)


def poisson(shapes, **options):
    rate = leaf(shapes[0], 1, lambda t: 3 * t.exp())
    return Poisson(rate, **options), TorchPoisson(rate), (rate,)


def inflated_by_mean(shapes, **options):
    mu, theta, zero = leaf(shapes[0], 1, torch.exp), leaf(shapes[1], 2, torch.exp), leaf(shapes[1], 3)
    base = TorchNegativeBinomial(theta, logits=mu.log() - theta.log())
    return (
        ZeroInflatedNegativeBinomial(mu=mu, theta=theta, zi_logits=zero, **options),
        Inflated(base, zero),
        (mu, theta, zero),
    )


def inflated_by_probs(shapes, **options):
    probs, count = leaf(shapes[0], 1, torch.sigmoid), leaf(shapes[1], 2, torch.exp)
    zero = leaf(shapes[0], 3, torch.sigmoid)
    ours = ZeroInflatedNegativeBinomial(count, probs, zi_probs=zero, **options)
    return ours, Inflated(TorchNegativeBinomial(count, probs), torch.logit(zero)), (count, probs, zero)


MAKERS = [by_logits, by_probs, by_mean, by_number, poisson, inflated_by_mean, inflated_by_probs]
each_maker = pytest.mark.parametrize("make", MAKERS, ids=lambda f: f.__name__)
each_shape = pytest.mark.parametrize("shapes", SHAPES, ids=str)


def values(shape, seed=5):
    """Counts, a third of them 0, and some beyond what is multiplied out one by one."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 40, shape, generator=g).double()
    return torch.where(torch.rand(shape, generator=g) < 0.3, 0.0, x)


def assert_same(ours, theirs, leaves):
    """Values and the gradient of every leaf, for random upstream gradients.

    PyTorch's are differences of logarithms of Γ up to 40!, and those of their derivatives: some 10² of float64's ε.
    """
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype == torch.float64
    torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)
    upstream = torch.randn_like(theirs)
    # PyTorch's keep logits that they made of probs, and with them a graph.
    graph = dict(retain_graph=True, allow_unused=True, materialize_grads=True)
    got = torch.autograd.grad(ours, leaves, upstream, **graph)
    expected = torch.autograd.grad(theirs, leaves, upstream, **graph)
    for a, b in zip(got, expected, strict=True):
        assert a.shape == b.shape
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


# ---- densities, shapes, moments -----------------------------------------------------------------------------


@each_maker
@each_shape
def test_log_prob_and_every_gradient(make, shapes):
    for lead in ((), (4, 1)):
        ours, theirs, leaves = make(shapes)
        assert ours.batch_shape == theirs.batch_shape and ours.event_shape == theirs.event_shape == ()
        x = values((*lead, *ours.batch_shape))
        assert_same(ours.log_prob(x), theirs.log_prob(x), leaves)


@each_maker
def test_values_that_broadcast(make):
    for shape in ((), (3,), (1, 3), (2, 1), (5, 1, 1, 3)):
        ours, theirs, leaves = make(((2, 3), (2, 3)))
        x = values(shape)
        assert_same(ours.log_prob(x), theirs.log_prob(x), leaves)


@each_maker
@pytest.mark.parametrize("n", [1, 2])
def test_events(make, n):
    ours, theirs, leaves = make(((4, 2, 3), (2, 3)), event_ndim=n)
    elements = make(((4, 2, 3), (2, 3)))[0]
    assert ours.batch_shape == (4, 2, 3)[:-n] and ours.event_shape == (4, 2, 3)[-n:]
    x = values((5, 4, 2, 3))
    assert_same(ours.log_prob(x), theirs.log_prob(x).sum(tuple(range(-n, 0))), leaves)
    wide = elements.to_event(n)
    assert type(wide) is type(ours) and wide.event_shape == ours.event_shape
    assert torch.equal(wide.log_prob(x), ours.log_prob(x))
    assert wide.to_event(-n).batch_shape == (4, 2, 3)
    assert ours.support.event_dim == n and ours.support.is_discrete
    assert ours.support.check(x).shape == (5, *ours.batch_shape)
    if not isinstance(theirs, Inflated):
        # Independent of ours is served as any distribution is.
        torch.testing.assert_close(Independent(elements, n).log_prob(x), ours.log_prob(x))


@each_maker
@each_shape
def test_moments(make, shapes):
    ours, theirs, leaves = make(shapes)
    for name in ("mean", "variance"):
        assert_same(getattr(ours, name), getattr(theirs, name), leaves)
    torch.testing.assert_close(ours.stddev, theirs.variance.sqrt())
    if isinstance(theirs, Inflated):
        with pytest.raises(NotImplementedError):
            ours.mode  # noqa: B018
    else:
        torch.testing.assert_close(ours.mode, theirs.mode)


@pytest.mark.parametrize("make", [by_logits, by_probs, by_mean, by_number], ids=lambda f: f.__name__)
@each_shape
def test_every_parameter_can_be_asked_for(make, shapes):
    ours, theirs, _ = make(shapes)
    for name in ("total_count", "logits", "probs"):
        got, expected = getattr(ours, name), getattr(theirs, name)
        assert got.shape == expected.shape
        torch.testing.assert_close(got, expected.to(got.dtype))
    assert torch.equal(ours.theta, ours.total_count)
    torch.testing.assert_close(ours.mu, theirs.mean)


def test_a_theta_of_infinity_is_poisson():
    mu, x = leaf((2, 3), 1, torch.exp), values((2, 3))
    ours, theirs = NegativeBinomial(mu=mu, theta=math.inf), TorchPoisson(mu)
    assert_same(ours.log_prob(x), theirs.log_prob(x), (mu,))
    for name in ("mean", "variance", "mode"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name))
    torch.manual_seed(1)
    drawn = ours.sample((2000,))
    assert torch.isfinite(drawn).all()
    # Six standard errors of a mean of 12000: by chance once in 10⁹.
    standardised = (drawn - mu.detach()) / mu.detach().sqrt()
    assert standardised.mean().abs() < 6 / math.sqrt(drawn.numel())
    zero = torch.tensor(0.4, dtype=torch.float64)
    inflated = ZeroInflatedNegativeBinomial(mu=mu, theta=math.inf, zi_logits=zero)
    assert_same(inflated.log_prob(x), Inflated(theirs, zero).log_prob(x), (mu,))
    assert_same(inflated.variance, Inflated(theirs, zero).variance, (mu,))


def test_scvi_tools_eps():
    """The formula as published, with ε in every logarithm, and the values that it makes of small means."""
    mu, theta = leaf((4, 5), 1, lambda t: 1e-6 * t.exp()), leaf((5,), 2, torch.exp)
    x, eps = values((4, 5)), 1e-8
    log_total = torch.log(theta + mu + eps)
    expected = (
        theta * (torch.log(theta + eps) - log_total)
        + x * (torch.log(mu + eps) - log_total)
        + torch.lgamma(x + theta)
        - torch.lgamma(theta)
        - torch.lgamma(x + 1)
    )
    got = NegativeBinomial(mu=mu, theta=theta, eps=eps).log_prob(x)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)
    assert not torch.allclose(NegativeBinomial(mu=mu, theta=theta).log_prob(x), expected, rtol=1e-4)


def test_scvi_tools_normalised_means():
    mu, theta = torch.rand(2, 3) + 0.5, torch.ones(3)
    share = mu / mu.sum(-1, keepdim=True)
    for d in (
        Poisson(mu, scale=share),
        NegativeBinomial(mu=mu, theta=theta, scale=share),
        ZeroInflatedNegativeBinomial(mu=mu, theta=theta, zi_logits=0.0, scale=share),
    ):
        # Before inflation, whatever the mean of the counts is.
        assert torch.equal(d.get_normalized("mu"), mu)
        assert d.get_normalized("scale") is d.scale is share
        assert torch.equal(d.expand((4, 2, 3)).scale, share.expand(4, 2, 3))
        with pytest.raises(ValueError, match="not recognized"):
            d.get_normalized("rate")
    assert NegativeBinomial(mu=mu, theta=theta).scale is None
    by_count = NegativeBinomial(theta, logits=mu.log())
    torch.testing.assert_close(by_count.scale, share)


# ---- expansion, copies, samples ------------------------------------------------------------------------------


@each_maker
@each_shape
def test_expand(make, shapes):
    ours, theirs, leaves = make(shapes)
    shape = (5, *ours.batch_shape)
    wide = ours.expand(shape)
    assert type(wide) is type(ours) and wide.batch_shape == shape
    x = values(shape)
    assert_same(wide.log_prob(x), theirs.log_prob(x), leaves)
    assert wide.sample((2,)).shape == (2, *shape) and wide.mean.shape == wide.variance.shape == shape
    assert wide.expand((2, *shape)).log_prob(x).shape == (2, *shape)
    if ours.batch_shape:
        with pytest.raises(RuntimeError):
            ours.expand((5, *ours.batch_shape[:-1], 7))


def test_a_narrow_mean_does_not_hide_the_shape():
    d = NegativeBinomial(mu=torch.ones(3), theta=torch.ones(2, 3), event_ndim=1)
    with pytest.raises(RuntimeError):
        d.expand((4,))
    assert d.expand((4, 2)).log_prob(torch.ones(3)).shape == (4, 2)


@each_maker
def test_copies(make):
    ours, *_ = make(((2, 3), (3,)))
    x = values((2, 3))
    for again in (copy.copy(ours), pickle.loads(pickle.dumps(ours))):
        assert torch.equal(again.log_prob(x), ours.log_prob(x)) and repr(again) == repr(ours)


def test_subclasses_expand_with_what_is_theirs():
    class Cells(NegativeBinomial):
        def __init__(self, mu, library):
            super().__init__(mu=mu * library, theta=2.0)
            self.library = library

    d = Cells(torch.ones(3), 10.0).expand((4, 3))
    assert type(d) is Cells and d.library == 10.0 and torch.equal(d.mean, torch.full((4, 3), 10.0))


@pytest.mark.parametrize("make", [by_logits, by_probs, by_mean, poisson], ids=lambda f: f.__name__)
@each_shape
def test_samples_are_pytorchs(make, shapes):
    """The same draws of the same generator, so that the counts are equal but where a rate rounds otherwise."""
    ours, theirs, _ = make(shapes)
    for shape in ((), (300,), (20, 2)):
        torch.manual_seed(4)
        expected = theirs.sample(shape)
        torch.manual_seed(4)
        got = ours.sample(shape)
        assert got.shape == expected.shape and got.dtype == expected.dtype and not got.requires_grad
        assert (got != expected).double().mean() <= 0.01


@each_maker
def test_sample_statistics(make):
    """Mean and variance of 40000 draws of each, within six of their standard errors: by chance once in 10⁸."""
    ours, *_ = make(((3,), (3,)))
    torch.manual_seed(2)
    x, n = ours.sample((40000,)), 40000
    assert ((x >= 0) & (x == x.floor())).all()
    centred = x - ours.mean.detach()
    assert (centred.mean(0).abs() < 6 * (ours.variance.detach() / n).sqrt()).all()
    squares = centred.square()
    error = squares.mean(0) - ours.variance.detach()
    assert (error.abs() < 6 * squares.std(0) / math.sqrt(n)).all()


def test_samples_fit_the_density():
    """Of zero-inflated ones the frequency of each small count, within six standard errors of a proportion."""
    d = ZeroInflatedNegativeBinomial(mu=torch.tensor(2.0), theta=1.5, zi_logits=-0.5)
    torch.manual_seed(3)
    x, n = d.sample((100_000,)), 100_000
    for count in range(6):
        p = d.log_prob(torch.tensor(float(count))).exp().item()
        assert abs((x == count).double().mean().item() - p) < 6 * math.sqrt(p * (1 - p) / n)


def test_large_rates_are_clamped_as_published():
    d = NegativeBinomial(mu=torch.full((100,), 1e20), theta=5.0)
    # Poisson counts of mean 10⁸ and deviation 10⁴.
    assert ((d.sample() - 1e8).abs() < 1e5).all()


def test_samples_at_the_edges():
    assert torch.equal(NegativeBinomial(mu=torch.zeros(50), theta=1.0).sample(), torch.zeros(50))
    assert torch.equal(NegativeBinomial(2.0, torch.zeros(50)).sample(), torch.zeros(50))
    mu = torch.full((200,), 30.0)
    for p, share in ((0.0, 0.0), (1.0, 1.0)):
        x = ZeroInflatedNegativeBinomial(mu=mu, theta=50.0, zi_probs=p).sample()
        assert (x == 0).float().mean() == share


# ---- dtypes, numbers, gradients ------------------------------------------------------------------------------


def test_dtypes():
    """Densities and samples are float32 for half types; a parameter's gradient, and the moments, are in its own."""
    for dtype in (torch.bfloat16, torch.float16):
        mu = (torch.rand(4, 5) + 0.5).to(dtype).requires_grad_()
        logits, theta = torch.randn(4, 5).to(dtype).requires_grad_(), torch.ones(5, dtype=dtype)
        x = values((4, 5)).float()
        for d, w in (
            (Poisson(mu), Poisson(mu.float())),
            (NegativeBinomial(mu=mu, theta=theta), NegativeBinomial(mu=mu.float(), theta=theta.float())),
            (NegativeBinomial(theta, logits=logits), NegativeBinomial(theta.float(), logits=logits.float())),
            (NegativeBinomial(2, mu / 2), NegativeBinomial(2.0, mu.float() / 2)),
        ):
            narrow = d.log_prob(x) if d.variance.dtype == dtype else None
            assert narrow is not None and narrow.dtype == torch.float32
            # Bfloat16's p/2 is rounded before, the rest is of the widened numbers.
            torch.testing.assert_close(narrow, w.log_prob(x), rtol=1e-5, atol=1e-5)
            assert torch.equal(d.mean, w.mean.to(dtype)) and torch.equal(d.variance, w.variance.to(dtype))
            assert d.sample().dtype == torch.float32
        (grad,) = torch.autograd.grad(NegativeBinomial(theta, logits=logits).log_prob(x).sum(), logits)
        assert grad.dtype == dtype
    # A value does not promote.
    assert Poisson(torch.ones(2)).log_prob(torch.ones(2).double()).dtype == torch.float32


@pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.int16, torch.int32, torch.int64, torch.float32, torch.bfloat16]
)
def test_counts_of_any_dtype(dtype):
    mu, x = torch.rand(4, 5) + 0.5, values((4, 5))
    for d in (Poisson(mu), NegativeBinomial(mu=mu, theta=2.0), NegativeBinomial(torch.tensor([3]), logits=mu)):
        torch.testing.assert_close(d.log_prob(x.to(dtype)).float(), d.log_prob(x.float()))


def test_numbers_alone():
    for ours, theirs in (
        (Poisson(3.0), TorchPoisson(3.0)),
        (Poisson(3), TorchPoisson(3.0)),
        (NegativeBinomial(4, probs=0.3), TorchNegativeBinomial(4.0, probs=torch.tensor(0.3))),
        (NegativeBinomial(4, logits=-1.0), TorchNegativeBinomial(4.0, logits=torch.tensor(-1.0))),
    ):
        assert ours.batch_shape == () and ours.sample((3,)).shape == (3,)
        for x in (torch.tensor(0.0), torch.tensor(7.0), torch.tensor([1.0, 2.0])):
            torch.testing.assert_close(ours.log_prob(x), theirs.log_prob(x))
        torch.testing.assert_close(ours.mean, theirs.mean)
        assert ours.mean.dtype == ours.variance.dtype == torch.float32


def test_integer_total_counts_are_not_rounded():
    """As torch.distributions takes them; 257 is none of bfloat16's."""
    logits = torch.zeros(3, dtype=torch.bfloat16)
    d = NegativeBinomial(torch.tensor([257, 1, 2]), logits=logits)
    torch.testing.assert_close(d.mean, torch.tensor([257.0, 1.0, 2.0]))


def test_a_parameter_a_feature_keeps_its_shape():
    """θ and π of shape [G] reach the operator as they are."""
    seen = []

    def spy(name, backend, operands, *rest):
        seen.append([None if t is None else tuple(t.shape) for t in operands])
        return density(name, backend, operands, *rest)

    density = autograd.density
    module = __import__("vae_fast.ops.negative_binomial_log_prob", fromlist=["density"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "density", spy)
        theta = torch.ones(5, requires_grad=True)
        d = ZeroInflatedNegativeBinomial(mu=torch.ones(4, 5), theta=theta, zi_logits=torch.zeros(5))
        d.log_prob(torch.ones(4, 5)).sum().backward()
    assert seen == [[(4, 5), (5,), (5,), (4, 5), None]] and theta.grad.shape == (5,)


@each_maker
def test_gradcheck(make):
    x = values((3,))
    leaves = make(((3,), (3,)))[2]

    def f(*leaves):
        made = {
            by_logits: lambda n, t: NegativeBinomial(n, logits=t, validate_args=False),
            by_probs: lambda n, p: NegativeBinomial(n, p, validate_args=False),
            by_mean: lambda m, t: NegativeBinomial(mu=m, theta=t, validate_args=False),
            by_number: lambda t: NegativeBinomial(2.5, logits=t, validate_args=False),
            poisson: lambda r: Poisson(r, validate_args=False),
            inflated_by_mean: lambda m, t, z: ZeroInflatedNegativeBinomial(
                mu=m, theta=t, zi_logits=z, validate_args=False
            ),
            inflated_by_probs: lambda n, p, z: ZeroInflatedNegativeBinomial(n, p, zi_probs=z, validate_args=False),
        }[make](*leaves)
        return made.log_prob(x), made.mean, made.variance

    assert gradcheck(f, leaves, check_forward_ad=True)
    assert gradgradcheck(f, leaves)


def test_edges_of_probabilities():
    """Values are those of the limits; no gradient is NaN."""
    p = torch.tensor([0.0, 1e-30, 0.5], requires_grad=True)
    d = NegativeBinomial(2.0, p)
    zero, some = d.log_prob(torch.zeros(3)), d.log_prob(torch.ones(3))
    torch.testing.assert_close(zero, 2 * torch.log1p(-p))
    torch.testing.assert_close(some, math.log(2) + torch.log(p) + 2 * torch.log1p(-p))
    (slope,) = torch.autograd.grad(zero.sum(), p)
    torch.testing.assert_close(slope, torch.tensor([-2.0, -2.0, -4.0]))
    gate = torch.tensor([0.0, 1e-30, 0.5, 1.0], requires_grad=True)
    d = ZeroInflatedNegativeBinomial(mu=torch.ones(4), theta=2.0, zi_probs=gate)
    base = NegativeBinomial(mu=torch.ones(4), theta=2.0)
    for x in (torch.zeros(4), torch.ones(4)):
        got = d.log_prob(x)
        torch.testing.assert_close(got[:2], base.log_prob(x)[:2])
        assert got[3] == (0.0 if x[0] == 0 else -math.inf)
        assert torch.isfinite(torch.autograd.grad(got[:3].sum(), gate)[0]).all()


def test_zero_inflation_keeps_its_digits():
    """1 − σ(π) of a large π, of which a difference from 1 has none left in float32."""
    logits = torch.tensor([20.0, 40.0])
    d = ZeroInflatedNegativeBinomial(mu=torch.full((2,), 3.0), theta=2.0, zi_logits=logits)
    torch.testing.assert_close(d.mean, 3 * torch.exp(-logits), rtol=1e-6, atol=0.0)
    assert (d.variance > 0).all()


# ---- validation ----------------------------------------------------------------------------------------------


ONES = torch.ones(3)


@pytest.mark.parametrize(
    "make",
    [
        lambda **o: Poisson(torch.tensor([-1.0]), **o),
        lambda **o: Poisson(torch.tensor([math.nan]), **o),
        lambda **o: NegativeBinomial(0.0, logits=ONES, **o),
        lambda **o: NegativeBinomial(-ONES, logits=ONES, **o),
        lambda **o: NegativeBinomial(ONES, ONES, **o),
        lambda **o: NegativeBinomial(ONES, logits=ONES * math.nan, **o),
        lambda **o: NegativeBinomial(mu=-ONES, theta=ONES, **o),
        lambda **o: NegativeBinomial(mu=ONES, theta=torch.zeros(3), **o),
        lambda **o: ZeroInflatedNegativeBinomial(mu=ONES, theta=ONES, zi_logits=ONES * math.nan, **o),
        lambda **o: ZeroInflatedNegativeBinomial(mu=ONES, theta=ONES, zi_probs=2 * ONES, **o),
    ],
)
def test_bad_parameters(make):
    with pytest.raises(ValueError, match="to satisfy the constraint"):
        make()
    make(validate_args=False)


@each_maker
def test_bad_values(make):
    ours, *_ = make(((2, 3), (3,)))
    for bad in (-1.0, 0.5, math.nan):
        with pytest.raises(ValueError, match="within the support"):
            ours.log_prob(torch.full((2, 3), bad))
    with pytest.raises(ValueError, match="not broadcastable"):
        ours.log_prob(torch.ones(2, 4))
    event = ours.to_event(1)
    with pytest.raises(ValueError, match="right-most size of value"):
        event.log_prob(torch.ones(2, 1))
    # Unchecked, the formula goes on between the counts.
    free, *_ = make(((2, 3), (3,)), validate_args=False)
    assert torch.isfinite(free.log_prob(torch.full((2, 3), 0.5))).all()


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"total_count": ONES},
        {"mu": ONES},
        {"theta": ONES, "logits": ONES},
        {"total_count": ONES, "probs": ONES / 2, "logits": ONES},
        {"total_count": ONES, "logits": ONES, "mu": ONES, "theta": ONES},
    ],
    ids=lambda a: "-".join(a) or "none",
)
def test_what_is_no_pair(arguments):
    with pytest.raises(ValueError, match="pass mu and theta, or total_count"):
        NegativeBinomial(**arguments)
    with pytest.raises(ValueError, match="pass mu and theta, or total_count"):
        ZeroInflatedNegativeBinomial(**arguments, zi_logits=0.0)


def test_other_bad_arguments():
    for zeros in ({}, {"zi_logits": 0.0, "zi_probs": 0.5}):
        with pytest.raises(ValueError, match="either zi_logits or zi_probs"):
            ZeroInflatedNegativeBinomial(mu=ONES, theta=1.0, **zeros)
    with pytest.raises(TypeError, match="mu must be"):
        NegativeBinomial(mu=torch.ones(3, dtype=torch.int64), theta=1.0)
    with pytest.raises(TypeError, match="theta must be"):
        NegativeBinomial(mu=ONES, theta="gene")
    with pytest.raises(ValueError, match="do not broadcast"):
        NegativeBinomial(mu=ONES, theta=torch.ones(2))
    with pytest.raises(ValueError, match="event_ndim=2 does not fit mu and theta"):
        NegativeBinomial(mu=ONES, theta=1.0, event_ndim=2)
    with pytest.raises(ValueError, match="unknown backend|backend"):
        Poisson(ONES, backend="none").log_prob(ONES)


@each_maker
def test_what_there_is_not(make):
    """No reparameterised samples, entropies or divergences, rather than wrong ones."""
    ours, *_ = make(((2, 3), (3,)))
    assert ours.has_rsample is False and ours.has_enumerate_support is False
    for call in (ours.rsample, ours.entropy, lambda: kl_divergence(ours, ours)):
        with pytest.raises(NotImplementedError):
            call()


# ---- backends, compilers, transforms -------------------------------------------------------------------------


@each_maker
def test_the_backend_that_was_named(make):
    x = values((2, 3))
    for name in ("reference", "native"):
        if not vf.backends()[name].available:
            continue
        ours, theirs, leaves = make(((2, 3), (3,)), backend=name)
        assert_same(ours.log_prob(x), theirs.log_prob(x), leaves)
        assert ours.expand((2, 2, 3))._backend == name


def test_compiled():
    mu, theta, zero = (t.float().detach().requires_grad_() for t in inflated_by_mean(((4, 5), (5,)))[2])
    x = values((4, 5)).float()

    def loss(mu, theta, zero):
        d = ZeroInflatedNegativeBinomial(mu=mu, theta=theta, zi_logits=zero, validate_args=False)
        e = NegativeBinomial(3.0, logits=zero, validate_args=False)
        return d.log_prob(x).sum(-1) + e.log_prob(x).sum(-1) + Poisson(mu, validate_args=False).log_prob(x).sum(-1)

    value, compiled = loss(mu, theta, zero), torch.compile(loss, fullgraph=True)(mu, theta, zero)
    torch.testing.assert_close(compiled, value, rtol=1e-5, atol=1e-5)
    expected, got = (torch.autograd.grad(t.sum(), (mu, theta, zero)) for t in (value, compiled))
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_transforms():
    mu, theta, gate = (t.detach() for t in inflated_by_probs(((3,), (3,)))[2])

    def f(count, probs, gate):
        d = ZeroInflatedNegativeBinomial(count, probs, zi_probs=gate, event_ndim=1, validate_args=False)
        return d.log_prob(torch.tensor([0.0, 2.0, 9.0], dtype=torch.float64))

    leaves = [t.clone().requires_grad_() for t in (mu, theta, gate)]
    expected = torch.autograd.grad(f(*leaves), leaves)
    batch = [t.expand(4, 3) for t in (mu, theta, gate)]
    mapped = torch.func.vmap(torch.func.grad(f, (0, 1, 2)))(*batch)
    for got, one in zip(mapped, expected, strict=True):
        torch.testing.assert_close(got, one.expand(4, 3))
