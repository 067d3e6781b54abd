"""The tensors of a case: values that follow from its seed alone, laid out in memory as it says."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vae_fast.checking.cases import BROADCAST, Case
from vae_fast.operators import OPERATORS


class Operands(NamedTuple):
    """The operands by name (a float for a Python number), and what the case has that gets no gradient here."""

    tensors: dict[str, Any]
    weight: Tensor | None
    pos_weight: Tensor | None
    noise: Tensor | None

    @property
    def factors(self) -> dict[str, Tensor | None]:
        return {"weight": self.weight, "pos_weight": self.pos_weight, "noise": self.noise}


def draw(case: Case) -> Operands:
    """The case's operands on its device; those that have a gradient are leaves that require it."""
    values = {name: _values(case, k, name) for k, name in enumerate(case.operands)}
    weight = _weight(case)
    if weight is not None and "masked" in case.options:
        first = case.operands[0]
        values[first] = torch.where(weight == 0, torch.nan, values[first])
    laid_out = _laid_out(case, values)
    tensors: dict[str, Any] = {}
    for name, value in laid_out.items():
        if isinstance(value, Tensor):
            value = value.to(case.device) if case.device != "cpu" else value
            differentiable = name in OPERATORS[case.op].differentiable and value.is_floating_point()
            value = value.detach().requires_grad_(differentiable)
        tensors[name] = value
    factors = (weight, _pos_weight(case), _noise(case))
    return Operands(tensors, *(t if t is None else t.to(case.device) for t in factors))


def upstream(case: Case, result: int, out: Tensor) -> Tensor:
    """The gradient that reaches a result: 1 where values are looked at one by one and for "sum", else normal."""
    if case.inputs != "ordinary" or case.reduction == "sum":
        return torch.ones_like(out)
    rng = np.random.default_rng([case.seed, 100 + result])
    if case.layout == "upstream_expanded":
        return torch.tensor(rng.standard_normal(), dtype=out.dtype, device=out.device).expand(out.shape)
    values = torch.from_numpy(rng.standard_normal(out.numel())).reshape(out.shape).to(out.device, out.dtype)
    if case.layout == "upstream_transposed" and out.ndim > 1:
        return values.transpose(-1, -2).contiguous().transpose(-1, -2)
    if case.layout == "upstream_cut" and out.ndim:
        return torch.cat([torch.full_like(values, torch.nan), values], -1)[..., out.shape[-1] :]
    return values


# ---- values ------------------------------------------------------------------------------------------------


def _shape(case: Case, k: int) -> tuple[int, ...]:
    """The shape in which operand k's values are drawn."""
    if case.layout in BROADCAST and k % 2:
        return {
            "per_feature": case.shape[-1:],
            "per_datum": (*case.shape[:-1], 1) if case.shape else (),
        }.get(case.layout, ())
    if case.layout == "expanded":
        at = len(case.shape) - 1 if k % 2 else 0
        return (*case.shape[:at], min(1, case.shape[at]), *case.shape[at + 1 :])
    return case.shape


def _values(case: Case, k: int, name: str) -> Tensor:
    shape = _shape(case, k)
    n = math.prod(shape)
    # The first numbers of a longer draw are those of a shorter one, so that a smaller case has like values.
    rng = np.random.default_rng([case.seed, k])
    if name == "x" and case.x_dtype == torch.uint8:
        return torch.from_numpy(rng.integers(0, 256, n, dtype=np.uint8)).reshape(shape)
    if name == "x" and case.x_dtype == torch.bool:
        return torch.from_numpy(rng.random(n) < 0.5).reshape(shape)
    if case.counted_data:
        return _of_counts(case, rng, n, name).to(case.torch_dtype).reshape(shape)
    target = "logits" in case.operands and (name == "x" or case.probs)
    if case.inputs.startswith("bits"):
        values = _patterns(case, k, n)
    elif case.inputs == "extreme":
        values = _extreme_targets(rng, n, case.torch_dtype) if target else _extreme(rng, n, case.torch_dtype)
    else:
        values = torch.from_numpy(rng.standard_normal(n))
        if target:
            values = _targets(values) if name == "x" else torch.sigmoid(2 * values)
    if _positive(case, name):
        values = values.abs() + (0.1 if case.inputs == "ordinary" else 0.0)
    if name == "df":
        values = _degrees(case, rng, n)
    return values.to(case.torch_dtype).reshape(shape)


