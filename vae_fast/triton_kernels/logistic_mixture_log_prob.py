"""The log-density of a mixture of discretised logistics, and its gradients: csrc/cuda/logistic_mixture_log_prob.cu.

A program has a tile of pixels, whose components it meets one after the other, and for the gradients once more. In
between a pixel's terms, one a component, are in memory. Formulas are those of csrc/logistic.h.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from vae_fast.reference.logistic_mixture_log_prob import check
from vae_fast.triton_kernels import launch
from vae_fast.triton_kernels.arithmetic import divide
from vae_fast.triton_kernels.continuous_bernoulli_log_prob import log_sinhc, log_sinhc_slope
from vae_fast.triton_kernels.exponentials import exp_of_negative
from vae_fast.triton_kernels.kernel import kernel
from vae_fast.triton_kernels.layout import ceil_div
from vae_fast.triton_kernels.lean import exp_over, half_expm1_of, logistic_of_negative
from vae_fast.triton_kernels.logarithms import log, log1p_cubic

# Pixels of a tile, one a thread.
_PIXELS = 128


@triton.jit
def _number(value, T: tl.constexpr):
    return (tl.full((), 1.0, tl.float64) * value).to(T)


@triton.jit
def _width(v, log_twice):
    """log(1 − e^−2v), and 2v/(e^2v − 1), for v ≥ 0 with log 2v known."""
    square = v * v
    near = log_twice + tl.fma(square, log_sinhc(square), -v)
    near_slope = tl.fma(square + square, log_sinhc_slope(square), 1.0 - v)
    twice = v + v
    e, _ = exp_of_negative(-twice)
    f, of_f = -e, e * e
    far = f + tl.fma(of_f * f, log1p_cubic(f), of_f * -0.5)
    # Of no e^−2v there is none, however far.
    far_slope = tl.where(e == 0.0, 0.0, divide(twice * e, 1.0 - e))
    return tl.where(v > 1.0, far, near), tl.where(v > 1.0, far_slope, near_slope)


@triton.jit
def _bin_term(x, distance, log_scale, bins, T: tl.constexpr, DENSITY: tl.constexpr):
    """log P of x's bin, and its derivatives by the mean and by log s."""
    half, log_width, least = _number(bins[0], T), _number(bins[1], T), _number(bins[2], T)
    lowest, highest = x < _number(bins[3], T), x > _number(bins[4], T)
    size = tl.abs(distance)
    away = tl.where(lowest, -distance, tl.where(highest, distance, size))
    s = tl.where(least > log_scale, least, log_scale)
    rate = exp_over(-s, 1)
    q, r = rate * (away - half), rate * (away + half)
    share, log_sum = logistic_of_negative(-tl.abs(q))
    upper = tl.where(q > 0.0, 1.0 - share, share)
    own = -(tl.where(q > 0.0, q, 0.0) + log_sum)
    lower, log_of_r = logistic_of_negative(-tl.abs(r))
    width, width_slope = _width(rate * half, log_width - s)
    # A share of 0 is none of an infinite distance.
    by_r, by_q = tl.where(lower == 0.0, 0.0, r * lower), tl.where(upper == 0.0, 0.0, q * upper)
    value, slope = own + (width - log_of_r), rate * (lower - upper)
    by_log_scale = by_q - (width_slope + by_r)
    if DENSITY:
        u = rate * size
        share_of_u, log_of_u = logistic_of_negative(-tl.abs(u))
        rest = 1.0 - (share_of_u + share_of_u)
        rare = value < _number(bins[5], T)
        value = tl.where(rare, (log_width - s) - (u + (log_of_u + log_of_u)), value)
        slope = tl.where(rare, -rate * rest, slope)
        by_log_scale = tl.where(rare, u * rest - 1.0, by_log_scale)
    at_end = lowest | highest
    value = tl.where(at_end, own, value)
    slope = tl.where(at_end, -rate * upper, slope)
    by_log_scale = tl.where(at_end, by_q, by_log_scale)
    # Of what is clamped there is no slope.
    by_log_scale = tl.where(log_scale < least, 0.0, by_log_scale)
    down = lowest | ((distance < 0.0) & ~highest)
    return value, tl.where(down, slope, -slope), by_log_scale


@triton.jit
def _tanh(c):
    """tanh c and its derivative, each by what keeps its digits."""
    far = tl.abs(c) * -2.0
    growth, _ = half_expm1_of(far, -tl.abs(c))
    size = divide(-growth, 1.0 + growth)
    share, _ = logistic_of_negative(far)
    return tl.where(c < 0.0, -size, size), share * (1.0 - share) * 4.0


