"""Accelerate: two training steps both ways on the same noise, and mixed precision."""

import copy
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import set_seed
from torch import nn
from torch.utils.data import DataLoader

import vae_fast as vf


class Eager(nn.Module):
    """A VAE by hand, on the noise that the other one draws."""

    def __init__(self, encoder, decoder):
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def forward(self, x, seed):
        mu, logvar = self.encoder(x)
        z = mu + (logvar / 2).exp() * vf.standard_normal(mu.shape, seed=seed, dtype=mu.dtype)
        kl = -0.5 * (1 + logvar - mu**2 - logvar.exp()).sum(1)
        return (F.binary_cross_entropy_with_logits(self.decoder(z), x, reduction="none").sum(1) + kl).mean()


@pytest.fixture
def networks():
    return vf.GaussianMLP(9, 4, 16), vf.BernoulliMLP(4, 9, 16)


def train(vae, data, **options):
    """The losses and gradients of an epoch, and what the model returned last."""
    AcceleratorState._reset_state(True)
    accelerator = Accelerator(cpu=True, **options)
    loader = DataLoader(data, batch_size=6)
    vae, optimizer, loader = accelerator.prepare(vae, torch.optim.SGD(vae.parameters(), lr=0.1), loader)
    losses, grads = [], []
    for step, x in enumerate(loader):
        out = vae(x, seed=step)
        loss = out.loss if isinstance(out, vf.VAEOutput) else out
        optimizer.zero_grad()
        accelerator.backward(loss)
        losses.append(loss.detach())
        grads.append([p.grad.clone() for p in vae.parameters()])
        optimizer.step()
    return losses, grads, out


def test_two_steps(fused, networks):
    """In float64, whose formulas differ by roundings."""
    data = torch.rand(12, 9, dtype=torch.float64)
    eager, ours = (copy.deepcopy(kind(*networks)).double() for kind in (Eager, vf.VAE))
    losses, grads, _ = train(eager, data)
    assert set(fused) == {"standard_normal_fwd"}
    fused.clear()
    our_losses, our_grads, _ = train(ours, data)
    step = ["rsample_kl_fwd", "bernoulli_log_prob_fwd", "bernoulli_log_prob_bwd", "rsample_kl_bwd"]
    assert fused == 2 * step
    torch.testing.assert_close(our_losses, losses, rtol=1e-13, atol=0.0)
    torch.testing.assert_close(our_grads, grads, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(list(ours.parameters()), list(eager.parameters()), rtol=1e-12, atol=1e-14)


def test_bf16(fused, networks):
    """Accelerate widens what a model returns, and a VAE's output is still one."""
    data = torch.rand(12, 9)
    full, _, _ = train(copy.deepcopy(vf.VAE(*networks)), data)
    mixed, _, out = train(copy.deepcopy(vf.VAE(*networks)), data, mixed_precision="bf16")
    assert {t.dtype for t in out} == {torch.float32}
    assert torch.equal(out.z, out.z.bfloat16().float()), "z was not bfloat16"
    assert not torch.equal(mixed[0], full[0])
    torch.testing.assert_close(mixed, full, rtol=2e-2, atol=0.0)


def test_the_seed_of_each_rank(fused, monkeypatch):
    """set_seed(…, device_specific=True), as in the README, seeds ranks apart; else they draw alike."""
    mu = torch.zeros(3, 4)

    def drawn(rank, **options):
        monkeypatch.setattr("accelerate.utils.random.AcceleratorState", lambda: SimpleNamespace(process_index=rank))
        set_seed(0, **options)
        return vf.rsample(mu, mu)

    assert torch.equal(drawn(0), drawn(1))
    assert not torch.equal(drawn(0, device_specific=True), drawn(1, device_specific=True))
