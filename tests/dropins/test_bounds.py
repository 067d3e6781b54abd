"""Bounds of several samples: their values, and each objective's gradient against its paper's, in float64."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import Bernoulli, Normal

import vae_fast as vf
from helpers.calls import same_bits

B, D, L = 3, 5, 2
SAMPLED = {"iwae": 4, "miwae": (2, 3), "dreg": 4, "stl": 4}
each_objective = pytest.mark.parametrize("objective", SAMPLED)


class Encoder(nn.Module):
    latent_shape = (L,)

    def __init__(self):
        super().__init__()
        self.both = nn.Linear(D, 2 * L)

    def forward(self, x):
        return self.both(x).chunk(2, -1)


def model(objective="elbo", n_samples=1, **options):
    torch.manual_seed(0)
    return vf.VAE(Encoder(), nn.Linear(L, D), objective=objective, n_samples=n_samples, **options).double()


def data():
    return torch.rand(B, D, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def drawn(vae, x, seed):
    """z [n, B, L] as the call with this seed draws it, with its graph, and its distribution's two parameters."""
    mu, logvar = vae.encode(x)
    n = math.prod(vae.n_samples) if isinstance(vae.n_samples, tuple) else vae.n_samples
    eps = vf.rsample(torch.zeros_like(mu), 0.0, (n,), seed=seed)
    return mu + torch.exp(0.5 * logvar) * eps, mu, logvar


def log_weights(vae, x, z, mu, logvar):
    log_p = Bernoulli(logits=vae.decoder(z), validate_args=False).log_prob(x).sum(-1)
    prior, q = Normal(0.0, 1.0), Normal(mu, torch.exp(0.5 * logvar))
    return log_p + (prior.log_prob(z) - q.log_prob(z)).sum(-1)


class TestFunctions:
    def test_the_bound_of_one_sample_is_its_weight(self):
        log_w = torch.randn(1, 7)
        torch.testing.assert_close(vf.iwae_bound(log_w), log_w[0])

    def test_against_the_definition(self):
        log_w = torch.randn(6, 4, dtype=torch.float64) * 3
        w = log_w.exp()
        torch.testing.assert_close(vf.iwae_bound(log_w), w.mean(0).log())
        torch.testing.assert_close(vf.importance_weights(log_w, 1), w / w.sum(1, keepdim=True))

    def test_weights_beyond_exponents(self):
        log_w = torch.tensor([-2000.0, -2001.0])
        torch.testing.assert_close(vf.iwae_bound(log_w), torch.tensor(-2000 + math.log((1 + math.exp(-1)) / 2)))
        assert vf.iwae_bound(torch.tensor([-math.inf, 0.0])) == -math.log(2)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
    def test_half_types_are_summed_in_float32(self, dtype):
        log_w = (torch.randn(5, 3) * 4 - 500).to(dtype)
        assert vf.iwae_bound(log_w).dtype == vf.importance_weights(log_w).dtype == torch.float32
        assert same_bits([vf.iwae_bound(log_w)], [vf.iwae_bound(log_w.float())])

    def test_what_cannot_be(self):
        for function in (vf.iwae_bound, vf.importance_weights):
            with pytest.raises(ValueError, match="no sample"):
                function(torch.zeros(3, 0, 2), 1)
            with pytest.raises(ValueError, match="no dim of samples"):
                function(torch.tensor(1.0))
            with pytest.raises(TypeError, match="floating dtype"):
                function(torch.zeros(3, dtype=torch.int64))


