"""Pyro's own VAE both ways: Normal and Bernoulli with to_event against the drop-in forms, on the same noise."""

import math
import pickle
from types import SimpleNamespace

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import (
    SVI,
    JitTrace_ELBO,
    JitTraceMeanField_ELBO,
    Predictive,
    RenyiELBO,
    Trace_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
)
from pyro.infer.autoguide import AutoNormal
from torch import nn
from torch.distributions import kl_divergence
from torch.profiler import ProfilerActivity, profile

import vae_fast as vf
from vae_fast.integrations.pyro import BernoulliVector, DiagonalNormal

N, PIXELS, HIDDEN, LATENT = 12, 30, 16, 4
ELBOS = {"Trace_ELBO": Trace_ELBO, "TraceMeanField_ELBO": TraceMeanField_ELBO}

# A family of distributions: q(z|x) of loc and log σ, p(z), p(x|z) of mean and σ, of logits, and of single pixels.
PYRO = SimpleNamespace(
    q=lambda loc, log_scale: dist.Normal(loc, log_scale.exp()).to_event(1),
    p=lambda loc, scale: dist.Normal(loc, scale).to_event(1),
    gaussian=lambda loc, scale: dist.Normal(loc, scale).to_event(1),
    bernoulli=lambda logits: dist.Bernoulli(logits=logits).to_event(1),
    pixels=lambda logits: dist.Bernoulli(logits=logits),
)
FUSED = SimpleNamespace(
    q=lambda loc, log_scale: DiagonalNormal(loc, log_scale, param="logstd"),
    p=DiagonalNormal,
    gaussian=DiagonalNormal,
    bernoulli=lambda logits: BernoulliVector(logits=logits),
    pixels=lambda logits: BernoulliVector(logits=logits, event_ndim=0),
)
# The least that can be changed: the names alone.
RENAMED = SimpleNamespace(
    q=lambda loc, log_scale: DiagonalNormal(loc, log_scale.exp(), 0).to_event(1),
    p=lambda loc, scale: DiagonalNormal(loc, scale, 0).to_event(1),
    gaussian=lambda loc, scale: DiagonalNormal(loc, scale, 0).to_event(1),
    bernoulli=lambda logits: BernoulliVector(logits=logits, event_ndim=0).to_event(1),
    pixels=lambda logits: BernoulliVector(logits=logits, event_ndim=0),
)
# A posterior of ours under a prior of Pyro's, which a TraceMeanField_ELBO divides as well.
MIXED = SimpleNamespace(**{**vars(FUSED), "p": PYRO.p})
FAMILIES = {"fused": FUSED, "renamed": RENAMED, "mixed": MIXED}


class VAE(nn.Module):
    """The form of Pyro's example: two softplus networks, a model and a guide with one plate."""

    def __init__(self, family, dtype):
        super().__init__()
        torch.manual_seed(0)
        self.family = family
        self.hidden, self.out = nn.Linear(PIXELS, HIDDEN), nn.Linear(HIDDEN, 2 * LATENT)
        self.back, self.logits = nn.Linear(LATENT, HIDDEN), nn.Linear(HIDDEN, PIXELS)
        self.noise = nn.Parameter(torch.tensor(0.3))
        self.to(dtype)

    def encode(self, x):
        return self.out(nn.functional.softplus(self.hidden(x))).chunk(2, -1)

    def decode(self, z):
        return self.logits(nn.functional.softplus(self.back(z)))

    def prior(self, x):
        return self.family.p(x.new_zeros(LATENT), x.new_ones(LATENT))

    def plate(self, x):
        return pyro.plate("data", len(x))

    def model(self, x):
        pyro.module("vae", self)
        with self.plate(x):
            z = pyro.sample("z", self.prior(x))
            pyro.sample("x", self.family.bernoulli(self.decode(z)), obs=x)

    def guide(self, x):
        pyro.module("vae", self)
        with self.plate(x):
            pyro.sample("z", self.family.q(*self.encode(x)))


