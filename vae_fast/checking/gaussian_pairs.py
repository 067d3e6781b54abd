"""Of pairs.py what is a mixture of Gaussians': a case's operands, the call, the truth and its terms.

A case's shape is (data, components, dims).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

import vae_fast
from vae_fast.checking.normals import normals

VARIANTS = (
    *((), ("per_dim",), ("weights",), ("per_dim", "weights"), ("per_dim", "own_weights")),
    *(("own_components",), ("per_dim", "own_weights", "own_components")),
)
# Of pairs.bar.
LOOSENESS = 1.0


def exists(case: Any) -> bool:
    return min(case.shape) > 0


def results(options: Sequence[str]) -> tuple[str, ...]:
    return ("log_prob", "marginals") if "per_dim" in options else ("log_prob",)


def draw(case: Any) -> dict[str, Tensor]:
    """The operands in float64. Extreme: σ near 0.001, and data at a few of these from a component."""
    n, k, d = case.shape
    normal = normals(case.seed)
    of = (n, k) if "own_components" in case.options else (k,)
    made = {"mu": normal(*of, d), "logvar": 0.5 * normal(*of, d), "z": normal(n, d)}
    if case.inputs == "extreme":
        made["logvar"] -= 2 * math.log(1000.0)
        near = made["mu"] if made["mu"].ndim == 2 else made["mu"][:, 0]
        made["z"] = near[torch.arange(n) % len(near)] + 0.001 * made["z"]
    if {"weights", "own_weights"} & set(case.options):
        own = len(of) == 2 or "own_weights" in case.options
        made["log_weight"] = torch.log_softmax(normal(*((n, k) if own else (k,))), -1)
    return made


def call(case: Any, operands: dict[str, Tensor]) -> list[Tensor]:
    mu, logvar, z, *weight = operands.values()
    options: dict[str, Any] = {"log_weight": weight[0] if weight else None, "per_dim": "per_dim" in case.options}
    found = vae_fast.gaussian_mixture_log_prob(mu, logvar, z, backend=case.backend, **options)
    return list(found) if isinstance(found, tuple) else [found]


def whole(case: Any, operands: dict[str, Tensor]) -> list[Tensor]:
    """As it is written in PyTorch, of the whole table, in the operands' dtype."""
    mu, logvar, z, *weight = operands.values()
    square = (z.unsqueeze(-2) - mu) ** 2 * torch.exp(-logvar)
    terms = -0.5 * (square + logvar + math.log(2 * math.pi))
    log_w = weight[0] if weight else terms.new_full((mu.shape[-2],), -math.log(mu.shape[-2]))
    joint = torch.logsumexp(terms.sum(-1) + log_w, -1)
    if "per_dim" not in case.options:
        return [joint]
    return [joint, torch.logsumexp(terms + log_w.unsqueeze(-1), -2).sum(-1)]


def terms(case: Any, t: dict[str, Tensor], given: Sequence[Tensor]) -> dict[str, Tensor]:
    """Of a value |value| and the sizes of its terms by their shares; of a gradient its summands' sizes.

    Each of these as often as the exponent of its share is large.
    """
    rate = torch.exp(-0.5 * t["logvar"])
    u = ((t["z"].unsqueeze(-2) - t["mu"]) * rate).abs()
    own = 0.5 * u * u + 0.5 * t["logvar"].abs() + 1.0
    log_w = t.get("log_weight", torch.tensor(-math.log(t["mu"].shape[-2]), dtype=torch.float64))
    log_w = log_w.expand(u.shape[:-1])
    signed = -0.5 * u * u - 0.5 * t["logvar"] - 0.5 * math.log(2 * math.pi)

    # Of subnormal numbers a share has fewer digits.
    least = torch.finfo(torch.float64 if case.dtype == "float64" else torch.float32).smallest_normal

    def shares(exponents: Tensor, sizes: Tensor, dim: int) -> tuple[Tensor, Tensor]:
        value = torch.logsumexp(exponents, dim)
        share = torch.exp(exponents - value.unsqueeze(dim)).clamp(min=least)
        worth = value.abs() + (share * sizes).sum(dim) + 1.0
        return worth, share * (1.0 + sizes + worth.unsqueeze(dim))

    worth, weight = shares(signed.sum(-1) + log_w, own.sum(-1) + log_w.abs(), -1)
    found = {"log_prob": worth}
    of_pair = given[0].double().cpu().abs().unsqueeze(-1) * weight
    each = of_pair.unsqueeze(-1).expand(u.shape)
    if "per_dim" in case.options:
        upstream = given[1].double().cpu().abs()
        worth, weight = shares(signed + log_w.unsqueeze(-1), own + log_w.abs().unsqueeze(-1), -2)
        found["marginals"] = worth.sum(-1)
        each = each + upstream[:, None, None] * weight
        of_pair = of_pair + upstream.unsqueeze(-1) * weight.sum(-1)
    slope = each * u * rate
    over_data = {"mu": slope, "logvar": 0.5 * each * (u * u + 1.0), "log_weight": of_pair}
    for name, summands in over_data.items():
        if name in t:
            found[f"d{name}"] = summands if t[name].ndim == summands.ndim else summands.sum(0)
    found["dz"] = slope.sum(-2)
    return found
