"""log p(x|z) of a Bernoulli given by its logits."""

from __future__ import annotations

import torch
from torch import Tensor

from vae_fast.reference.densities import broadcast_shape, compute_dtype, grad_like, reduce, unmasked, upstream
from vae_fast.reference.formulas import logistic
from vae_fast.scale import magnitude


def _bernoulli_arguments(logits: Tensor, x: Tensor, weight: Tensor | None, x_scale: float):
    dtype = compute_dtype(logits.dtype)
    t = x.to(dtype) if x_scale == 1.0 else x.to(dtype) * x_scale
    return unmasked(weight, logits.to(dtype)), unmasked(weight, t)


def bernoulli_log_prob_fwd(
    logits, x, weight, event_ndim, reduction, scale, x_scale, need_dlogits, need_dx
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """−Σ w·(|y|·(y > 0 ? 1 − t : t) + log1p(e^−|y|)), y the logits, t = x·x_scale; gradients as gaussian_kl_fwd."""
    y, t = _bernoulli_arguments(logits, x, weight, x_scale)
    size = magnitude(y)
    wrong = torch.where(y > 0, 1.0 - t, t)
    # An infinite logit of the matching target costs nothing; 0·∞ would be NaN.
    certain = torch.where((wrong == 0) & torch.isinf(size), 0.0, size)
    # Not by F.logsigmoid: it goes through PyTorch's thread pool at any size, which hangs in a forked child.
    terms = -(certain * wrong + torch.log1p(torch.exp(-size)))
    log_prob = reduce(terms, weight, event_ndim, reduction, scale)
    options = (event_ndim, reduction, scale, x_scale, need_dlogits, need_dx)
    return (log_prob, *bernoulli_log_prob_bwd(torch.ones_like(log_prob), logits, x, weight, *options))


def bernoulli_log_prob_bwd(
    dlog_prob, logits, x, weight, event_ndim, reduction, scale, x_scale, need_dlogits, need_dx
) -> tuple[Tensor | None, Tensor | None]:
    """dy = t − σ(y); dx = y·x_scale."""
    if not (need_dlogits or need_dx):
        return None, None
    y, t = _bernoulli_arguments(logits, x, weight, x_scale)
    shape = broadcast_shape(logits, x, weight)
    g = upstream(dlog_prob.to(y.dtype), shape, weight, event_ndim, reduction, scale)
    dlogits = dx = None
    if need_dlogits:
        # t − σ(y) would cancel where both are near 1.
        near_one = (y > 0) & (t > 0.5)
        dlogits = g * torch.where(near_one, logistic(-y) - (1.0 - t), t - logistic(y))
    if need_dx:
        dx = g * y if x_scale == 1.0 else g * y * x_scale
    return grad_like(need_dlogits, logits, dlogits), grad_like(need_dx, x, dx)
