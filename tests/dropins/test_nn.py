"""nn.py and vae.py: shapes, every method, every kind of data and decoder, gradients, log p(x), errors."""

import copy
import io
import math
import pickle

import pytest
import torch
from torch import nn

import vae_fast as vf
import vae_fast.vae

BATCH, FEATURES, LATENT = 6, 8, 3


class ConvEncoder(nn.Module):
    """[B, 1, 8, 8] -> latents with three event dims, [B, 2, 4, 4]; it has no latent_shape."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 4, stride=2, padding=1)

    def forward(self, x):
        return self.conv(x).chunk(2, dim=1)


class ConvDecoder(nn.Module):
    """[B, 2, 4, 4] -> [B, 1, 8, 8] logits, or with them as the mean a (mean, logvar) pair."""

    def __init__(self, gaussian=False):
        super().__init__()
        self.conv = nn.ConvTranspose2d(2, 1, 4, stride=2, padding=1)
        self.logvar = nn.Parameter(torch.tensor(-1.0)) if gaussian else None

    def forward(self, z):
        return self.conv(z) if self.logvar is None else (self.conv(z), self.logvar)


class Returns(nn.Module):
    """An encoder or decoder that returns what the function makes of its input."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def make(kind, dtype=torch.float32, **kwargs):
    torch.manual_seed(0)
    if kind.startswith("conv"):
        vae = vf.VAE(ConvEncoder(), ConvDecoder(kind == "conv_gaussian"), latent_shape=(2, 4, 4), **kwargs)
    else:
        decoder = vf.BernoulliMLP if kind == "bernoulli" else vf.GaussianMLP
        vae = vf.VAE(
            vf.GaussianMLP(FEATURES, LATENT, hidden=(7,)), decoder(LATENT, FEATURES, hidden=(7,)), **kwargs
        )
    return vae.to(dtype)


def data(kind, batch=BATCH, dtype=torch.float32):
    event = (1, 8, 8) if kind.startswith("conv") else (FEATURES,)
    return torch.rand(batch, *event, generator=torch.Generator().manual_seed(1), dtype=dtype)


KINDS = ("bernoulli", "gaussian", "conv_bernoulli", "conv_gaussian")
every_kind = pytest.mark.parametrize("kind", KINDS)