class Subsampled(VAE):
    INDEX = torch.tensor([7, 0, 3, 4, 11])

    def plate(self, x):
        return pyro.plate("data", N, subsample=self.INDEX)

    def model(self, x):
        super().model(x[self.INDEX])

    def guide(self, x):
        super().guide(x[self.INDEX])


class MaskedSites(VAE):
    """poutine.mask over everything: padded data count for nothing."""

    def _masked(self, f, x):
        with poutine.mask(mask=torch.arange(len(x)) % 3 != 0):
            f(x)

    def model(self, x):
        self._masked(super().model, x)

    def guide(self, x):
        self._masked(super().guide, x)


class MaskedDistributions(VAE):
    """The method mask: of the latent's distributions, of the likelihood, and of single pixels."""

    def model(self, x):
        pyro.module("vae", self)
        rows, seen = torch.arange(len(x)) % 4 != 0, torch.arange(PIXELS) % 5 != 0
        with self.plate(x):
            z = pyro.sample("z", self.prior(x).mask(rows))
            pyro.sample("x", self.family.bernoulli(self.decode(z)).mask(rows), obs=x)
            pyro.sample("y", self.family.pixels(self.decode(z)).mask(seen).to_event(1), obs=1 - x)

    def guide(self, x):
        pyro.module("vae", self)
        with self.plate(x):
            pyro.sample("z", self.family.q(*self.encode(x)).mask(torch.arange(len(x)) % 4 != 0))


class Annealed(VAE):
    """poutine.scale of the latent, as KL annealing is written; a Gaussian likelihood with one learned σ."""

    def model(self, x):
        pyro.module("vae", self)
        with self.plate(x):
            with poutine.scale(scale=0.3):
                z = pyro.sample("z", self.prior(x))
            pyro.sample("x", self.family.gaussian(self.decode(z), self.noise.exp()), obs=x)

    def guide(self, x):
        with poutine.scale(scale=0.3):
            super().guide(x)


class PartlyObserved(VAE):
    """obs_mask: what is not observed is a latent variable, which the guide draws."""

    def model(self, x):
        pyro.module("vae", self)
        with self.plate(x):
            z = pyro.sample("z", self.prior(x))
            fn = self.family.gaussian(self.decode(z), self.noise.exp())
            pyro.sample("x", fn, obs=x, obs_mask=torch.arange(len(x)) % 2 == 0)

    def guide(self, x):
        pyro.module("vae", self)
        with self.plate(x):
            pyro.sample("z", self.family.q(*self.encode(x)))
            pyro.sample("x_unobserved", self.family.q(x, self.noise.expand(PIXELS)))


class Hierarchical(VAE):
    """Two latent layers under two nested plates, the second with a learned prior."""

    def model(self, x):
        pyro.module("vae", self)
        with pyro.plate("groups", 3, dim=-2), pyro.plate("data", len(x), dim=-1):
            top = pyro.sample("top", self.prior(x))
            z = pyro.sample("z", self.family.p(0.5 * top, self.noise.exp() * torch.ones_like(top)))
            pyro.sample("x", self.family.bernoulli(self.decode(z)), obs=x.expand(3, *x.shape))

    def guide(self, x):
        pyro.module("vae", self)
        loc, log_scale = self.encode(x)
        with pyro.plate("groups", 3, dim=-2), pyro.plate("data", len(x), dim=-1):
            pyro.sample("top", self.family.q(loc.expand(3, *loc.shape), log_scale))
            pyro.sample("z", self.family.q(-loc, 0.5 * log_scale))


SETTINGS = (VAE, Subsampled, MaskedSites, MaskedDistributions, Annealed, PartlyObserved, Hierarchical)


def _noise_of_ours(shape, dtype, device):
    """What rsample draws: a seed from the default generator, and the normals of that seed."""
    seed = int(torch.empty((), dtype=torch.int64).random_(2**63 - 1))
    return vf.standard_normal(shape, seed=seed, dtype=dtype, device=device)


