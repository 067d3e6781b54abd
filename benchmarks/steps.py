"""Whole bounds and whole training steps: a fast kernel in a slow step helps nobody.

Three models of the kinds people train, small enough for a CPU. Their networks are plain torch.nn; what a provider
gives is the ELBO's terms.
"""

from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Model:
    """A training step's parts. ``likelihood`` names the operator of log p(x|z)."""

    name: str
    encoder: nn.Module
    decoder: nn.Module
    x: torch.Tensor
    likelihood: str

    def moments(self, x):
        """μ and log σ²: the two halves of the encoder's output, along its second dim."""
        return self.encoder(x).chunk(2, dim=1)

    def loss(self, functions, moments, decode):
        """−ELBO per datum, ``decode`` making the decoder's output of z."""
        z, kl = functions.rsample_kl(*moments)
        out = decode(z)
        operands = (out, torch.zeros((), device=out.device).expand_as(out), self.x)
        if self.likelihood == "bernoulli_log_prob":
            operands = (out, self.x)
        log_prob = getattr(functions, self.likelihood)(*operands)
        return (kl - log_prob) / len(self.x)


def mlp():
    """784-400-20, batches of 100: Kingma and Welling's, on 28×28 images."""
    return Model(
        "MLP 784-400-20",
        nn.Sequential(nn.Linear(784, 400), nn.Tanh(), nn.Linear(400, 40)),
        nn.Sequential(nn.Linear(20, 400), nn.Tanh(), nn.Linear(400, 784)),
        torch.rand(100, 784),
        "bernoulli_log_prob",
    )


def convolutional():
    """3×64×64 images, a latent vector of 128, batches of 32."""
    width = (3, 32, 64, 128, 256)
    down = [m for a, b in zip(width, width[1:], strict=False) for m in (nn.Conv2d(a, b, 4, 2, 1), nn.ReLU())]
    up = [
        m
        for a, b in zip(width[:0:-1], width[-2::-1], strict=True)
        for m in (nn.ReLU(), nn.ConvTranspose2d(a, b, 4, 2, 1))
    ]
    return Model(
        "convolutional 3x64x64",
        nn.Sequential(*down, nn.Flatten(), nn.Linear(256 * 4 * 4, 256)),
        nn.Sequential(nn.Linear(128, 256 * 4 * 4), nn.Unflatten(1, (256, 4, 4)), *up),
        torch.rand(32, 3, 64, 64),
        "bernoulli_log_prob",
    )


def packed():
    """A latent image of 4×32×32 with packed moments, of 3×128×128 ones, as the first stage of latent diffusion."""
    return Model(
        "packed moments 4x32x32",
        nn.Sequential(
            nn.Conv2d(3, 32, 3, 2, 1), nn.SiLU(), nn.Conv2d(32, 64, 3, 2, 1), nn.SiLU(), nn.Conv2d(64, 8, 3, 1, 1)
        ),
        nn.Sequential(
            nn.Conv2d(4, 64, 3, 1, 1),
            nn.SiLU(),
            nn.ConvTranspose2d(64, 32, 4, 2, 1),
            nn.SiLU(),
            nn.ConvTranspose2d(32, 3, 4, 2, 1),
        ),
        torch.rand(8, 3, 128, 128),
        "gaussian_log_prob",
    )


MODELS = {"mlp": mlp, "convolutional": convolutional, "packed": packed}


def make(name, device="cpu"):
    torch.manual_seed(0)
    model = MODELS[name]()
    return Model(
        model.name, model.encoder.to(device), model.decoder.to(device), model.x.to(device), model.likelihood
    )


def training_step(model, functions):
    """One step: both networks forward and backward, and Adam's update. The call gives the loss."""
    parameters = [*model.encoder.parameters(), *model.decoder.parameters()]
    optimiser = torch.optim.Adam(parameters, lr=1e-4)

    def step():
        optimiser.zero_grad()
        loss = model.loss(functions, model.moments(model.x), model.decoder)
        loss.backward()
        optimiser.step()
        return loss

    return step


def bound(model, functions):
    """The ELBO's terms alone, forward and backward, on what the networks of a step give and take back."""
    with torch.no_grad():
        encoded = model.encoder(model.x)
        # The terms see packed moments as a network's output is packed.
        out = model.decoder(encoded.chunk(2, dim=1)[0])
    encoded.requires_grad_()
    out.requires_grad_()
    dz = torch.randn_like(encoded.chunk(2, dim=1)[0])

    def terms():
        kept = []

        def decode(z):
            kept.append(z)
            return out

        loss = model.loss(functions, encoded.chunk(2, dim=1), decode)
        torch.autograd.backward((loss, kept[0]), (None, dz))
        encoded.grad = out.grad = None
        return loss

    return terms


# What of a model is timed.
PARTS = {"bound": bound, "training step": training_step}


def operands(model):
    """Operands for the check of both terms: (operator, tensors)."""
    with torch.no_grad():
        mu, logvar = (m.clone() for m in model.moments(model.x))
        out = model.decoder(mu)
    yield "rsample_kl", [mu.requires_grad_(), logvar.requires_grad_()]
    if model.likelihood == "bernoulli_log_prob":
        yield model.likelihood, [out.requires_grad_(), model.x]
    else:
        yield model.likelihood, [out.requires_grad_(), torch.zeros_like(out).requires_grad_(), model.x]
