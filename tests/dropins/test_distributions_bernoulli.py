"""Entropies, variances and divergences of Bernoulli vectors in both tails: values and gradients against mpmath.

ε is 2⁻²³ for float32, 2⁻⁵² for float64. The truth is p·(log p − log q) + …, each logarithm from the term that is
small, with digits to spare.
"""

import itertools
import math

import mpmath as mp
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.distributions import Bernoulli, Independent, kl_divergence

from vae_fast.distributions import BernoulliVector

pytestmark = pytest.mark.usefixtures("one_thread")
DTYPES = [torch.float32, torch.float64]
KINDS = list(itertools.product(("logits", "probs"), repeat=2))
# The products of a result below these may be rounded to a multiple of them: two or three times.
SUBNORMAL = {torch.float32: mp.mpf(2) ** -149, torch.float64: mp.mpf(2) ** -1074}


@pytest.fixture(autouse=True)
def digits():
    with mp.workdps(80):
        yield


class Truth:
    """p, 1 − p, their logarithms and the logit, of a float that is a logit or a probability."""

    def __init__(self, kind, value):
        self.kind, value = kind, mp.mpf(value)
        if kind == "probs":
            self.p, self.q, self.log_p, self.log_q = value, 1 - value, mp.log(value), mp.log1p(-value)
            self.y = self.log_p - self.log_q
        else:
            self.y = value
            self.log_p, self.log_q = -mp.log1p(mp.exp(-value)), -mp.log1p(mp.exp(value))
            self.p, self.q = mp.exp(self.log_p), mp.exp(self.log_q)

    def per_parameter(self, by_y):
        return by_y if self.kind == "logits" else by_y / (self.p * self.q)

    def entropy(self):
        return -self.p * self.log_p - self.q * self.log_q, self.per_parameter(-self.y * self.p * self.q)


def divergence(a, b):
    """The value, its derivatives, and beside each the size of the terms it is the difference of."""
    kl = a.p * (a.log_p - b.log_p) + a.q * (a.log_q - b.log_q)
    by_a = a.per_parameter((a.y - b.y) * a.p * a.q)
    difference = b.p - a.p if a.p < 0.5 else a.q - b.q
    by_b = b.per_parameter(difference)
    terms = -sum(p * (x + y) for p, x, y in ((a.p, a.log_p, b.log_p), (a.q, a.log_q, b.log_q)))
    terms += abs(b.y * difference) / 3
    sizes = (
        terms,
        a.per_parameter((abs(a.y) + abs(b.y)) * a.p * a.q),
        b.per_parameter(a.p + b.p if a.p < 0.5 else a.q + b.q),
    )
    return (kl, by_a, by_b), sizes


def numbers(kind, dtype, n=24, seed=0):
    """From one end of the dtype to the other, and near 0 or ½."""
    g = torch.Generator().manual_seed(seed)
    least = 100.0 if dtype == torch.float32 else 740.0
    uniform, normal = (f(n, generator=g, dtype=torch.float64) for f in (torch.rand, torch.randn))
    if kind == "logits":
        x = torch.cat([*(normal * s for s in (1e-6, 1e-2, 1.0, 5.0, 30.0)), (2 * uniform - 1) * least])
    else:
        decades, digits = (44, 7) if dtype == torch.float32 else (320, 15)
        x = torch.cat([uniform, 10 ** (-decades * uniform), 1 - 10 ** (-digits * uniform), 0.5 + 1e-4 * normal])
    x = x.to(dtype)
    x = x[torch.randperm(len(x), generator=g)]
    return x if kind == "logits" else x[(x > 0) & (x < 1)]