@pytest.fixture(autouse=True)
def same_noise(monkeypatch):
    monkeypatch.setattr(torch.distributions.normal, "_standard_normal", _noise_of_ours)
    pyro.clear_param_store()


def data(dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    return (torch.rand(N, PIXELS, generator=generator) < 0.4).to(dtype)


def step(setting, family, elbo, dtype=torch.float64):
    """The loss, every parameter's gradient, and the names of the operators that ran, of one step."""
    pyro.clear_param_store()
    vae, x = setting(family, dtype), data(dtype)
    torch.manual_seed(2)
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        loss = elbo.loss_and_grads(vae.model, vae.guide, x)
    grads = {name: p.grad for name, p in vae.named_parameters()}
    return loss, grads, {event.key for event in profiled.key_averages()}


def fused(names):
    return {name.removeprefix("vae_fast::") for name in names if name.startswith("vae_fast::")}


def assert_same_step(ours, theirs, rtol):
    """Loss and gradients to ``rtol``: of the loss, and of the largest entry of a parameter's gradient."""
    assert math.isclose(ours[0], theirs[0], rel_tol=rtol)
    assert ours[1].keys() == theirs[1].keys()
    for name, expected in theirs[1].items():
        got = ours[1][name]
        if expected is None:
            assert got is None, name
            continue
        largest = expected.abs().max()
        assert largest > 0 and (got - expected).abs().max() <= rtol * largest, name


# Sums of 10³ float64 terms lose at most 1e-13 of themselves; a wrong formula is off by far more than 1e-10.
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("elbo", ELBOS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_training_step_is_the_same(setting, elbo, family):
    theirs = step(setting, PYRO, ELBOS[elbo]())
    ours = step(setting, FAMILIES[family], ELBOS[elbo]())
    assert_same_step(ours, theirs, 1e-10)
    assert fused(theirs[2]) == {"standard_normal_fwd"}
    expected = {"rsample_fwd", "rsample_bwd", "gaussian_log_prob_fwd"}
    if setting not in (Annealed, PartlyObserved):
        expected |= {"bernoulli_log_prob_fwd", "bernoulli_log_prob_bwd"}
    if elbo == "TraceMeanField_ELBO":
        expected |= {"gaussian_kl_fwd", "gaussian_kl_bwd"}
    if elbo == "Trace_ELBO" or setting in (Annealed, PartlyObserved):
        expected |= {"gaussian_log_prob_bwd"}
    assert fused(ours[2]) == expected
    assert not ours[2] & {"aten::normal_", "aten::binary_cross_entropy_with_logits", "aten::erfinv"}


@pytest.mark.parametrize("elbo", ELBOS)
def test_a_training_step_in_float32(elbo):
    # Two float32 evaluations of sums of some 10³ terms: 2 · log₂(10³) roundings of 6e-8 and the networks' own.
    theirs, ours = (step(VAE, family, ELBOS[elbo](), torch.float32) for family in (PYRO, FUSED))
    assert_same_step(ours, theirs, 1e-5)


@pytest.mark.parametrize("vectorised", [False, True])
@pytest.mark.parametrize("elbo", [Trace_ELBO, TraceMeanField_ELBO, RenyiELBO])
@pytest.mark.parametrize("setting", [VAE, Subsampled, MaskedDistributions])
def test_particles(setting, elbo, vectorised):
    options = {"num_particles": 3, "vectorize_particles": vectorised, "max_plate_nesting": 1}
    theirs, ours = (step(setting, family, elbo(**options)) for family in (PYRO, FUSED))
    assert_same_step(ours, theirs, 1e-10)
    assert "rsample_bwd" in fused(ours[2])


def test_trace_graph():
    theirs, ours = (step(VAE, family, TraceGraph_ELBO()) for family in (PYRO, FUSED))
    assert_same_step(ours, theirs, 1e-10)


def train(family, steps=20):
    pyro.clear_param_store()
    vae, x = VAE(family, torch.float64), data()
    torch.manual_seed(3)
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-2}), TraceMeanField_ELBO())
    return [svi.step(x) for _ in range(steps)], vae


