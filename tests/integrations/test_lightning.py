"""Lightning: two training steps both ways on the same noise, and mixed precision."""

import copy

import lightning
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader

import vae_fast as vf


class Eager(lightning.LightningModule):
    """The formulas as they are written by hand, on the noise that the other one draws."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(9, 8), nn.Linear(4, 9)
        self.losses, self.grads = [], []

    def terms(self, mu, logvar, x):
        eps = vf.standard_normal(mu.shape, seed=self.global_step, dtype=mu.dtype)
        z = mu + (logvar / 2).exp() * eps
        kl = -0.5 * (1 + logvar - mu**2 - logvar.exp()).sum(1)
        return F.binary_cross_entropy_with_logits(self.decoder(z), x, reduction="none").sum(1), kl

    def training_step(self, x, batch_idx):
        nll, kl = self.terms(*self.encoder(x).chunk(2, 1), x)
        loss = (nll + kl).mean()
        self.losses.append(loss.detach())
        return loss

    def on_before_optimizer_step(self, optimizer):
        self.grads.append([p.grad.clone() for p in self.parameters()])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Ours(Eager):
    def terms(self, mu, logvar, x):
        z, kl = vf.rsample_kl(mu, logvar, seed=self.global_step)
        return vf.bernoulli_log_prob(self.decoder(z), x, scale=-1.0), kl


def train(module, data, **options):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    quiet |= {"enable_model_summary": False, "accelerator": "cpu", "max_epochs": 1}
    lightning.Trainer(**quiet, **options).fit(module, DataLoader(data, batch_size=6))
    return module


def made(kind, weights):
    module = kind()
    module.load_state_dict(weights)
    return module


@pytest.fixture
def weights():
    return copy.deepcopy(Eager().state_dict())


def test_two_steps(fused, weights):
    """In float64, whose formulas differ by roundings."""
    data = torch.rand(12, 9, dtype=torch.float64)
    eager = train(made(Eager, weights).double(), data)
    assert set(fused) == {"standard_normal_fwd"}
    fused.clear()
    ours = train(made(Ours, weights).double(), data)
    step = ["rsample_kl_fwd", "bernoulli_log_prob_fwd", "bernoulli_log_prob_bwd", "rsample_kl_bwd"]
    assert fused == 2 * step
    assert len(ours.losses) == len(ours.grads) == 2
    torch.testing.assert_close(ours.losses, eager.losses, rtol=1e-13, atol=0.0)
    torch.testing.assert_close(ours.grads, eager.grads, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(list(ours.parameters()), list(eager.parameters()), rtol=1e-12, atol=1e-14)


def test_bf16_mixed(fused, weights):
    """The networks in bfloat16, the densities in float32: near what float32 gives, 8 bits through two layers."""
    data = torch.rand(12, 9)
    mixed, full = (train(made(Ours, weights), data, precision=p) for p in ("bf16-mixed", "32-true"))
    assert {loss.dtype for loss in mixed.losses} == {torch.float32}
    assert not torch.equal(mixed.losses[0], full.losses[0])
    torch.testing.assert_close(mixed.losses, full.losses, rtol=2e-2, atol=0.0)


class Seeded(Eager):
    """The README's seed: of the epoch, the batch and the stage."""

    def __init__(self):
        super().__init__()
        self.drawn = []

    def terms(self, mu, logvar, x, batch_idx):
        seed = 2 * (self.current_epoch << 32 | batch_idx) + self.training
        z, kl = vf.rsample_kl(mu, logvar, seed=seed, first_sample=self.global_rank)
        self.drawn.append((self.training, seed, vf.standard_normal(mu.shape, seed=seed)))
        return vf.bernoulli_log_prob(self.decoder(z), x, scale=-1.0), kl

    def training_step(self, x, batch_idx):
        nll, kl = self.terms(*self.encoder(x).chunk(2, 1), x, batch_idx)
        return (nll + kl).mean()

    def validation_step(self, x, batch_idx):
        self.terms(*self.encoder(x).chunk(2, 1), x, batch_idx)


def test_a_seed_of_a_batch(fused):
    """No noise twice: neither while gradients are accumulated nor in validation, in any epoch."""
    loader = DataLoader(torch.rand(24, 9), batch_size=6)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    trainer = lightning.Trainer(
        **quiet, enable_model_summary=False, max_epochs=2, accumulate_grad_batches=2, num_sanity_val_steps=0
    )
    module = Seeded()
    trainer.fit(module, loader, loader)
    assert len(module.drawn) == 16 and trainer.global_step == 4
    assert len({seed for _, seed, _ in module.drawn}) == 16
    assert len({eps.numpy().tobytes() for *_, eps in module.drawn}) == 16
