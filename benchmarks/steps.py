"""Whole bounds and whole training steps: a fast kernel in a slow step helps nobody.

Four models of the kinds people train, small enough for a CPU. Their networks are plain torch.nn; what a provider
gives is the ELBO's terms.
"""

from dataclasses import dataclass
from types import SimpleNamespace

import torch
from torch import nn

from . import replay


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
        log_prob = getattr(functions, self.likelihood)(*self.operands(decode(z)), self.x)
        return (kl - log_prob) / len(self.x)

    def operands(self, out):
        """The likelihood's parameters, of the decoder's output."""
        if self.likelihood == "bernoulli_log_prob":
            return (out,)
        if self.likelihood == "gaussian_log_prob":
            return out, torch.zeros((), device=out.device).expand_as(out)
        shares, zero_logits = out.chunk(2, dim=1)
        mean = self.x.sum(1, keepdim=True) * shares.softmax(1)
        return mean, self.decoder.log_theta.exp(), zero_logits


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


class Log1p(nn.Module):
    def forward(self, x):
        return x.log1p()


class CountDecoder(nn.Sequential):
    """Shares and zero inflation of each gene, as logits; and a dispersion a gene, which is no output."""

    def __init__(self, genes, latents, hidden):
        layers = (nn.Linear(latents, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, 2 * genes))
        super().__init__(*layers)
        self.log_theta = nn.Parameter(torch.randn(genes))


def counts(genes=4000, latents=10, hidden=128):
    """Single-cell counts as scVI models them, 128 cells of 4,000 genes, five of six counts 0: zero-inflated."""
    x = torch.poisson(torch.randn(genes).mul(1.8).sub(2.9).exp() * torch.randn(128, genes).exp())
    return Model(
        "counts 128x4000",
        nn.Sequential(
            Log1p(), nn.Linear(genes, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, 2 * latents)
        ),
        CountDecoder(genes, latents, hidden),
        x,
        "negative_binomial_log_prob",
    )


MODELS = {"mlp": mlp, "convolutional": convolutional, "packed": packed, "counts": counts}


def make(name, device="cpu"):
    torch.manual_seed(0)
    model = MODELS[name]()
    return Model(
        model.name, model.encoder.to(device), model.decoder.to(device), model.x.to(device), model.likelihood
    )


def _no_log_prob(*tensors):
    return -sum(parameter.sum() for parameter in tensors[:-1])


# Networks and optimiser alone: sums in place of the loss terms, so that there are all gradients.
NO_TERMS = SimpleNamespace(
    rsample_kl=lambda mu, logvar: (mu, mu.sum() + logvar.sum()),
    bernoulli_log_prob=_no_log_prob,
    gaussian_log_prob=_no_log_prob,
    negative_binomial_log_prob=_no_log_prob,
)


def parameters(model):
    return [*model.encoder.parameters(), *model.decoder.parameters()]


def adam(model, lr=1e-4, **options):
    return torch.optim.Adam(parameters(model), lr=lr, **options)


def training_step(model, functions, optimiser=None, dtype=None):
    """One step: both networks forward and backward, and Adam's update. The call gives the loss.

    With a ``dtype`` the forward pass is under autocast to it.
    """
    optimiser = optimiser or adam(model)

    def step():
        optimiser.zero_grad()
        with torch.autocast(model.x.device.type, dtype, enabled=dtype is not None):
            loss = model.loss(functions, model.moments(model.x), model.decoder)
        loss.backward()
        optimiser.step()
        return loss

    return step


def autocast_step(model, functions):
    return training_step(model, functions, dtype=torch.bfloat16)


def replayed_step(model, functions):
    """The step in a CUDA graph: the call replays it."""
    step = training_step(model, functions, adam(model, capturable=model.x.is_cuda))
    graph, losses = replay.captured(lambda: [step()], [()] * 3)

    def call():
        graph.replay()
        return losses[0]

    return call


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


# What of a model is timed; and on a GPU besides.
PARTS = {"bound": bound, "training step": training_step}
GPU_PARTS = {"training step, bfloat16": autocast_step, "training step, a graph": replayed_step}


def operands(model):
    """Operands for the check of both terms: (operator, tensors)."""
    with torch.no_grad():
        mu, logvar = (m.clone() for m in model.moments(model.x))
        out = model.decoder(mu)
        parameters = [p.clone().requires_grad_() for p in model.operands(out)]
    yield "rsample_kl", [mu.requires_grad_(), logvar.requires_grad_()]
    yield model.likelihood, [*parameters, model.x]
