"""A mixture of discretised logistics over the channels of pixels: in blocks of these, and whole.

    log_prob = log Σ_k w_k Π_c P(x_c; m_ck, s_ck)        w = softmax(logits)

P is a logistic distribution's probability of the bin x ± half_width, of everything below or above it in the lowest
and the highest bin, with plus and minus (x − m ± half_width)/σ and w the width of a bin over σ:

    log P = log(1 − e^−w) + log σ(plus) + log σ(−minus)

Operands are [*data, …, components], x and means [*data, channels(, components)]; the raw operator's have two dims
of data. A channel's mean is moved by tanh(coefficients) times the channels before it: rows of a triangle.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vae_fast.reference.formulas import log_softmax, softplus

# Terms of a block: on a CPU so that it stays in a core's cache.
_TERMS = {"cpu": 1 << 16}
_TERMS_ELSEWHERE = 1 << 22


class Bins(NamedTuple):
    """Half of a bin's width; the least log-scale; below and above what x a bin is the lowest or the highest one.

    And below what probability the density at its centre, times the width, stands for it.
    """

    half_width: float
    min_log_scale: float
    low: float
    high: float
    density_below: float


def whole(operands: Sequence[Any], bins: Bins) -> Tensor:
    """[*data], of PyTorch's own operations, differentiable any number of times."""
    logits, mean, log_scale, coefficients, x = operands
    distance = _distance(mean, coefficients, x)
    terms, _ = _terms(distance, log_scale.clamp(min=bins.min_log_scale), x.unsqueeze(-1), bins)
    return torch.logsumexp(log_softmax(logits, 1) + terms.sum(-2), -1)


def logistic_mixture_log_prob_fwd(
    logits: Tensor,
    mean: Tensor,
    log_scale: Tensor,
    coefficients: Tensor | None,
    x: Tensor,
    dlog_prob: Tensor | None,
    *rest: Any,
) -> tuple[Tensor, ...]:
    """The log-density, and the gradients by the first four of its product with dlog_prob; [0] where not wanted."""
    bins, needs = Bins(*rest[:5]), rest[5:]
    check(logits, mean, log_scale, coefficients, x, dlog_prob, needs)
    operands = (logits, mean, log_scale, coefficients)
    value = mean.new_empty(mean.shape[:2])
    made = [
        torch.empty_like(t) if t is not None and need else mean.new_empty(0)
        for t, need in zip(operands, needs, strict=True)
    ]
    for at in _blocks(mean):
        own = [t if t is None else t[at] for t in (*operands, x)]
        if not any(needs):
            value[at] = whole(own, bins)
            continue
        upstream = value.new_ones(()) if dlog_prob is None else dlog_prob[at]
        value[at], *gradients = _with_gradients(own, upstream, bins)
        for to, gradient, need in zip(made, gradients, needs, strict=True):
            if need:
                to[at] = gradient
    return value, *made


