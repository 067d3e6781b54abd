"""The operators of a mean and a log σ² that are the halves of one tensor, whose gradient is made in one buffer.

Each function is the public one of its name, on ``moments.chunk(2, dim)``: ``form`` has its arguments of σ's
parametrisation, ``drawn`` those that say what is drawn.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from vae_fast.backends import choose
from vae_fast.operators import OPERATORS
from vae_fast.ops import arguments, dispatch
from vae_fast.ops.autograd import Density, Draw
from vae_fast.ops.gaussian_kl import gaussian_kl
from vae_fast.ops.gaussian_log_prob import gaussian_log_prob
from vae_fast.ops.noise_source import Drawn, source
from vae_fast.ops.rsample import rsample
from vae_fast.ops.rsample_kl import rsample_kl
from vae_fast.tracing import public

_OPTIONS = {name: operator.Options for name, operator in OPERATORS.items() if operator.packed}


def _in_one(moments: Tensor, dim: int, *others: Tensor | None) -> bool:
    """Whether ``moments`` needs a gradient, in a call of the common kind; elsewhere autograd joins halves."""
    return dispatch.differentiable(moments) and dispatch.uniform(*moments.chunk(2, dim), *others)


def _form(param: Any = "logvar", param_eps: Any = 0.0, bounds: Any = None) -> dict[str, float]:
    code, eps, low, high = arguments.parametrisation(param, param_eps, bounds)
    return {"param": code, "param_eps": eps, "low": low, "high": high}


def _drawn(
    mu: Tensor, temperature: Any = 1.0, seed: Any = None, generator: Any = None, noise: Any = None, stream: int = 0
) -> tuple[Drawn, dict[str, Any]]:
    """What is drawn, and the options that say so but for its tensors."""
    drawn = source(seed, generator, noise, (0, 0, stream), mu, (), tuple(mu.shape))
    tau = arguments.temperature(temperature)
    return drawn, {"seed": drawn.seed, "first_sample": drawn.first_sample, "temperature": tau}


@public
def sample(
    moments: Tensor, dim: int, *, drawn: dict[str, Any], form: dict[str, Any], backend: str | None
) -> Tensor:
    """``rsample``."""
    mu, logvar = moments.chunk(2, dim)
    if not _in_one(moments, dim):
        return rsample(mu, logvar, **drawn, **form, backend=backend)
    name = choose("rsample", moments.device, backend, mu.numel())
    noise, options = _drawn(mu, **drawn)
    call = ("rsample", name, dim, _OPTIONS["rsample"](**options, **_form(**form)))
    z: Tensor = Draw.apply(call, noise.seed_tensor, noise.noise, moments)
    return z


@public
def sample_kl(
    moments: Tensor, dim: int, *, event_ndim: int, drawn: dict[str, Any], form: dict[str, Any], backend: str | None
) -> tuple[Tensor, Tensor]:
    """``rsample_kl``, to N(0, I)."""
    mu, logvar = moments.chunk(2, dim)
    if not _in_one(moments, dim):
        return rsample_kl(mu, logvar, event_ndim=event_ndim, **drawn, **form, backend=backend)
    name = choose("rsample_kl", moments.device, backend, mu.numel())
    noise, options = _drawn(mu, **drawn)
    call = ("rsample_kl", name, dim, _OPTIONS["rsample_kl"](event_ndim=event_ndim, **options, **_form(**form)))
    z, kl = Draw.apply(call, noise.seed_tensor, noise.noise, moments, None, None)
    return z, kl


@public
def kl(
    moments: Tensor,
    dim: int,
    prior_mu: Tensor | None = None,
    prior_logvar: Tensor | None = None,
    *,
    event_ndim: int,
    form: dict[str, Any],
    prior_form: dict[str, Any] | None = None,
    backend: str | None,
) -> Tensor:
    """``gaussian_kl``; without a ``prior_form`` the prior's is the posterior's."""
    prior = form if prior_form is None else prior_form
    if not _in_one(moments, dim, prior_mu, prior_logvar):
        mu, logvar = moments.chunk(2, dim)
        others: dict[str, Any] = {f"prior_{name}": value for name, value in prior.items()}
        # None would be the posterior's.
        others["prior_bounds"] = others["prior_bounds"] or (None, None)
        return gaussian_kl(
            mu, logvar, prior_mu, prior_logvar, event_ndim=event_ndim, **form, **others, backend=backend
        )
    name = choose("gaussian_kl", moments.device, backend, moments.numel() // 2)
    of_prior = {f"prior_{name}": value for name, value in _form(**prior).items()}
    options = _OPTIONS["gaussian_kl"](event_ndim=event_ndim, **_form(**form), **of_prior)
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
    form: dict[str, Any],
    backend: str | None,
) -> Tensor:
    """``gaussian_log_prob``, times ``scale``."""
    if not _in_one(moments, dim, x):
        mean, logvar = moments.chunk(2, dim)
        return gaussian_log_prob(mean, logvar, x, event_ndim=event_ndim, scale=scale, **form, backend=backend)
    name = choose("gaussian_log_prob", moments.device, backend, moments.numel() // 2)
    options = _OPTIONS["gaussian_log_prob"](event_ndim=event_ndim, scale=scale, **_form(**form))
    out: Tensor = Density.apply(("gaussian_log_prob", name, dim, options), False, moments, x, None)
    return out
