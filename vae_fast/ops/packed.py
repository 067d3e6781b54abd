"""The operators of a mean and a log σ² that are the halves of one tensor, whose gradient is made in one buffer.

Each function is the public one of its name, on ``moments.chunk(2, dim)``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vae_fast import seeds
from vae_fast.backends import choose, kernel
from vae_fast.ops import arguments, dispatch
from vae_fast.ops.arguments import Bounds
from vae_fast.ops.gaussian_kl import gaussian_kl
from vae_fast.ops.gaussian_log_prob import gaussian_log_prob
from vae_fast.ops.rsample import rsample
from vae_fast.ops.rsample_kl import rsample_kl
from vae_fast.reference.densities import NONE
from vae_fast.tracing import public


class _Draw(torch.autograd.Function):
    """rsample or rsample_kl."""

    @staticmethod
    def forward(
        ctx: Any, op: str, backend: str, dim: int, moments: Any, seed_tensor: Any, drawn: Any, options: Any
    ) -> Any:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(moments, seed_tensor)
        ctx.op, ctx.backend, ctx.dim, ctx.drawn, ctx.options = op, backend, dim, drawn, options
        return kernel(backend, f"{op}_fwd")(*moments.chunk(2, dim), *drawn, seed_tensor, *options)

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> Any:
        nothing = (None,) * 3
        if all(g is None for g in upstream):
            return (*nothing, None, *nothing)
        moments, seed_tensor = ctx.saved_tensors
        bwd = dispatch.backward_kernel(ctx.backend, f"{ctx.op}_bwd", *upstream)
        halves = moments.chunk(2, ctx.dim)
        options = (*ctx.drawn, seed_tensor, *ctx.options, True, True)
        return (*nothing, bwd(*upstream, *halves, *options, moments, ctx.dim)[0], *nothing)


class _Density(torch.autograd.Function):
    """gaussian_kl or gaussian_log_prob; ``others`` are what follows mean and log σ², the weight at the end."""

    @staticmethod
    def forward(ctx: Any, op: str, backend: str, dim: int, options: Any, moments: Any, *others: Any) -> Any:
        ctx.save_for_backward(moments, *others)
        ctx.op, ctx.backend, ctx.dim, ctx.options = op, backend, dim, options
        needs = (False,) * (len(others) + 1)
        return kernel(backend, f"{op}_fwd")(*moments.chunk(2, dim), *others, *options, *needs)[0]

    @staticmethod
    def backward(ctx: Any, upstream: Any) -> Any:
        moments, *others = ctx.saved_tensors
        needs = ctx.needs_input_grad[5:]
        bwd = dispatch.backward_kernel(ctx.backend, f"{ctx.op}_bwd", upstream)
        operands = (*moments.chunk(2, ctx.dim), *others)
        grads = bwd(upstream, *operands, *ctx.options, True, True, *needs, moments, ctx.dim)
        return (None,) * 4 + (grads[0], *dispatch.asked(needs, grads[2:]))


def _in_one(moments: Tensor, dim: int, *others: Tensor | None) -> bool:
    """Whether ``moments`` needs a gradient, in a call of the common kind; elsewhere autograd joins halves."""
    tensors = [t for t in others if t is not None]
    return dispatch.differentiable(moments) and dispatch.uniform(*moments.chunk(2, dim), *tensors)


def _draw(
    op: str,
    moments: Tensor,
    dim: int,
    seed: int | Tensor | None,
    generator: torch.Generator | None,
    bounds: Bounds | None,
    backend: str | None,
    *options: Any,
) -> Any:
    name = choose(op, moments.device, backend, moments.numel() // 2)
    key, key_tensor = seeds.resolve(seed, generator, moments.device)
    form = arguments.scale_form("logvar", 0.0, bounds)
    return _Draw.apply(op, name, dim, moments, key_tensor, ((), key), (0, 0, *options, *form))


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
    z: Tensor = _draw("rsample", moments, dim, seed, generator, bounds, backend)
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
    z, kl = _draw("rsample_kl", moments, dim, seed, generator, bounds, backend, event_ndim, None)
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
    options = (event_ndim, NONE, 1.0, None, *arguments.scale_form("logvar", 0.0, bounds))
    out: Tensor = _Density.apply("gaussian_kl", name, dim, options, moments, prior_mu, prior_logvar, None)
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
    options = (event_ndim, NONE, scale, 1.0, *arguments.scale_form("logvar", 0.0, bounds))
    out: Tensor = _Density.apply("gaussian_log_prob", name, dim, options, moments, x, None)
    return out
