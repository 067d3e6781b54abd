"""Models of counts in Pyro both ways: its own distributions against the drop-in forms, on the same seeds."""

import math
import pickle

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, JitTrace_ELBO, Predictive, RenyiELBO, Trace_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO
from torch import nn
from torch.nn.functional import softplus

import vae_fast.integrations.pyro as ours

CELLS, GENES, HIDDEN, LATENT = 12, 7, 8, 3


class Decoder(nn.Module):
    """Parameters of a count for each cell and gene, and of each gene."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(LATENT, HIDDEN)
        self.heads = nn.ModuleList(nn.Linear(HIDDEN, GENES) for _ in range(2))
        self.of_gene = nn.Parameter(0.3 * torch.randn(GENES))

    def forward(self, z):
        h = softplus(self.body(z))
        mean, zero = (head(h) for head in self.heads)
        return mean, self.of_gene, zero


# A likelihood of each, of a family's names and three numbers: a cell's and gene's, a gene's, a cell's and gene's.
LIKELIHOODS = {
    "gamma": lambda family, a, b, c: family.GammaPoisson(b.exp(), softplus(-a)),
    "gamma of numbers": lambda family, a, b, c: family.GammaPoisson(softplus(a), torch.tensor(0.5).double()),
    "logits": lambda family, a, b, c: family.NegativeBinomial(b.exp(), logits=a),
    "probs": lambda family, a, b, c: family.NegativeBinomial(softplus(a), probs=b.sigmoid()),
    "number": lambda family, a, b, c: family.NegativeBinomial(4.0, logits=a - b),
    "inflated, logits": lambda family, a, b, c: family.ZeroInflatedNegativeBinomial(
        b.exp(), logits=a, gate_logits=c
    ),
    "inflated, probs": lambda family, a, b, c: family.ZeroInflatedNegativeBinomial(
        softplus(a), probs=b.sigmoid(), gate=c.sigmoid()
    ),
    "inflated Poisson": lambda family, a, b, c: family.ZeroInflatedPoisson(softplus(a), gate=b.sigmoid()),
    "inflated Poisson, logits": lambda family, a, b, c: family.ZeroInflatedPoisson(a.exp(), gate_logits=b + c),
    "poisson": lambda family, a, b, c: family.Poisson((a + b).exp()),
}


class Model(nn.Module):
    """A Gaussian latent a cell, and counts whose genes are one event."""

    event = 1

    def __init__(self, family, likelihood):
        super().__init__()
        torch.manual_seed(0)
        self.decoder, self.encoder = Decoder(), nn.Linear(GENES, 2 * LATENT)
        self.double()
        self.family, self.of = family, LIKELIHOODS[likelihood]

    def counts(self, z):
        return self.of(self.family, *self.decoder(z))

    def prior(self):
        return dist.Normal(torch.zeros(LATENT).double(), 1.0).to_event(1)

    def posterior(self, x):
        loc, log_scale = self.encoder(torch.log1p(x)).chunk(2, -1)
        return dist.Normal(loc, (0.3 * log_scale).exp()).to_event(1)

    def model(self, x):
        pyro.module("vae", self)
        with pyro.plate("cells", len(x)):
            z = pyro.sample("z", self.prior())
            pyro.sample("x", self.counts(z).to_event(1), obs=x)

    def guide(self, x):
        pyro.module("vae", self)
        with pyro.plate("cells", len(x)):
            pyro.sample("z", self.posterior(x))


class TwoPlates(Model):
    """Genes in a plate of their own, so that every count is a datum; scaled and masked."""

    def model(self, x):
        pyro.module("vae", self)
        seen = torch.arange(GENES) % 3 != 0
        genes, cells = pyro.plate("genes", GENES, dim=-1), pyro.plate("cells", len(x), dim=-2)
        with cells:
            z = pyro.sample("z", dist.Normal(torch.zeros(LATENT).double(), 1.0).expand([1, LATENT]).to_event(1))
        with poutine.scale(scale=0.7), poutine.mask(mask=seen), cells, genes:
            pyro.sample("x", self.counts(z.squeeze(-2)), obs=x)

    def guide(self, x):
        pyro.module("vae", self)
        loc, log_scale = self.encoder(torch.log1p(x)).unsqueeze(-2).chunk(2, -1)
        with pyro.plate("cells", len(x), dim=-2):
            pyro.sample("z", dist.Normal(loc, (0.3 * log_scale).exp()).to_event(1))


class Subsampled(Model):
    """Some of the cells, for all; padded genes are masked in the distribution."""

    INDEX = torch.tensor([7, 0, 3, 4, 11])

    def model(self, x):
        pyro.module("vae", self)
        seen = torch.arange(GENES) % 4 != 0
        with pyro.plate("cells", CELLS, subsample=self.INDEX) as index:
            z = pyro.sample("z", self.prior())
            pyro.sample("x", self.counts(z).mask(seen).to_event(1), obs=x[index])

    def guide(self, x):
        pyro.module("vae", self)
        with pyro.plate("cells", CELLS, subsample=self.INDEX) as index:
            pyro.sample("z", self.posterior(x[index]))


class LatentCounts(Model):
    """A Poisson count a cell that the guide draws, so that gradients are by the score."""

    def model(self, x):
        pyro.module("vae", self)
        with pyro.plate("cells", len(x)):
            n = pyro.sample("n", self.family.Poisson(torch.tensor(3.0).double()).expand([len(x)]))
            z = n.unsqueeze(-1) * torch.linspace(-0.2, 0.2, LATENT).double()
            pyro.sample("x", self.counts(z).to_event(1), obs=x)

    def guide(self, x):
        pyro.module("vae", self)
        with pyro.plate("cells", len(x)):
            pyro.sample("n", self.family.Poisson(softplus(self.encoder(x / 10)[:, 0]) + 0.5))


SETTINGS = (Model, TwoPlates, Subsampled, LatentCounts)


@pytest.fixture(autouse=True)
def empty_store():
    pyro.clear_param_store()


def data():
    g = torch.Generator().manual_seed(1)
    x = torch.randint(0, 30, (CELLS, GENES), generator=g).double()
    return torch.where(torch.rand(CELLS, GENES, generator=g) < 0.4, 0.0, x)


def step(setting, family, likelihood, elbo):
    pyro.clear_param_store()
    vae, x = setting(family, likelihood), data()
    torch.manual_seed(2)
    loss = elbo.loss_and_grads(vae.model, vae.guide, x)
    return loss, {name: p.grad for name, p in vae.named_parameters()}


def assert_same_step(got, expected):
    """To 1e-9 of the loss, and of the largest entry of a parameter's gradient.

    Pyro's are differences of logarithms of Γ, with some 1e-14 of 10² terms; a wrong formula is off by far more.
    """
    assert math.isclose(got[0], expected[0], rel_tol=1e-9)
    for name, theirs in expected[1].items():
        if theirs is None:
            assert got[1][name] is None, name
        else:
            assert (got[1][name] - theirs).abs().max() <= 1e-9 * theirs.abs().max(), name


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_a_training_step_is_the_same(setting, likelihood, fused):
    expected = step(setting, dist, likelihood, Trace_ELBO())
    assert not fused
    got = step(setting, ours, likelihood, Trace_ELBO())
    assert_same_step(got, expected)
    assert any(grad is not None and grad.abs().max() > 0 for grad in expected[1].values())
    name = "poisson" if likelihood == "poisson" else "negative_binomial"
    assert {f"{name}_log_prob_fwd", f"{name}_log_prob_bwd"} <= set(fused)


@pytest.mark.parametrize("elbo", [TraceGraph_ELBO, TraceMeanField_ELBO, RenyiELBO])
def test_other_elbos(elbo):
    options = {"num_particles": 3, "vectorize_particles": True, "max_plate_nesting": 1}
    for likelihood in ("gamma", "inflated, probs", "inflated Poisson"):
        steps = [step(Model, family, likelihood, elbo(**options)) for family in (ours, dist)]
        assert_same_step(*steps)


def train(family, likelihood, steps=20):
    pyro.clear_param_store()
    vae, x = TwoPlates(family, likelihood), data()
    torch.manual_seed(3)
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())
    return [svi.step(x) for _ in range(steps)]


@pytest.mark.parametrize("likelihood", ["gamma", "logits", "inflated, logits", "inflated Poisson", "poisson"])
def test_training_is_the_same(likelihood):
    theirs, mine = train(dist, likelihood), train(ours, likelihood)
    # Adam divides by gradients' size, and so spreads their last bits; it stays far below 1e-6 for 20 steps.
    assert all(math.isclose(a, b, rel_tol=1e-6) for a, b in zip(mine, theirs, strict=True))
    assert mine[-1] < mine[0]


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_jit_elbo():
    steps = []
    for family in (ours, dist):
        pyro.clear_param_store()
        vae, elbo = Model(family, "inflated, logits"), JitTrace_ELBO(ignore_jit_warnings=True)
        losses = []
        for seed in (4, 5):
            torch.manual_seed(seed)
            vae.zero_grad()
            losses.append(elbo.loss_and_grads(vae.model, vae.guide, data()))
        assert losses[0] != losses[1]
        steps.append((losses[1], {name: p.grad for name, p in vae.named_parameters()}))
    assert_same_step(*steps)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_counts_are_predicted(likelihood):
    vae = Model(ours, likelihood)
    drawn = Predictive(poutine.uncondition(vae.model), num_samples=5)(data())["x"]
    assert drawn.shape == (5, CELLS, GENES) and not torch.equal(drawn[0], drawn[1])
    assert ((drawn >= 0) & (drawn == drawn.floor())).all()


# ---- the classes --------------------------------------------------------------------------------------------


def both(likelihood):
    g = torch.Generator().manual_seed(5)
    numbers = [torch.randn(shape, generator=g).double() for shape in ((3, 2, 4), (4,), (2, 1))]
    return [LIKELIHOODS[likelihood](family, *numbers) for family in (ours, dist)]


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_parameters_and_moments(likelihood):
    mine, theirs = both(likelihood)
    torch.testing.assert_close(mine.mean, theirs.mean)
    torch.testing.assert_close(mine.variance, theirs.variance)
    for name in type(theirs).arg_constraints:
        torch.testing.assert_close(getattr(mine, name), getattr(theirs, name))


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_what_pyro_asks_of_a_distribution(likelihood):
    mine, theirs = both(likelihood)
    assert type(mine).__name__ == type(theirs).__name__
    assert mine.shape((5,)) == theirs.shape((5,)) and mine.event_dim == theirs.event_dim == 0
    assert mine.has_rsample is theirs.has_rsample is False
    assert mine.has_enumerate_support is theirs.has_enumerate_support is False
    assert mine.support.is_discrete and mine().shape == mine.batch_shape
    # Not of theirs: a gate that was asked for keeps Pyro's from being expanded.
    x = mine.sample((7,))
    wide = mine.to_event(1)
    assert type(wide) is type(mine) and type(wide.to_event(-1)) is type(mine)
    for d, e in (
        (mine, theirs),
        (wide, theirs.to_event(1)),
        (mine.to_event(), theirs.to_event()),
        (mine.expand_by((5, 1)), theirs.expand_by((5, 1))),
        (mine.expand((7, 3, 2, 4)), theirs.expand((7, 3, 2, 4))),
        (mine.expand((7, 3, 2, 4)).to_event(2).expand((2, 7, 3)), theirs.expand((2, 7, 3, 2, 4)).to_event(2)),
        (mine.mask(torch.arange(4) > 1), theirs.mask(torch.arange(4) > 1)),
        (wide.mask(torch.tensor([True, False])), theirs.to_event(1).mask(torch.tensor([True, False]))),
    ):
        torch.testing.assert_close(d.log_prob(x), e.log_prob(x), rtol=1e-9, atol=1e-9)
        assert d.sample().shape == e.sample().shape
    again = pickle.loads(pickle.dumps(mine))
    assert type(again) is type(mine) and torch.equal(again.log_prob(x), mine.log_prob(x))
    parts = mine.score_parts(x)
    assert parts.score_function is parts.log_prob


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_sample_statistics(likelihood):
    """Means of 20000 draws within six standard errors of Pyro's mean: by chance once in 10⁷ of all 24 each."""
    mine, theirs = both(likelihood)
    torch.manual_seed(6)
    x = mine.sample((20000,))
    error = x.mean(0) - theirs.mean
    assert (error.abs() < 6 * (theirs.variance / 20000).sqrt()).all()
    zeros = theirs.log_prob(torch.zeros(()).double()).exp()
    share = (x == 0).double().mean(0)
    assert ((share - zeros).abs() < 6 * (zeros * (1 - zeros) / 20000).sqrt() + 1e-9).all()


