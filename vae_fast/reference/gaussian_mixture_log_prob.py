"""A mixture's log-density of every datum, of all dims together and of each alone: in blocks of data, and whole.

    joint[b] = log Σ_k w_k Π_d N(z_bd; μ_kd, σ_kd²)        marginals[b, d] = log Σ_k w_k N(z_bd; μ_kd, σ_kd²)

z is [B, D], the components' μ, 1/σ and −log σ are [K, D] or [B, K, D], log w is [K] or [B, K]; u = (z − μ)/σ is
formed by differences, since the expanded square loses all digits where σ is small. A block holds its terms, of data
× components × dims.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

_HALF_LOG_2_PI = 0.5 * math.log(2.0 * math.pi)
# Terms of a block: on a CPU so that it stays in a core's cache.
_TERMS = {"cpu": 1 << 16}
_TERMS_ELSEWHERE = 1 << 22


def whole(operands: tuple[Tensor, ...], per_dim: bool) -> tuple[Tensor, Tensor]:
    """(joint, marginals), of PyTorch's own operations on the whole cube; without ``per_dim`` marginals are [0]."""
    z, mu, rate, log_rate, log_weight = operands
    terms = _terms(z, mu, rate, log_rate)
    joint = torch.logsumexp(terms.sum(-1) + log_weight, -1)
    marginals = torch.logsumexp(terms + log_weight.unsqueeze(-1), -2) if per_dim else z.new_empty(0)
    return joint, marginals


def gaussian_mixture_log_prob_fwd(
    z: Tensor, mu: Tensor, rate: Tensor, log_rate: Tensor, log_weight: Tensor, per_dim: bool
) -> tuple[Tensor, Tensor]:
    parts = [whole((z[at], *_of(at, mu, rate, log_rate), *_own(at, log_weight)), per_dim) for at in _blocks(z, mu)]
    joints, marginals = zip(*parts, strict=True)
    return torch.cat(joints), torch.cat(marginals)


def gaussian_mixture_log_prob_bwd(dlog_prob: Tensor | None, dmarginals: Tensor | None, *args: Any) -> Any:
    """The gradients by z, μ, 1/σ, −log σ and log w; those that are not wanted are [0]."""
    z, mu, rate, log_rate, log_weight, log_prob, marginals, *needs = args
    operands = (z, mu, rate, log_rate, log_weight)
    made = [torch.zeros_like(t) if need else t.new_empty(0) for t, need in zip(operands, needs, strict=True)]
    dz, dmu, drate, dlog_rate, dlog_weight = made
    need_z, need_mu, need_rate, need_log_rate, need_weight = needs
    for at in _blocks(z, mu):
        (own_mu, own_rate, own_log), (weights,) = _of(at, mu, rate, log_rate), _own(at, log_weight)
        difference = z[at].unsqueeze(-2) - own_mu
        u = difference * own_rate
        terms = own_log - 0.5 * u * u - _HALF_LOG_2_PI
        # What each component's share of the results is worth: [b, K, D] by the terms, [b, K] by log w.
        by_term = torch.zeros_like(terms)
        by_weight = torch.zeros_like(terms[..., 0])
        if dlog_prob is not None:
            shares = _shares(terms.sum(-1) + weights, log_prob[at], dlog_prob[at], -1)
            by_term, by_weight = by_term + shares.unsqueeze(-1), by_weight + shares
        if dmarginals is not None:
            shares = _shares(terms + weights.unsqueeze(-1), marginals[at], dmarginals[at], -2)
            by_term, by_weight = by_term + shares, by_weight + shares.sum(-1)
        # A share of 0 is none of an infinite slope.
        slope = torch.where(by_term == 0, by_term, by_term * u)
        by_mu = torch.where(by_term == 0, by_term, slope * own_rate)
        if need_z:
            dz[at] = -by_mu.sum(-2)
        if need_mu:
            _add(dmu, at, by_mu)
        if need_rate:
            _add(drate, at, torch.where(by_term == 0, by_term, -slope * difference))
        if need_log_rate:
            _add(dlog_rate, at, by_term)
        if need_weight and log_weight.ndim == 2:
            dlog_weight[at] = by_weight
        elif need_weight:
            dlog_weight += by_weight.sum(0)
    return tuple(made)


def _shares(terms: Tensor, value: Tensor, upstream: Tensor, dim: int) -> Tensor:
    value, upstream = value.unsqueeze(dim), upstream.unsqueeze(dim)
    shift = torch.where(value == -math.inf, 0.0, value)
    return torch.where(upstream == 0, 0.0, upstream * torch.exp(terms - shift))


def _terms(z: Tensor, mu: Tensor, rate: Tensor, log_rate: Tensor) -> Tensor:
    u = (z.unsqueeze(-2) - mu) * rate
    return log_rate - 0.5 * u * u - _HALF_LOG_2_PI


def _blocks(z: Tensor, mu: Tensor) -> Iterator[slice]:
    rows = max(1, _TERMS.get(z.device.type, _TERMS_ELSEWHERE) // max(1, mu.shape[-2] * mu.shape[-1]))
    for first in range(0, max(1, len(z)), rows):
        yield slice(first, first + rows)


def _of(at: slice, *components: Tensor) -> tuple[Tensor, ...]:
    return tuple(t[at] if t.ndim == 3 else t for t in components)


def _own(at: slice, log_weight: Tensor) -> tuple[Tensor]:
    return (log_weight[at] if log_weight.ndim == 2 else log_weight,)


def _add(to: Any, at: slice, each: Tensor) -> None:
    if to.ndim == 3:
        to[at] = each
    else:
        to += each.sum(0)
