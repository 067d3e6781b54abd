"""Of pairs.py what is a mixture of discretised logistics: a case's operands, the call, the truth and its terms.

A case's shape is (pixels, components, channels). Data are bytes, the same numbers in every dtype. The truth is that
of logarithms of sigmoids and of 1 − e^−w, in float64, of which nothing cancels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

import vae_fast
from vae_fast.checking.normals import normals

VARIANTS = ((), ("coefficients",), ("levels",), ("edges", "coefficients"), ("density", "coefficients"))
# Of pairs.bar: the terms hold what exponents are rounded by.
LOOSENESS = 0.5


def exists(case: Any) -> bool:
    # Of one channel there are no coefficients.
    return min(case.shape) > 0 and not ("coefficients" in case.options and case.shape[2] == 1)


def results(options: Sequence[str]) -> tuple[str, ...]:
    return ("log_prob",)


def draw(case: Any) -> dict[str, Tensor]:
    """The operands in float64. Extreme: s from e⁻⁹ to e³ beside data, a component far off, one of no weight."""
    n, k, c = case.shape
    normal = normals(case.seed)
    far = case.inputs == "extreme"
    scatter = 3.0 if far else 0.7
    made = {
        "logits": normal(n, k),
        "mean": data(case).double().unsqueeze(-1) / 127.5 - 1 + 0.3 * normal(n, c, k),
        "log_scale": scatter * normal(n, c, k) - 3.0,
    }
    if far:
        made["mean"][0, 0, 0], made["logits"][-1, -1] = 300.0, -300.0
    if "coefficients" in case.options:
        made["coefficients"] = normal(n, c * (c - 1) // 2, k)
    return made


def data(case: Any) -> Tensor:
    """Bytes, of which every third one or so is of the lowest or the highest level."""
    n, _, c = case.shape
    rng = torch.Generator().manual_seed(case.seed + 2)
    top = _levels(case) - 1
    return torch.randint(-top // 3, top + top // 3, (n, c), generator=rng).clamp(0, top).to(torch.uint8)


def _levels(case: Any) -> int:
    return 32 if "levels" in case.options else 256


def _edges(case: Any) -> tuple[float, float]:
    inside = 1.0 - 1.0 / (_levels(case) - 1)
    return (-0.999, 0.99) if "edges" in case.options else (-inside, inside)


def _density_below(case: Any) -> float:
    return 1e-5 if "density" in case.options else 0.0


def call(case: Any, operands: dict[str, Tensor]) -> list[Tensor]:
    logits, mean, log_scale, *coefficients = operands.values()
    made = vae_fast.logistic_mixture_log_prob(
        logits,
        mean,
        log_scale,
        data(case).to(mean.device),
        coefficients=coefficients[0] if coefficients else None,
        levels=_levels(case),
        edges=_edges(case) if "edges" in case.options else None,
        density_below=_density_below(case),
        backend=case.backend,
    )
    return [made]


def _scaled(case: Any, like: Tensor) -> Tensor:
    top = _levels(case) - 1
    return ((2 * data(case).double() - top) / top).to(like.device, like.dtype)


def _conditional(mean: Tensor, coefficients: Sequence[Tensor], x: Tensor) -> Tensor:
    if not coefficients:
        return mean
    slopes, rows, pair = torch.tanh(coefficients[0]), [], 0
    for c in range(mean.shape[1]):
        row = mean[:, c]
        for before in range(c):
            row = row + slopes[:, pair] * x[:, before, None]
            pair += 1
        rows.append(row)
    return torch.stack(rows, 1)


def whole(case: Any, operands: dict[str, Tensor]) -> list[Tensor]:
    """As it is written in PyTorch, of the whole table, in the operands' dtype."""
    logits, mean, log_scale, *coefficients = operands.values()
    x = _scaled(case, mean)
    s = log_scale.clamp(min=-7.0)
    distance = x.unsqueeze(-1) - _conditional(mean, coefficients, x)
    half = 1.0 / (_levels(case) - 1)
    sigmoid = torch.nn.functional.logsigmoid
    rate = torch.exp(-s)
    below, above = sigmoid(rate * (distance + half)), sigmoid(-rate * (distance - half))
    w = 2 * half * rate
    # Above 1 the slope of expm1, 1 + its value, loses digits.
    within = torch.where(w < 1, torch.log(-torch.expm1(-w.clamp(max=1))), torch.log1p(-torch.exp(-w.clamp(min=1))))
    middle = within + below + above
    if _density_below(case):
        density = math.log(2 * half) - s + sigmoid(rate * distance) + sigmoid(-rate * distance)
        middle = torch.where(middle < math.log(_density_below(case)), density, middle)
    low, high = _edges(case)
    wide = x.unsqueeze(-1)
    terms = torch.where(wide < low, below, torch.where(wide > high, above, middle))
    return [_log_sum_exp(torch.log_softmax(logits, -1) + terms.sum(1))]