def _positive(case: Case, name: str) -> bool:
    """Whether an operand is a scale itself."""
    if case.location_scale:
        return name in ("b", "sigma") and not case.by_logarithm["log_scale"]
    form = case.prior_form if name.startswith("prior") else case.form
    return form.positive and name.endswith("logvar")


def _degrees(case: Case, rng: np.random.Generator, n: int) -> Tensor:
    """Degrees of freedom: of ordinary size, or over the range that they can be met in, ∞ among them."""
    normals, kind = torch.from_numpy(rng.standard_normal((n, 2))).unbind(1)
    if case.inputs == "ordinary":
        return torch.exp(1.0 + normals)
    high = 4.0 if case.torch_dtype == torch.float16 else 8.0
    values = 10.0 ** (high * (torch.erf(normals)))
    return torch.where(kind > 2, math.inf, values)


# The largest count that is drawn: sums over k < x are the truth (formulas.py).
_MOST = 300


def _of_counts(case: Case, rng: np.random.Generator, n: int, name: str) -> Tensor:
    """Counts, half of them 0; parameters of ordinary size, or a count's over the range that it can be met in."""
    normals, where, kind = torch.from_numpy(rng.standard_normal((n, 3))).unbind(1)
    where = 0.5 * torch.erfc(where)  # uniform
    if name == "x":
        counts = torch.exp(1.5 * normals).floor()
        if case.inputs == "extreme":
            edges = torch.tensor([0.0, 1, 2, 7, 8, 9, 10, 30, 100, _MOST], dtype=torch.float64)
            counts = torch.where(kind > 0, edges[(where * len(edges)).long()], counts)
        return counts.clamp(max=_MOST)
    if name == "zero_logits":
        return (30.0 if case.inputs == "extreme" else 2.0) * normals
    if case.inputs == "extreme":
        info = torch.finfo(case.torch_dtype)
        low, high = (-8.0, 8.0) if name == "theta" else (-30.0, 10.0)
        low, high = max(low, math.log10(info.smallest_normal)), min(high, math.log10(info.max) - 1)
        values = torch.where(kind > 0, torch.exp(normals), 10.0 ** (low + where * (high - low)))
        # A θ of ∞ is Poisson's.
        return torch.where(kind < -2, math.inf, values) if name == "theta" else values
    return normals if case.by_logarithm.get(f"log_{name}") else torch.exp(normals)


def _targets(normals: Tensor) -> Tensor:
    """Numbers of [0, 1], 0 and 1 themselves among them."""
    return (0.5 + 0.5 * normals).clamp(0.0, 1.0)


def specials(dtype: torch.dtype) -> Tensor:
    """Numbers at which branches and ranges of the dtype begin and end, of both signs, infinities and NaN."""
    info = torch.finfo(dtype)
    sizes = [0.0, info.smallest_normal * info.eps, info.smallest_normal / 2, info.smallest_normal, info.eps, 1e-3]
    sizes += [0.5, 1.0, 2.0, 15.0, 17.0, 85.0, 88.7, 89.5, 103.9, 700.0, 709.7, 745.1]
    sizes += [info.max**0.5, info.max / 2, info.max, math.inf]
    positive = torch.tensor(sizes, dtype=torch.float64).to(dtype).double()
    return torch.cat([positive, -positive, torch.tensor([math.nan], dtype=torch.float64)])


def _extreme(rng: np.random.Generator, n: int, dtype: torch.dtype) -> Tensor:
    """Numbers of either sign: special ones, every magnitude of the dtype, and magnitudes nearer to 1."""
    info = torch.finfo(dtype)
    kind, where, sign = torch.from_numpy(rng.random((n, 3))).unbind(1)
    special = specials(dtype)
    picked = special[(where * len(special)).long()]
    low, high = math.log2(info.smallest_normal * info.eps), math.log2(info.max)
    # Both halves of the exponent apart: a power of two beyond float64 is none.
    half = torch.exp2(0.5 * (low + where * (high - low)))
    wide = half * half
    near = 10.0 ** (-4 + where * 6.3)
    values = torch.where(kind < 0.3, wide, near) * torch.where(sign < 0.5, 1.0, -1.0)
    values = values.clamp(-info.max, info.max)
    return torch.where(kind > 0.7, picked, values)


