"""Training on every backend that is available follows the reference's curve, from the same seed."""

import pytest
import torch

import vae_fast as vf

BACKENDS = [name for name, b in vf.backends().items() if b.available and "cpu" in b.devices]


def curve(backend, steps=60):
    """The loss of each step: 60 steps of Adam on batches of 50, the noise from PyTorch's default generator."""
    torch.manual_seed(3)
    data = (torch.rand(400, 64) < torch.rand(64)).float()
    vae = vf.VAE(vf.GaussianMLP(64, 8), vf.BernoulliMLP(8, 64))
    optimiser = torch.optim.Adam(vae.parameters(), 1e-3)
    losses = []
    with vf.use_backend(backend):
        for step in range(steps):
            loss = vae(data[step * 50 % 400 :][:50]).loss
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
    return torch.tensor(losses)


@pytest.mark.skipif(not BACKENDS, reason="only the reference is available")
@pytest.mark.parametrize("backend", BACKENDS)
def test_curve(backend):
    """To float precision: a few units in the last place at first, and what 60 steps of Adam make of them."""
    expected, found = curve("reference"), curve(backend)
    assert expected[-1] < expected[0] - 3
    torch.testing.assert_close(found[:10], expected[:10], rtol=1e-6, atol=0.0)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0.0)
