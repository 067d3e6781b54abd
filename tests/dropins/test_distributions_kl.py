"""kl_divergence of the drop-in distributions, among themselves and with torch.distributions' own."""

import math

import pytest
import torch
from test_distributions import FORMS, SHAPES, assert_same, bernoulli_pair, gaussian_pair
from torch.distributions import Bernoulli, Cauchy, Independent, MultivariateNormal, Normal, kl_divergence

import vae_fast as vf
from vae_fast import front
from vae_fast.distributions import BernoulliVector, DiagonalNormal
from vae_fast.ops import autograd

pytestmark = pytest.mark.usefixtures("one_thread")


def assert_divergences_agree(ours, theirs, leaves):
    """All three ways that have one of ours, for a pair (p, q), and the gradient of every leaf."""
    truth = kl_divergence(*theirs)
    for p, q in (ours, (ours[0], theirs[1]), (theirs[0], ours[1])):
        assert_same(kl_divergence(p, q), truth, leaves)


def both(p, q):
    return (p[0], q[0]), (p[1], q[1]), (*p[2], *q[2])


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_every_shape(shapes):
    assert_divergences_agree(*both(gaussian_pair(*shapes), gaussian_pair(*shapes)))


@pytest.mark.parametrize("prior", FORMS, ids=lambda form: f"to-{form}")
@pytest.mark.parametrize("posterior", FORMS, ids=str)
def test_every_pair_of_forms(posterior, prior):
    """A posterior and a prior whose second arguments are different things, converted where they are."""
    assert_divergences_agree(*both(gaussian_pair((4, 3), (4, 3), **posterior), gaussian_pair((3,), (3,), **prior)))


@pytest.mark.parametrize("p, q", [((4, 2, 3), (3,)), ((3,), (4, 2, 3)), ((4, 1, 3), (2, 3))])
def test_batches_broadcast(p, q):
    assert_divergences_agree(*both(gaussian_pair(p, p), gaussian_pair(q, q[-1:])))
    ours, theirs, leaves = both(bernoulli_pair(p), bernoulli_pair(q, name="probs"))
    # PyTorch's form for two Bernoulli variables does not broadcast.
    shape = torch.broadcast_shapes(*(d.batch_shape for d in theirs))
    truth = kl_divergence(*(d.expand(shape) for d in theirs))
    for a, b in (ours, (ours[0], theirs[1]), (theirs[0], ours[1])):
        assert_same(kl_divergence(a, b), truth, leaves)


@pytest.mark.parametrize("shape", [(0, 3), (4, 0)])
def test_nothing_is_zero(shape):
    normal, bernoulli = DiagonalNormal(torch.zeros(shape), 1.0), BernoulliVector(logits=torch.zeros(shape))
    for d, single in ((normal, Normal(normal.loc, 1.0)), (bernoulli, Bernoulli(logits=bernoulli.logits))):
        for pair in ((d, d), (d, Independent(single, 1)), (Independent(single, 1), d)):
            assert torch.equal(kl_divergence(*pair), torch.zeros(shape[0]))


@pytest.mark.parametrize("event_ndim", [0, 1, 2, 3])
@pytest.mark.parametrize(
    "names", [("logits", "logits"), ("probs", "probs"), ("logits", "probs"), ("probs", "logits")]
)
def test_bernoulli(names, event_ndim):
    assert_divergences_agree(*both(*(bernoulli_pair((2, 3, 5), event_ndim, name) for name in names)))


def test_expanded():
    p, q = gaussian_pair((3,), (3,), param="logvar"), gaussian_pair((3,), ())
    expanded = [(a.expand((4,)), b.expand((4,)), leaves) for a, b, leaves in (p, q)]
    assert_divergences_agree(*both(*expanded))
    p, q = bernoulli_pair((3,)), bernoulli_pair((3,), name="probs")
    expanded = [(a.expand((4,)), b.expand((4,)), leaves) for a, b, leaves in (p, q)]
    assert_divergences_agree(*both(*expanded))