def test_training_is_the_same():
    (theirs, _), (ours, vae) = train(PYRO), train(FUSED)
    # Adam divides by gradients' size, and so spreads their last bits; it stays far below 1e-6 for 20 steps.
    assert all(math.isclose(a, b, rel_tol=1e-6) for a, b in zip(ours, theirs, strict=True))
    assert ours[-1] < ours[0]
    samples = Predictive(vae.model, guide=vae.guide, num_samples=5, return_sites=("z",))(data())["z"]
    assert samples.shape == (5, N, LATENT) and not torch.equal(samples[0], samples[1])


@pytest.mark.parametrize("elbo", ELBOS)
def test_an_automatic_guide(elbo):
    losses = []
    for family in (PYRO, FUSED):
        pyro.clear_param_store()
        vae, x = VAE(family, torch.float64), data()
        guide = AutoNormal(poutine.block(vae.model, hide=["x"]), init_loc_fn=pyro.infer.autoguide.init_to_mean)
        torch.manual_seed(4)
        losses.append(ELBOS[elbo]().loss_and_grads(vae.model, guide, x))
    assert math.isclose(*losses, rel_tol=1e-10)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("elbo", [JitTrace_ELBO, JitTraceMeanField_ELBO])
def test_a_jit_elbo_draws_anew(elbo):
    vae, x = VAE(FUSED, torch.float64), data()
    jit = elbo(ignore_jit_warnings=True)
    losses = torch.tensor([jit.loss_and_grads(vae.model, vae.guide, x) for _ in range(50)])
    plain = ELBOS[elbo.__name__.removeprefix("Jit")]()
    others = torch.tensor([plain.loss(vae.model, vae.guide, x) for _ in range(50)])
    assert losses.unique().numel() == 50
    # Five standard errors of the difference of two means: by chance once in 10⁶.
    assert (losses.mean() - others.mean()).abs() < 5 * math.sqrt((losses.var() + others.var()) / 50)


# ---- the classes --------------------------------------------------------------------------------------------


def test_what_pyro_asks_of_a_distribution():
    loc, scale = torch.randn(3, 2, 4), torch.rand(4) + 0.1
    for ours, theirs in (
        (DiagonalNormal(loc, scale), dist.Normal(loc, scale).to_event(1)),
        (BernoulliVector(logits=loc), dist.Bernoulli(logits=loc).to_event(1)),
    ):
        assert ours.shape((5,)) == theirs.shape((5,)) and ours.event_dim == theirs.event_dim
        assert ours.has_rsample is theirs.has_rsample
        assert ours.has_enumerate_support is theirs.has_enumerate_support is False
        assert ours().shape == theirs().shape == ours(torch.Size((6,))).shape[1:]
        wide, narrow = ours.to_event(), ours.to_event(-1)
        assert type(wide) is type(narrow) is type(ours) and isinstance(ours, type(ours).__mro__[1])
        assert wide.event_shape == (3, 2, 4) and narrow.event_shape == ()
        x = ours.sample((7,))
        for d, e in (
            (ours, theirs),
            (wide, theirs.to_event(2)),
            (narrow, theirs.to_event(-1)),
            (ours.expand_by((5, 1)), theirs.expand_by((5, 1))),
            (ours.expand((7, 3, 2)), theirs.expand((7, 3, 2))),
            (ours.mask(torch.tensor([True, False])), theirs.mask(torch.tensor([True, False]))),
        ):
            torch.testing.assert_close(d.log_prob(x), e.log_prob(x), rtol=1e-5, atol=1e-5)
            assert type(d) is type(ours) or type(d) is type(e)
        again = pickle.loads(pickle.dumps(ours))
        assert type(again) is type(ours) and torch.equal(again.log_prob(x), ours.log_prob(x))
        parts = ours.score_parts(x)
        assert (parts.score_function is not parts.log_prob) == ours.has_rsample
        assert ours.to_event(0) is ours


