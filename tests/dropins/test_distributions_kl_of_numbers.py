"""kl_divergence of DiagonalNormal with what else PyTorch has divergences from and to Normal for: PyTorch's own."""

import warnings

import pytest
import torch
from test_distributions import FORMS, assert_same, gaussian_pair
from torch.distributions import (
    Beta,
    ContinuousBernoulli,
    Distribution,
    Exponential,
    Gamma,
    Gumbel,
    Independent,
    Laplace,
    Normal,
    Pareto,
    Uniform,
    kl,
    kl_divergence,
)

from vae_fast.distributions import BernoulliVector, DiagonalNormal

pytestmark = pytest.mark.usefixtures("one_thread")

# Of a tensor a of any numbers and b of numbers in (0, 1).
MAKE = {
    Beta: lambda a, b: Beta(b, b + 1),
    ContinuousBernoulli: lambda a, b: ContinuousBernoulli(probs=b),
    Exponential: lambda a, b: Exponential(b),
    Gamma: lambda a, b: Gamma(b, b + 1),
    Gumbel: lambda a, b: Gumbel(a, b),
    Laplace: lambda a, b: Laplace(a, b),
    Pareto: lambda a, b: Pareto(b, b + 3),
    Uniform: lambda a, b: Uniform(a, a + b),
}


def pytorchs(d):
    return d.__module__.startswith("torch.distributions.")


# Whether Normal is the first one, and the other one: by PyTorch's registry, so that a new pair is seen here.
PAIRS = sorted(
    [(p is Normal, q if p is Normal else p) for p, q in kl._KL_REGISTRY if (p is Normal) != (q is Normal)],
    key=lambda pair: (pair[1].__name__, pair[0]),
)
PAIRS = [pair for pair in PAIRS if pytorchs(pair[1])]
each_pair = pytest.mark.parametrize("first, other", PAIRS, ids=lambda v: getattr(v, "__name__", str(v)))


def leaves_of(dtype, shape=(2, 3, 4)):
    a, b = torch.randn(shape, dtype=dtype), torch.rand(shape, dtype=dtype) * 0.6 + 0.2
    return a.requires_grad_(), b.requires_grad_()


def divergence(first, gaussian, other):
    return kl_divergence(gaussian, other) if first else kl_divergence(other, gaussian)


def test_every_pair_is_known():
    assert {other for _, other in PAIRS} == set(MAKE) and len(PAIRS) == 2 * len(MAKE)


@each_pair
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_value_and_gradients_are_normals(first, other, form):
    leaves = leaves_of(torch.float64)
    ours, _, gaussian = gaussian_pair((2, 3, 4), (4,), 0, **form)
    # Of our σ: PyTorch's forms are 1e-11 apart where a small one differs by a rounding.
    d, normal = MAKE[other](*leaves), Normal(ours.loc, ours.scale)
    assert_same(divergence(first, ours, d), divergence(first, normal, d), (*gaussian, *leaves))


@each_pair
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_to_the_bit_in_other_dtypes(first, other, dtype):
    loc, scale = leaves_of(dtype)
    leaves = (loc, scale, *leaves_of(dtype))
    found = []
    for gaussian in (DiagonalNormal(loc, scale, 0), Normal(loc, scale)):
        value = divergence(first, gaussian, MAKE[other](*leaves[2:]))
        grads = torch.autograd.grad(value.sum(), leaves, allow_unused=True) if value.requires_grad else ()
        found.append((value, *grads))
    assert found[0][0].dtype == dtype
    for got, expected in zip(*found, strict=True):
        assert (got is None) == (expected is None)
        if got is not None:
            torch.testing.assert_close(got, expected, rtol=0, atol=0, equal_nan=True)


@each_pair
@pytest.mark.parametrize("n", [1, 2])
def test_independent_ones_are_summed_over_the_event(first, other, n):
    leaves = leaves_of(torch.float64)
    ours, theirs, gaussian = gaussian_pair((2, 3, 4), (2, 3, 4), n)
    d = Independent(MAKE[other](*leaves), n)
    assert_same(divergence(first, ours, d), divergence(first, theirs, d), (*gaussian, *leaves))


@each_pair
def test_other_events_are_refused(first, other):
    a, b = leaves_of(torch.float32)
    d = MAKE[other](a, b)
    for event_ndim, theirs in ((1, d), (2, Independent(d, 1)), (1, Independent(d, 2)), (0, Independent(d, 1))):
        with pytest.raises(NotImplementedError, match="DiagonalNormal"):
            divergence(first, DiagonalNormal(a, b, event_ndim), theirs)


def test_no_pair_is_ambiguous():
    def below(d):
        return {d}.union(*map(below, d.__subclasses__()))

    class Narrower(DiagonalNormal):
        pass

    everyone = {d for d in below(Distribution) if pytorchs(d)} | {BernoulliVector}
    assert len(everyone) > 30
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for ours in (DiagonalNormal, Narrower):
            for other in (*everyone, DiagonalNormal, Narrower):
                kl._dispatch_kl(ours, other)
                kl._dispatch_kl(other, ours)
    assert kl._dispatch_kl(Narrower, Laplace) is kl._dispatch_kl(DiagonalNormal, Laplace) is not NotImplemented
