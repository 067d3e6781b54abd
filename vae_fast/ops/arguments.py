"""The checks of the public functions' arguments, and what turns them into the raw operators'."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from vae_fast.checks import COUNTS, FLOATS, TARGETS, countable
from vae_fast.operators import (
    BERNOULLI_PARAMS,
    BOUNDS_GRADS,
    DATA,
    FORMS,
    OPERATORS,
    PARAMETER,
    REDUCTIONS,
    WEIGHT,
    Operand,
    Operator,
)
from vae_fast.ops import dispatch
from vae_fast.reference.densities import arithmetic_dtype, promoted_dtype
from vae_fast.seeds import integer
from vae_fast.sigma import SigmaForm

Param = Literal["logvar", "logstd", "std", "var", "softplus"]
BernoulliParam = Literal["logits", "probs"]
MeanParam = Literal["mean", "log_mean", "softmax"]
RateParam = Literal["rate", "log_rate"]
ThetaParam = Literal["theta", "log_theta"]
ScaleParam = Literal["scale", "log_scale"]
Reduction = Literal["none", "sum", "mean"]
BoundsGrad = Literal["zero", "pass"]
QGrad = Literal["total", "path"]
Bounds = tuple[float | None, float | None]


def _describe(value: Any) -> str:
    if not isinstance(value, Tensor):
        return type(value).__name__
    layout = "" if value.layout == torch.strided else f" ({value.layout})"
    return f"a tensor of {value.dtype}{layout}"


def _dense(value: Tensor) -> bool:
    return value.layout == torch.strided and not value.is_nested


def _refused(name: str, value: Any, wanted: str) -> TypeError:
    if not isinstance(value, Tensor) or not value.is_nested:
        return TypeError(f"{name} must be {wanted}, got {_describe(value)}")
    if value.layout != torch.jagged:
        return TypeError(
            f"{name} must be {wanted}, got a nested tensor of the strided layout: "
            f"pass its parts, {name}.unbind(), one by one"
        )
    return TypeError(
        f"{name} must be {wanted}, got a jagged nested tensor: where the ragged dim is none of an event's, call "
        "the function on the .values() of its nested operands, all of one jagged layout; a result of as many rows "
        "is made nested again by "
        f"torch.nested.nested_tensor_from_jagged(result, {name}.offsets(), {name}.lengths())"
    )


def floating(name: str, value: Any) -> Tensor:
    """A dense tensor of float32, bfloat16, float16 or float64. Raises TypeError for anything else."""
    if isinstance(value, Tensor) and value.dtype in FLOATS and _dense(value):
        return value
    raise _refused(name, value, "a dense tensor of a floating dtype")


def floating_or_number(name: str, value: Any) -> Tensor:
    """As ``floating``; a number becomes a 0-d float64 tensor on the CPU, the raw operators' form of one."""
    # Tensors first: to ask whether one is a Real takes as long as all the rest.
    if isinstance(value, Tensor) or isinstance(value, bool) or not isinstance(value, (float, int, numbers.Real)):
        return floating(name, value)
    return torch.tensor(float(value), dtype=torch.float64, device="cpu")


def target(name: str, value: Any) -> Tensor:
    """A dense tensor of a floating dtype, uint8 or bool. Raises TypeError for anything else."""
    if isinstance(value, Tensor) and value.dtype in TARGETS and _dense(value):
        return value
    raise _refused(name, value, "a dense uint8, bool or floating tensor")


def counts(name: str, value: Any) -> Tensor:
    """A dense tensor or a CSR matrix of a floating dtype, bool or integers. Raises TypeError for anything else."""
    if isinstance(value, Tensor) and value.dtype in COUNTS:
        if _dense(value) or value.layout is torch.sparse_csr:
            return value
    wanted = "a dense tensor or a CSR matrix of a floating dtype, bool, uint8, int16, int32 or int64"
    raise _refused(name, value, wanted)


