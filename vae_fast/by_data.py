"""The objectives of several samples, a few data at a time: nothing that a decoder makes of all samples is held.

The weights of a datum's samples need no other datum: a block of data goes all the way to its part of the bound and
back while what its layers made is in cache. Gradients are for an upstream gradient of 1 of the bound's average, as
training has it; any other one makes them anew, by the same blocks.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import activation

from . import bounds
from .nn import BernoulliMLP, GaussianMLP
from .ops import blocks, dispatch, early

# A block's decoded data: on a CPU what is made of them stays in cache, on a GPU they are enough for its processors.
_BLOCK_BYTES = {"cpu": 4 << 20, "cuda": 1 << 28}

# What treats its rows one by one, and holds nothing from one call to the next.
_BY_ROWS = {BernoulliMLP, GaussianMLP, nn.Sequential, nn.Linear, nn.Identity} | {
    getattr(activation, name) for name in ("CELU", "ELU", "GELU", "LeakyReLU", "ReLU", "SELU", "SiLU", "Sigmoid")
}
_BY_ROWS |= {nn.Softplus, nn.Tanh}

# log p(x|z) of x [b, *event] and z [S, b, *latent]: [S, b].
Likelihood = Callable[[Tensor, Tensor], Tensor]


def by_rows(decoder: nn.Module) -> bool:
    """Whether a decoder makes of a few rows what it makes of them among others, and nobody watches its calls."""
    return all(
        type(m) in _BY_ROWS and not (m._forward_hooks or m._forward_pre_hooks or m._backward_hooks)
        for m in decoder.modules()
    )


def serves(x: Tensor, *tensors: Tensor) -> bool:
    """Whether gradients may be made in the forward pass, of these tensors, of which x is data."""
    named = {str(k): t for k, t in enumerate((x, *tensors))}
    differentiable = dispatch.differentiable(*tensors) and not x.requires_grad
    return x.numel() > 0 and differentiable and early.allowed() and not dispatch.needs_composite(**named)


def log_likelihoods(likelihood: Likelihood, x: Tensor, z: Tensor, width: int) -> Tensor:
    """log p(x|z) of z [S, B, *latent] without a graph: [S, B]; ``width`` is how many bytes a decoded datum has."""
    # Shorter ones than where a graph costs its time a block: C libraries give some megabytes back after each.
    found = [likelihood(x[at], z[:, at]) for at in _blocks(x, z, 3 * width)]
    return torch.cat(found, 1) if found else likelihood(x, z)


def terms(
    name: str,
    samples: tuple[int, int],
    log_likelihood: Tensor,
    ratio: Tensor,
    z: Tensor,
    through_z: Sequence[Tensor],
) -> tuple[Tensor, Tensor]:
    """(bound, surrogate) of log p(x|z) [S, B] and of log p(z) − log q(z|x): [B] each (bounds.objective)."""
    if name == "elbo":
        mean = log_likelihood.mean(0)
        return mean, mean
    return bounds.objective(name, (log_likelihood + ratio).unflatten(0, samples), z, through_z)


@dataclass(frozen=True)
class Objective:
    """What is asked of the samples: bounds.objective's name, (M, K); what a decoder makes of them, and how wide."""

    name: str
    samples: tuple[int, int]
    decoder: nn.Module
    likelihood: Likelihood
    width: int

    def __call__(self, x: Tensor, z: Tensor, log_p: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(average surrogate, bound [B], average log p(x|z) [B]); log p(z) and log q(z|x) are [S, B].

        Of "elbo" the surrogate and the bound are of log p(x|z) alone.
        """
        return _ByData.apply(self, x, z, log_p, log_q, *self.decoder.parameters())

    def with_parameters(self, parameters: Sequence[Tensor]) -> Objective:
        """The same of the decoder as it was called with these, which may be others by now (functional_call)."""
        names = [name for name, _ in self.decoder.named_parameters()]
        own = dict(zip((f"decoder.{name}" for name in names), parameters, strict=True))
        called = _Likelihood(self.decoder, self.likelihood)
        return replace(self, likelihood=lambda x, z: torch.func.functional_call(called, own, (x, z)))

    def of(self, x: Tensor, z: Tensor, log_p: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(surrogate, bound, average log p(x|z)), [b] each. What comes back to the tensors of "dreg" is scaled."""
        log_likelihood = self.likelihood(x, z)
        bound, surrogate = terms(self.name, self.samples, log_likelihood, log_p - log_q, z, (log_p, log_q))
        return surrogate, bound, log_likelihood.mean(0)


class _Likelihood(nn.Module):
    """A likelihood as a module that has the decoder's parameters."""

    def __init__(self, decoder: nn.Module, likelihood: Likelihood) -> None:
        super().__init__()
        self.decoder, self.likelihood = decoder, likelihood

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        return self.likelihood(x, z)


class _ByData(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, objective: Objective, x: Tensor, *tensors: Tensor) -> Any:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, *tensors)
        ctx.objective = objective
        ctx.autocast = _autocast(x.device.type)
        one = (torch.ones((), device=x.device), None, None)
        results, gradients = _made(objective, x, tensors, ctx.needs_input_grad[2:], one)
        ctx.early = [gradients]
        if objective.name == "dreg":
            # The bound's gradient would not be that of its estimate.
            _, bound, _ = results
            ctx.mark_non_differentiable(bound)
        return results

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor | None) -> Any:
        x, *tensors = ctx.saved_tensors
        z, log_p, log_q, *parameters = tensors
        needs = ctx.needs_input_grad[2:]
        whole = torch.is_grad_enabled() or any(map(dispatch.batched, upstream))
        factor, *others = upstream
        if not whole and factor is not None and ctx.early and all(g is None for g in others):
            kept = ctx.early.pop()
            return None, None, *(None if g is None else g.mul_(factor.to(g.dtype)) for g in kept)
        objective = ctx.objective.with_parameters(parameters)
        with ctx.autocast():
            if not whole:
                _, gradients = _made(objective, x, tensors, needs, upstream)
                return None, None, *gradients

            def once_more() -> Any:
                # Views, since what comes back to the tensors of "dreg" is scaled.
                surrogate, bound, mean = objective.of(x, *(t.view_as(t) for t in (z, log_p, log_q)))
                return surrogate.mean(), bound, mean

            return None, None, *blocks.gradients(once_more, tensors, needs, upstream)