@triton.jit
def _distance(mean, coefficients, x, there, c, k, mean_c, mean_k, pair_c, pair_k, x_c):
    """x − m of a channel and component of a tile's pixels."""
    distance = tl.load(x + c * x_c, mask=there, other=0.0)
    distance -= tl.load(mean + c * mean_c + k * mean_k, mask=there, other=0.0)
    if coefficients is not None:
        for before in range(0, c):
            pair = c * (c - 1) // 2 + before
            slope, _ = _tanh(tl.load(coefficients + pair * pair_c + k * pair_k, mask=there, other=0.0))
            distance = tl.fma(-slope, tl.load(x + before * x_c, mask=there, other=0.0), distance)
    return distance


@triton.jit
def _at(table, outer, inner, outer_stride, inner_stride):
    """A table's first number of each pixel."""
    if table is None:
        return None
    else:
        return table + (outer * outer_stride + inner * inner_stride)


@triton.jit
def _times(share, slope):
    """Of a share of 0, none of an infinite slope."""
    return tl.where(share == 0.0, 0.0, share * slope)


@triton.jit
def _finite(shift):
    return tl.where(tl.abs(shift) < float("inf"), shift, 0.0)


@kernel
def _mixture(
    operands,
    outs,
    pixels: tl.int64,
    inner: tl.int64,
    channels: tl.int64,
    components: tl.int64,
    logits_o: tl.int64,
    logits_i: tl.int64,
    logits_k: tl.int64,
    mean_o: tl.int64,
    mean_i: tl.int64,
    mean_c: tl.int64,
    mean_k: tl.int64,
    scale_o: tl.int64,
    scale_i: tl.int64,
    scale_c: tl.int64,
    scale_k: tl.int64,
    pair_o: tl.int64,
    pair_i: tl.int64,
    pair_c: tl.int64,
    pair_k: tl.int64,
    x_o: tl.int64,
    x_i: tl.int64,
    x_c: tl.int64,
    up_o: tl.int64,
    up_i: tl.int64,
    dlogits_o: tl.int64,
    dlogits_i: tl.int64,
    dlogits_k: tl.int64,
    dmean_o: tl.int64,
    dmean_i: tl.int64,
    dmean_c: tl.int64,
    dmean_k: tl.int64,
    dscale_o: tl.int64,
    dscale_i: tl.int64,
    dscale_c: tl.int64,
    dscale_k: tl.int64,
    dpair_o: tl.int64,
    dpair_i: tl.int64,
    dpair_c: tl.int64,
    dpair_k: tl.int64,
    half_width: tl.float64,
    log_width: tl.float64,
    least: tl.float64,
    low: tl.float64,
    high: tl.float64,
    log_below: tl.float64,
    DENSITY: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """outs are the log-density, the terms [component, pixel], which only gradients need, and the gradients."""
    T: tl.constexpr = operands[0].dtype.element_ty
    bins = (half_width, log_width, least, low, high, log_below)
    pixel = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    there = pixel < pixels
    o, i = pixel // inner, pixel % inner
    logits = _at(operands[0], o, i, logits_o, logits_i)
    mean = _at(operands[1], o, i, mean_o, mean_i)
    log_scale = _at(operands[2], o, i, scale_o, scale_i)
    coefficients = _at(operands[3], o, i, pair_o, pair_i)
    x = _at(operands[4], o, i, x_o, x_i)
    largest = tl.full((BLOCK,), -float("inf"), T)
    for k in range(0, components):
        largest = tl.maximum(largest, tl.load(logits + k * logits_k, mask=there, other=0.0))
    largest = _finite(largest)
    top = tl.full((BLOCK,), -float("inf"), T)
    sum, weights = tl.zeros((BLOCK,), tl.float64), tl.zeros((BLOCK,), tl.float64)
    for k in range(0, components):
        weight = tl.load(logits + k * logits_k, mask=there, other=0.0) - largest
        weights += exp_over(weight, 1).to(tl.float64)
        density = tl.zeros((BLOCK,), T)
        for c in range(0, channels):
            distance = _distance(mean, coefficients, x, there, c, k, mean_c, mean_k, pair_c, pair_k, x_c)
            s = tl.load(log_scale + c * scale_c + k * scale_k, mask=there, other=0.0)
            value, _, _ = _bin_term(tl.load(x + c * x_c, mask=there, other=0.0), distance, s, bins, T, DENSITY)
            density += value
        term = weight + density
        most = tl.maximum(top, term)
        shift = _finite(most)
        before = exp_over(top - shift, 1).to(tl.float64)
        sum = tl.fma(sum, before, exp_over(term - shift, 1).to(tl.float64))
        top = most
        if outs[1] is not None:
            tl.store(outs[1] + k * pixels + pixel, term, mask=there)
    top = _finite(top)
    log_prob = (top.to(tl.float64) + log(sum)) - log(weights)
    tl.store(outs[0] + pixel, log_prob.to(T), mask=there)
    if outs[1] is not None:
        tl.debug_barrier()
        dlogits = _at(outs[2], o, i, dlogits_o, dlogits_i)
        dmean = _at(outs[3], o, i, dmean_o, dmean_i)
        dscale = _at(outs[4], o, i, dscale_o, dscale_i)
        dpair = _at(outs[5], o, i, dpair_o, dpair_i)
        if operands[5] is not None:
            upstream = tl.load(_at(operands[5], o, i, up_o, up_i), mask=there, other=0.0)
        else:
            upstream = tl.full((BLOCK,), 1.0, T)
        # Of no upstream gradient there is none, whatever the pixel is.
        none = upstream == 0.0
        over = tl.where(none | (sum == 0.0), 0.0, (upstream.to(tl.float64) / sum)).to(T)
        over_weights = tl.where(none, 0.0, (upstream.to(tl.float64) / weights)).to(T)
        for k in range(0, components):
            term = tl.load(outs[1] + k * pixels + pixel, mask=there, other=0.0)
            weight = tl.load(logits + k * logits_k, mask=there, other=0.0) - largest
            share = _times(over, exp_over(term - top, 1))
            if dlogits is not None:
                less = _times(over_weights, exp_over(weight, 1))
                tl.store(dlogits + k * dlogits_k, share - less, mask=there)
            for c in range(0, channels):
                distance = _distance(mean, coefficients, x, there, c, k, mean_c, mean_k, pair_c, pair_k, x_c)
                s = tl.load(log_scale + c * scale_c + k * scale_k, mask=there, other=0.0)
                _, by_mean, by_log_scale = _bin_term(
                    tl.load(x + c * x_c, mask=there, other=0.0), distance, s, bins, T, DENSITY
                )
                by_mean = _times(share, by_mean)
                if dmean is not None:
                    tl.store(dmean + c * dmean_c + k * dmean_k, by_mean, mask=there)
                if dscale is not None:
                    tl.store(dscale + c * dscale_c + k * dscale_k, _times(share, by_log_scale), mask=there)
                if dpair is not None:
                    for before in range(0, c):
                        pair = c * (c - 1) // 2 + before
                        given = tl.load(coefficients + pair * pair_c + k * pair_k, mask=there, other=0.0)
                        _, slope = _tanh(given)
                        slope *= tl.load(x + before * x_c, mask=there, other=0.0)
                        tl.store(dpair + pair * dpair_c + k * dpair_k, _times(by_mean, slope), mask=there)


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
    (half_width, least, low, high, below), needs = rest[:5], rest[5:]
    check(logits, mean, log_scale, coefficients, x, dlog_prob, needs)
    outer, inner, channels, components = mean.shape
    pixels = outer * inner
    log_prob = mean.new_empty((outer, inner))
    operands = (logits, mean, log_scale, coefficients)
    made = [
        torch.empty_like(t) if t is not None and need else None for t, need in zip(operands, needs, strict=True)
    ]
    if pixels:
        terms = mean.new_empty((components, pixels)) if any(needs) else None
        strides = [s for t, n in zip((*operands, x, dlog_prob), _RANKS, strict=True) for s in _strides(t, n)]
        strides += [s for t, n in zip(made, _RANKS, strict=False) for s in _strides(t, n)]
        numbers = half_width, math.log(2 * half_width), least, low, high, math.log(below) if below > 0 else 0.0
        args = ((*operands, x, dlog_prob), (log_prob, terms, *made), pixels, inner, channels, components)
        launch.run(
            _mixture,
            ceil_div(pixels, _PIXELS),
            mean.device,
            (*args, *strides, *numbers),
            {"DENSITY": below > 0, "BLOCK": _PIXELS},
        )
    return log_prob, *(mean.new_empty(0) if t is None else t for t in made)


# Dims of logits, mean, log_scale, coefficients, x, and the upstream gradient.
_RANKS = (3, 4, 4, 4, 3, 2)


def _strides(tensor: Tensor | None, n: int) -> tuple[int, ...]:
    return (0,) * n if tensor is None else tensor.stride()
