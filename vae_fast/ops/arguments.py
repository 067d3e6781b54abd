"""The checks of the public functions' arguments, and what turns them into the raw operators'."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from vae_fast.checks import FLOATS, TARGETS, countable
from vae_fast.operators import BERNOULLI_PARAMS, DATA, FORMS, PARAMETER, REDUCTIONS, WEIGHT, Operator
from vae_fast.ops import dispatch
from vae_fast.reference.densities import arithmetic_dtype, promoted_dtype
from vae_fast.seeds import integer
from vae_fast.sigma import SigmaForm

Param = Literal["logvar", "logstd", "std", "var", "softplus"]
BernoulliParam = Literal["logits", "probs"]
Reduction = Literal["none", "sum", "mean"]
Bounds = tuple[float | None, float | None]


def _describe(value: Any) -> str:
    if not isinstance(value, Tensor):
        return type(value).__name__
    layout = "" if value.layout == torch.strided else f" ({value.layout})"
    return f"a tensor of {value.dtype}{layout}"


def _strided(value: Tensor) -> bool:
    return value.layout == torch.strided and not value.is_quantized


def floating(name: str, value: Any) -> Tensor:
    """A dense tensor of float32, bfloat16, float16 or float64. Raises TypeError for anything else."""
    if isinstance(value, Tensor) and value.dtype in FLOATS and _strided(value):
        return value
    raise TypeError(f"{name} must be a dense tensor of a floating dtype, got {_describe(value)}")


def floating_or_number(name: str, value: Any) -> Tensor:
    """As ``floating``; a number becomes a 0-d float64 tensor on the CPU, the raw operators' form of one."""
    if isinstance(value, (float, int, numbers.Real)) and not isinstance(value, bool):
        return torch.tensor(float(value), dtype=torch.float64, device="cpu")
    return floating(name, value)


def target(name: str, value: Any) -> Tensor:
    """A dense tensor of a floating dtype, uint8 or bool. Raises TypeError for anything else."""
    if isinstance(value, Tensor) and value.dtype in TARGETS and _strided(value):
        return value
    raise TypeError(f"{name} must be a dense uint8, bool or floating tensor, got {_describe(value)}")


def same_device(first: str, anchor: Tensor, **others: Tensor | None) -> None:
    """Raises ValueError where a tensor is not on ``anchor``'s device (a 0-d CPU tensor may be)."""
    for name, other in others.items():
        if other is None or other.device == anchor.device or (other.ndim == 0 and other.device.type == "cpu"):
            continue
        raise ValueError(f"{first} is on {anchor.device}, {name} on {other.device}")


def broadcast_shape(first: str, shape: Sequence[int], **others: Tensor | None) -> tuple[int, ...]:
    """The shape all arguments broadcast to. Raises ValueError naming the two arguments that do not."""
    result, result_name = tuple(shape), first
    for name, other in others.items():
        if other is None or (other.ndim == len(result) and tuple(other.shape) == result):
            continue
        b = tuple(other.shape)
        merged = []
        for i in range(max(len(result), len(b)), 0, -1):
            p = result[-i] if i <= len(result) else 1
            q = b[-i] if i <= len(b) else 1
            if p != q and p != 1 and q != 1:
                raise ValueError(f"{result_name} of shape {result} and {name} of shape {b} do not broadcast")
            merged.append(q if p == 1 else p)
        result, result_name = tuple(merged), f"{result_name}, {name}"
    countable(result, f"{result_name} together,")
    return result


def _table(*shapes: Sequence[int]) -> float:
    """How many elements shapes broadcast to; ∞ where they do not."""
    try:
        return math.prod(torch.broadcast_shapes(*shapes))
    except RuntimeError:
        return math.inf


def target_fits(names: str, shape: Sequence[int], x: Tensor) -> None:
    """Raises ValueError where x of another number of dims than the parameters would make a table of both.

    ``shape`` is what the parameters broadcast to together. Either side may be broadcast to the other's shape, and
    tensors of as many dims to a shape of their own: [64, 1] with [64], a mistake nearly always, is neither.
    """
    if x.ndim == len(shape) or x.ndim == 0 or len(shape) == 0:
        return
    together = torch.broadcast_shapes(shape, x.shape)
    most = max(math.prod(shape), x.numel())
    if math.prod(together) <= most:
        return
    of_x = x.ndim < len(shape)
    short, long = (tuple(x.shape), tuple(shape)) if of_x else (tuple(shape), tuple(x.shape))
    while len(short) < len(long) and _table(short, long) > most:
        # The place of a new dim that makes the smallest table; of several, the last.
        ways = [(*short[:k], 1, *short[k:]) for k in range(len(short), -1, -1)]
        short = min(ways, key=lambda way: _table(way, long))
    name = "x" if of_x else names
    raise ValueError(
        f"x of shape {tuple(x.shape)} and {names} of shape {tuple(shape)} would broadcast to {tuple(together)}, "
        f"larger than both: give {name} the dims it lacks, as in .reshape({', '.join(map(str, short))})"
    )