def _log_sum_exp(t: Tensor) -> Tensor:
    """With shares that sum to 1: those of torch.logsumexp's backward pass have its value's rounding in them."""
    top = t.detach().amax(-1, keepdim=True)
    return (t - top).exp().sum(-1).log() + top.squeeze(-1)


def terms(case: Any, t: dict[str, Tensor], given: Sequence[Tensor]) -> dict[str, Tensor]:
    """Σ|terms| of the value and of every gradient.

    A logarithm's terms are its parts', and what the distance's own parts add to these: 1/s times their sizes, and
    the slope. A share's are those of the logarithm that it is an exponential of; a slope's those of its parts, and
    what the distance's add by way of the curvature.
    """
    logits, mean, log_scale, *coefficients = t.values()
    x = _scaled(case, mean)
    s = log_scale.clamp(min=-7.0)
    half = 1.0 / (_levels(case) - 1)
    centre = _conditional(mean, coefficients, x)
    distance, rate = (x.unsqueeze(-1) - centre).abs(), torch.exp(-s)
    # What rounding the parts of the distance may move it by, in units of s.
    moved = rate * (
        x.abs().unsqueeze(-1) + _conditional(mean.abs(), [c.abs() for c in coefficients], x.abs()) + half
    )
    steep = torch.sigmoid(rate * (distance - half)) + torch.sigmoid(-rate * (distance + half))
    u = rate * distance
    sizes = 1.0 + s.abs() + abs(math.log(2 * half)) + steep * (u + moved)
    log_weight = torch.log_softmax(logits, -1)
    exponent = log_weight + _of_components(case, t)
    value = torch.logsumexp(exponent, -1)
    share = torch.exp(exponent - value.unsqueeze(-1))
    of_component = sizes.sum(1) + log_weight.abs() + logits.abs()
    worth = value.abs() + (share * of_component).sum(-1) + 1.0
    least = torch.finfo(torch.float64 if case.dtype == "float64" else torch.float32).smallest_normal
    upstream = given[0].double().cpu().abs().unsqueeze(-1)
    weight = upstream * share.clamp(min=least) * (1.0 + of_component + worth.unsqueeze(-1))
    prior = upstream * torch.exp(log_weight) * (1.0 + log_weight.abs() + logits.abs())
    curved = torch.sigmoid(u + rate * half) * torch.sigmoid(rate * half - u)
    slope = rate * (steep + curved * (u + moved))
    found = {"log_prob": worth, "dlogits": weight + prior, "dmean": weight.unsqueeze(1) * slope}
    # log s moves 1/s, of all of which the distance is a multiple.
    found["dlog_scale"] = weight.unsqueeze(1) * (1.0 + (steep + curved * (u + moved)) * (u + moved))
    if coefficients:
        pairs = [(c, before) for c in range(mean.shape[1]) for before in range(c)]
        each = torch.stack([found["dmean"][:, c] * x[:, before, None].abs() for c, before in pairs], 1)
        found["dcoefficients"] = each / torch.cosh(coefficients[0]) ** 2
    return found


def _of_components(case: Any, t: dict[str, Tensor]) -> Tensor:
    """log Π_c P of every component: [pixels, components]."""
    components = range(t["logits"].shape[-1])
    # A mixture of one.
    return torch.stack([whole(case, {name: v[..., k : k + 1] for name, v in t.items()})[0] for k in components], -1)