class TestValues:
    def test_the_elbo_of_several_samples_is_their_average(self):
        vae, x = model(n_samples=4, beta=0.5), data()
        out = vae(x, seed=5)
        z, mu, logvar = drawn(vae, x, 5)
        kl = torch.distributions.kl_divergence(Normal(mu, torch.exp(0.5 * logvar)), Normal(0.0, 1.0)).sum(-1)
        log_p = Bernoulli(logits=vae.decoder(z), validate_args=False).log_prob(x).sum(-1).mean(0)
        torch.testing.assert_close(tuple(out), (log_p - kl, log_p, kl, -(log_p - 0.5 * kl).mean(), z))

    @each_objective
    def test_of_every_objective(self, objective):
        vae, x = model(objective, SAMPLED[objective]), data()
        out = vae(x, seed=5)
        z, mu, logvar = drawn(vae, x, 5)
        log_w = log_weights(vae, x, z, mu, logvar)
        bound = {
            "stl": lambda: log_w.mean(0),
            "miwae": lambda: log_w.view(2, 3, B).exp().mean(1).log().mean(0),
        }.get(objective, lambda: log_w.exp().mean(0).log())()
        torch.testing.assert_close((out.elbo, out.loss), (bound, -bound.mean()))
        assert out.z.shape == ((2, 3, B, L) if objective == "miwae" else (4, B, L))
        assert same_bits([out.z.reshape(-1, B, L)], [vf.rsample(mu, logvar, (len(z),), seed=5)])

    def test_more_samples_give_a_better_bound(self):
        """In expectation: one datum, drawn 5,000 times."""
        x, means = data()[:1].expand(5000, D), []
        for k in (1, 8, 64):
            with torch.no_grad():
                means.append(model("iwae", k)(x, seed=6).elbo)
        for less, more in zip(means, means[1:], strict=False):
            gain = more.mean() - less.mean()
            assert gain > 3 * ((less.var() + more.var()) / len(x)).sqrt()


def of_the_paper(objective, vae, x, seed):
    """(the encoder's gradient, the decoder's) of −mean over the data, sample by sample as the papers write them."""
    z, mu, logvar = drawn(vae, x, seed)
    phi, theta = list(vae.encoder.parameters()), list(vae.decoder.parameters())
    n = len(z)
    log_w = log_weights(vae, x, z, mu, logvar)
    of_m = log_w.detach().view(*(SAMPLED["miwae"] if objective == "miwae" else (1, n)), B)
    normalised = (of_m.softmax(1) / len(of_m)).view(n, B)
    weight = torch.full_like(normalised, 1 / n) if objective == "stl" else normalised
    of_encoder = normalised**2 if objective == "dreg" else weight
    by_theta = torch.autograd.grad((weight * log_w).sum() / -B, theta, retain_graph=True)
    if objective in ("iwae", "miwae"):
        return torch.autograd.grad((weight * log_w).sum() / -B, phi), by_theta
    # φ by way of z alone.
    place = z.detach().requires_grad_()
    fixed = log_weights(vae, x, place, mu.detach(), logvar.detach())
    (slope,) = torch.autograd.grad(fixed.sum(), place)
    return torch.autograd.grad((of_encoder[..., None] * slope * z).sum() / -B, phi), by_theta