def event_dims(event_ndim: int, shape: Sequence[int], names: str) -> int:
    """``event_ndim``, an int from 0 to the number of dims of ``shape``, the broadcast shape of ``names``."""
    if isinstance(event_ndim, bool) or not isinstance(event_ndim, int):
        raise TypeError(f"event_ndim must be an int, got {type(event_ndim).__name__}")
    if not 0 <= event_ndim <= len(shape):
        raise ValueError(f"event_ndim={event_ndim} does not fit {names}, which broadcast to shape {tuple(shape)}")
    return event_ndim


class Operands(NamedTuple):
    """Checked operands: the shape that they have together, whether they need the reference's own operations
    (dispatch.py), and the dtype computed in."""

    tensors: tuple[Any, ...]
    shape: tuple[int, ...]
    composite: bool
    arithmetic: torch.dtype


def operands(operator: Operator, *values: Any) -> Operands:
    """A public function's operands, numbers as tensors. Raises TypeError or ValueError for what cannot be one."""
    if dispatch.uniform(*values):
        first, *_ = values
        return Operands(values, tuple(first.shape), False, first.dtype)
    facts = operator.operands
    tensors = tuple(_operand(operator, k, value) for k, value in enumerate(values))
    anchor, *rest = tensors
    first, *names = (operand.name for operand in facts)
    others = dict(zip(names, rest, strict=True))
    composite = dispatch.needs_composite(**{first: anchor}, **others)
    if composite and not operator.density:
        dispatch.refuse_dtensors(**{first: anchor}, **others)
    same_device(first, anchor, **others)
    shape = broadcast_shape(first, anchor.shape, **others)
    parameters = [t for operand, t in zip(facts, tensors, strict=True) if operand.role == PARAMETER]
    for operand, t in zip(facts, tensors, strict=True):
        if operand.role == DATA:
            of = " and ".join(operand.name for operand in facts if operand.role == PARAMETER)
            target_fits(of, torch.broadcast_shapes(*(t.shape for t in parameters)), t)
    return Operands(tensors, shape, composite, arithmetic_dtype(promoted_dtype(*parameters), *tensors))


def _operand(operator: Operator, k: int, value: Any) -> Tensor | None:
    operand = operator.operands[k]
    if value is None and operand.optional:
        return None
    if operand.role == DATA:
        return target(operand.name, value)
    if operand.role == WEIGHT:
        return target(operand.name, value) if isinstance(value, Tensor) else floating_or_number(operand.name, value)
    # The first operand's device is the call's.
    return floating_or_number(operand.name, value) if k else floating(operand.name, value)


def sizes(name: str, shape: Any) -> tuple[int, ...]:
    """A shape: an int or a sequence of ints, none negative."""
    if isinstance(shape, (str, Tensor)):
        raise TypeError(f"{name} must be a shape, got {type(shape).__name__}")
    entries = (shape,) if isinstance(shape, int) else tuple(shape)
    for entry in entries:
        # An int as it is: a comparison with 2⁶³ would bind the size of a trace.
        if (entry if isinstance(entry, int) else integer(name, entry)) < 0:
            raise ValueError(f"{name} has a negative size: {entries}")
    return entries


def _code(name: str, codes: dict[str, int], key: Any) -> int:
    if key not in codes:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, codes))}, got {key!r}")
    return codes[key]


def reduction_code(reduction: Reduction) -> int:
    return _code("reduction", REDUCTIONS, reduction)


def bernoulli_code(param: BernoulliParam) -> int:
    return _code("param", BERNOULLI_PARAMS, param)


def number(name: str, value: Any) -> float:
    """A real number as a float. Raises TypeError for anything else."""
    if isinstance(value, float):
        return value
    if not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, got {_describe(value)}")
    return float(value)


def sigma_form(param: Param, param_eps: float, bounds: Bounds | None) -> SigmaForm:
    """The checked parametrisation of σ."""
    kind = _code("param", FORMS, param)
    low, high = -math.inf, math.inf
    if bounds is not None:
        if not isinstance(bounds, (tuple, list)) or len(bounds) != 2:
            raise ValueError(f"bounds must be None or a pair (low, high), got {bounds!r}")
        low = low if bounds[0] is None else number("bounds", bounds[0])
        high = high if bounds[1] is None else number("bounds", bounds[1])
        if not low <= high:
            raise ValueError(f"bounds must have low <= high, got {bounds!r}")
    return SigmaForm(kind, number("param_eps", param_eps), low, high)