def weights(name: str, value: Any) -> Tensor | None:
    """A weight: any ``target`` dtype, a number, or None."""
    if value is None:
        return None
    return target(name, value) if isinstance(value, Tensor) else floating_or_number(name, value)


def floating_or_none(name: str, value: Any) -> Tensor | None:
    return None if value is None else floating_or_number(name, value)


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
        if other is None:
            continue
        b = other.shape
        if len(b) == len(result) and b == result:
            continue
        merged = []
        for i in range(max(len(result), len(b)), 0, -1):
            p = result[-i] if i <= len(result) else 1
            q = b[-i] if i <= len(b) else 1
            if p != q and p != 1 and q != 1:
                raise ValueError(f"{result_name} of shape {result} and {name} of shape {tuple(b)} do not broadcast")
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


def target_fits(names: str, parameters: Sequence[Tensor], x: Tensor) -> None:
    """Raises ValueError where x of another number of dims than the parameters would make a table of both.

    Either side may be broadcast to the other's shape, and tensors of as many dims to a shape of their own: [64, 1]
    with [64], a mistake nearly always, is neither.
    """
    n_dims = max([t.ndim for t in parameters])
    if x.ndim == n_dims or x.ndim == 0 or n_dims == 0:
        return
    shape = torch.broadcast_shapes(*(t.shape for t in parameters))
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


def prior_fits(operands: Sequence[Any], shape: Sequence[int]) -> None:
    """Raises ValueError where a prior, after the moments in ``operands``, makes their shape another one."""
    mu, logvar, *prior = operands
    if all(t is None or t.shape == mu.shape for t in (logvar, *prior)):
        return
    moments = torch.broadcast_shapes(mu.shape, logvar.shape)
    if len(moments) != len(shape) or tuple(moments) != tuple(shape):
        raise ValueError(
            f"the prior makes the shape of mu and logvar, {tuple(moments)}, into {tuple(shape)}: expand mu to that"
        )


def event_dims(event_ndim: int, shape: Sequence[int], names: str) -> int:
    """``event_ndim``, an int from 0 to the number of dims of ``shape``, the broadcast shape of ``names``."""
    if isinstance(event_ndim, bool) or not isinstance(event_ndim, int):
        raise TypeError(f"event_ndim must be an int, got {type(event_ndim).__name__}")
    if not 0 <= event_ndim <= len(shape):
        raise ValueError(f"event_ndim={event_ndim} does not fit {names}, which broadcast to shape {tuple(shape)}")
    return event_ndim


# Checked operands, the shape that they have together, whether they need the reference's own operations
# (dispatch.py), and the dtype computed in.
Operands = tuple[tuple[Any, ...], tuple[int, ...], bool, torch.dtype]


class _Rules(NamedTuple):
    """What an operator demands of its operands: how each is checked. The parameters come first."""

    names: tuple[str, ...]
    checks: tuple[Callable[[str, Any], Any], ...]
    n_parameters: int
    parameters: str
    data: tuple[str, ...]
    draws: bool


def _rules(operator: Operator) -> _Rules:
    parameters = [operand.name for operand in operator.operands if operand.role == PARAMETER]
    data = tuple(operand.name for operand in operator.operands if operand.role == DATA)
    names = tuple(operand.name for operand in operator.operands)
    checks = tuple(_check_of(operand, k) for k, operand in enumerate(operator.operands))
    return _Rules(names, checks, len(parameters), " and ".join(parameters), data, not operator.density)


def _check_of(operand: Operand, k: int) -> Callable[[str, Any], Any]:
    if operand.role == WEIGHT:
        return weights
    if operand.role == DATA:
        return counts if operand.counts else target
    if operand.optional:
        return floating_or_none
    # The first one's device is the call's.
    return floating_or_number if k else floating


_RULES = {name: _rules(operator) for name, operator in OPERATORS.items()}


