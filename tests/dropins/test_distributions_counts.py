"""The distributions of counts against torch.distributions' own; zero-inflated ones against mixtures of those."""

import copy
import math
import pickle

import pytest
import torch
from torch.distributions import Independent
from torch.distributions import Poisson as TorchPoisson

from helpers.count_distributions import (
    Inflated,
    assert_same,
    by_logits,
    by_mean,
    by_number,
    by_probs,
    each_maker,
    each_shape,
    leaf,
    poisson,
    values,
)
from vae_fast.distributions import NegativeBinomial, Poisson, ZeroInflatedNegativeBinomial

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def validated(monkeypatch):
    """As PyTorch starts: torch.compile turns validation off for the whole process."""
    monkeypatch.setattr(torch.distributions.Distribution, "_validate_args", True)


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