def test_a_gate_of_nothing_and_of_everything():
    gate = torch.tensor([0.0, 0.3, 1.0]).double()
    for x in (0.0, 4.0):
        value = torch.full((3,), x).double()
        for name, arguments in (
            ("ZeroInflatedPoisson", {"rate": torch.ones(3).double()}),
            ("ZeroInflatedNegativeBinomial", {"total_count": 2.0, "logits": torch.zeros(3).double()}),
        ):
            mine, theirs = (getattr(family, name)(**arguments, gate=gate) for family in (ours, dist))
            torch.testing.assert_close(mine.log_prob(value), theirs.log_prob(value))


@pytest.mark.parametrize("event_ndim", [0, 1, 2])
def test_shapes_are_inferred(event_ndim):
    shapes = {"total_count": (3,), "logits": (4, 2, 1), "gate": ()}
    made = ours.ZeroInflatedNegativeBinomial(
        torch.ones(3), logits=torch.ones(4, 2, 1), gate=0.5, event_ndim=event_ndim
    )
    expected = made.batch_shape, made.event_shape
    assert ours.ZeroInflatedNegativeBinomial.infer_shapes(**shapes, event_ndim=event_ndim) == expected
    assert ours.GammaPoisson.infer_shapes(concentration=(3,), rate=(2, 1)) == ((2, 3), ())


def test_bad_arguments():
    one = torch.ones(2)
    for bad in (
        lambda: ours.GammaPoisson(one, -one),
        lambda: ours.GammaPoisson(0.0, one),
        lambda: ours.NegativeBinomial(one, probs=one),
        lambda: ours.ZeroInflatedPoisson(one, gate=2 * one),
        lambda: ours.ZeroInflatedPoisson(-one, gate_logits=one),
    ):
        with pytest.raises(ValueError, match="to satisfy the constraint"):
            bad()
    for bad in (
        lambda: ours.ZeroInflatedPoisson(one),
        lambda: ours.ZeroInflatedNegativeBinomial(one, logits=one, gate=one, gate_logits=one),
    ):
        with pytest.raises(ValueError, match="either zi_logits or zi_probs"):
            bad()
    with pytest.raises(ValueError, match="within the support"):
        ours.GammaPoisson(one, one).log_prob(0.5 * one)
