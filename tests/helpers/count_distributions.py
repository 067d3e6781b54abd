"""Distributions of counts of ours beside torch.distributions' of the same leaves."""

import pytest
import torch
from torch.distributions import NegativeBinomial as TorchNegativeBinomial
from torch.distributions import Poisson as TorchPoisson

from vae_fast.distributions import NegativeBinomial, Poisson, ZeroInflatedNegativeBinomial


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
