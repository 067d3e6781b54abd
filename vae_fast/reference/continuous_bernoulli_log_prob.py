"""log p(x|z) of a continuous Bernoulli variable given by its logits."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vae_fast.reference.counts import polynomial
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

_OP = "continuous_bernoulli_log_prob"


def _arguments(args, mask: Tensor | None, options, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    y, t = masked(_OP, mask, args, dtype)
    return y, t if options.x_scale == 1.0 else t * options.x_scale


def _sinhc(square: Tensor) -> tuple[Tensor, Tensor]:
    """sinh h/h − 1, and its derivative by h², of h² up to 1: series of positive terms."""
    terms = [1.0 / math.factorial(2 * k + 1) for k in range(1, 11)]
    slopes = [(k + 1) * c for k, c in enumerate(terms)]
    return square * polynomial(square, terms), polynomial(square, slopes)


def _parts(y: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Whether |y| ≤ 2, and a y that is; |y| elsewhere, e^−|y|, and how far t is from what y's sign says."""
    near = y.abs() <= 2.0
    # 3 is any number beyond 2.
    size = torch.where(near, 3.0, y.abs())
    return near, torch.where(near, y, 0.0), size, torch.exp(-size), torch.where(y > 0, 1.0 - t, t)


def _terms(y: Tensor, t: Tensor) -> Tensor:
    """y(t − ½) − log(sinh(½y)/½y), or log(|y|/(1 − e^−|y|)) − |y|·w, w = y > 0 ? 1 − t : t."""
    near, small, size, e, wrong = _parts(y, t)
    grown, _ = _sinhc(0.25 * small * small)
    certain = torch.where((wrong == 0) & torch.isinf(size), 0.0, size)
    cost = certain * wrong
    cost = torch.where(torch.isinf(cost), cost, cost - torch.log(size / (1.0 - e)))
    return torch.where(near, small * (t - 0.5) - torch.log1p(grown), -cost)


def _slope(y: Tensor, t: Tensor) -> Tensor:
    """t less the mean."""
    near, small, size, e, wrong = _parts(y, t)
    grown, by_square = _sinhc(0.25 * small * small)
    away = 1.0 / size - e / (1.0 - e)
    far = torch.where(y > 0, away - wrong, wrong - away)
    return torch.where(near, (t - 0.5) - 0.5 * small * by_square / (1.0 + grown), far)


def continuous_bernoulli_log_prob_fwd(logits, x, weight, options, wanted) -> tuple[Tensor | None, ...]:
    """Σ w·(y·t + log(y/(e^y − 1))), t = x·x_scale; gradients as gaussian_kl_fwd."""
    args = (logits, x)
    dtype, result = dtypes((logits,), x, weight)
    (term,) = weighted(weight, lambda mask: (_terms(*_arguments(args, mask, options, dtype)),))
    log_prob = reduce(term, options.event_ndim, options.reduction, options.scale).to(result)
    return with_gradients(log_prob, continuous_bernoulli_log_prob_bwd, (*args, weight), options, wanted)


def continuous_bernoulli_log_prob_bwd(dlog_prob, logits, x, weight, options, wanted) -> tuple[Tensor | None, ...]:
    """dy = t − E[t], E[t] = 1/(1 − e^−y) − 1/y; dx = y·x_scale; dw = the term of the operands as they are."""
    args, x_scale = (logits, x), options.x_scale
    dtype, _ = dtypes((logits,), x, weight)
    g = upstream(dlog_prob.to(dtype), broadcast_shape(*args, weight), options)

    def slopes(mask):
        y, t = _arguments(args, mask, options, dtype)
        return g * _slope(y, t), g * y if x_scale == 1.0 else g * y * x_scale

    dlogits, dx = weighted(weight, slopes)
    *_, need_dweight = wanted.needs
    dweight = g * _terms(*_arguments(args, None, options, dtype)) if need_dweight else None
    return gradients(wanted, (logits, x, weight), (dlogits, dx, dweight))