@pytest.mark.parametrize("event_ndim", [0, 1, 2])
@pytest.mark.parametrize(
    "cls, arguments",
    [
        (DiagonalNormal, {"loc": torch.zeros(4, 2, 3), "scale": torch.ones(3)}),
        (DiagonalNormal, {"loc": torch.zeros(2, 3), "scale": 1.0}),
        (DiagonalNormal, {"loc": torch.zeros(4, 1, 3), "scale": torch.ones(2, 1), "param": "softplus"}),
        (BernoulliVector, {"logits": torch.zeros(4, 2, 3)}),
        (BernoulliVector, {"probs": torch.zeros(2, 3)}),
    ],
)
def test_shapes_are_inferred(cls, arguments, event_ndim):
    """As Pyro's own suite asks: the shape of each argument, () for what is no tensor."""
    shapes = {k: v.shape if isinstance(v, torch.Tensor) else () for k, v in arguments.items()}
    d = cls(**arguments, event_ndim=event_ndim)
    assert cls.infer_shapes(**shapes, event_ndim=event_ndim) == (d.batch_shape, d.event_shape)
    assert cls.infer_shapes(**shapes) == cls.infer_shapes(**shapes, event_ndim=1)


def test_shapes_that_cannot_be():
    with pytest.raises(ValueError, match="event_ndim=2 does not fit loc"):
        DiagonalNormal.infer_shapes(loc=(3,), event_ndim=2)
    with pytest.raises(RuntimeError, match="roadcast"):
        DiagonalNormal.infer_shapes(loc=(3,), scale=(2,))


# ---- the divergences that Pyro has besides PyTorch's --------------------------------------------------------


def test_divergences_to_a_multivariate_normal():
    loc, scale = torch.randn(2, 3).double(), torch.rand(3).double() + 0.5
    factor = torch.randn(3, 3).double()
    prior = dist.MultivariateNormal(torch.randn(3).double(), factor @ factor.mT + torch.eye(3))
    theirs = kl_divergence(dist.Normal(loc, scale).to_event(1), prior)
    torch.testing.assert_close(kl_divergence(DiagonalNormal(loc, scale), prior), theirs)
    torch.testing.assert_close(kl_divergence(DiagonalNormal(loc, scale, 0).to_event(1), prior), theirs)


def test_divergences_of_a_point():
    point, loc = torch.randn(2, 3).double(), torch.randn(2, 3).double()
    ones = (point > 0).double()
    for v, ours, theirs in (
        (point, DiagonalNormal(loc, 1.0), dist.Normal(loc, 1.0).to_event(1)),
        (ones, BernoulliVector(logits=loc), dist.Bernoulli(logits=loc).to_event(1)),
    ):
        for delta in (dist.Delta(v, event_dim=1), dist.Delta(v).to_event(1)):
            torch.testing.assert_close(kl_divergence(delta, ours), -theirs.log_prob(v))
        wide = kl_divergence(dist.Delta(v).to_event(2), ours.to_event(1))
        torch.testing.assert_close(wide, -theirs.log_prob(v).sum())
    with pytest.raises(NotImplementedError):
        kl_divergence(ours, dist.Delta(ones).to_event(1))


def test_divergences_under_a_mask():
    loc, rows = torch.randn(2, 3).double(), torch.tensor([True, False])
    for ours, theirs in (
        (DiagonalNormal(loc, 2.0), dist.Normal(loc, 2.0).to_event(1)),
        (BernoulliVector(logits=loc), dist.Bernoulli(logits=loc).to_event(1)),
    ):
        other = theirs.expand((2,))
        got = kl_divergence(ours.mask(rows), type(ours).expand(ours, (2,)).mask(True))
        assert torch.equal(got, torch.zeros(2).double())
        prior = (
            dist.Normal(0 * loc, 1.0).to_event(1) if ours.has_rsample else dist.Bernoulli(0 * loc + 0.3).to_event(1)
        )
        torch.testing.assert_close(
            kl_divergence(ours.mask(rows), prior.mask(rows)), kl_divergence(other, prior) * rows
        )


