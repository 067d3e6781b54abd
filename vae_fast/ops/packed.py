"""The operators of a mean and a log σ² that are the halves of one tensor, whose gradient is made in one buffer.

Each function is the public one of its name, on ``moments.chunk(2, dim)``: ``form`` has its arguments of σ's
parametrisation, ``drawn`` those that say what is drawn.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vae_fast import front
from vae_fast.backends import choose
from vae_fast.operators import OPERATORS
from vae_fast.ops import arguments, dispatch
from vae_fast.ops.autograd import Density, Draw, call
from vae_fast.ops.gaussian_kl import gaussian_kl
from vae_fast.ops.gaussian_log_prob import gaussian_log_prob
from vae_fast.ops.noise_source import Drawn, source
from vae_fast.ops.rsample import rsample
from vae_fast.ops.rsample_kl import rsample_kl
from vae_fast.tracing import public

_compiling = torch.compiler.is_compiling
_OPTIONS = {name: operator.Options for name, operator in OPERATORS.items() if operator.packed}


def _in_one(moments: Tensor, dim: int, *others: Tensor | None) -> bool:
    """Whether ``moments`` needs a gradient, in a call of the common kind; elsewhere autograd joins halves."""
    return dispatch.differentiable(moments) and dispatch.uniform(*moments.chunk(2, dim), *others)


def _by_front(op: str, *args: Any, **options: Any) -> Any:
    """What the compiled front makes of a call; None where it does not take it."""
    return None if _compiling() else front.run(front.PACKED.get(op, ()), *args, **options)


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


def _draw(op: str, backend: str, operands: tuple[Any, ...], record: Any, dim: int, drawn: Drawn) -> Any:
    called, tensors = call(op, backend, operands, record, dim, drawn.noise)
    return Draw.apply(called, drawn.seed_tensor, drawn.noise, *tensors)


@public
def sample(
    moments: Tensor, dim: int, *, drawn: dict[str, Any], form: dict[str, Any], backend: str | None
) -> Tensor:
    """``rsample``."""
    options: dict[str, Any] = {**drawn, **form, "backend": backend}
    if (found := _by_front("rsample", moments, dim, **options)) is not None:
        return found
    mu, logvar = moments.chunk(2, dim)
    if not _in_one(moments, dim):
        return rsample(mu, logvar, **options)
    name = choose("rsample", moments.device, backend, mu.numel())
    noise, of_noise = _drawn(mu, **drawn)
    record = _OPTIONS["rsample"](**of_noise, **_form(**form))
    z: Tensor = _draw("rsample", name, (moments,), record, dim, noise)
    return z


@public
def sample_kl(
    moments: Tensor, dim: int, *, event_ndim: int, drawn: dict[str, Any], form: dict[str, Any], backend: str | None
) -> tuple[Tensor, Tensor]:
    """``rsample_kl``, to N(0, I)."""
    options: dict[str, Any] = {**drawn, **form, "event_ndim": event_ndim, "backend": backend}
    if (found := _by_front("rsample_kl", moments, dim, **options)) is not None:
        return found
    mu, logvar = moments.chunk(2, dim)
    if not _in_one(moments, dim):
        return rsample_kl(mu, logvar, **options)
    name = choose("rsample_kl", moments.device, backend, mu.numel())
    noise, of_noise = _drawn(mu, **drawn)
    record = _OPTIONS["rsample_kl"](event_ndim=event_ndim, **of_noise, **_form(**form))
    z, kl = _draw("rsample_kl", name, (moments, None, None), record, dim, noise)
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
    of_prior: dict[str, Any] = {f"prior_{name}": value for name, value in prior.items()}
    # None would be the posterior's.
    of_prior["prior_bounds"] = of_prior["prior_bounds"] or (None, None)
    options = {**form, **of_prior, "event_ndim": event_ndim, "backend": backend}
    if (found := _by_front("gaussian_kl", moments, dim, prior_mu, prior_logvar, **options)) is not None:
        return found
    if not _in_one(moments, dim, prior_mu, prior_logvar):
        mu, logvar = moments.chunk(2, dim)
        return gaussian_kl(mu, logvar, prior_mu, prior_logvar, **options)
    name = choose("gaussian_kl", moments.device, backend, moments.numel() // 2)
    codes = {f"prior_{name}": value for name, value in _form(**prior).items()}
    record = _OPTIONS["gaussian_kl"](event_ndim=event_ndim, **_form(**form), **codes)
    called, tensors = call("gaussian_kl", name, (moments, prior_mu, prior_logvar, None), record, dim)
    out: Tensor = Density.apply(called, False, *tensors)
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
    options: dict[str, Any] = {**form, "event_ndim": event_ndim, "scale": scale, "backend": backend}
    if (found := _by_front("gaussian_log_prob", moments, dim, x, **options)) is not None:
        return found
    if not _in_one(moments, dim, x):
        mean, logvar = moments.chunk(2, dim)
        return gaussian_log_prob(mean, logvar, x, **options)
    name = choose("gaussian_log_prob", moments.device, backend, moments.numel() // 2)
    record = _OPTIONS["gaussian_log_prob"](event_ndim=event_ndim, scale=scale, **_form(**form))
    called, tensors = call("gaussian_log_prob", name, (moments, x, None), record, dim)
    out: Tensor = Density.apply(called, False, *tensors)
    return out
