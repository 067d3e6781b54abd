"""log p(x) of a negative binomial given by its mean and θ, zero-inflated or not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from vae_fast.operators import MEAN_PARAMS, OPERATORS, THETA_PARAMS, Wanted
from vae_fast.reference.densities import arithmetic_dtype, compute_dtype, promoted_dtype
from vae_fast.triton_kernels.counts import negative_binomial, zero_inflated
from vae_fast.triton_kernels.density_launch import Density, launchers


@triton.jit
def _term(operands, g, numbers, CONSTANTS: tl.constexpr):
    mean, theta, logits, x = operands
    eps = numbers[0]
    LOG_MEAN: tl.constexpr = CONSTANTS[0]
    LOG_THETA: tl.constexpr = CONSTANTS[1]
    EPS: tl.constexpr = CONSTANTS[2]
    INFLATED: tl.constexpr = CONSTANTS[3]
    log_prob, by_mean, by_theta, none = negative_binomial(mean, theta, x, eps, LOG_MEAN, LOG_THETA, EPS)
    by_logits = g
    if INFLATED:
        log_prob, share, slope = zero_inflated(logits, log_prob, none, x)
        by_logits = g * slope
        g = g * share
    # Counts have no gradient.
    return log_prob, (g * by_mean, g * by_theta, by_logits, by_logits)


def _numbers(options: Any) -> tuple[float, ...]:
    return (options.eps,)


def _constants(options: Any, operands: Sequence[Tensor | None]) -> tuple[Any, ...]:
    _, _, logits, *_ = operands
    logs = options.param != MEAN_PARAMS["mean"], options.theta_param == THETA_PARAMS["log_theta"]
    return (*logs, options.eps != 0.0, logits is not None)


def _parts(options: Any, operands: Sequence[Tensor | None]) -> int:
    _, _, logits, _, weight = operands
    double = any(t is not None and t.dtype == torch.float64 for t in operands)
    return 4 if logits is not None and (double or weight is not None) else 2


_OPERATOR = OPERATORS["negative_binomial_log_prob"]
# The kernel's operands: what a log_library is multiplied by is a mean before.
_OPERANDS = tuple(operand for operand in _OPERATOR.operands if operand.name != "log_library")
_fwd, _bwd = launchers(Density(_OPERATOR.name, _term, _numbers, _constants, parts=_parts), _OPERANDS)


class _Softmax:
    """The logarithm of a mean by softmax, as a tensor; PyTorch's own kernels are fused."""

    def __init__(
        self, mean: Tensor, log_library: Tensor | None, others: Sequence[Tensor | None], event_ndim: int
    ) -> None:
        theta, zero_logits, *_ = others
        promoted = promoted_dtype(mean, theta, zero_logits, log_library)
        dtype = arithmetic_dtype(promoted, mean, log_library, *others)
        self.mean, self.log_library, self.result = mean, log_library, compute_dtype(promoted)
        rows = mean.shape[: mean.ndim - event_ndim]
        self.log_shares = torch.log_softmax(mean.to(dtype).reshape(*rows, -1), -1)
        self.log_mean = self.log_shares.reshape(mean.shape)
        if log_library is not None:
            self.log_mean = self.log_mean + log_library.to(mean.device, dtype)

    def gradients(self, by_log: Tensor, need_dmean: bool, need_dlog_library: bool) -> tuple[Tensor, Tensor]:
        """By mean and log_library, of that by log_mean."""
        dmean = dlog_library = self.mean.new_empty(0)
        if need_dmean:
            shares = self.log_shares
            rows = by_log.reshape(shares.shape)
            by_logits = torch.ops.aten._log_softmax_backward_data(rows, shares, -1, shares.dtype)
            dmean = torch.empty_like(self.mean).copy_(by_logits.reshape(self.mean.shape))
        if need_dlog_library and self.log_library is not None:
            dlog_library = torch.empty_like(self.log_library).copy_(by_log.sum_to_size(self.log_library.shape))
        return dmean, dlog_library

    def others(
        self, grads: Sequence[Tensor], operands: Sequence[Tensor | None], needs: Sequence[bool]
    ) -> Iterator[Tensor]:
        """What is not asked for has the dtype of the mean that was given."""
        for grad, operand, need in zip(grads, operands, needs, strict=True):
            yield grad if need and operand is not None else self.mean.new_empty(0)


def _plain(log_library: Tensor | None, options: Any) -> bool:
    if options.param == MEAN_PARAMS["softmax"]:
        return False
    if log_library is not None:
        raise ValueError("log_library is for a mean by softmax")
    return True


def negative_binomial_log_prob_fwd(mean, theta, zero_logits, log_library, x, weight, options, wanted):
    need_dmean, need_dtheta, need_dzero_logits, need_dlog_library = wanted.needs
    others = (theta, zero_logits, x, weight)
    if _plain(log_library, options):
        inner = Wanted((need_dmean, need_dtheta, need_dzero_logits))
        return *_fwd(mean, *others, options, inner), mean.new_empty(0)
    softmax = _Softmax(mean, log_library, others, options.event_ndim)
    inner = Wanted((need_dmean or need_dlog_library, need_dtheta, need_dzero_logits))
    log_prob, by_log, *grads = _fwd(softmax.log_mean, *others, options, inner)
    dmean, dlog_library = softmax.gradients(by_log, need_dmean, need_dlog_library)
    made = softmax.others(grads, (theta, zero_logits), (need_dtheta, need_dzero_logits))
    return log_prob.to(softmax.result), dmean, *made, dlog_library


def negative_binomial_log_prob_bwd(dlog_prob, *operands_and_options):
    mean, theta, zero_logits, log_library, x, weight, options, wanted = operands_and_options
    need_dmean, need_dtheta, need_dzero_logits, need_dlog_library, need_dweight = wanted.needs
    others = (theta, zero_logits, x, weight)
    if _plain(log_library, options):
        inner = Wanted((need_dmean, need_dtheta, need_dzero_logits, need_dweight))
        *grads, dweight = _bwd(dlog_prob, mean, *others, options, inner)
        return *grads, mean.new_empty(0), dweight
    softmax = _Softmax(mean, log_library, others, options.event_ndim)
    inner = Wanted((need_dmean or need_dlog_library, need_dtheta, need_dzero_logits, need_dweight))
    by_log, *grads = _bwd(dlog_prob, softmax.log_mean, *others, options, inner)
    dmean, dlog_library = softmax.gradients(by_log, need_dmean, need_dlog_library)
    needs = need_dtheta, need_dzero_logits, need_dweight
    dtheta, dzero_logits, dweight = softmax.others(grads, (theta, zero_logits, weight), needs)
    return dmean, dtheta, dzero_logits, dlog_library, dweight
