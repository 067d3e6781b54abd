"""One case: runs it, measures it against the truth, and makes a failing one smaller."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

import vae_fast
from vae_fast.checking.cases import Case
from vae_fast.checking.common import common
from vae_fast.checking.measure import bar, measured
from vae_fast.checking.operands import Operands, draw, upstream
from vae_fast.checking.rows import Failure
from vae_fast.checking.truth import Expected, expected

# A shrinking case is tried so many times at most.
_TRIES = 60


class Prepared(NamedTuple):
    """A case's operands and truth, the same for every backend, and PyTorch's worst errors (None: not measured)."""

    operands: Operands
    expected: dict[str, Expected]
    torch_forward: float | None
    torch_gradient: float | None


class Outcome(NamedTuple):
    """The worst errors of a case's values and gradients, and its failure."""

    forward: float
    gradient: float
    failure: Failure | None


def prepare(case: Case, compare: bool = True) -> Prepared:
    """Operands, truth and, with ``compare``, PyTorch's error, for all backends of the case."""
    operands = draw(case)
    upstreams = _upstreams(case, operands)
    truth = expected(case, operands, upstreams)
    outs = common(case, operands) if compare else ()
    if not outs:
        return Prepared(operands, truth, None, None)
    theirs = _with_grads(case, operands, outs)
    forward = gradient = 0.0
    for name, want in truth.items():
        worst = _worst(measured(theirs[name], want))[0]
        if name in case.spec.results:
            forward = max(forward, worst)
        else:
            gradient = max(gradient, worst)
    return Prepared(operands, truth, forward, gradient)


def measure(case: Case, prepared: Prepared) -> Outcome:
    """Runs the case on its backend. What the call raises is a failure, too."""
    operands = prepared.operands
    try:
        positional, keywords = case.arguments(operands.tensors, operands.factors)
        outs = getattr(vae_fast, case.op)(*positional, **keywords)
        got = _with_grads(case, operands, outs if isinstance(outs, tuple) else (outs,))
    except Exception as raised:
        message = f"{type(raised).__name__}: {' '.join(str(raised).split())}"
        none = Failure(case, case.spec.results[0], (), {}, message, "a result", math.inf, 0.0, case.command)
        return Outcome(math.inf, math.inf, none)
    forward = gradient = 0.0
    failure: Failure | None = None
    excess = 1.0
    for name, want in prepared.expected.items():
        index: tuple[int, ...] = ()
        worst, bound = math.inf, bar(case, name, want)
        if got[name].dtype == want.dtype and got[name].shape == want.truth.shape:
            worst, index = _worst(_errors(name, got[name], want))
        if name in case.spec.results:
            forward = max(forward, worst)
        else:
            gradient = max(gradient, worst)
        by = worst / bound if bound else math.inf if worst else 0.0
        if by > excess:
            failure, excess = _failure(case, operands, name, index, got[name], want, worst, bound), by
    return Outcome(forward, gradient, failure)


def run(case: Case) -> Outcome:
    return measure(case, prepare(case, compare=False))


