"""Priors of a VAE: densities, draws, and every objective's value and gradients against plain formulas in float64."""

import copy
import io
import math
import pickle

import pytest
import torch
from torch import nn
from torch.distributions import Bernoulli, Categorical, Independent, Laplace, MixtureSameFamily, Normal

import vae_fast as vf
from helpers.calls import same_bits

B, D, L, K = 3, 5, 2, 4
SAMPLED = {"elbo": 3, "iwae": 4, "miwae": (2, 3), "dreg": 4, "stl": 4}
each_objective = pytest.mark.parametrize("objective", SAMPLED)
each_prior = pytest.mark.parametrize("kind", ["mixture", "vamp", "own"])


class Encoder(nn.Module):
    latent_shape = (L,)

    def __init__(self):
        super().__init__()
        self.both = nn.Linear(D, 2 * L)
        self.calls = []

    def forward(self, x):
        self.calls.append(len(x))
        return self.both(x).chunk(2, -1)


class Own(nn.Module):
    """A user's prior: Laplace variables of one scale, of torch.distributions."""

    def __init__(self):
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(0.3))

    def distribution(self):
        return Independent(Laplace(torch.zeros(L).to(self.log_scale), self.log_scale.exp().expand(L)), 1)

    def log_prob(self, z):
        return self.distribution().log_prob(z)

    def sample(self, n, *, seed=None, generator=None):
        u = torch.special.ndtr(
            vf.rsample(torch.zeros(n, L).to(self.log_scale), 0.0, seed=seed, generator=generator)
        )
        return self.distribution().base_dist.icdf(u)


def prior(kind):
    if kind == "vamp":
        return vf.VampPrior(K, D, init=torch.rand(K, D) * 1.4 - 0.2)
    return {"mixture": lambda: mixture(), "own": Own}[kind]()


def mixture(latent=L):
    made = vf.MixturePrior(K, latent)
    with torch.no_grad():
        made.logvar.normal_(0, 0.5), made.weight_logits.normal_()
    return made.double()


def model(kind, objective="elbo", n_samples=1, **options):
    torch.manual_seed(0)
    nets = Encoder(), nn.Linear(L, D)
    return vf.VAE(*nets, prior=prior(kind), objective=objective, n_samples=n_samples, **options).double()


