"""Bounds on log p(x) of several samples: importance weights and what each bound makes of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

__all__ = ["OBJECTIVES", "importance_weights", "iwae_bound", "objective"]

# What ``VAE(objective=)`` takes.
OBJECTIVES = ("elbo", "iwae", "miwae", "dreg", "stl")


def iwae_bound(log_w: Tensor, dim: int = 0) -> Tensor:
    r"""The importance-weighted bound on log p(x), of the logarithms of K weights along a dim.

    .. math::
        \log \frac{1}{K} \sum_{k=1}^{K} w_k, \qquad w_k = \frac{p(x|z_k)\,p(z_k)}{q(z_k|x)}, \quad z_k \sim q(z|x)

    The ELBO at K = 1; its expectation grows with K, to log p(x) at most.

    Args:
        log_w: log p(x|z) + log p(z) − log q(z|x) of each sample, in nats, of any floating dtype: [K, B], or any
            other shape with at least one dim.
        dim: that of the samples; the first one by default.

    Returns:
        The bound, in nats: log_w's shape without ``dim``; float32 of half types, else log_w's dtype.

    Raises:
        ValueError: there is no sample.
        TypeError: log_w is of no floating dtype.
        IndexError: log_w has no such dim.

    Example:
        >>> vae_fast.iwae_bound(torch.tensor([[1.0, 4.0], [3.0, 4.0]]).log())
        tensor([0.6931, 1.3863])

    Source: Burda, Grosse and Salakhutdinov, "Importance Weighted Autoencoders" (2016), eq. 8.
    """
    log_w = _checked(log_w, dim)
    return torch.logsumexp(log_w, dim) - math.log(log_w.shape[dim])


def importance_weights(log_w: Tensor, dim: int = 0) -> Tensor:
    """The weights of K samples, normalised to a sum of 1: w̃_k = w_k / Σ_j w_j.

    Args:
        log_w: log p(x|z) + log p(z) − log q(z|x) of each sample, in nats, of any floating dtype: [K, B], or any
            other shape with at least one dim.
        dim: that of the samples; the first one by default.

    Returns:
        The weights, of log_w's shape; float32 of half types, else log_w's dtype. Differentiable: detach them where
        they are factors of a gradient.

    Raises:
        ValueError: there is no sample.
        TypeError: log_w is of no floating dtype.
        IndexError: log_w has no such dim.

    Example:
        >>> vae_fast.importance_weights(torch.tensor([1.0, 3.0]).log())
        tensor([0.2500, 0.7500])

    Source: Burda, Grosse and Salakhutdinov, "Importance Weighted Autoencoders" (2016), eq. 14.
    """
    return torch.softmax(_checked(log_w, dim), dim)


def objective(name: str, log_w: Tensor, z: Tensor, through_z: Sequence[Tensor] = ()) -> tuple[Tensor, Tensor]:
    r"""(bound, surrogate) of the log-weights [M, K, B]: [B] each; the surrogate has the objective's gradient.

    - ``"stl"``: their average; the caller has made them with φ detached in log q (Roeder, Wu and Duvenaud 2017).
    - ``"iwae"`` and ``"miwae"``: the average over M of bounds of K samples (Burda et al. 2016; Rainforth et al.
      2018).
    - ``"dreg"``: the same bound. θ and the prior take Σ w̃_k ∂log w_k, the encoder Σ w̃_k² ∂log w_k/∂z · ∂z/∂φ
      (Tucker, Lawson, Gu and Maddison 2019, eq. 8); the caller has detached φ in log q. ``z`` [M·K, B, *latent] is
      what the log-weights were made of: what comes back to it is scaled once more, and so is what comes back to
      ``through_z``, [M·K, B] each, the parts of the log-weights that depend on z alone and not by way of ``z``.
    """
    if name == "stl":
        bound = log_w.mean((0, 1))
        return bound, bound
    bound = iwae_bound(log_w, 1).mean(0)
    if name != "dreg":
        return bound, bound
    weights = importance_weights(log_w.detach(), 1)
    for t in (z, *through_z):
        if t.requires_grad:
            of_each = weights.flatten(0, 1)[(...,) + (None,) * (t.ndim - 2)].to(t.dtype)
            t.register_hook(partial(_scaled, of_each))
    surrogate = (weights * log_w).sum(1).mean(0)
    return bound, surrogate


def _scaled(factor: Tensor, gradient: Tensor | None) -> Tensor | None:
    # None reaches a result that has no part in what is differentiated, beside another one of its operator.
    return None if gradient is None else gradient * factor


def _checked(log_w: Tensor, dim: int) -> Tensor:
    if not log_w.is_floating_point():
        raise TypeError(f"log_w must be of a floating dtype, got {log_w.dtype}")
    if log_w.ndim == 0:
        raise ValueError("log_w has no dim of samples")
    if log_w.shape[dim] == 0:
        raise ValueError(f"log_w of shape {tuple(log_w.shape)} has no sample along dim {dim}")
    return log_w.float() if log_w.itemsize < 4 else log_w
