"""DiagonalGaussian in the place of diffusers' DiagonalGaussianDistribution: in its autoencoders, and by itself."""

import importlib
import pkgutil
import re

import diffusers.models.autoencoders
import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderKLCogVideoX, AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_minimax_h3_audio import MiniMaxH3AudioDiagonalGaussianDistribution
from diffusers.models.autoencoders.autoencoder_oobleck import OobleckDiagonalGaussianDistribution
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch.testing import assert_close

import vae_fast as vf
from helpers import pages

# Float64 passes of one network whose latents differ by roundings, relative to the largest entry of a gradient.
STEP = 1e-10


def image():
    torch.manual_seed(0)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D", "DownEncoderBlock2D"),
        up_block_types=("UpDecoderBlock2D", "UpDecoderBlock2D"),
        block_out_channels=(8, 16),
        latent_channels=4,
        norm_num_groups=4,
        sample_size=32,
    )
    return vae, torch.randn(2, 3, 32, 32)


def cogvideox():
    torch.manual_seed(0)
    vae = AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * 4,
        up_block_types=("CogVideoXUpBlock3D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
        temporal_compression_ratio=4,
    )
    return vae, torch.randn(1, 3, 5, 16, 16)


def wan():
    torch.manual_seed(0)
    vae = AutoencoderKLWan(
        base_dim=3, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True]
    )
    return vae, torch.randn(1, 3, 5, 16, 16)


@pytest.fixture(params=[image, cogvideox, wan], ids=lambda f: f.__name__)
def model(request):
    vae, x = request.param()
    return vae.double(), x.double()


def same_noise(monkeypatch, seed):
    """diffusers draws our noise."""

    def randn_tensor(shape, generator, device, dtype):
        return vf.standard_normal(shape, seed=seed, device=device, dtype=dtype)

    for module in ("vae", "autoencoder_oobleck", "autoencoder_kl_minimax_h3_audio"):
        monkeypatch.setattr(f"diffusers.models.autoencoders.{module}.randn_tensor", randn_tensor)


def step(vae, x, posterior_of):
    """The loss of one training step, and the gradient of every parameter."""
    z, kl = posterior_of(vae, x)
    # CogVideoX gives more frames than it was given.
    decoded = vae.decode(z).sample[:, :, : x.shape[2]]
    loss = (decoded - x).square().mean() + 1e-3 * kl.mean()
    vae.zero_grad()
    loss.backward()
    return loss.detach(), {name: p.grad for name, p in vae.named_parameters()}


def test_a_training_step(model, fused, monkeypatch):
    """Loss and every parameter's gradient, as users write it and with one line changed."""
    vae, x = model
    dims = tuple(range(1, x.ndim))

    def theirs(vae, x):
        posterior = vae.encode(x).latent_dist
        term = torch.pow(posterior.mean, 2) + posterior.var - 1.0 - posterior.logvar
        # Its own kl() leaves out the last dim of a video.
        kl = posterior.kl() if x.ndim == 4 else 0.5 * torch.sum(term, dims)
        return posterior.sample(), kl

    def ours(vae, x):
        posterior = vf.DiagonalGaussian(vae.encode(x).latent_dist.parameters)
        assert posterior.parameters.ndim == x.ndim
        return posterior.sample(seed=5), posterior.kl()

    def at_once(vae, x):
        return vf.DiagonalGaussian(vae.encode(x).latent_dist.parameters).rsample_kl(seed=5)

    same_noise(monkeypatch, 5)
    loss, grads = step(vae, x, theirs)
    assert fused == ["standard_normal_fwd"]
    for form, kernels in (
        (ours, ["rsample_fwd", "gaussian_kl_fwd", "gaussian_kl_bwd", "rsample_bwd"]),
        (at_once, ["rsample_kl_fwd", "rsample_kl_bwd"]),
    ):
        fused.clear()
        got_loss, got = step(vae, x, form)
        assert sorted(fused) == sorted(kernels)
        assert_close(got_loss, loss, rtol=STEP, atol=0.0)
        assert all(g is not None and g.isfinite().all() for g in got.values())
        for name, grad in grads.items():
            # The loss's own size is about 1, and a gradient may be 0: a bias before a normalisation has none.
            assert_close(got[name], grad, rtol=0.0, atol=STEP * max(grad.abs().max().item(), 1e-3))