def test_single_numbers_and_nested_events():
    (p, p2, a), (q, q2, b) = gaussian_pair((5,), (5,), 0, param="logvar"), gaussian_pair((5,), (5,), 0)
    base = p2.base_dist, q2.base_dist
    assert_divergences_agree((p, q), base, (*a, *b))
    events = [Independent(d, 1) for d in (p, q)]
    truth = kl_divergence(Independent(base[0], 1), Independent(base[1], 1))
    for x in (events[0], p.to_event(1)):
        for y in (events[1], q.to_event(1), Independent(base[1], 1)):
            assert_same(kl_divergence(x, y), truth, (*a, *b))
    deep = Independent(Independent(Normal(torch.zeros(2, 3).double(), torch.ones(3).double()), 1), 1)
    d = DiagonalNormal(torch.randn(2, 3).double(), 2.0, 2)
    torch.testing.assert_close(
        kl_divergence(d, deep), kl_divergence(Normal(d.loc, d.scale), Normal(d.loc * 0, 1.0)).sum()
    )
    r, s = (Bernoulli(torch.rand(5).double()) for _ in range(2))
    t = BernoulliVector(r.probs, event_ndim=0)
    torch.testing.assert_close(kl_divergence(t, s), kl_divergence(r, s))
    torch.testing.assert_close(kl_divergence(s, t), kl_divergence(s, r))


# ---- Gaussians of any covariance ----------------------------------------------------------------------------


