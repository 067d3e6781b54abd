"""Of pairs.py what is a maximum mean discrepancy's: a case's operands, the call, the truth and its terms.

A case's shape is (points, other points, dims).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

import vae_fast
from vae_fast.checking.normals import normals

VARIANTS = ((), ("rbf",), ("biased",), ("biased", "scales"), ("rbf", "biased"))
# Of pairs.bar.
LOOSENESS = 1.0
_SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_MORE_SCALES = tuple(0.3 * k for k in range(1, 20))


def exists(case: Any) -> bool:
    return min(case.shape) > 1


def results(options: Sequence[str]) -> tuple[str, ...]:
    return ("mmd",)


def draw(case: Any) -> dict[str, Tensor]:
    """The operands in float64. Extreme: a point that hardly has a neighbour."""
    n, k, d = case.shape
    normal = normals(case.seed)
    made = {"x": normal(n, d), "y": 1.3 * normal(k, d) + 0.2}
    made["x"][0] += 1e4 if case.inputs == "extreme" else 0.0
    return made


def call(case: Any, operands: dict[str, Tensor]) -> list[Tensor]:
    return [vae_fast.mmd(*operands.values(), backend=case.backend, **_options(case))]


def _options(case: Any) -> dict[str, Any]:
    return {
        "kernel": "rbf" if "rbf" in case.options else "imq",
        "scales": _MORE_SCALES if "scales" in case.options else _SCALES,
        "unbiased": "biased" not in case.options,
    }


def whole(case: Any, operands: dict[str, Tensor]) -> list[Tensor]:
    """As it is written in PyTorch, of the whole tables, in the operands' dtype."""
    options, (x, y) = _options(case), operands.values()

    def mean(a: Tensor, b: Tensor) -> Tensor:
        table = _kernel(options, (a.unsqueeze(1) - b).pow(2).sum(-1), x.shape[1])
        if a is not b or not options["unbiased"]:
            return table.mean()
        return (table.sum() - table.diagonal().sum()) / (len(a) * (len(a) - 1))

    return [mean(x, x) + mean(y, y) - 2 * mean(x, y)]


def _kernel(options: dict[str, Any], square: Tensor, dims: int) -> Tensor:
    c = 2.0 * dims
    if options["kernel"] == "rbf":
        return torch.exp(-square / c)
    kernel = torch.zeros_like(square)
    for s in options["scales"]:
        kernel = kernel + s * c / (s * c + square)
    return kernel


def terms(case: Any, t: dict[str, Tensor], given: Sequence[Tensor]) -> dict[str, Tensor]:
    """Of the value its means, of a gradient its summands; each as often as an exponent is large."""
    options, x, y = _options(case), t["x"], t["y"]
    found = {"mmd": torch.zeros((), dtype=torch.float64)}
    found |= {"dx": torch.zeros_like(x), "dy": torch.zeros_like(y)}
    c = 2.0 * x.shape[1]
    for a, b, factor, to in ((x, x, 1.0, "dx"), (y, y, 1.0, "dy"), (x, y, 2.0, "dx"), (y, x, 2.0, "dy")):
        difference = a.unsqueeze(1) - b
        square = difference.pow(2).sum(-1)
        value = _kernel(options, square, x.shape[1])
        if options["kernel"] == "rbf":
            value = value * (1.0 + square / c)
            slope = value * 2 / c
        else:
            slope = sum(2 * s * c / (s * c + square) ** 2 for s in options["scales"])
        if a is b and options["unbiased"]:
            pairs = len(a) * (len(a) - 1)
            value, slope = (table - torch.diag(table.diagonal()) for table in (value, slope))
        else:
            pairs = len(a) * len(b)
        # The last of the four is of a gradient alone.
        if (a is x) or (a is b):
            found["mmd"] += factor * value.sum() / pairs
        twice = 2.0 if a is b else 1.0
        summands = (slope.unsqueeze(-1) * difference.abs()).sum(1)
        found[to] += given[0].double().cpu().abs() * twice * factor / pairs * summands
    return found
