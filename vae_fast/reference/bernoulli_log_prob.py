"""log p(x|z) of a Bernoulli given by its logits or its probabilities."""

from __future__ import annotations

import torch
from torch import Tensor

from vae_fast.operators import BERNOULLI_PARAMS
from vae_fast.reference.densities import (
    broadcast_shape,
    dtypes,
    gradients,
    masked,
    reduce,
    upstream,
    weighted,
    with_gradients,
)
from vae_fast.reference.formulas import logistic
from vae_fast.sigma import magnitude

LOGITS, PROBS = BERNOULLI_PARAMS.values()


def _bernoulli_arguments(
    args, mask: Tensor | None, x_scale: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor | None]:
    y, t, pos_weight = masked("bernoulli_log_prob", mask, args, dtype)
    return y, t if x_scale == 1.0 else t * x_scale, pos_weight


def _of_logits(y: Tensor, t: Tensor, pos_weight: Tensor | None) -> Tensor:
    """−(|y|·(y > 0 ? 1 − t : p·t) + (1 + (p − 1)·t)·log1p(e^−|y|)), p the weight of the positive."""
    size = magnitude(y)
    positive, both = (t, 1.0) if pos_weight is None else (pos_weight * t, pos_weight * t + (1.0 - t))
    wrong = torch.where(y > 0, 1.0 - t, positive)
    # An infinite logit of the matching target costs nothing; 0·∞ would be NaN.
    certain = torch.where((wrong == 0) & torch.isinf(size), 0.0, size)
    # Not by F.logsigmoid: it goes through PyTorch's thread pool at any size, which hangs in a forked child.
    return -(certain * wrong + both * torch.log1p(torch.exp(-size)))


def _slope_by_logits(y: Tensor, t: Tensor, pos_weight: Tensor | None) -> Tensor:
    """t − σ(y), which would cancel where both are near 1; p·t·σ(−y) − (1 − t)·σ(y)."""
    if pos_weight is not None:
        return pos_weight * t * logistic(-y) - (1.0 - t) * logistic(y)
    near_one = (y > 0) & (t > 0.5)
    return torch.where(near_one, logistic(-y) - (1.0 - t), t - logistic(y))


def _slope_by_target(y: Tensor, pos_weight: Tensor | None) -> Tensor:
    """log σ(y) − log σ(−y) = y; p·log σ(y) − log σ(−y)."""
    if pos_weight is None:
        return y
    size = magnitude(y)
    # −∞ and ∞ are of one sign: log σ(−∞) is −∞ and log σ(∞) is 0.
    return torch.where(y > 0, y, pos_weight * y) + (1.0 - pos_weight) * torch.log1p(torch.exp(-size))


def _clamped_logs(p: Tensor) -> tuple[Tensor, Tensor]:
    """max(log p, −100) and max(log(1 − p), −100), of slopes (1 − p)/d and −p/d, d = max(p(1 − p), 1e-12).

    Where d is 1e-12 these are not the values' own slopes, but what F.binary_cross_entropy's backward has: a term
    that is 0 there brings them along.
    """
    q = 1.0 - p
    ordinary = p * q > 1e-12
    inner = torch.where(ordinary, p, 0.5)
    # log1p of a subnormal number may be one off in its last place, which is all there is of it.
    far_log_q = torch.where(p < 0.5, -p - 0.5 * p * p, torch.log1p(-p))

    def whole(near: Tensor, far: Tensor, line: Tensor) -> Tensor:
        return torch.where(ordinary, near, far.detach().clamp(min=-100.0) + (line - line.detach()))

    return (
        whole(torch.log(inner), torch.log(p), -0.5e12 * q * q),
        whole(torch.log1p(-inner), far_log_q, -0.5e12 * p * p),
    )


def _of_probs(p: Tensor, t: Tensor) -> Tensor:
    """t·max(log p, −100) + (1 − t)·max(log(1 − p), −100)."""
    log_p, log_q = _clamped_logs(p)
    return t * log_p + (1.0 - t) * log_q


def _terms(args, mask: Tensor | None, options, dtype: torch.dtype) -> Tensor:
    y, t, pos_weight = _bernoulli_arguments(args, mask, options.x_scale, dtype)
    return _of_probs(y, t) if options.param == PROBS else _of_logits(y, t, pos_weight)


def bernoulli_log_prob_fwd(logits, x, pos_weight, weight, options, wanted) -> tuple[Tensor | None, ...]:
    """Σ w·(t·log p + (1 − t)·log(1 − p)), p = σ(y) or the operand, t = x·x_scale; gradients as gaussian_kl_fwd."""
    args = (logits, x, pos_weight)
    dtype, result = dtypes((logits,), x, pos_weight, weight)

    def terms(mask):
        return (_terms(args, mask, options, dtype),)

    (term,) = weighted(weight, terms)
    log_prob = reduce(term, options.event_ndim, options.reduction, options.scale).to(result)
    return with_gradients(log_prob, bernoulli_log_prob_bwd, (*args, weight), options, wanted)


def bernoulli_log_prob_bwd(dlog_prob, logits, x, pos_weight, weight, options, wanted) -> tuple[Tensor | None, ...]:
    """dy = t − σ(y), dx = y·x_scale; dp = (t − p)/max(p(1 − p), 1e-12), dx = (log p − log(1 − p))·x_scale.

    dw = t·log p + (1 − t)·log(1 − p), of the operands as they are.
    """
    args, x_scale = (logits, x, pos_weight), options.x_scale
    dtype, _ = dtypes((logits,), x, pos_weight, weight)
    g = upstream(dlog_prob.to(dtype), broadcast_shape(*args, weight), options)

    def slopes(mask):
        y, t, positive = _bernoulli_arguments(args, mask, x_scale, dtype)
        if options.param == PROBS:
            slope = (t - y) / (y * (1.0 - y)).clamp(min=1e-12)
            log_p, log_q = _clamped_logs(y)
            by_target = log_p - log_q
        else:
            slope, by_target = _slope_by_logits(y, t, positive), _slope_by_target(y, positive)
        by_x = g * by_target if x_scale == 1.0 else g * by_target * x_scale
        return g * slope, by_x

    dlogits, dx = weighted(weight, slopes)
    *_, need_dweight = wanted.needs
    dweight = None
    if need_dweight:
        dweight = g * _terms(args, None, options, dtype)
    return gradients(wanted, (logits, x, weight), (dlogits, dx, dweight))
