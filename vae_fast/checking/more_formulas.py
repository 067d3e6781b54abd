"""What formulas.py is for, of densities on [0, 1] and of those of a location and a scale but the Gaussian's."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from vae_fast.checking.element import Element, Pair, log_growth_less_share
from vae_fast.checking.forms import Array


def continuous_bernoulli(y: Array, x: Array, x_scale: float = 1.0, f: Any = np) -> Element:
    """log p = log(|y|/(1 − e^−|y|)) − |y|·w, w = y > 0 ? 1 − t : t; slopes t − E[t] = ±(a − w), and y.

    a = 1/|y| − 1/(e^|y| − 1) is how far the mean is from the end that y's sign says.
    """
    t, size = x * x_scale, abs(y)
    wrong, rounded = f.where(y > 0, 1 - t, t), abs(t) if x_scale != 1.0 else 0 * t
    near = size <= 2
    square, far = f.where(near, size / 2, 0.0) ** 2, f.where(near, 3.0, size)
    # sinh h/h less 1, and its derivative by h², of h = ½|y| near 0: the next terms are below 1e-20 and 1e-60.
    grown = by_square = 0.0 * square
    for k in range(12 if f is np else 24, 0, -1):
        each = f.ones(()) / math.factorial(2 * k + 1)
        grown, by_square = (grown + each) * square, by_square * square + k * each
    near_log, near_away = size / 2 - f.log1p(grown), 0.5 - f.where(near, size, 0.0) / 2 * by_square / (1 + grown)
    log = f.where(near, near_log, f.log(far / -f.expm1(-far)))
    away = f.where(near, near_away, 1 / far - f.exp(-far) / -f.expm1(-far))
    # y(t − ½) less the logarithm, where the other form's parts nearly cancel.
    near_value = f.where(near, y, 0.0) * (t - 0.5) - f.log1p(grown)
    near_slope = (t - 0.5) - f.where(near, y, 0.0) / 2 * by_square / (1 + grown)

    def cost(w: Array) -> Array:
        return f.where(w == 0, 0.0, f.where(w == 0, 0.0, size) * w)

    by_x = y * x_scale
    infinite = size == math.inf
    value = f.where(near, near_value, f.where(infinite, 0.0, log) - cost(wrong))
    value = f.where(infinite, f.where(wrong == 0, math.inf, -math.inf), value)
    slope = f.where(near, near_slope, f.where(y > 0, away - wrong, wrong - away))
    return Element(
        (value, f.where(infinite, math.inf, abs(log) + cost(abs(wrong) + rounded))),
        {
            "logits": (slope, abs(wrong) + rounded + away),
            "x": (by_x, abs(by_x)),
        },
    )


class _Scaled(NamedTuple):
    """A difference, over the scale, how much of that the data's own rounding is, and what goes with 1/scale."""

    difference: Array
    y: Array
    rounded: Array
    log_scale: Array
    inverse: Array


def _scaled(loc: Array, raw: Array, x: Array, x_scale: float, log_scale: bool, f: Any) -> _Scaled:
    x = x * x_scale
    difference = x - loc
    root = f.exp(-raw / 2) if log_scale else 1.0
    inverse = root * root if log_scale else 1 / raw

    def under(v: Array) -> Array:
        none = (v == 0) & (raw == raw)
        quotient = (f.where(none, 1.0, v) * root) * root if log_scale else f.where(none, 1.0, v) / raw
        return f.where(none, 0.0, quotient)

    rounded = under(abs(x)) if x_scale != 1.0 else 0 * f.ones(np.shape(difference))
    return _Scaled(difference, under(difference), rounded, raw if log_scale else f.log(raw), inverse)


def laplace(
    loc: Array, raw: Array, x: Array, x_scale: float = 1.0, log_scale: bool = False, f: Any = np
) -> Element:
    """log p = −|x − loc|/b − log b − log 2; slopes sign(x − loc)/b, and by log b |x − loc|/b − 1."""
    s = _scaled(loc, raw, x, x_scale, log_scale, f)
    size, log_2 = abs(s.y), f.log(2 * f.ones(()))
    zero = (s.difference == 0) & (raw == raw)
    sign = f.where(s.difference > 0, 1.0, f.where(s.difference < 0, -1.0, s.difference))
    slope = f.where(zero, 0.0, sign * f.where(zero, 0.0, s.inverse))
    by_raw = 1.0 if log_scale else s.inverse
    return Element(
        (-(size + s.log_scale + log_2), size + s.rounded + abs(s.log_scale) + log_2),
        {
            "loc": (slope, abs(slope)),
            "b": ((size - 1) * by_raw, (size + s.rounded + 1) * abs(by_raw)),
            "x": (-slope * x_scale, abs(slope * x_scale)),
        },
        (s.difference,),
    )