class TestSameClass:
    """Every method and attribute, in float64, against diffusers' own."""

    @pytest.fixture(params=[(3, 8, 5, 6), (2, 8, 3, 4, 5)], ids=["image", "video"])
    def moments(self, request):
        moments = torch.randn(request.param, dtype=torch.float64)
        moments.view(-1)[-2:] = torch.tensor([-40.0, 21.0], dtype=torch.float64)
        return moments.requires_grad_()

    def compare(self, ours, theirs, *leaves):
        assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
        up = torch.randn_like(theirs)
        want = torch.autograd.grad(theirs, leaves, up, retain_graph=True)
        got = torch.autograd.grad(ours, leaves, up, retain_graph=True)
        assert_close(got, want, rtol=1e-12, atol=1e-12)

    def test_methods(self, moments, fused, monkeypatch):
        theirs = DiagonalGaussianDistribution(moments)
        # Its reductions, whatever the number of dims.
        ours = vf.DiagonalGaussian(moments, sum_dims=(1, 2, 3))
        for name in ("mean", "std", "var", "logvar"):
            self.compare(getattr(ours, name), getattr(theirs, name), moments)
        self.compare(ours.mode(), theirs.mode(), moments)
        self.compare(ours.kl(), theirs.kl(), moments)
        moderate = torch.randn_like(moments, requires_grad=True)
        other = DiagonalGaussianDistribution(moderate)
        self.compare(ours.kl(vf.DiagonalGaussian(moderate)), theirs.kl(other), moments, moderate)
        self.compare(ours.kl(other), theirs.kl(other), moments, moderate)
        x = torch.randn_like(theirs.mean)
        q, p = vf.DiagonalGaussian(moderate, sum_dims=(1, 2, 3)), other
        self.compare(q.nll(x), p.nll(x), moderate)
        self.compare(q.nll(x, dims=[1, 3]), p.nll(x, dims=[1, 3]), moderate)
        same_noise(monkeypatch, 9)
        self.compare(ours.sample(seed=9), theirs.sample(), moments)
        assert {"rsample_fwd", "rsample_bwd", "gaussian_kl_bwd", "gaussian_log_prob_bwd"} <= set(fused)

    def test_deterministic(self, moments):
        ours = vf.DiagonalGaussian(moments, deterministic=True)
        theirs = DiagonalGaussianDistribution(moments, deterministic=True)
        assert torch.equal(ours.sample(), theirs.sample())
        assert torch.equal(ours.std, theirs.std) and torch.equal(ours.var, theirs.var)
        assert torch.equal(ours.kl(), theirs.kl()) and torch.equal(ours.nll(theirs.mean), theirs.nll(theirs.mean))

    def test_generators(self, moments, fused):
        """One, or one a datum, as its pipelines pass them: which data change with which generator."""
        posteriors = vf.DiagonalGaussian(moments.detach()), DiagonalGaussianDistribution(moments.detach())

        def changed(posterior, seeds, others):
            def drawn(seeds):
                return posterior.sample([torch.Generator().manual_seed(s) for s in seeds])

            return [not torch.equal(a, b) for a, b in zip(drawn(seeds), drawn(others), strict=True)]

        n = len(moments)
        seeds = list(range(n))
        for others in (seeds, [7, *seeds[1:]], [*seeds[:-1], 7]):
            ours, theirs = (changed(posterior, seeds, others) for posterior in posteriors)
            assert ours == theirs == [a != b for a, b in zip(seeds, others, strict=True)]
        assert all(
            all(changed(posterior, [1], [2])) and not any(changed(posterior, [1], [1])) for posterior in posteriors
        )


class TestOtherPosteriors:
    """Each of diffusers' posterior classes, as the README's table has it."""

    @pytest.fixture
    def moments(self):
        moments = 3.0 * torch.randn(2, 8, 5, dtype=torch.float64)
        # Where a clamp of log σ² would be seen, above what F.softplus takes for linear; and eps is most of σ.
        moments[:, 4:, 0], moments[:, 4:, 1] = 50.0, -31.0
        return moments.requires_grad_()

    def compare(self, ours, theirs, leaf):
        assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
        up = torch.randn_like(theirs)
        got, want = (torch.autograd.grad(value, leaf, up, retain_graph=True) for value in (ours, theirs))
        assert_close(got, want, rtol=1e-12, atol=1e-12)

    def test_oobleck(self, moments, fused, monkeypatch):
        theirs = OobleckDiagonalGaussianDistribution(moments)
        ours = vf.DiagonalGaussian(moments, param="softplus", param_eps=1e-4)
        for name in ("mean", "std", "var", "logvar"):
            self.compare(getattr(ours, name), getattr(theirs, name), moments)
        self.compare(ours.mode(), theirs.mode(), moments)
        # Its kl() is twice the divergence, averaged over data and time.
        by_time = vf.DiagonalGaussian(moments, sum_dims=1, param="softplus", param_eps=1e-4)
        self.compare(2.0 * by_time.kl().mean(), theirs.kl(), moments)
        same_noise(monkeypatch, 9)
        self.compare(ours.sample(seed=9), theirs.sample(), moments)
        z, kl = ours.rsample_kl(seed=9)
        self.compare(z, theirs.sample(), moments)
        self.compare(kl, 0.5 * (theirs.mean**2 + theirs.var - theirs.logvar - 1.0).sum((1, 2)), moments)
        assert {"rsample_fwd", "rsample_bwd", "rsample_kl_bwd", "gaussian_kl_bwd"} <= set(fused)

    def test_minimax_audio(self, moments, monkeypatch):
        theirs = MiniMaxH3AudioDiagonalGaussianDistribution(*moments.chunk(2, 1))
        ours = vf.DiagonalGaussian(moments, param="logstd")
        self.compare(ours.std, theirs.std, moments)
        self.compare(ours.mode(), theirs.mode(), moments)
        same_noise(monkeypatch, 3)
        self.compare(ours.sample(seed=3), theirs.sample(), moments)

    def test_the_readme_has_all(self):
        """Every class of a distribution in its autoencoders stands in the table."""
        package, found = diffusers.models.autoencoders, set()
        for module in pkgutil.iter_modules(package.__path__):
            names = vars(importlib.import_module(f"{package.__name__}.{module.name}"))
            found |= {name for name, value in names.items() if isinstance(value, type) and "Distribution" in name}
        readme = pages.text(pages.page("in_your_code/diffusers"))
        table = set(re.findall(r"^\| `(\w*Distribution)`", readme, re.M))
        assert table == found
