"""How good a trained VAE is: ELBO, log p(x), active units, KL per latent dim, the price of amortisation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import vae_fast as vf
from vae_fast.cli.streams import derive_seed

_BATCH = 500
_MARGINAL_BATCH = 10  # × the samples of a chunk: enough rows for the matmuls, few enough to stay in cache
_GAP_LR = 0.05

Tick = Callable[[int], Any]


@dataclass(frozen=True)
class Mean:
    """A mean over data and its standard error."""

    mean: float
    stderr: float

    @staticmethod
    def of(values: Tensor) -> Mean:
        values = values.double()
        n = len(values)
        return Mean(values.mean().item(), (values.std() / math.sqrt(n)).item() if n > 1 else math.nan)


@torch.no_grad()
def elbo_terms(
    vae: vf.VAE,
    x: Tensor,
    samples: int,
    seed: int,
    first: int = 0,
    index: Tensor | None = None,
    tick: Tick = int,
) -> Tensor:
    """elbo, log-likelihood and KL of each datum, averaged over `samples` draws of z: float64 [3, n].

    first: position of x[0] in the data, which places its noise: any split of the data gives the same values.
    """
    (latent,) = vae.latent_shape or (0,)
    batches = []
    for start in range(0, len(x), _BATCH):
        part = x[start : start + _BATCH]
        total = torch.zeros(3, len(part), dtype=torch.float64, device=x.device)
        for s in range(samples):
            offset = (first + start) * latent
            where = None if index is None else index[start : start + _BATCH]
            result = vae(part, index=where, seed=derive_seed(seed, "elbo", s), offset=offset)
            total += torch.stack([result.elbo, result.log_likelihood, result.kl]).double()
            tick(len(part))
        batches.append(total / samples)
    return torch.cat(batches, 1)


@torch.no_grad()
def log_marginals(vae: vf.VAE, x: Tensor, samples: int, seed: int, tick: Tick = int) -> Tensor:
    """log p(x) of each datum, importance-sampled (Burda, Grosse & Salakhutdinov 2016, eq. 8): float64 [n]."""
    batches = []
    for start in range(0, len(x), _MARGINAL_BATCH):
        part = x[start : start + _MARGINAL_BATCH]
        batches.append(vae.log_marginal(part, samples, seed=derive_seed(seed, "marginal", start)).double())
        tick(len(part))
    return torch.cat(batches)


@torch.no_grad()
def posteriors(vae: vf.VAE, x: Tensor) -> tuple[Tensor, Tensor]:
    """The encoder's mu and log sigma^2 of all data: each [n, latent]."""
    pairs = [vae.encode(x[start : start + _BATCH]) for start in range(0, len(x), _BATCH)]
    return torch.cat([mu for mu, _ in pairs]), torch.cat([logvar for _, logvar in pairs])


def local_elbo(vae: vf.VAE, x: Tensor, steps: int, samples: int, seed: int, tick: Tick = int) -> Tensor:
    """ELBO of each datum with a mu and log sigma^2 of its own, the decoder as it is: float64 [n].

    They start from the encoder's and follow Adam, one fresh z a step, the learning rate falling linearly to
    0. What this gains over the encoder's ELBO is the amortisation gap (Cremer, Li & Duvenaud 2018, eq. 5).
    The ELBOs take the same noise, so that their difference is not that of two random draws. Each datum has a tick
    for each step and for each draw.
    """
    batches = []
    for start in range(0, len(x), _BATCH):
        part = x[start : start + _BATCH]
        local = _fit_posteriors(vae, part, steps, seed, start, tick)
        index = torch.arange(len(part), device=x.device)
        batches.append(elbo_terms(local, part, samples, seed, start, index, tick)[0])
    return torch.cat(batches)


def _fit_posteriors(vae: vf.VAE, x: Tensor, steps: int, seed: int, first: int, tick: Tick) -> vf.VAE:
    with torch.no_grad():
        mu, logvar = vae.encode(x)
    posterior = vf.LocalGaussian(len(x), mu.shape[1]).to(x.device)
    with torch.no_grad():
        posterior.mu.copy_(mu)
        posterior.logvar.copy_(logvar)
    local = vf.VAE(posterior, vae.decoder)
    index = torch.arange(len(x), device=x.device)
    optimizer = torch.optim.Adam(posterior.parameters(), lr=_GAP_LR)
    frozen = [p for p in vae.decoder.parameters() if p.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = _GAP_LR * (1 - step / steps)
            result = local(x, index=index, seed=derive_seed(seed, "gap", step), offset=first * mu.shape[1])
            optimizer.zero_grad(set_to_none=True)
            result.elbo.sum().neg().backward()
            optimizer.step()
            tick(len(x))
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)
    return local