def _half_step(a: Array, f: Any) -> Pair:
    """log Γ(a + ½) − log Γ(a) − ½log a, and its derivative: of far larger a by its series, all steps one by one."""
    steps, terms = (40, 4) if f is np else (60, 10)
    series = [(-1, 8), (1, 192), (-1, 640), (17, 14336), (-31, 18432), (691, 180224), (-5461, 425984)]
    series += [(929569, 15728640), (-3202291, 8912896), (221930581, 79691776)]
    end = a + steps
    value = slope = 0.0 * (1 / end)
    # What is smaller first.
    for k in range(steps - 1, -1, -1):
        both, middle = (a + k) * (a + k + 1), a + k + 0.5 * f.ones(())
        value, slope = value - f.log1p(1 / (4 * both)) / 2, slope + 1 / (4 * both * middle)
    tail = steepness = 0.0 * (1 / end)
    for k, (above, below) in reversed([*enumerate(series[:terms])]):
        each = above * f.ones(()) / below / end ** (2 * k + 1)
        tail, steepness = tail + each, steepness - (2 * k + 1) * each / end
    return value + tail, slope + steepness


def student_t(
    loc: Array, raw: Array, df: Array, x: Array, x_scale: float = 1.0, log_scale: bool = False, f: Any = np
) -> Element:
    """log p = log Γ(½(ν + 1)) − log Γ(½ν) − ½log πν − log σ − ½(ν + 1)log(1 + w), w = y²/ν, y = (x − loc)/σ.

    Of which the first three are one function less ½log 2π. What a rounded y is off by is magnified by w's share of
    1 + w in the slope by loc, and doubled in what log(1 + w) is more than that share.
    """
    s = _scaled(loc, raw, x, x_scale, log_scale, f)
    size, log_2pi = abs(s.y), f.log(2 * f.pi * f.ones(()))
    gaussian_ = df == math.inf
    degrees = f.where(gaussian_, 1.0, df)
    w = f.where(gaussian_, 0.0, size / degrees * f.where(gaussian_, 0.0, size))
    far = ~(w < 1e290) & (w == w)
    near = f.where(far, 1.0, w)
    log_d = f.log(f.where(far, abs(s.difference), 1.0))
    log_w = 2 * (log_d - f.where(far, s.log_scale, 0.0)) - f.log(degrees)
    log_1p, share = f.where(far, log_w, f.log1p(near)), f.where(far, 1.0, near / (1 + near))
    rest = f.where(far, 0.0, 1 / (1 + near))
    excess = f.where(far, log_w - 1, log_growth_less_share(near, f))
    near_size = f.where(far, 0.0, size)
    loss = f.where(gaussian_, near_size * near_size / 2, (degrees + 1) / 2 * log_1p)
    inverse = f.where(gaussian_, 0.0, 1 / degrees)
    pull = f.where(w < 1, (1 + inverse) * near_size * near_size * rest, (degrees + 1) * share)
    by_log = f.where(w < 1, pull - 1, degrees * share - rest)
    zero = (s.difference == 0) & (raw == raw)
    # Of a y that is subnormal in float64 where all of it is not.
    lift = f.where((abs(s.y) < 1e-250) & (abs(s.difference) < 1e200), 2.0**300, 1.0)
    lifted = _scaled(0 * x, raw, s.difference * lift, 1.0, log_scale, f).y
    slope = (1 + inverse) * lifted * rest * f.where(zero, 0.0, s.inverse) / lift
    large = w >= 1
    slope = f.where(large, (degrees + 1) * share / f.where(large, s.difference, 1.0), f.where(zero, 0.0, slope))
    value, steepness = _half_step(f.where(gaussian_, 1e300, df / 2), f)
    # What the data's rounding is, as a share of y.
    rounded = f.where(size > 0, s.rounded / f.where(size > 0, size, 1.0), 0.0)
    by_raw = 1.0 if log_scale else s.inverse
    by_df = (steepness - excess + share * inverse) / 2
    df_terms = (steepness + excess * (1 + rest) * (1 + 2 * rounded) + share * inverse * (1 + 2 * rounded)) / 2
    slope_terms = abs(slope) * (1 + share) * (1 + rounded)
    return Element(
        (
            value - log_2pi / 2 - s.log_scale - loss,
            abs(value) + log_2pi / 2 + abs(s.log_scale) + loss * (1 + 2 * rounded),
        ),
        {
            "loc": (slope, slope_terms),
            "sigma": (by_log * by_raw, (pull * (1 + 2 * rounded) + 1) * abs(by_raw)),
            "df": (by_df, df_terms),
            "x": (-slope * x_scale, slope_terms * abs(x_scale)),
        },
        (s.difference,),
    )
