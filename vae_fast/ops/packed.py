"""The operators of a mean and a log σ² that are the halves of one tensor, whose gradient is made in one buffer.

Each function is the public one of its name, on ``moments.chunk(2, dim)``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vae_fast import seeds
from vae_fast.backends import choose
from vae_fast.operators import OPERATORS
from vae_fast.ops import arguments, dispatch
from vae_fast.ops.arguments import Bounds
from vae_fast.ops.autograd import Density, Draw
from vae_fast.ops.gaussian_kl import gaussian_kl
from vae_fast.ops.gaussian_log_prob import gaussian_log_prob
from vae_fast.ops.rsample import rsample
from vae_fast.ops.rsample_kl import rsample_kl
from vae_fast.tracing import public

_OPTIONS = {name: operator.Options for name, operator in OPERATORS.items() if operator.packed}


def _in_one(moments: Tensor, dim: int, *others: Tensor | None) -> bool:
    """Whether ``moments`` needs a gradient, in a call of the common kind; elsewhere autograd joins halves."""
    return dispatch.differentiable(moments) and dispatch.uniform(*moments.chunk(2, dim), *others)


def _form(bounds: Bounds | None) -> dict[str, float]:
    return arguments.sigma_form("logvar", 0.0, bounds).options()


@public
def sample(
    moments: Tensor,
    dim: int,
    *,
    seed: int | Tensor | None,
    generator: torch.Generator | None,
    bounds: Bounds | None,
    backend: str | None,
) -> Tensor:
    """``rsample``."""
    if not _in_one(moments, dim):
        mu, logvar = moments.chunk(2, dim)
        return rsample(mu, logvar, seed=seed, generator=generator, bounds=bounds, backend=backend)
    name = choose("rsample", moments.device, backend, moments.numel() // 2)
    key, key_tensor = seeds.resolve(seed, generator, moments.device)
    options = _OPTIONS["rsample"](seed=key, **_form(bounds))
    z: Tensor = Draw.apply(("rsample", name, dim, options), key_tensor, moments)
    return z


@public
def sample_kl(
    moments: Tensor,
    dim: int,
    *,
    event_ndim: int,
    seed: int | Tensor | None,
    generator: torch.Generator | None,
    bounds: Bounds | None,
    backend: str | None,
) -> tuple[Tensor, Tensor]:
    """``rsample_kl``."""
    if not _in_one(moments, dim):
        mu, logvar = moments.chunk(2, dim)
        options: dict[str, Any] = {"seed": seed, "generator": generator, "bounds": bounds, "backend": backend}
        return rsample_kl(mu, logvar, event_ndim=event_ndim, **options)
    name = choose("rsample_kl", moments.device, backend, moments.numel() // 2)
    key, key_tensor = seeds.resolve(seed, generator, moments.device)
    options = _OPTIONS["rsample_kl"](seed=key, event_ndim=event_ndim, **_form(bounds))
    z, kl = Draw.apply(("rsample_kl", name, dim, options), key_tensor, moments)
    return z, kl


@public
def kl(
    moments: Tensor,
    dim: int,
    prior_mu: Tensor | None = None,
    prior_logvar: Tensor | None = None,
    *,
    event_ndim: int,
    bounds: Bounds | None,
    backend: str | None,
) -> Tensor:
    """``gaussian_kl``."""
    if not _in_one(moments, dim, prior_mu, prior_logvar):
        mu, logvar = moments.chunk(2, dim)
        prior = (prior_mu, prior_logvar)
        return gaussian_kl(mu, logvar, *prior, event_ndim=event_ndim, bounds=bounds, backend=backend)
    name = choose("gaussian_kl", moments.device, backend, moments.numel() // 2)
    options = _OPTIONS["gaussian_kl"](event_ndim=event_ndim, **_form(bounds))
    out: Tensor = Density.apply(("gaussian_kl", name, dim, options), False, moments, prior_mu, prior_logvar, None)
    return out


@public
def log_prob(
    moments: Tensor,
    dim: int,
    x: Tensor,
    *,
    event_ndim: int,
    scale: float,
    bounds: Bounds | None,
    backend: str | None,
) -> Tensor:
    """``gaussian_log_prob``, times ``scale``."""
    if not _in_one(moments, dim, x):
        mean, logvar = moments.chunk(2, dim)
        return gaussian_log_prob(
            mean, logvar, x, event_ndim=event_ndim, scale=scale, bounds=bounds, backend=backend
        )
    name = choose("gaussian_log_prob", moments.device, backend, moments.numel() // 2)
    options = _OPTIONS["gaussian_log_prob"](event_ndim=event_ndim, scale=scale, **_form(bounds))
    out: Tensor = Density.apply(("gaussian_log_prob", name, dim, options), False, moments, x, None)
    return out