def _extreme_targets(rng: np.random.Generator, n: int, dtype: torch.dtype) -> Tensor:
    """Numbers of [0, 1]: both ends, their neighbours, every magnitude of the dtype, and others."""
    info = torch.finfo(dtype)
    smallest = info.smallest_normal * info.eps
    sizes = [
        0.0,
        1.0,
        0.5,
        smallest,
        info.smallest_normal,
        info.eps,
        1e-3,
        1e-12,
        1e-43,
        1 - info.eps,
        1 - info.eps / 2,
    ]
    ends = torch.tensor(sizes, dtype=torch.float64)
    kind, where = torch.from_numpy(rng.random((n, 2))).unbind(1)
    others = torch.where(kind < 0.85, where, torch.exp2(where * math.log2(smallest)))
    return torch.where(kind < 0.7, ends[(where * len(ends)).long()], others)


def _patterns(case: Case, k: int, n: int) -> Tensor:
    """ "bits:START:STEP:OTHER": the scale, logits or p run through the float32 of patterns START, START + STEP, …

    The other operands are all OTHER.
    """
    _, start, step, other = case.inputs.split(":")
    if case.operands[k] not in ("logits", "logvar"):
        return torch.full((n,), float(other), dtype=torch.float64)
    bits = np.arange(n, dtype=np.uint64) * np.uint64(int(step)) + np.uint64(int(start, 0))
    return torch.from_numpy(bits.astype(np.uint32).view(np.float32).copy())


def _weight(case: Case) -> Tensor | None:
    if not case.weighted:
        return None
    shape = (*case.shape[:-1], 1) if "datum_weight" in case.options else case.shape
    uniform = torch.from_numpy(np.random.default_rng([case.seed, 50]).random(math.prod(shape))).reshape(shape)
    if "masked" in case.options:
        return uniform < 0.6
    return torch.where(uniform < 0.25, 0.0, 2 * uniform).to(case.torch_dtype)


def _pos_weight(case: Case) -> Tensor | None:
    """One a feature."""
    if "pos_weight" not in case.options:
        return None
    shape = case.shape[-1:]
    uniform = np.random.default_rng([case.seed, 51]).random(math.prod(shape))
    return torch.from_numpy(0.25 + 3 * uniform).reshape(shape).to(case.torch_dtype)


def _noise(case: Case) -> Tensor | None:
    """ε that is given, and not drawn from a seed."""
    if "noise" not in case.options:
        return None
    shape = (*case.sample_shape, *case.shape)
    normals = np.random.default_rng([case.seed, 52]).standard_normal(math.prod(shape))
    return torch.from_numpy(normals).reshape(shape).to(case.compute_dtype)


# ---- layouts -----------------------------------------------------------------------------------------------


def _laid_out(case: Case, values: dict[str, Tensor]) -> dict[str, Any]:
    layout = case.layout
    if layout == "packed":
        dim = 1 if len(case.shape) > 1 else 0
        floats = [name for name, value in values.items() if value.is_floating_point()]
        parts = torch.cat([values[name] for name in floats], dim).chunk(len(floats), dim)
        whole = len(parts) == len(floats)  # nothing is cut into one part
        return values | dict(zip(floats, parts, strict=True)) if whole else values
    if layout == "expanded":
        return {name: value.expand(case.shape) for name, value in values.items()}
    if layout == "number":
        odd = [name for name in list(values)[1::2] if name != "x"]
        return {name: float(value) if name in odd else value for name, value in values.items()}
    change = {
        "transposed": lambda v: v.transpose(-1, -2).contiguous().transpose(-1, -2),
        "step": lambda v: torch.stack([v, torch.full_like(v, math.nan if v.is_floating_point() else 1)], -1)[
            ..., 0
        ],
        "channels_last": lambda v: v.contiguous(memory_format=torch.channels_last),
    }.get(layout)
    return values if change is None else {name: change(value) for name, value in values.items()}