class TestNetworks:
    def test_gaussian_mlp_is_appendix_c(self):
        net = vf.GaussianMLP(5, 2, dtype=torch.float64)
        x = torch.randn(4, 5, dtype=torch.float64)
        state = net.state_dict()
        (w, b), (wm, bm), (wv, bv) = (
            (state[f"{name}.weight"], state[f"{name}.bias"]) for name in ("hidden.0", "mean", "logvar")
        )
        assert w.shape == (500, 5)
        h = torch.tanh(x @ w.T + b)
        mean, logvar = net(x)
        torch.testing.assert_close(mean, h @ wm.T + bm)
        torch.testing.assert_close(logvar, h @ wv.T + bv)

    def test_a_mean_within_bounds(self):
        """The mean's linear map, through the module; log σ² and the parameters are as without one."""
        torch.manual_seed(0)
        plain = vf.GaussianMLP(3, (2, 4), hidden=(5,))
        net = vf.GaussianMLP(3, (2, 4), hidden=(5,), mean_activation=nn.Sigmoid)
        assert plain.mean_activation is None and net.state_dict().keys() == plain.state_dict().keys()
        net.load_state_dict(plain.state_dict())
        z = 20 * torch.randn(50, 3)
        (mean, logvar), (linear, expected) = net(z), plain(z)
        assert torch.equal(mean, linear.sigmoid()) and torch.equal(logvar, expected)
        assert ((mean > 0) & (mean < 1)).all() and not ((linear > 0) & (linear < 1)).all()
        mean.sum().backward()
        assert all((p.grad != 0).any() for name, p in net.named_parameters() if not name.startswith("logvar"))
        ceiling = vf.GaussianMLP(3, 2, mean_activation=lambda: nn.Hardtanh(-0.1, 0.1))
        assert ceiling(z)[0].abs().max() == torch.tensor(0.1)

    def test_a_vae_with_a_bounded_mean(self):
        torch.manual_seed(0)
        vae = vf.VAE(vf.GaussianMLP(FEATURES, LATENT), vf.GaussianMLP(LATENT, FEATURES, mean_activation=nn.Sigmoid))
        x = data("gaussian")
        for means in (vae.reconstruct(x), vae.sample(50)):
            assert ((means > 0) & (means < 1)).all()
        out = vae(x, seed=1)
        mean, logvar = vae.decoder(out.z)
        log_p = torch.distributions.Normal(mean, (logvar / 2).exp()).log_prob(x).sum(1)
        torch.testing.assert_close(out.log_likelihood, log_p, rtol=1e-5, atol=1e-5)
        assert torch.equal(pickle.loads(pickle.dumps(vae))(x, seed=1).elbo, out.elbo)

    def test_bernoulli_mlp_is_appendix_c(self):
        net = vf.BernoulliMLP(2, 5, dtype=torch.float64)
        z = torch.randn(4, 2, dtype=torch.float64)
        state = net.state_dict()
        h = torch.tanh(z @ state["hidden.0.weight"].T + state["hidden.0.bias"])
        torch.testing.assert_close(net(z), h @ state["logits.weight"].T + state["logits.bias"])

    @pytest.mark.parametrize("hidden", [(), (7,), (7, 6), [4, 3, 2], 9])
    def test_any_number_of_hidden_layers(self, hidden):
        widths = [hidden] if isinstance(hidden, int) else list(hidden)
        net = vf.GaussianMLP(5, 2, hidden=hidden, activation=nn.ReLU)
        linear = [m for m in net.hidden if isinstance(m, nn.Linear)]
        assert [m.out_features for m in linear] == widths
        assert sum(isinstance(m, nn.ReLU) for m in net.hidden) == len(widths)
        assert net.mean.in_features == ([5] + widths)[-1]
        mean, logvar = net(torch.randn(3, 4, 5))
        assert mean.shape == logvar.shape == (3, 4, 2)

    def test_event_shapes_are_flattened_and_unflattened(self):
        encoder = vf.GaussianMLP((1, 4, 4), (2, 3), hidden=(5,))
        decoder = vf.BernoulliMLP((2, 3), (1, 4, 4), hidden=(5,))
        mean, logvar = encoder(torch.randn(6, 1, 4, 4).transpose(-1, -2))
        assert mean.shape == logvar.shape == (6, 2, 3)
        assert encoder.latent_shape == (2, 3)
        assert decoder(mean).shape == (6, 1, 4, 4)
        assert decoder(torch.randn(5, 6, 2, 3)).shape == (5, 6, 1, 4, 4)

    def test_wrong_features(self):
        with pytest.raises(ValueError, match=r"GaussianMLP takes inputs of shape \[..., 1, 4, 4\], got \[6, 16\]"):
            vf.GaussianMLP((1, 4, 4), 2)(torch.randn(6, 16))
        with pytest.raises(ValueError, match=r"BernoulliMLP .*\[..., 2\], got \[\]"):
            vf.BernoulliMLP(2, 3)(torch.tensor(1.0))

    def test_local_gaussian(self):
        local = vf.LocalGaussian(10, (2, 3))
        assert local.latent_shape == (2, 3)
        assert all(torch.equal(p, torch.zeros(10, 2, 3)) for p in local.parameters())
        nn.init.normal_(local.mu)
        mask = torch.arange(10) % 2 == 0
        for index in (torch.tensor([3, 1, 3]), slice(2, 5), [0, 9], mask, None):
            mu, logvar = local(index)
            rows = slice(None) if index is None else index
            assert torch.equal(mu, local.mu[rows]) and torch.equal(logvar, local.logvar[rows])
        with pytest.raises(TypeError, match="index="):
            local(torch.rand(4, 5))


