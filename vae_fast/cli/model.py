"""The VAE and the optimiser that a config describes, and the device they live on."""

from __future__ import annotations

import os

import torch
from torch import nn

import vae_fast as vf
from vae_fast.cli.config import TrainConfig
from vae_fast.cli.errors import CommandError
from vae_fast.cli.streams import seeded_initialisation

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "sigmoid": nn.Sigmoid,
    "leaky_relu": nn.LeakyReLU,
}
_MEAN_ACTIVATIONS: dict[str, type[nn.Module] | None] = {"none": None, "sigmoid": nn.Sigmoid}


def resolve_device(name: str) -> torch.device:
    """The device of `--device`; "auto" is the first GPU, else the CPU. CommandError if it does not work."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        # float64: the noise is computed with it.
        torch.zeros(1, dtype=torch.float64, device=device).item()
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CommandError(f"--device {name!r} cannot be used here: {reason}") from error
    return device


def check_backend(name: str | None) -> str:
    """The backend of `--backend`, or else VAE_FAST_BACKEND. CommandError with the reason if it cannot be used."""
    source = "--backend" if name else "VAE_FAST_BACKEND"
    name = name or os.environ.get("VAE_FAST_BACKEND") or "auto"
    table = vf.backends()
    if name != "auto" and name not in table:
        raise CommandError(f"{source} {name!r} is not known: use auto, {', '.join(table)}")
    if name != "auto" and not table[name].available:
        raise CommandError(f"{source} {name} is not available here: {table[name].reason}")
    return name


def build_vae(config: TrainConfig, d: int) -> vf.VAE:
    """The VAE of a config for data of d numbers, on the CPU, its weights a function of the seed alone."""
    activation = _ACTIVATIONS[config.activation]
    with seeded_initialisation(config.seed):
        encoder = vf.GaussianMLP(d, config.latent, config.hidden, activation)
        sizes = (config.latent, d, config.hidden[::-1], activation)
        decoder: nn.Module
        if config.likelihood == "bernoulli":
            decoder = vf.BernoulliMLP(*sizes)
        else:
            decoder = vf.GaussianMLP(*sizes, mean_activation=_MEAN_ACTIVATIONS[config.mean_activation])
    return vf.VAE(encoder, decoder, beta=config.beta, objective=config.objective, n_samples=config.samples)


def build_optimizer(config: TrainConfig, vae: nn.Module) -> torch.optim.Optimizer:
    """Adam (Kingma & Ba 2015) or Adagrad (Duchi et al. 2011) with PyTorch's defaults and the config's lr."""
    if config.optimizer == "adagrad":
        return torch.optim.Adagrad(vae.parameters(), lr=config.lr)
    return torch.optim.Adam(vae.parameters(), lr=config.lr, fused=True)


def optimizer_state(config: TrainConfig, epoch: int) -> tuple[str, ...]:
    """The names of a parameter's state after so many epochs: `step` is a number, others are of its shape."""
    if config.optimizer == "adagrad":
        return ("step", "sum")
    return ("step", "exp_avg", "exp_avg_sq") if epoch else ()  # made by the first step
