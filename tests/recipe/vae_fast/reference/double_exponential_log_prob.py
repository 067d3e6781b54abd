"""log p(x|z) of independent Laplace variables."""

from __future__ import annotations

import torch
from torch import Tensor

from vae_fast.reference import densities
from vae_fast.sigma import magnitude


def _terms(mean, log_b, x, mask, dtype) -> tuple[Tensor, Tensor, Tensor]:
    """The log-density, |x − m|/b and sign(x − m)/b."""
    m, log_scale, t = densities.masked("double_exponential_log_prob", mask, (mean, log_b, x), dtype)
    inverse = torch.exp(-log_scale)
    size = magnitude(t - m) * inverse
    return -(size + log_scale + 0.6931471805599453), size, torch.sign(t - m) * inverse


def double_exponential_log_prob_fwd(mean, log_b, x, weight, options, wanted) -> tuple[Tensor | None, ...]:
    """−Σ w·(|x − m|/b + log b + log 2); gradients as gaussian_kl_fwd."""
    dtype, result = densities.dtypes((mean, log_b), x, weight)
    term, *_ = densities.weighted(weight, lambda mask: _terms(mean, log_b, x, mask, dtype))
    log_prob = densities.reduce(term, options.event_ndim, options.reduction, options.scale).to(result)
    operands = (mean, log_b, x, weight)
    return densities.with_gradients(log_prob, double_exponential_log_prob_bwd, operands, options, wanted)


def double_exponential_log_prob_bwd(
    dlog_prob, mean, log_b, x, weight, options, wanted
) -> tuple[Tensor | None, ...]:
    """dm = sign(x − m)/b = −dx, d log b = |x − m|/b − 1; dw = the term of the operands as they are."""
    operands = (mean, log_b, x, weight)
    dtype, _ = densities.dtypes((mean, log_b), x, weight)
    g = densities.upstream(dlog_prob.to(dtype), densities.broadcast_shape(*operands), options)

    def slopes(mask):
        _, size, slope = _terms(mean, log_b, x, mask, dtype)
        return g * slope, g * (size - 1.0)

    dmean, dlog_b = densities.weighted(weight, slopes)
    real, *_ = _terms(mean, log_b, x, None, dtype)
    return densities.gradients(wanted, operands, (dmean, dlog_b, -dmean, g * real))