class TestGradients:
    @each_objective
    def test_are_the_paper_s(self, objective):
        vae, x = model(objective, SAMPLED[objective]), data()
        vae(x, seed=3).loss.backward()
        by_phi, by_theta = of_the_paper(objective, vae, x, 3)
        found = [p.grad for p in vae.encoder.parameters()], [p.grad for p in vae.decoder.parameters()]
        torch.testing.assert_close(found, ([*by_phi], [*by_theta]))

    def test_doubly_reparameterised_ones_leave_z_s_own_alone(self):
        """What a user's own term sends to z is not scaled."""
        vae, x = model("dreg", 4), data()
        out = vae(x, seed=3)
        grads = torch.autograd.grad(out.z.sum(), list(vae.encoder.parameters()))
        z, _, _ = drawn(vae, x, 3)
        torch.testing.assert_close(grads, torch.autograd.grad(z.sum(), list(vae.encoder.parameters())))

    def test_sticking_the_landing(self):
        """Of x | z ~ N(z, 1) the posterior is N(x/2, 1/2): where q is that, each sample's gradient is 0."""

        class Exact(nn.Module):
            def __init__(self):
                super().__init__()
                self.slope = nn.Parameter(torch.tensor(0.5, dtype=torch.float64))
                self.logvar = nn.Parameter(torch.tensor(math.log(0.5), dtype=torch.float64))

            def forward(self, x):
                return self.slope * x, self.logvar

        class Decoder(nn.Module):
            def forward(self, z):
                return z, 0.0

        grads = {}
        for objective in ("stl", "iwae"):
            vae = vf.VAE(Exact(), Decoder(), objective=objective, n_samples=1)
            vae(torch.randn(B, D, dtype=torch.float64), seed=2).loss.backward()
            grads[objective] = torch.stack([p.grad for p in vae.parameters()])
        assert grads["stl"].abs().max() < 1e-14
        assert grads["iwae"].abs().max() > 1e-2

    def samples(self, objective, k, n):
        """The gradient by μ of one datum, drawn n times: a posterior each, all alike."""
        torch.manual_seed(0)
        local = vf.LocalGaussian(n, L)
        vae = vf.VAE(local, nn.Linear(L, D), objective=objective, n_samples=k).double()
        with torch.no_grad():
            local.mu.fill_(0.3), local.logvar.fill_(0.0)
        out = vae(data()[:1].expand(n, D), index=torch.arange(n), seed=4)
        return torch.autograd.grad(out.loss * n, local.mu)[0][:, 0]

    def test_both_estimators_of_the_bound_have_one_expectation(self):
        """Their averages differ by less than five standard errors: once in 1.7 million by chance."""
        dreg, iwae = (self.samples(objective, 4, 20000) for objective in ("dreg", "iwae"))
        error = ((dreg.var() + iwae.var()) / 20000).sqrt()
        assert (dreg.mean() - iwae.mean()).abs() < 5 * error
        assert dreg.var() < iwae.var()

    def test_their_signal_to_noise(self):
        """Grows as √K for "dreg", and falls as 1/√K for "iwae": from K = 2 to 64 by 5.7 each; twice is asked for.

        A ratio from 20,000 draws has a standard error of 0.007 (and a little more where it is large). Those asked
        for are 4 of them away at the least, where "iwae" at K = 64 is: once in 30,000 seeds by chance.
        """
        ratio = {}
        for objective in ("dreg", "iwae"):
            for k in (2, 64):
                found = self.samples(objective, k, 20000)
                ratio[objective, k] = found.mean().abs() / found.std()
        assert ratio["dreg", 64] > 2 * ratio["dreg", 2]
        assert ratio["iwae", 64] < ratio["iwae", 2] / 2


class TestSettings:
    @each_objective
    def test_compiles(self, objective):
        vae, x = model(objective, SAMPLED[objective]), data()
        compiled = torch.compile(vae, backend="aot_eager")
        found = []
        for function in (compiled, vae):
            out = function(x, seed=3)
            found.append((out.loss, out.elbo, *torch.autograd.grad(out.loss, list(vae.parameters()))))
        torch.testing.assert_close(*found)

    @each_objective
    @pytest.mark.parametrize("dtype", [torch.uint8, torch.bool], ids=str)
    def test_bytes(self, objective, dtype):
        vae = model(objective, SAMPLED[objective])
        x = (data() * 255).to(dtype)
        floats = x.double() / (255 if dtype == torch.uint8 else 1)
        torch.testing.assert_close(vae(x, seed=1).elbo, vae(floats, seed=1).elbo)

    @each_objective
    def test_no_data(self, objective):
        assert model(objective, SAMPLED[objective])(data()[:0], seed=1).elbo.shape == (0,)

    def test_a_gaussian_decoder_with_one_variance(self):
        vae = vf.VAE(vf.GaussianMLP(D, L, 8), vf.GaussianMLP(L, D, 8), objective="iwae", n_samples=3)
        assert vae(torch.rand(B, D), seed=1).elbo.shape == (B,)

    def test_shards_draw_what_the_batch_would(self):
        vae, x = model("iwae", 4), data()
        parts = [vae(x[k : k + 1], seed=9, offset=k * L).elbo for k in range(B)]
        torch.testing.assert_close(torch.cat(parts), vae(x, seed=9).elbo)

    def test_says_what_it_is(self):
        assert "objective='miwae', n_samples=(2, 3)" in repr(model("miwae", (2, 3)))
        assert "objective" not in repr(model())