def operands(op: str, *values: Any) -> Operands:
    """A public function's operands, numbers as tensors. Raises TypeError or ValueError for what cannot be one."""
    if dispatch.uniform(*values):
        return values, tuple(values[0].shape), False, values[0].dtype
    rules = _RULES[op]
    triples = zip(rules.checks, rules.names, values, strict=True)
    tensors = tuple([check(name, value) for check, name, value in triples])
    named = dict(zip(rules.names, tensors, strict=True))
    composite = dispatch.needs_composite(**named)
    if composite and rules.draws:
        dispatch.refuse_dtensors(**named)
    parameters = tensors[: rules.n_parameters]
    first = rules.names[0]
    anchor = named.pop(first)
    same_device(first, anchor, **named)
    shape = broadcast_shape(first, anchor.shape, **named)
    for name in rules.data:
        target_fits(rules.parameters, [t for t in parameters if t is not None], named[name])
    return tensors, shape, composite, arithmetic_dtype(promoted_dtype(*parameters), *tensors)


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


def code_of(name: str, codes: dict[str, int], key: Any) -> int:
    """The number that stands for a word. Raises ValueError naming the words there are."""
    if key not in codes:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, codes))}, got {key!r}")
    return codes[key]


def reduction_code(reduction: Reduction) -> int:
    return code_of("reduction", REDUCTIONS, reduction)


def bernoulli_code(param: BernoulliParam) -> int:
    return code_of("param", BERNOULLI_PARAMS, param)


def number(name: str, value: Any) -> float:
    """A real number as a float. Raises TypeError for anything else."""
    if isinstance(value, float):
        return value
    if not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, got {_describe(value)}")
    return float(value)


def parametrisation(param: Param, param_eps: float, bounds: Bounds | None) -> tuple[int, float, float, float]:
    """The checked options param, param_eps, low and high."""
    if bounds is None and type(param_eps) is float and param_eps == 0.0 and param in FORMS:
        # Numbers written out: those of a tuple made before would be inputs to a compiler.
        return FORMS[param], 0.0, -math.inf, math.inf
    low, high = -math.inf, math.inf
    code = code_of("param", FORMS, param)
    if bounds is not None:
        if not isinstance(bounds, (tuple, list)) or len(bounds) != 2:
            raise ValueError(f"bounds must be None or a pair (low, high), got {bounds!r}")
        low = low if bounds[0] is None else number("bounds", bounds[0])
        high = high if bounds[1] is None else number("bounds", bounds[1])
        if not low <= high:
            raise ValueError(f"bounds must have low <= high, got {bounds!r}")
    return code, number("param_eps", param_eps), low, high


def bounds_grad_code(bounds_grad: BoundsGrad) -> int:
    return code_of("bounds_grad", BOUNDS_GRADS, bounds_grad)


def prior_parametrisation(
    own: tuple[int, float, float, float], param: Param | None, param_eps: float | None, bounds: Bounds | None
) -> tuple[int, float, float, float]:
    """The same of a prior's second argument: where a caller says nothing of it, the posterior's, ``own``.

    With a ``param`` of its own it is nothing else of the posterior's: without eps and bounds, if none are given.
    """
    if param is None and param_eps is None and bounds is None:
        return own
    code, eps, low, high = own
    if param is not None:
        code, eps, low, high = code_of("prior_param", FORMS, param), 0.0, -math.inf, math.inf
    if param_eps is not None:
        eps = number("prior_param_eps", param_eps)
    if bounds is not None:
        *_, low, high = parametrisation("logvar", 0.0, bounds)
    return code, eps, low, high


def sigma_form(
    param: Param, param_eps: float, bounds: Bounds | None, bounds_grad: BoundsGrad = "zero"
) -> SigmaForm:
    return SigmaForm(*parametrisation(param, param_eps, bounds), bounds_grad_code(bounds_grad))


def temperature(value: Any) -> float:
    """τ ≥ 0."""
    tau = number("temperature", value)
    if not tau >= 0.0:
        raise ValueError(f"temperature must not be negative, got {value!r}")
    return tau
