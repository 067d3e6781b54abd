"""Priors by themselves: their densities and draws, and the VampPrior's loss, against plain formulas in float64."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.distributions import Normal

import vae_fast as vf
from helpers.calls import same_bits
from helpers.priors import B, D, Encoder, K, L, data, drawn, each_prior, mixture, model, of_torch, terms


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
    def far_apart(self, weight, latent):
        """Components of N(1000 k, σ_k²), where each draw says which it is of."""
        made = vf.MixturePrior(len(weight), latent).double()
        with torch.no_grad():
            made.mu.copy_(1000.0 * torch.arange(len(weight))[:, None].expand(-1, latent))
            made.logvar.copy_(torch.linspace(-3, 3, len(weight))[:, None].expand(-1, latent))
            made.weight_logits.copy_(torch.tensor(weight).log())
        return made

    @pytest.mark.parametrize("latent", [1, 2])
    def test_components_by_their_weights_and_normals_within(self, latent):
        n, weight = 40000, [0.0, 0.1, 0.6, 0.0, 0.3, 0.0]
        made = self.far_apart(weight, latent)
        z = made.sample(n, seed=3)
        chosen = (z[:, 0] / 1000).round().long()
        share, p = chosen.bincount(minlength=6) / n, torch.tensor(weight)
        # Five standard errors of a proportion: a fixed seed, and none at all at 0.
        assert ((share - p).abs() <= 5 * (p * (1 - p) / n).sqrt()).all()
        eps = (z - made.mu[chosen]) / torch.exp(made.logvar[chosen] / 2)
        torch.testing.assert_close(eps, vf.standard_normal((n, latent), seed=3, dtype=z.dtype), rtol=0, atol=1e-8)
        # Which component it is says nothing of the normal: five standard errors of a mean and of a variance.
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