class TestWithoutLogits:
    """The package's own Bernoulli decoder, of several samples."""

    def vae(self, objective="iwae", n_samples=6):
        torch.manual_seed(0)
        nets = vf.GaussianMLP(D, L, 8, dtype=torch.float64), vf.BernoulliMLP(L, D, 8, dtype=torch.float64)
        return vf.VAE(*nets, objective=objective, n_samples=n_samples)

    @each_objective
    def test_is_what_the_decoder_s_logits_give(self, objective):
        vae, x, found = self.vae(objective, SAMPLED[objective]), data(), []
        for watched in (False, True):
            # A decoder with a hook is called.
            hook = vae.decoder.register_forward_hook(lambda *_: None) if watched else None
            out = vae(x, seed=2)
            found.append((*out, *torch.autograd.grad(out.loss, list(vae.parameters()))))
        hook.remove()
        torch.testing.assert_close(*found)

    def test_one_table_is_held(self):
        """Of the size of the logits, where plain operations keep several."""
        vae, x, kept = self.vae(), data(), []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
            vae(x, seed=2)
        assert len({t.data_ptr() for t in kept if t.numel() == 6 * B * D}) == 1

    @pytest.mark.parametrize("of", ["decoder", "logits"])
    def test_a_hook_sees_them(self, of):
        vae, seen = self.vae(), []
        module = vae.decoder if of == "decoder" else vae.decoder.logits
        module.register_forward_hook(lambda module, args, out: seen.append(out.shape))
        vae(data(), seed=2)
        assert seen == [(6 * B, D) if of == "decoder" else (6 * B, D)]

    def test_of_another_class_are_called(self):
        class Cooler(vf.BernoulliMLP):
            def forward(self, z):
                return super().forward(z) / 2

        vae = self.vae()
        plain = vae(data(), seed=2).log_likelihood
        vae.decoder.__class__ = Cooler
        assert not torch.allclose(vae(data(), seed=2).log_likelihood, plain)

    def test_images(self):
        vae = vf.VAE(vf.GaussianMLP((3, 4), L, 8), vf.BernoulliMLP(L, (3, 4), 8), objective="stl", n_samples=5)
        x = (torch.rand(B, 3, 4) * 255).to(torch.uint8)
        found = vae(x, seed=3).elbo
        vae.decoder.register_forward_hook(lambda *_: None)
        torch.testing.assert_close(found, vae(x, seed=3).elbo)

    def test_log_likelihood(self):
        decoder, z, x = vf.BernoulliMLP(L, (3, 4), 8), torch.randn(7, B, L), torch.rand(B, 3, 4)
        expected = vf.bernoulli_log_prob(decoder(z), x, event_ndim=2)
        torch.testing.assert_close(decoder.log_likelihood(z, x), expected)
        with pytest.raises(ValueError, match=r"x must be \[\*data, 3, 4\], got"):
            decoder.log_likelihood(z, x[..., 0])
        with pytest.raises(ValueError, match="takes inputs of shape"):
            decoder.log_likelihood(torch.randn(7, B, L + 1), x)


class TestErrors:
    @pytest.mark.parametrize(
        ("objective", "n_samples", "match"),
        [
            ("vimco", 1, "unknown objective 'vimco'; there are 'elbo', 'iwae'"),
            ("iwae", 0, "a positive int"),
            ("iwae", (2, 3), "a positive int"),
            ("elbo", 2.0, "a positive int"),
            ("elbo", True, "a positive int"),
            ("miwae", 4, r"a pair \(M, K\)"),
            ("miwae", (4, 0), r"a pair \(M, K\)"),
        ],
    )
    def test_of_arguments(self, objective, n_samples, match):
        with pytest.raises(ValueError, match=match):
            model(objective, n_samples)
        vae = model()
        vae.objective, vae.n_samples = objective, n_samples
        with pytest.raises(ValueError, match=match):
            vae(data())

    @each_objective
    def test_another_beta(self, objective):
        with pytest.raises(ValueError, match="beta must be 1, got 0.5"):
            model(objective, SAMPLED[objective], beta=0.5)(data())