def data(n=B):
    return torch.rand(n, D, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def of_torch(mixed):
    latent = mixed.mu.ndim - 1
    parts = Independent(Normal(mixed.mu, torch.exp(mixed.logvar / 2)), latent)
    return MixtureSameFamily(Categorical(logits=mixed.weight_logits), parts)


def published(vae, z):
    """log p(z) of the VampPrior as its authors' code has it, whose normal leaves its constant out."""
    inputs = torch.clamp(vae.prior.pseudo_inputs, 0, 1) if vae.prior.bounded else vae.prior.pseudo_inputs
    mean, log_var = vae.encoder(inputs)
    log_normal = -0.5 * (log_var + (z.unsqueeze(-2) - mean) ** 2 / log_var.exp())
    a = log_normal.sum(-1) - math.log(len(mean))
    a_max = a.max(-1).values
    return a_max + (a - a_max.unsqueeze(-1)).exp().sum(-1).log() - z.shape[-1] / 2 * math.log(2 * math.pi)


def plain_log_prior(vae, z):
    if isinstance(vae.prior, vf.VampPrior):
        return published(vae, z)
    return (of_torch(vae.prior) if isinstance(vae.prior, vf.MixturePrior) else vae.prior).log_prob(z)


def drawn(vae, x, seed):
    """z [n, B, L] as the call with this seed draws it, with its graph, and its distribution's two parameters."""
    mu, logvar = vae.encode(x)
    n = math.prod(vae.n_samples) if isinstance(vae.n_samples, tuple) else vae.n_samples
    eps = vf.rsample(torch.zeros_like(mu), 0.0, (n,), seed=seed)
    return mu + torch.exp(0.5 * logvar) * eps, mu, logvar


def terms(vae, x, z, mu, logvar):
    """(log p(x|z), log p(z), log q(z|x)), [n, B] each."""
    log_p = Bernoulli(logits=vae.decoder(z), validate_args=False).log_prob(x).sum(-1)
    return log_p, plain_log_prior(vae, z), Normal(mu, torch.exp(0.5 * logvar)).log_prob(z).sum(-1)


class TestStandardNormal:
    def test_is_what_there_is_without_a_prior(self):
        torch.manual_seed(0)
        nets = Encoder(), nn.Linear(L, D)
        plain, named = vf.VAE(*nets), vf.VAE(*nets, prior=vf.StandardNormal())
        assert type(plain.prior) is vf.StandardNormal and plain.prior.latent_shape == (L,)
        assert [*plain.state_dict()] == [
            "encoder.both.weight",
            "encoder.both.bias",
            "decoder.weight",
            "decoder.bias",
        ]
        x = data().float()
        for call in (
            lambda vae: vae(x, seed=1),
            lambda vae: [vae.sample(3, seed=1)],
            lambda vae: [vae.log_marginal(x, 7, seed=1)],
        ):
            assert same_bits(call(plain), call(named))

    @pytest.mark.parametrize("latent", [(), (3,), (2, 3)])
    def test_by_itself(self, latent):
        normal = vf.StandardNormal(latent)
        z = torch.randn(4, 5, *latent, dtype=torch.float64)
        expected = Normal(0.0, 1.0).log_prob(z).flatten(2).sum(-1) if latent else Normal(0.0, 1.0).log_prob(z)
        torch.testing.assert_close(normal.log_prob(z), expected)
        assert torch.equal(normal.sample(6, seed=2), vf.standard_normal((6, *latent), seed=2))
        assert f"latent_shape={latent}" in repr(normal) and normal.closed_form

    def test_of_unknown_shape(self):
        normal = vf.StandardNormal()
        torch.testing.assert_close(
            normal.log_prob(torch.zeros(4, 3)), torch.full((4,), -1.5 * math.log(2 * math.pi))
        )
        with pytest.raises(ValueError, match=r"pass StandardNormal\(latent_shape\)"):
            normal.sample(2)


class TestMixture:
    @pytest.mark.parametrize("latent", [(), (3,), (2, 3)])
    def test_log_prob_and_all_gradients(self, latent):
        torch.manual_seed(1)
        made, z = mixture(latent), torch.randn(6, 7, *latent, dtype=torch.float64, requires_grad=True)
        upstream = torch.randn(6, 7, dtype=torch.float64)
        found = []
        for log_p in (made.log_prob(z), of_torch(made).log_prob(z)):
            found.append((log_p, *torch.autograd.grad((log_p * upstream).sum(), [z, *made.parameters()])))
        torch.testing.assert_close(*found)

    def test_at_the_start(self):
        torch.manual_seed(0)
        made = vf.MixturePrior(400, 50, spread=3.0)
        # 20,000 draws of N(0, 9): five standard errors of their mean and of their deviation.
        assert made.mu.mean().abs() < 5 * 3 / math.sqrt(20000)
        assert (made.mu.std() - 3).abs() < 5 * 3 / math.sqrt(40000)
        assert (made.logvar == 0).all() and (made.mixture().log_weight.exp() - 1 / 400).abs().max() < 1e-8
        assert made.latent_shape == (50,) and not made.closed_form
        assert "n_components=400, latent_shape=(50,)" in repr(made)

    @pytest.mark.parametrize("latent", [(), (3,), (2, 3)])
    def test_responsibilities(self, latent):
        torch.manual_seed(1)
        made, z = mixture(latent), torch.randn(6, 7, *latent, dtype=torch.float64)
        plain = of_torch(made)
        log_joint = plain.component_distribution.log_prob(z.unsqueeze(2)) + made.weight_logits.log_softmax(0)
        found = made.responsibilities(z)
        torch.testing.assert_close(found, log_joint.softmax(-1))
        assert torch.equal(made.predict(z), log_joint.argmax(-1)) and found.shape == (6, 7, K)
        of_one, of_other = (
            torch.autograd.grad(r[..., 1].sum(), made.parameters()) for r in (found, log_joint.softmax(-1))
        )
        torch.testing.assert_close(of_one, of_other)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
    def test_half_types_have_weights_of_float32(self, dtype):
        torch.manual_seed(1)
        made, z = mixture().to(dtype), torch.randn(6, L, dtype=dtype)
        wide = copy.deepcopy(made).float()
        for method in ("log_prob", "responsibilities"):
            torch.testing.assert_close(getattr(made, method)(z), getattr(wide, method)(z.float()))
        assert made.sample(3).dtype == dtype


class TestDraws:
    def far_apart(self, weight):
        """Components of N(1000 k, σ_k²), where each draw says which it is of."""
        made = vf.MixturePrior(len(weight), L).double()
        with torch.no_grad():
            made.mu.copy_(1000.0 * torch.arange(len(weight))[:, None].expand(-1, L))
            made.logvar.copy_(torch.linspace(-3, 3, len(weight))[:, None].expand(-1, L))
            made.weight_logits.copy_(torch.tensor(weight).log())
        return made

    def test_components_by_their_weights_and_normals_within(self):
        n, weight = 40000, [0.0, 0.1, 0.6, 0.0, 0.3, 0.0]
        made = self.far_apart(weight)
        z = made.sample(n, seed=3)
        chosen = (z[:, 0] / 1000).round().long()
        share, p = chosen.bincount(minlength=6) / n, torch.tensor(weight)
        # Five standard errors of a proportion: a fixed seed, and none at all at 0.
        assert ((share - p).abs() <= 5 * (p * (1 - p) / n).sqrt()).all()
        eps = (z - made.mu[chosen]) / torch.exp(made.logvar[chosen] / 2)
        torch.testing.assert_close(eps, vf.standard_normal((n, L), seed=3, dtype=z.dtype), rtol=0, atol=1e-8)
        # Which component it is says nothing of the normal: five standard errors of a mean of n/10 draws at the least.
        for k in (1, 2, 4):
            mine = eps[chosen == k]
            assert (mine.mean(0).abs() < 5 / math.sqrt(len(mine))).all()
            assert (mine.var(0) - 1).abs().max() < 5 * math.sqrt(2 / len(mine))

    @each_prior
    def test_are_a_pure_function_of_the_seed(self, kind):
        vae = model(kind)
        of = vae.prior if kind != "vamp" else vae.prior.with_encoder(vae.encode)
        for sample in (of.sample, vae.sample):
            first = sample(5, seed=7)
            torch.rand(3)
            assert same_bits([first], [sample(5, seed=7)]) and not torch.equal(first, sample(5, seed=8))
            torch.manual_seed(9)
            first, second = sample(5), sample(5)
            torch.manual_seed(9)
            assert torch.equal(sample(5), first) and not torch.equal(first, second)
            generators = [torch.Generator().manual_seed(2) for _ in range(2)]
            assert torch.equal(*(sample(5, generator=generator) for generator in generators))
            with pytest.raises(ValueError, match="seed or generator"):
                sample(5, seed=1, generator=torch.Generator())
        assert of.sample(5, seed=7).shape == (5, L)
        assert torch.equal(vae.sample(5, seed=7), vae.decode(of.sample(5, seed=7)).sigmoid())
        assert vae.sample(5, mean=False).unique().tolist() == [0, 1] and not vae.sample(5).requires_grad

    def test_have_the_mixture_s_moments(self):
        torch.manual_seed(2)
        made, n = mixture(), 40000
        z, plain = made.sample(n, seed=1), of_torch(made)
        mean, variance = plain.mean.detach(), plain.variance.detach()
        assert ((z.mean(0) - mean).abs() < 5 * (variance / n).sqrt()).all()
        square = (z - mean) ** 2
        assert ((square.mean(0) - variance).abs() < 5 * square.std(0) / math.sqrt(n)).all()

    def test_of_a_posterior_with_one_variance(self):
        """A VampPrior of an encoder whose log-variance is not of mu's shape."""

        class Shared(Encoder):
            def forward(self, x):
                return super().forward(x)[0], torch.tensor([-1.0], dtype=x.dtype)

        vae = vf.VAE(Shared(), nn.Linear(L, D), prior=vf.VampPrior(K, D)).double()
        assert vae.prior.with_encoder(vae.encode).sample(7, seed=1).shape == (7, L)
        assert vae(data(), seed=1).elbo.isfinite().all()


class TestVampPrior:
    def test_at_the_start(self):
        torch.manual_seed(0)
        made = vf.VampPrior(500, (4, 10))
        # 20,000 draws of N(0.5, 0.01²): five standard errors.
        assert (made.pseudo_inputs.mean() - 0.5).abs() < 5 * 0.01 / math.sqrt(20000)
        assert (made.pseudo_inputs.std() - 0.01).abs() < 5 * 0.01 / math.sqrt(40000)
        assert "n_components=500, data_shape=(4, 10), bounded=True" in repr(made) and not made.closed_form

    @pytest.mark.parametrize("dtype", [torch.uint8, torch.bool, torch.float32], ids=str)
    def test_starts_at_data(self, dtype):
        x = (torch.rand(K, D) * 255).to(dtype) if dtype == torch.uint8 else torch.rand(K, D).round().to(dtype)
        before = x.clone()
        made = vf.VampPrior(K, D, init=x)
        assert torch.equal(made.pseudo_inputs, x.float() / (255 if dtype == torch.uint8 else 1))
        with torch.no_grad():
            made.pseudo_inputs.fill_(0.3)
        assert torch.equal(x, before)

    @pytest.mark.parametrize("bounded", [True, False])
    @pytest.mark.parametrize("beta", [1.0, 0.3])
    def test_the_loss_and_all_gradients_are_the_published_code_s(self, bounded, beta):
        vae, x = model("vamp", beta=beta), data()
        vae.prior.bounded = bounded
        inputs = vae.prior.pseudo_inputs.detach()
        outside = (inputs < 0) | (inputs > 1)
        assert outside.any() and not outside.all()
        out = vae(x, seed=3)
        z, mu, logvar = drawn(vae, x, 3)
        log_p, log_prior, log_q = (t[0] for t in terms(vae, x, z, mu, logvar))
        kl = -(log_prior - log_q)
        loss = (-log_p + beta * kl).mean()
        torch.testing.assert_close((*out,), (log_p - kl, log_p, kl, loss, z[0]))
        found, expected = (torch.autograd.grad(t, list(vae.parameters())) for t in (out.loss, loss))
        torch.testing.assert_close(found, expected)
        of_inputs = dict(zip((name for name, _ in vae.named_parameters()), found, strict=True))[
            "prior.pseudo_inputs"
        ]
        assert bool((of_inputs[outside] == 0).all()) == bounded and (of_inputs[~outside] != 0).all()

    @pytest.mark.parametrize("call", ["forward", "samples", "log_marginal", "sample"])
    def test_asks_the_encoder_once_a_call(self, call):
        vae = model("vamp", *(("iwae", 5) if call == "samples" else ()))
        vae.encoder.calls.clear()
        if call == "sample":
            vae.sample(9)
        elif call == "log_marginal":
            vae.log_marginal(data(), 10, chunk_size=3)
        else:
            vae(data())
        assert vae.encoder.calls == ([K] if call == "sample" else [B, K])

    def test_images(self):
        class Images(nn.Module):
            def __init__(self):
                super().__init__()
                self.conv = nn.Conv2d(1, 4, 4, stride=2, padding=1)

            def forward(self, x):
                return self.conv(x).chunk(2, 1)

        decoder = nn.ConvTranspose2d(2, 1, 4, stride=2, padding=1)
        vae = vf.VAE(Images(), decoder, prior=vf.VampPrior(K, (1, 8, 8)))
        x = (torch.rand(B, 1, 8, 8) * 255).to(torch.uint8)
        out = vae(x, seed=1)
        out.loss.backward()
        assert all((p.grad != 0).any() for p in vae.parameters())
        assert vae.sample(3).shape == (3, 1, 8, 8) and vae.log_marginal(x, 3).shape == (B,)
        mixed = vae.prior.with_encoder(vae.encode)
        assert mixed.responsibilities(out.z).shape == (B, K) and mixed.mu.shape == (K, 2, 4, 4)


def of_the_paper(objective, vae, x, seed):
    """Every parameter's gradient of −mean over the data, sample by sample: φ's by log q and z, and by the prior."""
    z, mu, logvar = drawn(vae, x, seed)
    own, phi = [*vae.decoder.parameters(), *vae.prior.parameters()], [*vae.encoder.parameters()]
    n = len(z)
    log_p, log_prior, log_q = terms(vae, x, z, mu, logvar)
    log_w = log_p + log_prior - log_q
    of_m = log_w.detach().view(*(SAMPLED["miwae"] if objective == "miwae" else (1, n)), B)
    weight = (of_m.softmax(1) / len(of_m)).view(n, B)
    if objective in ("stl", "elbo"):
        weight = torch.full_like(weight, 1 / n)
    whole = (weight * log_w).sum() / -B
    if objective not in ("stl", "dreg"):
        return torch.autograd.grad(whole, phi + own)
    by_own = torch.autograd.grad(whole, own, retain_graph=True)
    # φ by way of z, and by that of the components, whose z is fixed.
    place = z.detach().requires_grad_()
    (slope,) = torch.autograd.grad(
        sum(
            t.sum() * s for t, s in zip(terms(vae, x, place, mu.detach(), logvar.detach()), (1, 1, -1), strict=True)
        ),
        place,
    )
    of_z = weight**2 if objective == "dreg" else weight
    moved = (of_z[..., None] * slope * z).sum() + (weight * plain_log_prior(vae, z.detach())).sum()
    return *torch.autograd.grad(moved / -B, phi), *by_own


class TestObjectives:
    @each_prior
    @each_objective
    def test_values(self, kind, objective):
        vae, x = model(kind, objective, SAMPLED[objective]), data()
        out = vae(x, seed=5)
        log_p, log_prior, log_q = terms(vae, x, *drawn(vae, x, 5))
        log_w = log_p + log_prior - log_q
        bound = {
            "elbo": lambda: log_w.mean(0),
            "stl": lambda: log_w.mean(0),
            "miwae": lambda: log_w.view(2, 3, B).exp().mean(1).log().mean(0),
        }.get(objective, lambda: log_w.exp().mean(0).log())()
        expected = bound, log_p.mean(0), (log_q - log_prior).mean(0), -bound.mean()
        torch.testing.assert_close(tuple(out)[:4], expected)
        assert out.z.shape == ((2, 3, B, L) if objective == "miwae" else (SAMPLED[objective], B, L))

    @each_prior
    @each_objective
    def test_gradients(self, kind, objective):
        vae, x = model(kind, objective, SAMPLED[objective]), data()
        vae(x, seed=3).loss.backward()
        torch.testing.assert_close([p.grad for p in vae.parameters()], [*of_the_paper(objective, vae, x, 3)])

    @each_prior
    def test_beta(self, kind):
        vae, x = model(kind, n_samples=2, beta=0.25), data()
        out = vae(x, seed=3)
        torch.testing.assert_close(out.loss, -(out.log_likelihood - 0.25 * out.kl).mean())
        torch.testing.assert_close(out.elbo, out.log_likelihood - out.kl)

    @each_prior
    def test_one_sample_has_no_dim_of_samples(self, kind):
        one, many = (model(kind, n_samples=n)(data(), seed=3).z for n in (1, 2))
        assert one.shape == (B, L) and torch.equal(one, many[0])

    @each_prior
    def test_log_marginal(self, kind):
        vae, x = model(kind, n_samples=6), data()
        with torch.no_grad():
            log_p, log_prior, log_q = terms(vae, x, *drawn(vae, x, 3))
        expected = (log_p + log_prior - log_q).exp().mean(0).log()
        for chunk_size in (None, 1, 4):
            torch.testing.assert_close(vae.log_marginal(x, 6, seed=3, chunk_size=chunk_size), expected)

    @pytest.mark.parametrize("objective", ["elbo", "iwae", "stl"])
    def test_the_kl_by_samples_has_a_gradient(self, objective):
        vae, x = model("mixture", objective, 2), data()
        z, mu, logvar = drawn(vae, x, 3)
        if objective == "stl":
            mu, logvar = mu.detach(), logvar.detach()
        _, log_prior, log_q = terms(vae, x, z, mu, logvar)
        wanted = [*vae.encoder.parameters(), *vae.prior.parameters()]
        found, expected = (
            torch.autograd.grad(t.sum(), wanted) for t in (vae(x, seed=3).kl, (log_q - log_prior).mean(0))
        )
        torch.testing.assert_close(found, expected)

    def test_a_kl_by_samples_is_right_in_expectation(self):
        """Of one component, whose KL has a closed form; of 40,000 data with one posterior."""
        torch.manual_seed(0)
        made, n = vf.MixturePrior(1, L), 40000
        with torch.no_grad():
            made.logvar.normal_()
        vae = vf.VAE(Encoder(), nn.Linear(L, D), prior=made).double()
        x = data(1)
        with torch.no_grad():
            kl = vae(x.expand(n, D), seed=4).kl
            mu, logvar = vae.encode(x)
        truth = vf.gaussian_kl(mu, logvar, made.mu, made.logvar)
        assert (kl.mean() - truth).abs() < 5 * kl.std() / math.sqrt(n)

    def test_a_kl_to_a_mixture_is_right_in_expectation(self):
        """Against the trapezoid rule, of one latent."""
        torch.manual_seed(0)
        n, x = 40000, torch.rand(1, D, dtype=torch.float64)
        vae = vf.VAE(vf.GaussianMLP(D, 1, 6), nn.Linear(1, D), prior=mixture(1)).double()
        with torch.no_grad():
            kl = vae(x.expand(n, D), seed=4).kl
            mu, logvar = vae.encode(x)
            z = torch.linspace(-12, 12, 4001, dtype=torch.float64)[:, None]
            log_q = Normal(mu, torch.exp(logvar / 2)).log_prob(z)[:, 0]
            truth = (log_q.exp() * (log_q - of_torch(vae.prior).log_prob(z))).sum() * 24 / 4000
        assert (kl.mean() - truth).abs() < 5 * kl.std() / math.sqrt(n)


class TestModule:
    def test_the_encoder_is_there_once(self):
        vae = model("vamp")
        names = [
            "encoder.both.weight",
            "encoder.both.bias",
            "decoder.weight",
            "decoder.bias",
            "prior.pseudo_inputs",
        ]
        assert [*vae.state_dict()] == [name for name, _ in vae.named_parameters(remove_duplicate=False)] == names
        vae(data()).loss.backward()
        assert [*vae.state_dict()] == names

    @each_prior
    def test_parameters_split_into_phi_and_theta(self, kind):
        vae = model(kind)
        phi, theta = list(vae.variational_parameters()), list(vae.generative_parameters())
        assert set(theta) == {*vae.decoder.parameters(), *vae.prior.parameters()}
        assert len(phi) + len(theta) == len({*phi, *theta}) == len(list(vae.parameters()))

    @each_prior
    def test_copies_and_saved_forms(self, kind):
        vae, x = model(kind, "iwae", 3), data()
        vae(x).loss.backward()
        expected = vae(x, seed=1)
        buffer, state = io.BytesIO(), io.BytesIO()
        torch.save(vae, buffer), torch.save(vae.state_dict(), state)
        buffer.seek(0), state.seek(0)
        fresh = model(kind, "iwae", 3)
        for parameter in fresh.parameters():
            nn.init.zeros_(parameter)
        fresh.load_state_dict(torch.load(state, weights_only=True))
        loaded = torch.load(buffer, weights_only=False)
        for other in (copy.deepcopy(vae), pickle.loads(pickle.dumps(vae)), loaded, fresh):
            assert same_bits(other(x, seed=1), expected)
            # Its own encoder, not the first one's.
            with torch.no_grad():
                other.encoder.both.weight.zero_()
            assert not torch.equal(other(x, seed=1).elbo, expected.elbo)
            assert same_bits(vae(x, seed=1), expected)

    @each_prior
    def test_goes_to_a_device(self, kind):
        vae = model(kind).to("meta")
        assert vae(data().to("meta"), seed=1).elbo.device.type == "meta" if kind != "own" else True
        assert all(p.device.type == "meta" for p in vae.parameters())

    @each_prior
    @each_objective
    def test_compiles(self, kind, objective):
        vae, x = model(kind, objective, SAMPLED[objective]), data()
        vae.encoder.calls = None
        vae.encoder.forward = lambda x: vae.encoder.both(x).chunk(2, -1)
        found = []
        compiled = torch.compile(lambda x: vae(x, seed=3).loss, backend="aot_eager")
        for function in (compiled, lambda x: vae(x, seed=3).loss):
            loss = function(x)
            found.append((loss, *torch.autograd.grad(loss, list(vae.parameters()))))
        torch.testing.assert_close(*found)

    @each_prior
    @pytest.mark.parametrize("dtype", [torch.uint8, torch.bool], ids=str)
    def test_bytes(self, kind, dtype):
        vae = model(kind)
        x = (data() * 255).to(dtype)
        floats = x.double() / (255 if dtype == torch.uint8 else 1)
        torch.testing.assert_close(vae(x, seed=1).elbo, vae(floats, seed=1).elbo)

    @each_prior
    def test_no_data(self, kind):
        assert model(kind)(data()[:0], seed=1).elbo.shape == (0,)

    @pytest.mark.parametrize("kind", ["mixture", "vamp"])
    def test_half_modules(self, kind):
        vae = model(kind).bfloat16()
        out = vae(data().bfloat16(), seed=1)
        assert out.elbo.dtype == out.kl.dtype == torch.float32
        out.loss.backward()
        assert all(p.grad.isfinite().all() for p in vae.parameters())
        assert vae.sample(2).dtype == torch.bfloat16

    def test_learns(self):
        """Data in two clusters: the mixture's bound gets better than that of N(0, I), on one noise."""
        centres = torch.tensor([[0.05] * D, [0.95] * D])
        x = centres[torch.arange(200) % 2]
        elbo = {}
        for kind in (None, "mixture", "vamp"):
            torch.manual_seed(0)
            made = {None: None, "mixture": vf.MixturePrior(2, L), "vamp": vf.VampPrior(2, D, init=centres.clone())}[
                kind
            ]
            vae = vf.VAE(vf.GaussianMLP(D, L, 16), vf.BernoulliMLP(L, D, 16), prior=made)
            adam = torch.optim.Adam(vae.parameters(), 0.02)
            for seed in range(200):
                adam.zero_grad()
                vae(x, seed=seed).loss.backward()
                adam.step()
            elbo[kind] = vae(x, seed=1000).elbo.mean()
        assert elbo["mixture"] > elbo[None] + 0.1 and elbo["vamp"] > elbo[None] + 0.1


class TestErrors:
    def vae(self, prior, **options):
        return vf.VAE(Encoder(), nn.Linear(L, D), prior=prior, **options)

    def test_what_is_no_prior(self):
        class Half(nn.Module):
            def log_prob(self, z):
                return z.sum(-1)

        class Closed(Own):
            closed_form = True

        for wrong, match in (
            (Normal(0, 1), "the prior must be an nn.Module, got Normal"),
            (nn.Linear(2, 2), "or with_encoder.* Linear has none of these"),
            (Half(), r"sample\(n, seed=, generator=\).* Half has log_prob"),
            (Closed(), "closed_form is StandardNormal's alone: Closed must not set it"),
        ):
            with pytest.raises(TypeError, match=match):
                self.vae(wrong)

    def test_shapes(self):
        for wrong in (vf.MixturePrior(K, 3), vf.StandardNormal(3)):
            with pytest.raises(
                ValueError, match=r"encoder's latent vectors have the shape \(2,\), the prior's \(3,\)"
            ):
                self.vae(wrong)
        with pytest.raises(ValueError, match=r"z must be \[..., 3\], got \[4, 2\]"):
            vf.MixturePrior(K, 3).log_prob(torch.zeros(4, 2))
        with pytest.raises(ValueError, match=r"z must be \[..., 2, 3\], got \[3\]"):
            vf.MixturePrior(K, (2, 3)).responsibilities(torch.zeros(3))
        with pytest.raises(
            ValueError, match=r"init must be \[n_components, \*data_shape\], \[4, 5\], got \[3, 5\]"
        ):
            vf.VampPrior(K, D, init=torch.zeros(3, D))
        for make in (lambda: vf.MixturePrior(0, L), lambda: vf.VampPrior(0, D)):
            with pytest.raises(ValueError, match="n_components must be at least 1, got 0"):
                make()

    def test_the_prior_says_the_latent_shape(self):
        vae = vf.VAE(nn.Identity(), nn.Linear(L, D), prior=vf.StandardNormal(L))
        assert vae.latent_shape == (L,) and vae.sample(3).shape == (3, D)
        vae = vf.VAE(nn.Identity(), nn.Linear(L, D), prior=Own())
        assert vae.latent_shape is None and vae.sample(3).shape == (3, D)

    @each_objective
    def test_a_log_prob_that_is_not_summed(self, objective):
        class Unsummed(Own):
            def log_prob(self, z):
                return self.distribution().base_dist.log_prob(z)

        vae = self.vae(Unsummed(), objective=objective, n_samples=SAMPLED[objective])
        for call in (vae, lambda x: vae.log_marginal(x, 2)):
            with pytest.raises(
                ValueError, match=r"log_prob must return one number a latent vector, \[\d, 2\] of z"
            ):
                call(data(2).float())

    def test_pseudo_inputs_without_an_encoder_of_data(self):
        vae = vf.VAE(vf.LocalGaussian(9, L), nn.Linear(L, D), prior=vf.VampPrior(K, D))
        with pytest.raises(TypeError, match="LocalGaussian takes the indices of data"):
            vae(data().float(), index=torch.arange(B))
