"""Priors in a VAE: each objective's value and gradients against plain formulas in float64, copies, errors."""

import copy
import io
import math
import pickle

import pytest
import torch
from torch import nn
from torch.distributions import Normal

import vae_fast as vf
from helpers.calls import same_bits
from helpers.priors import (
    SAMPLED,
    B,
    D,
    Encoder,
    K,
    L,
    Own,
    data,
    drawn,
    each_objective,
    each_prior,
    mixture,
    model,
    of_the_paper,
    of_torch,
    terms,
)


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

    @pytest.mark.parametrize("kind", ["mixture", "vamp"])
    def test_goes_to_a_device(self, kind):
        vae = model(kind).to("meta")
        assert all(p.device.type == "meta" for p in vae.parameters())
        assert vae(data().to("meta"), seed=1).elbo.device.type == "meta"

    @each_prior
    @each_objective
    def test_compiles(self, kind, objective):
        vae, x = model(kind, objective, SAMPLED[objective]), data()
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

    @pytest.mark.parametrize("kind", ["mixture", "vamp"])
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
        """Data in two clusters: pseudo-inputs that start there give a better bound than N(0, I)."""
        centres, elbo = torch.tensor([[0.05] * D, [0.95] * D]), []
        x = centres[torch.arange(40) % 2]
        for made in (None, vf.VampPrior(2, D, init=centres)):
            torch.manual_seed(0)
            vae = vf.VAE(vf.GaussianMLP(D, L, 16), vf.BernoulliMLP(L, D, 16), prior=made)
            adam = torch.optim.Adam(vae.parameters(), 0.03)
            for seed in range(60):
                adam.zero_grad()
                vae(x, seed=seed).loss.backward()
                adam.step()
            elbo.append(vae(x, seed=1000).elbo.mean())
        # The mass between the clusters costs log 2 and less: 0.19 here.
        assert elbo[1] > elbo[0] + 0.1


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