# ---- Pyro's published cases of any distribution -------------------------------------------------------------


EVERY = [
    lambda: DiagonalNormal(torch.randn(1, 3), torch.rand(1, 3) + 0.1),
    lambda: DiagonalNormal(torch.randn(2, 1, 3), 1.5, 0),
    lambda: BernoulliVector(logits=torch.randn(1, 3)),
    lambda: BernoulliVector(torch.rand(2, 1, 3), event_ndim=0),
]


def assert_scores_agree(small, large):
    x = small.sample()
    torch.testing.assert_close(small.log_prob(x).expand(large.batch_shape), large.log_prob(x))
    x = large.sample()
    assert x.shape == large.batch_shape + large.event_shape
    torch.testing.assert_close(small.log_prob(x), large.log_prob(x))


@pytest.mark.parametrize("default", [False, True])
@pytest.mark.parametrize("shape_type", [torch.Size, tuple, list])
@pytest.mark.parametrize("make", EVERY)
def test_pyros_cases_of_expand(make, shape_type, default):
    """By the class's own expand, and by the one that Pyro has for what has none."""

    def expand(d, shape):
        return dist.TorchDistribution.expand(d, shape_type(shape)) if default else d.expand(shape_type(shape))

    d = make()
    for lead in ((), (2,), (2, 3)):
        assert_scores_agree(d, d.expand_by(shape_type(lead)))
        assert_scores_agree(d, expand(d, (*lead, *d.batch_shape)))
    for dim, size in enumerate(d.batch_shape):
        if size == 1:
            assert_scores_agree(d, expand(d, (*d.batch_shape[:dim], 5, *d.batch_shape[dim + 1 :])))
    for shapes in (((2, 1), (2, 3)), ((2, 1, 1), (2, 1, 3), (2, 5, 3))):
        grown = d
        for lead in shapes:
            grown = expand(grown, (*lead, *d.batch_shape))
            assert_scores_agree(d, grown)
    for before, after in (((2, 1), (4, 3)), ((2, 4), (2, 2, 1)), ((1, 2, 1), (2, 1))):
        with pytest.raises((RuntimeError, ValueError)):
            expand(d, (*before, *d.batch_shape)).expand((*after, *d.batch_shape))


@pytest.mark.parametrize("make", EVERY)
def test_pyros_cases_of_shapes_and_supports(make):
    d = make()
    x = d.sample((4,))
    assert d.support.event_dim == d.event_dim and d.support.is_discrete is type(d).support.is_discrete
    ok = d.support.check(x)
    assert ok.shape == (4, *d.batch_shape) and ok.all()
    assert d.log_prob(x).shape == (4, *d.batch_shape) and d.entropy().shape == d.batch_shape
    *lead, last = d.shape()
    for bad in (torch.ones(*lead, last + 1), *([torch.ones(*lead, last, 1)] if d.event_dim else [])):
        with pytest.raises((ValueError, RuntimeError)):
            d.log_prob(bad)
    if d.has_enumerate_support:
        for expand in (True, False):
            support = d.enumerate_support(expand=expand)
            assert support.shape == (2, *(d.batch_shape if expand else (1,) * len(d.batch_shape)))
            wide = dist.TorchDistribution.expand(d, (4, *d.batch_shape)).enumerate_support(expand=expand)
            assert wide.shape[0] == 2 and wide.unique().tolist() == [0.0, 1.0]


def test_validation_is_pyros():
    pyro.enable_validation(False)
    try:
        DiagonalNormal(torch.zeros(2), -torch.ones(2))
    finally:
        pyro.enable_validation(True)
    with pytest.raises(ValueError, match="constraint"):
        DiagonalNormal(torch.zeros(2), -torch.ones(2))