class TestForward:
    @every_kind
    def test_values_and_shapes(self, kind):
        vae, x = make(kind, torch.float64), data(kind, dtype=torch.float64)
        out = vae(x, seed=3)
        mu, logvar = vae.encode(x)
        assert mu.shape == (BATCH, *vae.latent_shape)
        dims = tuple(range(1, mu.ndim))
        eps = vf.standard_normal(mu.shape, seed=3, dtype=mu.dtype)
        # float64 sums of at most 64 terms: 64·2⁻⁵³ ≈ 7e-15 relative, plus the few roundings of each term.
        close = {"rtol": 1e-12, "atol": 1e-12}
        torch.testing.assert_close(out.z, mu + torch.exp(logvar / 2) * eps, **close)
        torch.testing.assert_close(out.kl, (mu**2 + logvar.expm1() - logvar).sum(dims) / 2, **close)
        decoded = vae.decode(out.z)
        if isinstance(decoded, tuple):
            likelihood = torch.distributions.Normal(decoded[0], torch.exp(decoded[1] / 2)).log_prob(x)
        else:
            likelihood = x * nn.functional.logsigmoid(decoded) + (1 - x) * nn.functional.logsigmoid(-decoded)
        torch.testing.assert_close(out.log_likelihood, likelihood.flatten(1).sum(1), **close)
        assert torch.equal(out.elbo, out.log_likelihood - out.kl)
        torch.testing.assert_close(out.loss, -out.elbo.mean(), **close)
        assert out.elbo.shape == (BATCH,) and out.loss.shape == ()

    def test_beta_is_in_the_loss_alone_and_can_change(self):
        vae, x = make("bernoulli", beta=4.0), data("bernoulli")
        first = vae(x, seed=1)
        torch.testing.assert_close(first.loss, -(first.log_likelihood - 4.0 * first.kl).mean())
        assert torch.equal(first.elbo, first.log_likelihood - first.kl)
        vae.beta = 0.0
        second = vae(x, seed=1)
        torch.testing.assert_close(second.loss, -second.log_likelihood.mean())
        assert torch.equal(first.elbo, second.elbo)

    @pytest.mark.parametrize("kind", ["bernoulli", "gaussian", "conv_bernoulli"])
    @pytest.mark.parametrize("dtype", [torch.uint8, torch.bool])
    def test_bytes_and_bools(self, kind, dtype):
        vae = make(kind, torch.float64)
        x = data(kind)
        x = (x * 255).to(torch.uint8) if dtype == torch.uint8 else x > 0.5
        as_float = x.double() / 255 if dtype == torch.uint8 else x.double()
        out, expected = vae(x, seed=1), vae(as_float, seed=1)
        # The likelihood takes x·(1/255) where the floats hold x/255: one rounding apart, in float64.
        for name in out._fields:
            torch.testing.assert_close(getattr(out, name), getattr(expected, name), rtol=1e-12, atol=1e-12)
        assert torch.equal(vae.reconstruct(x), vae.reconstruct(as_float))
        torch.testing.assert_close(
            vae.log_marginal(x, 5, seed=1), vae.log_marginal(as_float, 5, seed=1), rtol=1e-12, atol=1e-12
        )

    def test_half_modules(self):
        vae = make("bernoulli", torch.bfloat16)
        out = vae((data("bernoulli") * 255).to(torch.uint8))
        assert out.z.dtype == torch.bfloat16
        assert out.elbo.dtype == out.kl.dtype == out.loss.dtype == torch.float32
        out.loss.backward()
        assert all(p.grad.isfinite().all() for p in vae.parameters())

    def test_seeds(self):
        vae, x = make("bernoulli"), data("bernoulli")
        assert torch.equal(vae(x, seed=5).z, vae(x, seed=5).z)
        assert not torch.equal(vae(x, seed=5).z, vae(x, seed=6).z)
        torch.manual_seed(9)
        first, second = vae(x).z, vae(x).z
        torch.manual_seed(9)
        assert torch.equal(vae(x).z, first) and not torch.equal(first, second)
        generators = [torch.Generator().manual_seed(2) for _ in range(2)]
        assert torch.equal(*(vae(x, generator=generator).z for generator in generators))

    def test_shards_draw_what_the_batch_draws(self):
        vae, x = make("bernoulli"), data("bernoulli")
        whole = vae(x, seed=5)
        shards = [vae(x[:2], seed=5), vae(x[2:], seed=5, offset=2 * LATENT)]
        # A matmul of fewer rows may sum in another order: a few float32 roundings of values of order 10.
        torch.testing.assert_close(torch.cat([s.z for s in shards]), whole.z, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(torch.cat([s.elbo for s in shards]), whole.elbo, rtol=1e-5, atol=1e-5)

    def test_local_gaussian_with_index(self):
        torch.manual_seed(0)
        vae = vf.VAE(vf.LocalGaussian(10, LATENT), vf.BernoulliMLP(LATENT, FEATURES, hidden=(7,)))
        nn.init.normal_(vae.encoder.mu)
        index, x = torch.tensor([4, 0, 7]), data("bernoulli", batch=3)
        out = vae(x, index=index, seed=2)
        out.loss.backward()
        mu = vae.encoder.mu
        eps = vf.standard_normal((3, LATENT), seed=2)
        torch.testing.assert_close(out.z, mu[index] + eps)
        touched = vae.encoder.mu.grad.ne(0).any(1)
        assert touched.nonzero().flatten().tolist() == [0, 4, 7]
        torch.testing.assert_close(vae.reconstruct(x, index=index), vae.decode(mu[index]).sigmoid())
        assert vae.log_marginal(x, 4, index=index).shape == (3,)
        assert vae.sample(2).shape == (2, FEATURES)

    @pytest.mark.parametrize("logvar", [torch.tensor(-1.0), torch.linspace(-2, 0, FEATURES), -1.0])
    def test_broadcast_decoder_variance(self, logvar):
        mean_net = nn.Linear(LATENT, FEATURES)
        full = vf.VAE(vf.GaussianMLP(FEATURES, LATENT), Returns(lambda z: (mean_net(z), logvar + 0 * mean_net(z))))
        vae = vf.VAE(full.encoder, Returns(lambda z: (mean_net(z), logvar)))
        x = data("gaussian")
        # The same float32 formula either way, only broadcast by another hand.
        torch.testing.assert_close(vae(x, seed=1).elbo, full(x, seed=1).elbo, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(
            vae.log_marginal(x, 6, seed=1), full.log_marginal(x, 6, seed=1), rtol=1e-5, atol=1e-5
        )
        assert vae.sample(4, mean=False).shape == (4, FEATURES)


class TestGradients:
    @every_kind
    @pytest.mark.parametrize("beta", [1.0, 0.3])
    def test_equal_to_an_eager_vae_on_the_same_noise(self, kind, beta):
        vae, x = make(kind, torch.float64, beta=beta), data(kind, dtype=torch.float64)
        vae(x, seed=7).loss.backward()
        got = {name: p.grad for name, p in vae.named_parameters()}
        vae.zero_grad()

        mu, logvar = vae.encoder(x)
        eps = vf.standard_normal(mu.shape, seed=7, dtype=mu.dtype)
        decoded = vae.decoder(mu + torch.exp(logvar / 2) * eps)
        if isinstance(decoded, torch.Tensor):
            log_p = -nn.functional.binary_cross_entropy_with_logits(decoded, x, reduction="sum")
        else:
            mean, decoded_logvar = decoded
            square = (x - mean) ** 2 / decoded_logvar.exp()
            log_p = -0.5 * (decoded_logvar + square + math.log(2 * math.pi)).sum()
        kl = 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum()
        (-(log_p - beta * kl) / BATCH).backward()
        for name, p in vae.named_parameters():
            # Sums of at most 384 float64 products: 384·2⁻⁵³ ≈ 4e-14; absolutely where they cancel.
            torch.testing.assert_close(got[name], p.grad, rtol=1e-12, atol=1e-12, msg=name)

    def test_x_gets_a_gradient(self):
        vae = make("gaussian", torch.float64)
        x = data("gaussian", batch=2, dtype=torch.float64).requires_grad_()
        assert torch.autograd.gradcheck(lambda x: vae(x, seed=1).elbo, (x,))

    @every_kind
    def test_parameters_split_into_phi_and_theta(self, kind):
        vae = make(kind)
        phi, theta = set(vae.variational_parameters()), set(vae.generative_parameters())
        assert phi == set(vae.encoder.parameters()) and theta == set(vae.decoder.parameters())
        assert not phi & theta and phi | theta == set(vae.parameters())
        vae(data(kind)).loss.backward()
        assert all(p.grad is not None for p in phi | theta)


class TestDecodedForms:
    @every_kind
    def test_reconstruct(self, kind):
        vae, x = make(kind), data(kind)
        decoded = vae.decode(vae.encode(x)[0])
        expected = decoded[0] if isinstance(decoded, tuple) else decoded.sigmoid()
        assert torch.equal(vae.reconstruct(x), expected) and expected.shape == x.shape
        assert vae.reconstruct(x).requires_grad

    @every_kind
    @pytest.mark.parametrize("mean", [True, False])
    def test_sample(self, kind, mean):
        vae = make(kind, torch.float64)
        x = vae.sample(5, seed=1, mean=mean)
        assert x.shape == data(kind, batch=5).shape and x.dtype == torch.float64 and not x.requires_grad
        assert torch.equal(x, vae.sample(5, seed=1, mean=mean))
        assert not torch.equal(x, vae.sample(5, seed=2, mean=mean))
        torch.manual_seed(3)
        first = vae.sample(5, mean=mean)
        torch.manual_seed(3)
        assert torch.equal(first, vae.sample(5, mean=mean))
        generators = [torch.Generator().manual_seed(2) for _ in range(2)]
        assert torch.equal(*(vae.sample(5, mean=mean, generator=generator) for generator in generators))

    def test_sample_decodes_the_prior(self):
        vae = make("bernoulli")
        z = vf.standard_normal((5, LATENT), seed=4)
        assert torch.equal(vae.sample(5, seed=4), vae.decode(z).sigmoid())

    def test_bernoulli_draws_have_their_probabilities(self):
        logits = torch.tensor([-math.inf, -2.0, 0.0, 1.0, math.inf])
        vae = vf.VAE(nn.Identity(), Returns(lambda z: logits.expand(len(z), 5)), latent_shape=2)
        n = 20_000
        x = vae.sample(n, seed=0, mean=False)
        assert set(x.unique().tolist()) == {0.0, 1.0}
        p = logits.sigmoid()
        # Five standard errors of a proportion; exact at p = 0 and p = 1. A fixed seed: no failure rate.
        assert ((x.mean(0) - p).abs() <= 5 * (p * (1 - p) / n).sqrt()).all()

    def test_gaussian_draws_have_their_moments_and_own_noise(self):
        vae = vf.VAE(nn.Identity(), Returns(lambda z: (z, math.log(0.25))), latent_shape=2)
        n = 20_000
        noise = vae.sample(n, seed=0, mean=False) - vae.sample(n, seed=0)
        z = vf.standard_normal((n, 2), seed=0)
        # Five standard errors: of a mean, of a standard deviation (σ/√2n), of a correlation of independents.
        assert (noise.mean(0).abs() < 5 * 0.5 / math.sqrt(n)).all()
        assert ((noise.std(0) - 0.5).abs() < 5 * 0.5 / math.sqrt(2 * n)).all()
        assert ((noise * z).mean(0).abs() < 5 * 0.5 / math.sqrt(n)).all()


class TestLogMarginal:
    @every_kind
    def test_does_not_depend_on_the_chunk(self, kind):
        vae, x = make(kind, torch.float64), data(kind, dtype=torch.float64)
        whole = vae.log_marginal(x, 23, chunk_size=23, seed=1)
        assert whole.shape == (BATCH,) and whole.dtype == torch.float64 and not whole.requires_grad
        for chunk_size in (1, 5, 1000, None):
            # Rows of a float64 matmul may be summed in another order: a few 2⁻⁵³ of values of order 100.
            chunked = vae.log_marginal(x, 23, chunk_size=chunk_size, seed=1)
            torch.testing.assert_close(chunked, whole, rtol=1e-12, atol=1e-12)

    @every_kind
    def test_is_the_log_mean_of_the_weights(self, kind):
        vae, x = make(kind, torch.float64), data(kind, dtype=torch.float64)
        mu, logvar = vae.encode(x)
        sigma = torch.exp(logvar / 2)
        standard, posterior = torch.distributions.Normal(0, 1), torch.distributions.Normal(mu, sigma)
        log_weights = []
        for sample in range(6):
            z = mu + sigma * vf.standard_normal(mu.shape, seed=1, sample=sample, dtype=mu.dtype)
            decoded = vae.decode(z)
            if isinstance(decoded, tuple):
                log_p = torch.distributions.Normal(decoded[0], torch.exp(decoded[1] / 2)).log_prob(x)
            else:
                log_p = -nn.functional.binary_cross_entropy_with_logits(decoded, x, reduction="none")
            ratio = standard.log_prob(z) - posterior.log_prob(z)
            log_weights.append(log_p.flatten(1).sum(1) + ratio.flatten(1).sum(1))
        expected = torch.stack(log_weights).logsumexp(0) - math.log(6)
        # float64 sums of at most 128 terms.
        torch.testing.assert_close(vae.log_marginal(x, 6, seed=1), expected, rtol=1e-12, atol=1e-12)

    @pytest.mark.parametrize("kind", ["bernoulli", "gaussian"])
    def test_against_quadrature_in_one_latent_dim(self, kind):
        torch.manual_seed(0)
        decoder = vf.BernoulliMLP if kind == "bernoulli" else vf.GaussianMLP
        vae = vf.VAE(vf.GaussianMLP(4, 1, hidden=(5,)), decoder(1, 4, hidden=(5,))).double()
        x = torch.rand(3, 4, dtype=torch.float64).round()
        # The integrand is smooth and below 1e-30 at the ends: the trapezoid rule is exact to rounding.
        z = torch.linspace(-12, 12, 4001, dtype=torch.float64)[:, None]
        with torch.no_grad():
            decoded = vae.decode(z)
            if kind == "bernoulli":
                log_p = vf.bernoulli_log_prob(decoded[:, None], x[None])
            else:
                log_p = vf.gaussian_log_prob(decoded[0][:, None], decoded[1][:, None], x[None])
            log_joint = log_p + torch.distributions.Normal(0, 1).log_prob(z)
            mu, logvar = vae.encode(x)
            log_q = torch.distributions.Normal(mu[:, 0], torch.exp(logvar[:, 0] / 2)).log_prob(z)
        log_dz = math.log(24 / 4000)
        truth = log_joint.logsumexp(0) + log_dz
        # E_q[w²]/E_q[w]² − 1 = ∫ p(x, z)²/q / p(x)² − 1, the weights' relative variance.
        variance = torch.exp((2 * log_joint - log_q).logsumexp(0) + log_dz - 2 * truth) - 1
        n = 20_000
        estimate = vae.log_marginal(x, n, seed=0)
        # Five standard errors by the delta method, whose own error is O(1/n). A fixed seed: no failure rate.
        assert ((estimate - truth).abs() < 5 * (variance / n).sqrt() + 1e-4).all()

    def test_decodes_no_more_rows_than_a_chunk_holds_and_without_a_graph(self, monkeypatch):
        seen = []

        def decode(z):
            seen.append((len(z), torch.is_grad_enabled()))
            return z.repeat(1, 2)

        vae = vf.VAE(vf.GaussianMLP(4, 2), Returns(decode))
        vae.log_marginal(torch.rand(3, 4), 10, chunk_size=4)
        assert seen == [(12, False), (12, False), (6, False)]
        seen.clear()
        monkeypatch.setattr(vae_fast.vae, "_LOG_MARGINAL_ELEMENTS", 60)
        vae.log_marginal(torch.rand(3, 4), 12)
        assert [rows for rows, _ in seen] == [15, 15, 6]
        seen.clear()
        vae.log_marginal(torch.rand(30, 4), 2)
        assert [rows for rows, _ in seen] == [30, 30]

    def test_is_above_the_elbo(self):
        vae, x = make("gaussian", torch.float64), data("gaussian", dtype=torch.float64)
        elbo = torch.stack([vae(x, seed=seed).elbo for seed in range(200)]).mean()
        # Jensen's inequality; for an untrained posterior the gap is many Monte Carlo errors wide.
        assert vae.log_marginal(x, 2000, seed=0).mean() > elbo

    def test_a_datum_of_probability_zero(self):
        vae = vf.VAE(vf.GaussianMLP(1, 1), Returns(lambda z: torch.full_like(z, math.inf)))
        result = vae.log_marginal(torch.tensor([[1.0], [0.0]]), 5, chunk_size=2, seed=0)
        assert result[0].isfinite() and result[1] == -math.inf

    def test_seeds(self):
        vae, x = make("bernoulli"), data("bernoulli")
        torch.manual_seed(0)
        first, second = vae.log_marginal(x, 3), vae.log_marginal(x, 3)
        torch.manual_seed(0)
        assert torch.equal(vae.log_marginal(x, 3), first) and not torch.equal(first, second)
        assert torch.equal(vae.log_marginal(x, 3, seed=1), vae.log_marginal(x, 3, seed=1))
        assert first.dtype == torch.float32


class TestErrors:
    x = torch.rand(4, 3)

    def vae(self, encoder=None, decoder=None):
        return vf.VAE(
            Returns(encoder) if encoder else vf.GaussianMLP(3, 2),
            Returns(decoder) if decoder else vf.BernoulliMLP(2, 3),
        )

    @pytest.mark.parametrize(
        ("encoder", "error", "message"),
        [
            (lambda x: x, TypeError, r"encoder must return the pair \(mu, logvar\), got Tensor"),
            (lambda x: (x, x, x), TypeError, r"got tuple of \(Tensor, Tensor, Tensor\)"),
            (lambda x: (x, None), TypeError, r"got tuple of \(Tensor, NoneType\)"),
            (lambda x: (x[:2], x[:2]), ValueError, r"each of x's 4 data, got mu of shape \[2, 3\]"),
            (lambda x: (x.sum(), x.sum()), ValueError, r"got mu of shape \[\] for x of shape \[4, 3\]"),
            (lambda x: (x, x[:, :2]), ValueError, r"encoder's logvar, of shape \[4, 2\], does not broadcast"),
            (
                lambda x: (x, x[None]),
                ValueError,
                r"logvar, of shape \[1, 4, 3\], does not broadcast to its mu",
            ),
            (lambda x: (x[:, :1], x), ValueError, r"does not broadcast to its mu, of shape \[4, 1\]"),
        ],
    )
    def test_encoder_output(self, encoder, error, message):
        vae = self.vae(encoder=encoder)
        for call in (vae, vae.encode, vae.reconstruct, lambda x: vae.log_marginal(x, 2)):
            with pytest.raises(error, match=message):
                call(self.x)

    @pytest.mark.parametrize(
        ("decoder", "error", "message"),
        [
            (
                lambda z: None,
                TypeError,
                r"decoder must return a tensor .* or the pair \(mean, logvar\), got None",
            ),
            (lambda z: (z, z, z), TypeError, r"got tuple of \(Tensor, Tensor, Tensor\)"),
            (lambda z: ("mean", z), TypeError, r"got tuple of \(str, Tensor\)"),
            (lambda z: z, ValueError, r"decoder's logits must have x's shape, \[4, 3\], got \[4, 2\]"),
            (lambda z: z[:, :1], ValueError, r"logits must have x's shape, \[4, 3\], got \[4, 1\]"),
            (lambda z: (z, z), ValueError, r"decoder's mean must have x's shape, \[4, 3\], got \[4, 2\]"),
            (lambda z: (z[:, :1], z), ValueError, r"decoder's logvar, of shape \[4, 2\], does not broadcast"),
        ],
    )
    def test_decoder_output(self, decoder, error, message):
        vae = self.vae(decoder=decoder)
        for call in (vae, lambda x: vae.log_marginal(x, 1)):
            with pytest.raises(error, match=message):
                call(self.x)

    def test_data(self):
        with pytest.raises(TypeError, match="x must be uint8 .* bool or of a float dtype, got torch.int64"):
            self.vae()(torch.ones(4, 3, dtype=torch.int64))
        with pytest.raises(ValueError, match="leading batch dim"):
            self.vae()(torch.tensor(1.0))
        local = vf.VAE(vf.LocalGaussian(5, 2), vf.BernoulliMLP(2, 3))
        with pytest.raises(TypeError, match="index="):
            local(self.x)
        with pytest.raises(ValueError, match=r"x's 4 data, got mu of shape \[2, 2\]"):
            local(self.x, index=[0, 1])
        with pytest.raises(TypeError, match="uint8, bool"):
            local(torch.ones(2, 3, dtype=torch.int64), index=[0, 1])

    @pytest.mark.parametrize("n", [0, -1])
    def test_counts(self, n):
        with pytest.raises(ValueError, match=f"n_samples must be at least 1, got {n}"):
            self.vae().log_marginal(self.x, n)
        with pytest.raises(ValueError, match=f"chunk_size must be at least 1, got {n}"):
            self.vae().log_marginal(self.x, 1, chunk_size=n)

    def test_seed_and_generator(self):
        for call in (self.vae().sample, lambda n, **noise: self.vae()(self.x, **noise)):
            with pytest.raises(ValueError, match="seed or generator"):
                call(2, seed=1, generator=torch.Generator())

    def test_unknown_latent_shape(self):
        with pytest.raises(ValueError, match="latent_shape="):
            vf.VAE(ConvEncoder(), ConvDecoder()).sample(2)
        assert vf.VAE(ConvEncoder(), ConvDecoder(), latent_shape=[2, 4, 4]).sample(2).shape == (2, 1, 8, 8)


class TestModule:
    @every_kind
    def test_copies_and_saved_forms(self, kind):
        vae, x = make(kind, beta=0.5), data(kind)
        vae(x).loss.backward()
        expected = vae(x, seed=1)
        buffer = io.BytesIO()
        torch.save(vae, buffer)
        buffer.seek(0)
        fresh = make(kind, beta=0.5)
        nn.init.zeros_(next(fresh.parameters()))
        fresh.load_state_dict(vae.state_dict())
        for other in (
            copy.deepcopy(vae),
            pickle.loads(pickle.dumps(vae)),
            torch.load(buffer, weights_only=False),
            fresh,
        ):
            assert other.beta == 0.5 and other.latent_shape == vae.latent_shape
            assert all(map(torch.equal, other(x, seed=1), expected))

    def test_output_pickles_and_unpacks(self):
        out = make("bernoulli")(data("bernoulli"))
        assert all(map(torch.equal, pickle.loads(pickle.dumps(out)), out))
        elbo, log_likelihood, kl, loss, z = out
        assert elbo is out.elbo and z is out.z

    def test_repr_says_beta_and_the_latent_shape(self):
        assert "beta=1.0, latent_shape=(3,)" in repr(make("bernoulli"))
        assert "n_data=10, latent_shape=(3,)" in repr(vf.LocalGaussian(10, 3))

    @pytest.mark.parametrize("kind", ["bernoulli", "conv_gaussian"])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
    def test_compiles_as_one_graph(self, kind, dtype):
        vae, x = make(kind), data(kind)
        x = (x * 255).to(torch.uint8) if dtype == torch.uint8 else x
        compiled = torch.compile(lambda x: vae(x, seed=3).loss, fullgraph=True, backend="aot_eager")
        for beta in (1.0, 0.25, 0.5):
            vae.beta = beta
            expected, got = vae(x, seed=3).loss, compiled(x)
            grads = [torch.autograd.grad(loss, list(vae.parameters())) for loss in (expected, got)]
            # The same kernels in another grouping: a few float32 roundings.
            torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(grads[1], grads[0], rtol=1e-4, atol=1e-6)

    def test_compiles_with_the_default_seed(self):
        vae, x = make("bernoulli"), data("bernoulli")
        compiled = torch.compile(vae, fullgraph=True, backend="aot_eager")
        torch.manual_seed(0)
        first, second = compiled(x), compiled(x)
        assert not torch.equal(first.z, second.z)
        assert torch.isfinite(first.loss) and torch.equal(first.elbo, first.log_likelihood - first.kl)