def neighbours(x, kind, distance, seed=2):
    """Numbers at such distances from others: of a logit absolute, of the smaller of p and 1 − p relative."""
    step = torch.randn(len(x), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    near = x.double()
    if kind == "logits":
        return (near + distance * step).to(x.dtype)
    step = (distance * step).clamp(-0.9, 0.9)
    return torch.where(near < 0.5, near * (1 + step), 1 - (1 - near) * (1 + step)).to(x.dtype)


def assert_within(got, truth, bound, dtype):
    """|error| ≤ bound, and three units of the subnormal numbers."""
    for k, (g, t, b) in enumerate(zip(got.tolist(), truth, bound, strict=True)):
        if abs(t) > torch.finfo(dtype).max:
            assert math.isinf(g) and (g > 0) == (t > 0), (k, g, t)
        else:
            assert math.isfinite(g), (k, g, mp.nstr(t))
            assert abs(mp.mpf(g) - t) <= b + 3 * SUBNORMAL[dtype], (k, g, mp.nstr(t, 12), float(abs(g - t) / b))


# ---- entropy, variance, mean --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", ["logits", "probs"])
def test_entropy(kind, dtype):
    """Both terms have one sign: 3ε of the sum, and 4ε for a gradient that is a product of five numbers."""
    x = numbers(kind, dtype).requires_grad_()
    h = BernoulliVector(**{kind: x}, event_ndim=0).entropy()
    (slope,) = torch.autograd.grad(h.sum(), x)
    truth, slopes = zip(*(Truth(kind, v).entropy() for v in x.tolist()), strict=True)
    eps = torch.finfo(dtype).eps
    assert (h > 0).all()
    assert_within(h, truth, [3 * eps * abs(t) for t in truth], dtype)
    assert_within(slope, slopes, [4 * eps * abs(t) for t in slopes], dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_moments(dtype):
    """Mean, variance and deviation by logits, whose 1 − σ would be 0 above 17 in float32, and their gradients."""
    y, eps = numbers("logits", dtype).requires_grad_(), torch.finfo(dtype).eps
    d, truth = BernoulliVector(logits=y), [Truth("logits", v) for v in y.tolist()]
    variance = [t.p * t.q for t in truth]
    tilt = [mp.tanh(t.y / 2) for t in truth]
    for got, value, slope in (
        (d.mean, [t.p for t in truth], variance),
        (d.variance, variance, [-v * s for v, s in zip(variance, tilt, strict=True)]),
        (
            d.stddev,
            [mp.sqrt(v) for v in variance],
            [-mp.sqrt(v) * s / 2 for v, s in zip(variance, tilt, strict=True)],
        ),
    ):
        (grad,) = torch.autograd.grad(got.sum(), y)
        assert_within(got, value, [4 * eps * v for v in value], dtype)
        assert_within(grad, slope, [6 * eps * abs(s) for s in slope], dtype)


def test_log_odds_near_a_half():
    """Two logarithms that cancel had no digit left of them."""
    p = 0.5 + 2.0 ** -torch.arange(3.0, 25.0)
    truth = torch.logit(p.double())
    torch.testing.assert_close(BernoulliVector(p).logits.double(), truth, rtol=3e-7, atol=0.0)


def test_the_mode_of_logits_that_make_a_half():
    d = BernoulliVector(logits=torch.tensor([1e-12, -1e-12, 0.0]))
    torch.testing.assert_close(d.mode, torch.tensor([1.0, 0.0, math.nan]), equal_nan=True)


# ---- divergence ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("distance", [None, 3.0, 0.5, 1e-4])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", ["logits", "probs"])
def test_divergence(kind, dtype, distance):
    """Of two of one kind: 3ε·Σ|terms|, whose terms are no more than five times the divergence.

    Float32's are made in float64, and rounded once.
    """
    a = numbers(kind, dtype)
    b = numbers(kind, dtype, seed=1)[: len(a)] if distance is None else neighbours(a, kind, distance)
    a = a[: len(b)]
    inside = torch.isfinite(b) if kind == "logits" else (b > 0) & (b < 1)
    a, b = a[inside].requires_grad_(), b[inside].requires_grad_()
    p, q = (BernoulliVector(**{kind: t}, event_ndim=0) for t in (a, b))
    kl = kl_divergence(p, q)
    assert (kl >= 0).all()
    grads = torch.autograd.grad(kl.sum(), (a, b))
    truth = [divergence(Truth(kind, x), Truth(kind, y))[0] for x, y in zip(a.tolist(), b.tolist(), strict=True)]
    eps = torch.finfo(dtype).eps
    factors = (0.51 if dtype == torch.float32 else 15, 6, 6)
    for got, expected, factor in zip((kl, *grads), zip(*truth, strict=True), factors, strict=True):
        assert_within(got, expected, [factor * eps * abs(t) for t in expected], dtype)
    for x, y in ((p, Bernoulli(**{kind: b})), (Bernoulli(**{kind: a}), q)):
        assert torch.equal(kl_divergence(x, y), kl)
    wide = kl_divergence(p.to_event(), Independent(Bernoulli(**{kind: b}), 1))
    torch.testing.assert_close(wide, kl.sum(), rtol=1e-5, atol=0.0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kinds", [k for k in KINDS if k[0] != k[1]], ids=str)
def test_divergence_of_logits_and_probs(kinds, dtype):
    """3ε·Σ|terms|, of p·log p, p·log q and their like; and ε of the log-odds that are made of the probability."""
    a, b = numbers(kinds[0], dtype), numbers(kinds[1], dtype, seed=1)
    n = min(len(a), len(b))
    a, b = a[:n].clone().requires_grad_(), b[:n].clone().requires_grad_()
    kl = kl_divergence(*(BernoulliVector(**{k: t}, event_ndim=0) for k, t in zip(kinds, (a, b), strict=True)))
    assert (kl >= 0).all()
    grads = torch.autograd.grad(kl.sum(), (a, b))
    both = [divergence(Truth(kinds[0], x), Truth(kinds[1], y)) for x, y in zip(a.tolist(), b.tolist(), strict=True)]
    eps = torch.finfo(dtype).eps
    for got, expected, size in zip(
        (kl, *grads), *(zip(*column, strict=True) for column in zip(*both, strict=True)), strict=True
    ):
        assert_within(got, expected, [3 * eps * s for s in size], dtype)


def test_what_pytorch_loses():
    """The case that made it wrong: large logits, of which 1 − σ is nothing in float32."""
    a, b = torch.tensor([17.0, 20.0, 30.0]), torch.tensor([18.0, 16.0, 29.0], requires_grad=True)
    kl = kl_divergence(BernoulliVector(logits=a, event_ndim=0), BernoulliVector(logits=b, event_ndim=0))
    (grad,) = torch.autograd.grad(kl.sum(), b)
    mirrored = kl_divergence(BernoulliVector(logits=-a, event_ndim=0), BernoulliVector(logits=-b, event_ndim=0))
    assert torch.equal(kl, mirrored) and (kl > 0).all() and torch.equal(grad > 0, b > a)
    entropy = BernoulliVector(logits=a, event_ndim=0).entropy()
    assert torch.equal(entropy, BernoulliVector(logits=-a, event_ndim=0).entropy())
    assert (Bernoulli(logits=a).entropy() < 0.1 * entropy).all()


@pytest.mark.parametrize("kinds", KINDS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_certain_outcomes(kinds, dtype):
    """0 for the same certainty, ∞ where one excludes what the other allows; no gradient is NaN."""
    ends = {"logits": [-math.inf, -3e38, -200.0, 0.5, 200.0, 3e38, math.inf], "probs": [0.0, 1e-30, 0.3, 1.0]}
    for x, y in itertools.product(*(ends[k] for k in kinds)):
        a, b = (torch.tensor([v], dtype=dtype, requires_grad=True) for v in (x, y))
        p, q = (BernoulliVector(**{k: t}) for k, t in zip(kinds, (a, b), strict=True))
        kl = kl_divergence(p, q)
        certain = {math.inf: 1, -math.inf: 0} if kinds[1] == "logits" else {0.0: 0, 1.0: 1}
        same = {math.inf: 1, -math.inf: 0} if kinds[0] == "logits" else {0.0: 0, 1.0: 1}
        if y in certain:
            assert kl == (0.0 if same.get(x) == certain[y] else math.inf), (x, y, kl)
        else:
            assert 0 <= kl < math.inf, (x, y, kl)
        for grad in torch.autograd.grad(kl, (a, b)):
            assert not torch.isnan(grad), (x, y, grad)


@pytest.mark.parametrize("kind, ends", [("logits", [-math.inf, -1e30, 1e30, math.inf]), ("probs", [0.0, 1.0])])
def test_certainty_has_no_entropy(kind, ends):
    x = torch.tensor(ends, requires_grad=True)
    h = BernoulliVector(**{kind: x}, event_ndim=0).entropy()
    (grad,) = torch.autograd.grad(h.sum(), x)
    assert torch.equal(h, torch.zeros(len(ends))) and torch.isfinite(grad).all()
    variance = BernoulliVector(**{kind: x}).variance
    assert (
        torch.equal(variance, torch.zeros(len(ends)))
        and not torch.isnan(torch.autograd.grad(variance.sum(), x)[0]).any()
    )


def test_nan_stays_where_it_is():
    for kinds in KINDS:
        a, b = torch.tensor([math.nan, 0.2, 0.3]), torch.tensor([0.4, math.nan, 0.3])
        p, q = (
            BernoulliVector(**{k: t}, event_ndim=0, validate_args=False) for k, t in zip(kinds, (a, b), strict=True)
        )
        assert torch.isnan(kl_divergence(p, q)).tolist() == [True, True, False]
        assert torch.isnan(p.entropy()).tolist() == [True, False, False]


def test_an_expanded_bernoulli_of_pytorch_that_has_both_parameters():
    """Its certain outcomes are in its probabilities only, its large logits in its logits only."""
    certain = Bernoulli(torch.tensor([0.0, 1.0, 0.5]))
    large = Bernoulli(logits=torch.tensor([-30.0, 30.0, 0.0]))
    for d in (certain, large):
        assert d.probs is not None and d.logits is not None
    p = BernoulliVector(torch.full((2, 3), 0.5), event_ndim=0)
    got = kl_divergence(p, certain.expand((2, 3)))
    assert got.tolist() == [[math.inf, math.inf, 0.0]] * 2
    got, truth = kl_divergence(p, large.expand((2, 3))), 15.0 - math.log(2)
    torch.testing.assert_close(got, torch.tensor([[truth, truth, 0.0]] * 2))
    assert kl_divergence(p, certain).tolist() == [[math.inf, math.inf, 0.0]] * 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types(dtype):
    """The numbers of the widened parameters, in float32; gradients and moments in the parameter's dtype."""
    a, b = (numbers("logits", torch.float32, seed=k).to(dtype).requires_grad_() for k in range(2))
    p, q = BernoulliVector(logits=a), BernoulliVector(logits=b)
    wide_a, wide_b = (t.detach().float().requires_grad_() for t in (a, b))
    wide_p, wide_q = BernoulliVector(logits=wide_a), BernoulliVector(logits=wide_b)
    for got, wide in ((p.entropy(), wide_p.entropy()), (kl_divergence(p, q), kl_divergence(wide_p, wide_q))):
        assert got.dtype == torch.float32 and torch.equal(got, wide)
    grads = torch.autograd.grad(kl_divergence(p, q), (a, b))
    wides = torch.autograd.grad(kl_divergence(wide_p, wide_q), (wide_a, wide_b))
    assert all(torch.equal(g, w.to(dtype)) for g, w in zip(grads, wides, strict=True))
    for name in ("mean", "variance", "stddev", "probs"):
        assert torch.equal(getattr(p, name), getattr(wide_p, name).to(dtype))
    assert kl_divergence(p, BernoulliVector(logits=wide_b.double())).dtype == torch.float64


# ---- further derivatives, transforms, compilers ---------------------------------------------------------------


@pytest.mark.parametrize("kinds", KINDS, ids=str)
def test_gradcheck(kinds):
    """Both sides of every branch, where a difference quotient still has digits; equal parameters too."""
    logits = torch.tensor([-3.0, -0.7, 0.4, 0.4, 1e-9, 2.0], dtype=torch.float64)
    others = torch.tensor([-1.0, -0.9, 0.4, 5.0, 0.0, -2.0], dtype=torch.float64)
    leaves = [t if k == "logits" else t.sigmoid() for k, t in zip(kinds, (logits, others), strict=True)]
    leaves = [t.requires_grad_() for t in leaves]

    def f(a, b):
        p, q = (BernoulliVector(**{k: t}, validate_args=False) for k, t in zip(kinds, (a, b), strict=True))
        return kl_divergence(p, q), p.entropy(), q.variance, q.stddev, q.mean

    assert gradcheck(f, leaves, check_forward_ad=True)
    assert gradgradcheck(f, leaves)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_second_derivatives_in_the_tails(dtype):
    """v = σ(a)·σ(−a): v·(1 − (a − b)·tanh ½a), −v and σ(b)·σ(−b); of the entropy −v·(1 − a·tanh ½a)."""
    at = [-30.0, -3.0, -0.5, 0.0, 0.5, 20.0, 40.0]
    a, b = (
        t.reshape(-1).to(dtype).requires_grad_() for t in torch.meshgrid(*2 * [torch.tensor(at)], indexing="ij")
    )
    p = BernoulliVector(logits=a)
    first = torch.autograd.grad(kl_divergence(p, BernoulliVector(logits=b)), (a, b), create_graph=True)
    by_aa, by_ab = torch.autograd.grad(first[0].sum(), (a, b), retain_graph=True)
    by_ba, by_bb = torch.autograd.grad(first[1].sum(), (a, b))
    (slope,) = torch.autograd.grad(p.entropy(), a, create_graph=True)
    (curve,) = torch.autograd.grad(slope.sum(), a)
    truth, sizes = {k: [] for k in ("aa", "ab", "bb", "h")}, {k: [] for k in ("aa", "ab", "bb", "h")}
    for x, y in zip(a.tolist(), b.tolist(), strict=True):
        s, t = Truth("logits", x), Truth("logits", y)
        v, w, tilt = s.p * s.q, t.p * t.q, mp.tanh(mp.mpf(x) / 2)
        truth["aa"].append(v * (1 - (s.y - t.y) * tilt)), sizes["aa"].append(v * (1 + abs(s.y - t.y)))
        truth["ab"].append(-v), sizes["ab"].append(v)
        truth["bb"].append(w), sizes["bb"].append(w)
        truth["h"].append(-v * (1 - s.y * tilt)), sizes["h"].append(v * (1 + abs(s.y)))
    eps = torch.finfo(dtype).eps
    for got, name in ((by_aa, "aa"), (by_ab, "ab"), (by_ba, "ab"), (by_bb, "bb"), (curve, "h")):
        # Products of six numbers, of which exponentials and logistic functions have two units each.
        assert_within(got, truth[name], [12 * eps * s for s in sizes[name]], dtype)


def total(a, b):
    p, q = (BernoulliVector(logits=t, validate_args=False) for t in (a, b))
    return kl_divergence(p, q) + p.entropy() + q.variance.sum(-1) + p.mean.sum(-1)


def test_transforms_keep_the_tails():
    a = torch.tensor([[-30.0, 17.0, 0.3], [25.0, 2.0, -40.0]])
    b = torch.tensor([[-29.0, 18.5, 0.3], [27.0, -1.0, -44.0]])
    leaves = [t.clone().requires_grad_() for t in (a, b)]
    value = total(*leaves)
    grads = torch.autograd.grad(value.sum(), leaves, create_graph=True)
    mapped = torch.func.vmap(torch.func.grad(total, (0, 1)))(a, b)
    # Each gradient is of several terms of unlike sizes; alone they are a unit apart.
    torch.testing.assert_close(mapped, tuple(g.detach() for g in grads), rtol=1e-6, atol=0.0)
    tangents = [torch.randn(2, 3) for _ in range(2)]
    _, slope = torch.func.jvp(total, (a, b), tuple(tangents))
    torch.testing.assert_close(slope, sum((g * t).sum(-1) for g, t in zip(grads, tangents, strict=True)).detach())
    hessian = torch.func.hessian(lambda a: total(a, b).sum())(a).reshape(6, 6)
    (curve,) = torch.autograd.grad(grads[0].sum(), leaves[0])
    torch.testing.assert_close(hessian.sum(1), curve.reshape(6), rtol=1e-5, atol=0.0)


def test_compiled_it_keeps_the_tails():
    a = torch.tensor([[-30.0, 17.0, 0.3], [25.0, 2.0, -40.0]], requires_grad=True)
    b = torch.tensor([[-29.0, 18.5, 0.3], [27.0, -1.0, -44.0]], requires_grad=True)

    def kl(a, b):
        return kl_divergence(*(BernoulliVector(logits=t, validate_args=False) for t in (a, b)))

    value, compiled = kl(a, b), torch.compile(kl, fullgraph=True)(a, b)
    torch.testing.assert_close(compiled, value, rtol=1e-5, atol=0.0)
    expected, got = (torch.autograd.grad(t.sum(), (a, b)) for t in (value, compiled))
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=0.0)