def check(
    logits: Tensor,
    mean: Tensor,
    log_scale: Tensor,
    coefficients: Tensor | None,
    x: Tensor,
    dlog_prob: Tensor | None,
    needs: tuple[bool, ...],
) -> None:
    """Raises ValueError where the raw operator's arguments do not fit each other."""
    if mean.ndim != 4 or 0 in mean.shape[2:] or mean.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"mean must be [outer, inner, channels, components] of float32 or float64, with a channel and a "
            f"component, got {list(mean.shape)} of {mean.dtype}"
        )
    *data, channels, components = mean.shape
    wanted = {
        "logits": (logits, (*data, components)),
        "log_scale": (log_scale, tuple(mean.shape)),
        "coefficients": (coefficients, (*data, channels * (channels - 1) // 2, components)),
        "x": (x, (*data, channels)),
        "dlog_prob": (dlog_prob, tuple(data)),
    }
    for name, (t, shape) in wanted.items():
        if t is not None and (tuple(t.shape) != shape or t.dtype != mean.dtype or t.device != mean.device):
            raise ValueError(f"{name} must be {list(shape)} of {mean.dtype}, got {list(t.shape)} of {t.dtype}")
    if coefficients is None and needs[3]:
        raise ValueError("there are no coefficients to have a gradient")


def _distance(mean: Tensor, coefficients: Tensor | None, x: Tensor) -> Tensor:
    """x − m, m with what the channels before add to it: [*data, channels, components]."""
    distance = x.unsqueeze(-1) - mean
    if coefficients is None:
        return distance
    slopes = torch.tanh(coefficients)
    moved = []
    for c in range(mean.shape[-2]):
        own = distance[..., c, :]
        for before in range(c):
            own = own - slopes[..., c * (c - 1) // 2 + before, :] * x[..., before, None]
        moved.append(own)
    return torch.stack(moved, -2)


class _Parts(NamedTuple):
    """What the slopes of terms are made of."""

    rate: Tensor
    plus: Tensor
    minus: Tensor
    lowest: Tensor
    highest: Tensor
    rare: Tensor | None


def _terms(distance: Tensor, log_scale: Tensor, x: Tensor, bins: Bins) -> tuple[Tensor, _Parts]:
    """log P, and what its slopes are made of."""
    rate = torch.exp(-log_scale)
    plus, minus = rate * (distance + bins.half_width), rate * (distance - bins.half_width)
    below, above = _log_sigmoid(plus), _log_sigmoid(-minus)
    middle = _log_inner(2 * bins.half_width * rate, math.log(2 * bins.half_width) - log_scale) + below + above
    rare = None
    if bins.density_below > 0:
        rare = middle < math.log(bins.density_below)
        u = rate * distance
        density = math.log(2 * bins.half_width) - log_scale + _log_sigmoid(u) + _log_sigmoid(-u)
        middle = torch.where(rare, density, middle)
    lowest, highest = x < bins.low, x > bins.high
    terms = torch.where(lowest, below, torch.where(highest, above, middle))
    return terms, _Parts(rate, plus, minus, lowest, highest, rare)


def _log_sigmoid(t: Tensor) -> Tensor:
    return -softplus(-t)


def _shares(t: Tensor) -> Tensor:
    """Softmax over the last dim (not PyTorch's: ``log_softmax`` of formulas.py)."""
    e = torch.exp(t - t.amax(-1, keepdim=True))
    return e / e.sum(-1, keepdim=True)


def _log_inner(w: Tensor, log_w: Tensor) -> Tensor:
    """log(1 − e^−w), by whichever form keeps its digits."""
    small, large = w < 1e-3, w > 0.7
    # Each of numbers that are its own, so that no gradient of what is not chosen is infinite.
    near, middle, far = (torch.where(mask, w, 0.7) for mask in (small, ~(small | large), large))
    return torch.where(
        small,
        log_w - 0.5 * near + near * near / 24,
        torch.where(large, torch.log1p(-torch.exp(-far)), torch.log(-torch.expm1(-middle))),
    )


def _with_gradients(operands: Sequence[Any], upstream: Tensor, bins: Bins) -> tuple[Any, ...]:
    """The log-density, and its gradients by logits, mean, log_scale and coefficients times the upstream one."""
    logits, mean, log_scale, coefficients, x = operands
    wide = x.unsqueeze(-1)
    terms, parts = _terms(_distance(mean, coefficients, x), log_scale.clamp(min=bins.min_log_scale), wide, bins)
    log_weight = log_softmax(logits, 1)
    joint = log_weight + terms.sum(-2)
    value = torch.logsumexp(joint, -1)
    # Shares that sum to 1, whatever the value is rounded by; none of a pixel that no component has.
    share = torch.where(value.unsqueeze(-1) == -math.inf, 0.0, _shares(joint))
    # Of no upstream gradient there is none, whatever the pixel is.
    factor = upstream.unsqueeze(-1) if upstream.ndim else upstream
    share, weight = (torch.where(factor == 0, 0.0, factor * t) for t in (share, _shares(logits)))
    by_distance, by_log_scale = _slopes(parts, bins)
    each = share.unsqueeze(-2)
    # A share of 0 is none of an infinite slope.
    dmean = torch.where(each == 0, each, -each * by_distance)
    dlog_scale = torch.where((each == 0) | (log_scale < bins.min_log_scale), 0.0, each * by_log_scale)
    dcoefficients = None
    if coefficients is not None:
        slope = 4 * torch.sigmoid(2 * coefficients) * torch.sigmoid(-2 * coefficients)
        pairs = [(c, before) for c in range(mean.shape[-2]) for before in range(c)]
        moved = [dmean[..., c, :] * x[..., before, None] for c, before in pairs]
        by_pair = torch.stack(moved, -2) if moved else torch.zeros_like(coefficients)
        dcoefficients = torch.where(by_pair == 0, by_pair, by_pair * slope)
    return value, share - weight, dmean, dlog_scale, dcoefficients


def _slopes(parts: _Parts, bins: Bins) -> tuple[Tensor, Tensor]:
    """The derivatives of log P by x − m, and by log s where it is not clamped."""
    rate, plus, minus, lowest, highest, rare = parts
    lower, upper = torch.sigmoid(-plus), torch.sigmoid(minus)
    # A share of 0 is none of an infinite distance.
    by_plus = torch.where(lower == 0, 0.0, plus * lower)
    by_minus = torch.where(upper == 0, 0.0, minus * upper)
    w = 2 * bins.half_width * rate
    width = torch.where(w == 0, 1.0, w / torch.expm1(w))
    by_distance, by_log_scale = lower - upper, by_minus - by_plus - width
    if rare is not None:
        u = 0.5 * (plus + minus)
        steep = torch.sigmoid(u) - torch.sigmoid(-u)
        by_distance = torch.where(rare, -steep, by_distance)
        by_log_scale = torch.where(rare, u * steep - 1, by_log_scale)
    by_distance = torch.where(lowest, lower, torch.where(highest, -upper, by_distance))
    by_log_scale = torch.where(lowest, -by_plus, torch.where(highest, by_minus, by_log_scale))
    return rate * by_distance, by_log_scale


def _blocks(mean: Tensor) -> Iterator[tuple[slice, slice]]:
    outer, inner, *of_pixel = mean.shape
    pixels = max(1, _TERMS.get(mean.device.type, _TERMS_ELSEWHERE) // math.prod(of_pixel))
    rows = max(1, pixels // max(1, inner))
    for first in range(0, outer, rows):
        for start in range(0, inner, pixels):
            yield slice(first, first + rows), slice(start, start + pixels)
