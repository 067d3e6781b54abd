"""What the distributions of counts take, in which dtypes, and what they refuse; backends, compilers, transforms."""

import math

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.distributions import NegativeBinomial as TorchNegativeBinomial
from torch.distributions import Poisson as TorchPoisson
from torch.distributions import kl_divergence

from helpers.count_distributions import (
    assert_same,
    by_logits,
    by_mean,
    by_number,
    by_probs,
    each_maker,
    inflated_by_mean,
    inflated_by_probs,
    poisson,
    values,
)
from helpers.marks import needs_native
from vae_fast import front
from vae_fast.distributions import NegativeBinomial, Poisson, ZeroInflatedNegativeBinomial
from vae_fast.ops import autograd

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def validated(monkeypatch):
    """As PyTorch starts: torch.compile turns validation off for the whole process."""
    monkeypatch.setattr(torch.distributions.Distribution, "_validate_args", True)


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
            assert d.log_prob(x).dtype == torch.float32
            torch.testing.assert_close(d.log_prob(x), w.log_prob(x), rtol=1e-5, atol=1e-5)
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


def test_a_parameter_a_feature_keeps_its_shape(monkeypatch):
    """θ and π of shape [G] reach the operator as they are."""
    seen, density = [], autograd.density

    def recorded(name, backend, operands, *rest):
        seen.append([None if t is None else tuple(t.shape) for t in operands])
        return density(name, backend, operands, *rest)

    monkeypatch.setattr("vae_fast.ops.negative_binomial_log_prob.density", recorded)
    monkeypatch.setattr(front.state, "on", False)
    theta = torch.ones(5, requires_grad=True)
    d = ZeroInflatedNegativeBinomial(mu=torch.ones(4, 5), theta=theta, zi_logits=torch.zeros(5))
    d.log_prob(torch.ones(4, 5)).sum().backward()
    assert seen == [[(4, 5), (5,), (5,), None, (4, 5), None]] and theta.grad.shape == (5,)


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
    with pytest.raises(ValueError, match="unknown backend 'none'"):
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
@pytest.mark.parametrize("name", ["reference", pytest.param("native", marks=needs_native)])
def test_the_backend_that_was_named(make, name, monkeypatch):
    asked, kernel = set(), autograd.kernel

    def recorded(backend, operator, *rest):
        asked.add(backend)
        return kernel(backend, operator, *rest)

    monkeypatch.setattr(autograd, "kernel", recorded)
    monkeypatch.setattr(front.state, "on", False)
    ours, theirs, leaves = make(((2, 3), (3,)), backend=name)
    wide, x = ours.expand((2, 2, 3)).to_event(1), values((2, 2, 3))
    assert_same(wide.log_prob(x), theirs.log_prob(x).sum(-1), leaves)
    assert asked == {name}


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