def shrink(case: Case, failure: Failure) -> Failure:
    """The failure of the smallest case found: each dim halved while the case still fails, then lowered by one."""
    tries = 0

    def fails(shape: Sequence[int]) -> Failure | None:
        nonlocal tries
        smaller = dataclasses.replace(case, shape=tuple(shape))
        if tries >= _TRIES or not smaller.exists:
            return None
        tries += 1
        return run(smaller).failure

    shape = list(case.shape)
    for step in (lambda n: n // 2, lambda n: n - 1):
        for dim in range(len(shape)):
            while shape[dim] > 1:
                candidate = [*shape[:dim], step(shape[dim]), *shape[dim + 1 :]]
                found = fails(candidate)
                if found is None:
                    break
                shape, failure = candidate, found
    return failure


# ---- inside ------------------------------------------------------------------------------------------------


def _upstreams(case: Case, operands: Operands) -> dict[str, Tensor]:
    """The gradients that reach the results, made for results of the right shape and dtype."""
    if case.op == "standard_normal":
        return {}
    tensors = [t for t in (*operands.tensors.values(), operands.weight) if isinstance(t, Tensor)]
    shape = torch.broadcast_shapes(*(t.shape for t in tensors))
    data = () if case.reduction != "none" else shape[: len(shape) - case.event_ndim]
    data = (*case.sample_shape, *data) if case.spec.of_samples else data
    made = {}
    for k, name in enumerate(case.spec.results):
        whole = (*case.sample_shape, *shape)
        like = torch.empty(
            whole if name == "z" else data, dtype=case.torch_dtype if name == "z" else case.compute_dtype
        )
        made[name] = upstream(case, k, like.to(case.device))
    return made


def _with_grads(case: Case, operands: Operands, outs: Sequence[Tensor]) -> dict[str, Tensor]:
    """The results and the gradients of the floating operands, by name."""
    wanted = {name: t for name, t in operands.tensors.items() if isinstance(t, Tensor) and t.requires_grad}
    found = dict(zip(case.spec.results, outs, strict=False))
    if wanted:
        upstreams = [upstream(case, k, out.detach()) for k, out in enumerate(outs)]
        grads = torch.autograd.grad(tuple(outs), tuple(wanted.values()), upstreams, allow_unused=True)
        pairs = zip(wanted.items(), grads, strict=True)
        found |= {"d" + name: torch.zeros_like(t) if grad is None else grad for (name, t), grad in pairs}
    return found


def _errors(name: str, got: Tensor, want: Expected) -> Tensor:
    """The noise is compared bit by bit: an error of 1 where any differs."""
    if name != "eps":
        return measured(got, want)
    kinds = {torch.float64: torch.int64, torch.float32: torch.int32}
    kind = kinds.get(got.dtype, torch.int16)
    return (got.cpu().contiguous().view(kind) != want.truth.contiguous().view(kind)).double()


def _worst(errors: Tensor) -> tuple[float, tuple[int, ...]]:
    """The largest error and its index; 0 and () where there are none."""
    if not errors.numel():
        return 0.0, ()
    at = int(errors.argmax())
    index = torch.unravel_index(torch.tensor(at), errors.shape) if errors.ndim else ()
    return float(errors.reshape(-1)[at]), tuple(int(i) for i in index)


def _failure(
    case: Case,
    operands: Operands,
    name: str,
    index: tuple[int, ...],
    got: Tensor,
    want: Expected,
    worst: float,
    bound: float,
) -> Failure:
    if got.dtype != want.dtype or got.shape != want.truth.shape:
        shown: tuple[float | str, float | str] = (
            f"{got.dtype} of shape {tuple(got.shape)}",
            f"{want.dtype} of shape {tuple(want.truth.shape)}",
        )
        return Failure(case, name, (), {}, *shown, worst, bound, case.command)
    values = _operands_at(case, operands, name, index)
    shown = float(got.detach()[index]), float(want.truth.detach()[index])
    return Failure(case, name, index, values, *shown, worst, bound, case.command)


def _operands_at(case: Case, operands: Operands, name: str, index: tuple[int, ...]) -> dict[str, float]:
    """The operands' values at a result's element: the first of the elements it is summed from."""
    given: dict[str, Any] = dict(operands.tensors)
    given |= {name: v for name, v in operands.factors.items() if name != "noise" and v is not None}
    ndim = max((v.ndim for v in given.values() if isinstance(v, Tensor)), default=0)
    if name == "z":
        index = index[len(case.sample_shape) :]
    elif name in case.spec.results:
        index = index[len(case.sample_shape) :] if case.spec.of_samples else index
        index = (*index, *(0,) * (ndim - len(index)))
    index = (*(0,) * (ndim - len(index)), *index)
    values = {}
    for key, value in given.items():
        if not isinstance(value, Tensor):
            values[key] = float(value)
        elif value.numel():
            at = index[ndim - value.ndim :]
            values[key] = float(
                value.detach()[tuple(i if n > 1 else 0 for i, n in zip(at, value.shape, strict=True))]
            )
    return values
