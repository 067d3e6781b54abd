"""vf.check_module: gradients of a module under both backends against float64; the module stays as it was."""

import copy
import importlib

import pytest
import torch
from torch import nn

import vae_fast as vf
from helpers.faults import on_result, plant

pytestmark = pytest.mark.usefixtures("one_thread")

# The package's attribute of this name is the function.
backends = importlib.import_module("vae_fast.backends")


def small(**options):
    torch.manual_seed(1)
    return vf.VAE(vf.GaussianMLP(12, 3, (8,)), vf.BernoulliMLP(3, 12, (8,)), **options)


class Convolutional(nn.Module):
    """A module of the user's own, with buffers, a gradient-free parameter and an unused one."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 4))
        self.decoder = nn.Linear(2, 64)
        self.unused = nn.Parameter(torch.zeros(3))
        self.fixed = nn.Parameter(torch.ones(()), requires_grad=False)

    def forward(self, x):
        z, kl = vf.rsample_kl(*self.encoder(x).chunk(2, 1))
        return vf.bernoulli_log_prob(self.decoder(z) * self.fixed, x.flatten(1)), kl


def negative_elbo(module, x):
    log_likelihood, kl = module(x)
    return (kl - log_likelihood).mean()


class TestPasses:
    @pytest.mark.parametrize(
        "x", [torch.rand(20, 12), torch.randint(0, 256, (20, 12), dtype=torch.uint8)], ids=["floats", "bytes"]
    )
    def test_a_vae(self, x):
        vae = small(beta=0.5)
        rows = vf.check_module(vae, x)
        assert [(r.name, r.shape) for r in rows] == [(n, tuple(p.shape)) for n, p in vae.named_parameters()]
        for row in rows:
            assert row.ok and 0 <= row.error < 1e-5 and 0 <= row.reference_error < 1e-5

    def test_gaussian_decoder_and_local_posteriors(self):
        vae = vf.VAE(vf.GaussianMLP(6, 2, (5,)), vf.GaussianMLP(2, 6, (5,)))
        assert all(row.ok for row in vf.check_module(vae, torch.randn(9, 6)))
        local = vf.VAE(vf.LocalGaussian(9, 2), vf.BernoulliMLP(2, 6, (5,)))
        index = torch.arange(9)
        rows = vf.check_module(local, torch.rand(9, 6), loss=lambda m, x: m(x, index=index).loss)
        assert {"encoder.mu", "encoder.logvar"} <= {r.name for r in rows} and all(r.ok for r in rows)

    def test_a_module_of_ones_own(self):
        rows = {r.name: r for r in vf.check_module(Convolutional(), torch.rand(5, 1, 8, 8), loss=negative_elbo)}
        assert all(r.ok for r in rows.values())
        for name in ("unused", "fixed"):
            assert rows[name].error is None and rows[name].reference_error is None
        # A bias before batch normalisation: its gradient is 0, rounded.
        assert rows["decoder.weight"].error < 1e-5

    def test_tensors_in_containers(self):
        vae = small()
        batch = {"x": (torch.rand(4, 12), torch.ones(4, dtype=torch.bool)), "name": "first"}
        rows = vf.check_module(vae, batch, loss=lambda m, b: m(b["x"][0]).loss)
        assert all(r.ok for r in rows)

    def test_under_no_grad_and_another_backend(self):
        with torch.no_grad(), vf.use_backend("reference"):
            rows = vf.check_module(small(), torch.rand(4, 12))
        assert all(r.ok and r.error == r.reference_error for r in rows)


class TestNothingIsChanged:
    def test_module_and_generators(self):
        module = Convolutional().train()
        module.decoder.weight.grad = torch.ones(64, 2)
        before, grad = copy.deepcopy(module.state_dict()), module.decoder.weight.grad
        torch.manual_seed(3)
        state = torch.get_rng_state()
        vf.check_module(module, torch.rand(5, 1, 8, 8, generator=torch.Generator()), loss=negative_elbo)
        assert torch.equal(state, torch.get_rng_state())
        assert module.training and module.decoder.weight.grad is grad and (grad == 1).all()
        assert module.decoder.bias.grad is None
        for name, value in module.state_dict().items():
            assert torch.equal(value, before[name]) and value.dtype == before[name].dtype

    def test_the_backend_after_an_error(self):
        """Whatever run the loss fails in, the backend is the one it was."""
        for run in (1, 2, 3):
            calls = []

            def fails(module, x, calls=calls, run=run):
                calls.append(1)
                if len(calls) == run:
                    raise ZeroDivisionError
                return module(x).loss

            with vf.use_backend("auto"):
                with pytest.raises(ZeroDivisionError):
                    vf.check_module(small(), torch.rand(4, 12), loss=fails)
                assert backends._current == "auto" and len(calls) == run

    def test_the_seed_decides(self):
        vae, x = small(), torch.rand(4, 12)
        assert vf.check_module(vae, x, seed=1) == vf.check_module(vae, x, seed=1)
        assert vf.check_module(vae, x, seed=1) != vf.check_module(vae, x, seed=2)


class TestFails:
    @pytest.mark.parametrize("k", [0, 1])
    def test_a_wrong_gradient(self, k, monkeypatch):
        """1e-4 off in dmu or dlogvar: the encoder's parameters fail, the decoder's do not."""
        plant(monkeypatch, rsample_kl_bwd=on_result(k, lambda v: v * (1 + 1e-4)))
        rows = vf.check_module(small(), torch.rand(20, 12))
        head = ("encoder.mean", "encoder.logvar")[k]
        assert not any(r.ok for r in rows if r.name.startswith(head))
        assert all(r.ok for r in rows if r.name.startswith("decoder"))

    def test_a_gradient_that_is_nan(self, monkeypatch):
        plant(monkeypatch, bernoulli_log_prob_bwd=on_result(0, lambda v: v * float("nan")))
        rows = vf.check_module(small(), torch.rand(20, 12))
        assert not any(r.ok for r in rows) and all(r.error == float("inf") for r in rows)


class TestWrongCalls:
    def test_no_loss(self):
        with pytest.raises(
            TypeError, match="needs loss=, a function of .module, x.: Convolutional is no vae_fast.VAE"
        ):
            vf.check_module(Convolutional(), torch.rand(5, 1, 8, 8))

    @pytest.mark.parametrize(
        ("loss", "what"), [(lambda m, x: m(x).elbo, r"shape \(4,\)"), (lambda m, x: 1.0, "float")]
    )
    def test_a_loss_that_is_no_number(self, loss, what):
        with pytest.raises(TypeError, match=f"the loss must be a 0-d tensor, got {what}"):
            vf.check_module(small(), torch.rand(4, 12), loss=loss)