def _made(
    objective: Objective,
    x: Tensor,
    tensors: Sequence[Tensor],
    needs: Sequence[bool],
    upstream: Sequence[Tensor | None],
) -> tuple[tuple[Tensor, ...], list[Tensor | None]]:
    """The results of all blocks, and the gradients by the tensors that need one, for an upstream gradient each."""
    gradients = [_accumulator(t) if need else None for t, need in zip(tensors, needs, strict=True)]
    z, log_p, log_q, *parameters = tensors
    of_z, of_log_p, of_log_q, *of_parameters = gradients
    of_mean, *of_data = upstream
    found = []
    for at in _blocks(x, z, objective.width):
        with torch.enable_grad():
            leaves = [
                t[:, at].detach().requires_grad_(need) for t, need in zip((z, log_p, log_q), needs, strict=False)
            ]
            outs = objective.of(x[at], *leaves)
        each = None if of_mean is None else (of_mean / len(x)).expand(outs[0].shape)
        # Of the data's own tensors their part; of a parameter all of it, which is a sum.
        places = [None if g is None else g[:, at] for g in (of_z, of_log_p, of_log_q)]
        _add(
            [*places, *of_parameters],
            outs,
            [*leaves, *parameters],
            (each, *(g if g is None else g[at] for g in of_data)),
        )
        found.append([out.detach() for out in outs])
    surrogate, bound, mean = (torch.cat(of_blocks) for of_blocks in zip(*found, strict=True))
    rounded = [made if made is None else made.to(t.dtype) for t, made in zip(tensors, gradients, strict=True)]
    return (surrogate.mean(), bound, mean), rounded


def _add(
    to: Sequence[Tensor | None], outs: Sequence[Tensor], by: Sequence[Tensor], upstream: Sequence[Tensor | None]
) -> None:
    """Adds a block's gradients by these to where they belong, if anywhere."""
    wanted = [(place, t) for place, t in zip(to, by, strict=True) if place is not None]
    given = [(out, g.to(out.dtype)) for out, g in zip(outs, upstream, strict=True) if g is not None]
    found = torch.autograd.grad(
        [out for out, _ in given], [t for _, t in wanted], [g for _, g in given], allow_unused=True
    )
    for (place, _), grad in zip(wanted, found, strict=True):
        if grad is not None:
            place.add_(grad)


def _accumulator(t: Tensor) -> Tensor:
    """Zeros for a gradient that is made in parts, of half types in float32."""
    return torch.zeros_like(t, dtype=torch.float32 if t.itemsize < 4 else t.dtype)


def _blocks(x: Tensor, z: Tensor, width: int) -> Iterator[slice]:
    """Of about so many bytes of decoded data, and of one datum at least."""
    samples, data = z.shape[:2]
    size = max(1, _BLOCK_BYTES.get(x.device.type, _BLOCK_BYTES["cuda"]) // max(1, samples * width))
    return (slice(first, first + size) for first in range(0, data, size))


def _autocast(kind: str) -> Callable[[], contextlib.AbstractContextManager[Any]]:
    """As autocast is now, for a pass that comes later."""
    if not torch.amp.is_autocast_available(kind):
        return contextlib.nullcontext
    enabled, dtype = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
    return lambda: torch.autocast(kind, dtype, enabled)