def multivariate(batch=(), k=3, seed=0, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    loc = torch.randn(*batch, k, generator=g, dtype=dtype, requires_grad=True)
    factor = torch.randn(*batch, k, k, generator=g, dtype=dtype)
    scale_tril = (factor.tril(-1) + torch.diag_embed(factor.diagonal(dim1=-2, dim2=-1).exp())).requires_grad_()
    return MultivariateNormal(loc, scale_tril=scale_tril), (loc, scale_tril)


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("shapes", [((2, 3), (2, 3)), ((3,), ()), ((4, 1, 3), (1,))], ids=str)
@pytest.mark.parametrize("batch", [(), (2,)], ids=str)
def test_multivariate_normals(form, shapes, batch):
    """Both ways, against PyTorch's of two multivariate normals, one of a diagonal covariance."""
    p, theirs, leaves = gaussian_pair(*shapes, **form)
    q, others = multivariate(batch)
    diagonal = MultivariateNormal(theirs.mean, scale_tril=torch.diag_embed(theirs.stddev))
    # Of two batches that broadcast PyTorch's form makes one neither way.
    shape = torch.broadcast_shapes(p.batch_shape, q.batch_shape)
    for ours, truth in (
        (kl_divergence(p, q), kl_divergence(diagonal.expand(shape), q.expand(shape))),
        (kl_divergence(q, p), kl_divergence(q.expand(shape), diagonal.expand(shape))),
        (kl_divergence(p.expand(shape), q), kl_divergence(diagonal.expand(shape), q.expand(shape))),
    ):
        assert_same(ours, truth, (*leaves, *others))


def test_multivariate_normals_that_are_near():
    """Equal ones are at 0 and near ones above it: traces and determinants leave 10⁻⁷ of either sign."""
    scale = torch.rand(5, 64) + 0.5
    q = DiagonalNormal(torch.randn(5, 64), scale)
    same = MultivariateNormal(q.loc, scale_tril=torch.diag_embed(scale))
    assert torch.equal(kl_divergence(q, same), torch.zeros(5)) and torch.equal(
        kl_divergence(same, q), torch.zeros(5)
    )
    near = MultivariateNormal(q.loc, scale_tril=torch.diag_embed(scale * (1 + 2**-12)))
    truth = kl_divergence(*(DiagonalNormal(q.loc.double(), s.double()) for s in (scale, scale * (1 + 2**-12))))
    # σ and the prior's are given, so that their logarithms are rounded: 2ε beside a difference of 2⁻¹².
    torch.testing.assert_close(kl_divergence(q, near).double(), truth, rtol=2e-3, atol=0.0)


def test_a_multivariate_normal_has_vectors_for_events():
    q, _ = multivariate((2,))
    for d in (DiagonalNormal(torch.zeros(2, 3), 1.0, 0), DiagonalNormal(torch.zeros(2, 3), 1.0, 2)):
        for pair in ((d, q), (q, d)):
            with pytest.raises(NotImplementedError, match="whose events have 1 dim"):
                kl_divergence(*pair)
    # Independent of them are vectors again.
    p, theirs, leaves = gaussian_pair((2, 3), (3,), 2)
    truth = kl_divergence(MultivariateNormal(theirs.mean, scale_tril=torch.diag_embed(theirs.stddev)), q).sum()
    assert_same(kl_divergence(p, Independent(q, 1)), truth, leaves)


# ---- what does not fit --------------------------------------------------------------------------------------


def test_what_is_not_there_raises():
    q = DiagonalNormal(torch.zeros(2, 3), torch.ones(3))
    b = BernoulliVector(logits=torch.zeros(2, 3))
    for other in (q.to_event(), Normal(q.loc, q.scale), Independent(Normal(q.loc, q.scale), 2)):
        for pair in ((q, other), (other, q)):
            with pytest.raises(NotImplementedError, match="an event has . dims in one, . in the other"):
                kl_divergence(*pair)
    for other in (Independent(Cauchy(q.loc, q.scale), 1), Independent(Bernoulli(logits=q.loc), 1)):
        for pair in ((q, other), (other, q)):
            with pytest.raises(NotImplementedError, match="no KL divergence of"):
                kl_divergence(*pair)
    for pair in ((q, b), (b, q), (b, Normal(0.0, 1.0)), (Cauchy(0.0, 1.0), q)):
        with pytest.raises(NotImplementedError):
            kl_divergence(*pair)
    with pytest.raises(ValueError, match="do not broadcast"):
        kl_divergence(q, DiagonalNormal(torch.zeros(4), torch.ones(4)))


# ---- values that are known ----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_of_itself_it_is_zero(form):
    d, theirs, _ = gaussian_pair(dtype=torch.float32, **form)
    assert torch.equal(kl_divergence(d, d), torch.zeros(2))
    # With σ computed by PyTorch the two σ differ by some roundings δ, and a KL of δ² each.
    assert (kl_divergence(d, theirs).abs() < 1e-11).all()
    b, _, _ = bernoulli_pair()
    assert torch.equal(kl_divergence(b, b), torch.zeros(2).double())


def test_bernoulli_edges():
    """torch.distributions' published cases: certain outcomes, the same and excluded ones."""
    zero, one, half = torch.tensor([0.0]), torch.tensor([1.0]), torch.tensor([0.5])
    assert kl_divergence(BernoulliVector(zero), BernoulliVector(zero)) == 0
    for cls in (lambda p: Independent(Bernoulli(p), 1), BernoulliVector):
        for p, q in ((zero, one), (one, zero), (half, zero), (half, one)):
            assert kl_divergence(BernoulliVector(p), cls(q)) == math.inf
            assert kl_divergence(cls(p), BernoulliVector(q)) == math.inf
    some = kl_divergence(
        BernoulliVector(torch.tensor([[0.5, 0.5], [0.0, 0.5]])), BernoulliVector(torch.tensor([0.0, 0.5]))
    )
    assert some[0] == math.inf and some[1] == 0
    minus, plus = (BernoulliVector(logits=torch.tensor([s * math.inf]), validate_args=False) for s in (-1.0, 1.0))
    assert kl_divergence(minus, plus) == kl_divergence(plus, minus) == math.inf


def test_a_large_logit_is_not_certainty():
    """In float32 σ(20) is 1, for which PyTorch's form gives infinity; here it is within float32 of the truth."""
    p, q = torch.tensor([0.0]), torch.tensor([20.0])
    truth = kl_divergence(Bernoulli(logits=p.double()), Bernoulli(logits=q.double()))
    assert kl_divergence(Bernoulli(logits=p), Bernoulli(logits=q)) == math.inf
    got = kl_divergence(BernoulliVector(logits=p), BernoulliVector(logits=q))
    torch.testing.assert_close(got.double(), truth[0], rtol=3e-7, atol=0.0)


@pytest.mark.parametrize("logvar", [1e-3, -1e-3, 1e-6])
def test_near_the_prior(logvar):
    """Where ½(σ² − 1 − log σ²) cancels: PyTorch's form is hundreds of float32's units off, ours at most 3."""
    logvar = torch.full((1,), logvar)
    truth = 0.25 * logvar.double() ** 2 * (1 + logvar.double() / 3 + logvar.double() ** 2 / 12)
    standard = Independent(Normal(torch.zeros(1), torch.ones(1)), 1)
    for prior in (
        standard,
        DiagonalNormal(torch.zeros(1), 1.0),
        DiagonalNormal(0.0, 1.0, 0).expand((1,)).to_event(),
    ):
        kl = kl_divergence(DiagonalNormal(torch.zeros(1), logvar, param="logvar"), prior)
        torch.testing.assert_close(kl.double(), truth[0], rtol=3 * 2**-23, atol=0.0)
    common = kl_divergence(Independent(Normal(torch.zeros(1), (0.5 * logvar).exp()), 1), standard)
    assert (common / truth - 1).abs() > 300 * 2**-23


def test_extreme_scales_stay_finite():
    q = DiagonalNormal(torch.zeros(1), torch.tensor([-60.0]), param="logvar")
    for p in (Independent(Normal(torch.zeros(1), torch.ones(1)), 1), DiagonalNormal(torch.zeros(1), 1.0)):
        torch.testing.assert_close(kl_divergence(q, p), torch.tensor(29.5))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("form", [{"param": "softplus"}, {"param": "logstd", "bounds": (-3000, 3000)}], ids=str)
def test_a_scale_that_is_no_number_of_its_dtype(form, dtype):
    """log σ is −2000 where σ itself is 0: to a prior of another form, KL = ½(μ² − 1) − log σ."""
    loc, raw = torch.full((3,), 0.5, dtype=dtype), torch.full((3,), -2000.0, dtype=dtype, requires_grad=True)
    prior = Normal(torch.zeros(3, dtype=dtype), torch.ones(3, dtype=dtype), validate_args=False)
    kl = kl_divergence(DiagonalNormal(loc, raw, 0, validate_args=False, **form), prior)
    kl.sum().backward()
    torch.testing.assert_close(kl, torch.full_like(kl, 0.125 - 0.5 + 2000))
    torch.testing.assert_close(raw.grad, torch.full_like(raw, -1.0))


@pytest.mark.parametrize("pair", [gaussian_pair, bernoulli_pair])
def test_by_monte_carlo(pair):
    p, q = pair()[0], pair()[0]
    x = p.sample((20_000,))
    ratio = (p.log_prob(x) - q.log_prob(x)).detach()
    # Five standard errors of the mean: fails by chance once in 10⁶, for each of two.
    assert ((ratio.mean(0) - kl_divergence(p, q)).abs() < 5 * ratio.std(0) / math.sqrt(20_000)).all()


# ---- what reaches the kernel --------------------------------------------------------------------------------


@pytest.fixture
def operands(monkeypatch):
    """The first four operands of every gaussian_kl_fwd: mu, its second argument, and the prior's two."""
    seen, kernel = [], autograd.kernel

    def recorded(backend, name, *args):
        def call(*operands):
            seen.append((name, operands[:4]))
            return kernel(backend, name, *args)(*operands)

        return call

    monkeypatch.setattr(autograd, "kernel", recorded)
    monkeypatch.setattr(front.state, "on", False)
    return seen


@pytest.mark.parametrize("param, one", [("std", 1.0), ("var", 1), ("logvar", 0.0), ("logstd", 0.0)])
def test_a_standard_prior_of_numbers_is_none(operands, param, one):
    loc, raw = torch.randn(2, 3), torch.randn(2, 3)
    q = DiagonalNormal(loc, raw, param="logvar")
    prior = DiagonalNormal(0, one, 0, param=param).expand((3,)).to_event(1)
    kl = kl_divergence(q, prior)
    ((name, (mu, second, *rest)),) = operands
    assert mu is loc and second is raw
    # A common call has no prior to pass on.
    assert name == "gaussian_kl_fwd_common" or (name == "gaussian_kl_fwd" and rest == [None, None])
    assert torch.equal(kl, vf.gaussian_kl(loc, raw))
    # A prior with more data than the posterior gives them their divergences too.
    assert kl_divergence(q, prior.expand((4, 2))).shape == (4, 2)


@pytest.mark.parametrize(
    "options",
    [{"scale": 2.0}, {"loc": 1.0}, {"scale": 0.0, "param": "softplus"}, {"param_eps": 0.5}, {"bounds": (2, 3)}],
)
def test_no_other_prior_is_taken_for_standard(operands, options):
    prior = DiagonalNormal(**{"loc": 0.0, "scale": 1.0, "event_ndim": 0, **options}).expand((3,)).to_event(1)
    q = DiagonalNormal(torch.randn(2, 3).double(), 1.5)
    truth = kl_divergence(Normal(q.loc, q.scale), Normal(prior.loc.double(), prior.scale.double())).sum(1)
    torch.testing.assert_close(kl_divergence(q, prior), truth, rtol=1e-6, atol=1e-6)
    assert operands[0][1][2] is not None


def test_operands_of_one_form_are_taken_as_they_are(operands):
    leaves = [torch.randn(2, 3), torch.randn(3), torch.randn(3), torch.randn(3)]
    loc, raw, prior_loc, prior_raw = leaves
    for form in FORMS[1:]:
        kl_divergence(
            DiagonalNormal(loc, raw, validate_args=False, **form),
            DiagonalNormal(prior_loc, prior_raw, validate_args=False, **form),
        )
    assert all(a is b for _, seen in operands for a, b in zip(seen, leaves, strict=True))
    operands.clear()
    kl_divergence(DiagonalNormal(loc, raw, param="logvar"), Independent(Normal(prior_loc, torch.ones(3)), 1))
    ((_, (_, second, _, prior_scale)),) = operands
    assert second is raw and torch.equal(prior_scale, torch.ones(3))
