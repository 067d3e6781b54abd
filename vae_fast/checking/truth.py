"""What a case's results should be: the textbook's formulas in float64 (formulas.py), weighted and summed.

Truths and Σ|terms| are taken element by element; weights, upstream gradients and sums are then the same for both.
Of the package's own there is nothing in it but the noise, which noise.py defines.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vae_fast import noise
from vae_fast.checking import formulas, sample_densities
from vae_fast.checking.cases import Case
from vae_fast.checking.element import Element, Pair
from vae_fast.checking.forms import Array
from vae_fast.checking.operands import Operands
from vae_fast.operators import OPERATORS


class Expected(NamedTuple):
    """A result or gradient: its truth and Σ|terms| (float64), the number of elements added up, its dtype.

    ``outside`` marks where a step of the formula leaves the range of the dtype it is computed in, ``lost`` where
    the rounding of one is larger than all of its numbers, so that no digit of the result is left.
    """

    truth: Tensor
    terms: Tensor
    n: int
    dtype: torch.dtype
    outside: Tensor
    lost: Tensor | None = None


class _Element(NamedTuple):
    """One element's value and slopes by operand, each with its Σ|terms|; all of the broadcast shape.

    ``outside`` marks the elements whose formula has a step beyond the range of the dtype it is computed in.
    """

    value: tuple[Tensor, Tensor]
    slopes: dict[str, tuple[Tensor, Tensor]]
    outside: Tensor


@np.errstate(all="ignore")
def expected(case: Case, operands: Operands, upstreams: dict[str, Tensor]) -> dict[str, Expected]:
    """Every result and gradient of the case by name ("z", "dmu", …), on the CPU.

    ``upstreams`` holds the gradients that reach the results.
    """
    if case.op == "standard_normal":
        eps = _drawn(case, case.shape).to(case.torch_dtype)
        return {"eps": Expected(eps, torch.zeros_like(eps), 1, eps.dtype, torch.zeros_like(eps, dtype=torch.bool))}
    weight = None if operands.weight is None else operands.weight.cpu().double()
    tensors = {name: _wide(value) for name, value in operands.tensors.items()}
    shape = torch.broadcast_shapes(
        *(t.shape for t in tensors.values()), *(() if weight is None else [weight.shape])
    )
    full = {name: t.expand(shape) for name, t in tensors.items()}
    ups = {name: g.detach().cpu().double() for name, g in upstreams.items()}
    results: dict[str, Expected] = {}
    grads: dict[str, tuple[Tensor, Tensor]] = {}
    outside = torch.zeros((), dtype=torch.bool)
    if case.spec.of_samples:
        results, grads, outside = _of_samples(case, full, operands.noise, ups)
    elif case.sampled:
        given = operands.noise
        eps = _drawn(case, shape) if given is None else given.cpu()
        sample = _sample(case, full, eps.double().numpy())
        outside = sample.outside
        results["z"] = Expected(*sample.value, 1, case.torch_dtype, outside.expand(sample.value[0].shape))
        g = ups["z"]
        grads = {name: (g * slope, g.abs() * terms) for name, (slope, terms) in sample.slopes.items()}
    if (name := case.density) and not case.spec.of_samples:
        if operands.pos_weight is not None:
            full["pos_weight"] = operands.pos_weight.cpu().double().expand(shape)
        element = _term(case, full, shape)
        hidden = None if weight is None else weight.expand(shape) == 0
        w = torch.ones(()) if weight is None else weight
        n_data = math.prod(shape[: len(shape) - case.event_ndim])
        factor = case.factor / (n_data if n_data else math.nan) if case.reduction == "mean" else case.factor
        value, terms = (_reduced(case, _seen(v, hidden) * w) * factor for v in element.value)
        count = math.prod(shape) if case.reduction != "none" else math.prod(shape[len(shape) - case.event_ndim :])
        beyond = _reduced(case, element.outside.double().expand(shape)) > 0
        results[name] = Expected(value, terms.abs(), count, case.compute_dtype, beyond)
        outside = outside | element.outside
        g = ups[name]
        g = (g.reshape((*g.shape, *(1,) * case.event_ndim)) if case.reduction == "none" else g) * factor * w
        for operand, (slope, terms) in element.slopes.items():
            from_z = grads.get(operand)
            whole = (_seen(slope, hidden) * g, _seen(terms, hidden) * g.abs())
            if case.softmax and operand == "mean":
                grads["log_library"] = whole
                whole = _by_logits(case, full["mean"], whole)
            grads[operand] = (
                whole
                if from_z is None
                else (from_z[0] + _shared(case, whole[0]), from_z[1] + _shared(case, whole[1]))
            )
    for operand, (grad, terms) in grads.items():
        given = operands.tensors.get(operand)
        if isinstance(given, Tensor) and given.is_floating_point():
            grad, terms = (v.expand(torch.broadcast_shapes(v.shape, shape)) for v in (grad, terms))
            count = grad.numel() // max(1, given.numel())
            beyond = outside.double().expand(grad.shape).sum_to_size(given.shape) > 0
            grad, terms = grad.sum_to_size(given.shape), terms.sum_to_size(given.shape)
            lost = _lost(case, terms) if case.spec.of_samples else None
            results["d" + operand] = Expected(grad, terms, count, given.dtype, beyond, lost)
    return results


def _of_samples(
    case: Case, t: dict[str, Tensor], noise: Tensor | None, ups: dict[str, Tensor]
) -> tuple[dict[str, Expected], dict[str, tuple[Tensor, Tensor]], Tensor]:
    """The results of a sample and its densities, gradients before they are summed, and what is out of range."""
    shape = t["mu"].shape
    eps = (_drawn(case, shape) if noise is None else noise.cpu()).double().numpy()
    mu, raw, *prior = (t[name].numpy() if name in t else None for name in OPERATORS[case.op].differentiable)
    path = "path" in case.options
    elements = sample_densities.sample_log_prob(case.forms, eps, mu, raw, *prior, path=path)
    results: dict[str, Expected] = {}
    grads: dict[str, tuple[Tensor, Tensor]] = {}
    outside = torch.zeros((), dtype=torch.bool)
    for name, of_numbers in elements._asdict().items():
        element = _tensors(case, of_numbers, eps.shape)
        value, g, beyond = element.value, ups[name], element.outside.expand(eps.shape)
        n, dtype = 1, case.torch_dtype
        if name != "z":
            n, dtype = math.prod(shape[len(shape) - case.event_ndim :]), case.compute_dtype
            value = _reduced(case, value[0]), _reduced(case, value[1])
            beyond = _reduced(case, beyond.double()) > 0
            g = g.reshape((*g.shape, *(1,) * case.event_ndim))
        results[name] = Expected(*value, n, dtype, beyond, _lost(case, value[1]))
        outside = outside | element.outside
        for operand, (slope, terms) in element.slopes.items():
            before = grads.get(operand, (torch.zeros(()), torch.zeros(())))
            grads[operand] = before[0] + g * slope, before[1] + g.abs() * terms
    return results, grads, outside


def _lost(case: Case, terms: Tensor) -> Tensor:
    return terms > torch.finfo(case.compute_dtype).max


def _wide(value: Tensor | float) -> Tensor:
    return value.detach().cpu().double() if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64)


def _seen(value: Tensor, hidden: Tensor | None) -> Tensor:
    """``value`` with 0 where the weight is 0, whatever the operands are there."""
    return value if hidden is None else torch.where(hidden, 0.0, value)


def _reduced(case: Case, value: Tensor) -> Tensor:
    if case.reduction != "none":
        return value.sum()
    return value.sum(tuple(range(-case.event_ndim, 0))) if case.event_ndim else value


def _shared(case: Case, value: Tensor) -> Tensor:
    """What does not depend on the sample, as a share of each sample, whose sum it is."""
    return value / math.prod(case.sample_shape)


def _drawn(case: Case, shape: torch.Size | tuple[int, ...]) -> Tensor:
    """ε in float32, whose bits are the noise's definition."""
    return noise.normals(case.sample_shape, shape, case.seed, None, *case.counted, torch.device("cpu"))


# ---- elements ----------------------------------------------------------------------------------------------


def _tensors(case: Case, element: Element, shape: torch.Size | tuple[int, ...]) -> _Element:
    """The formula's arrays as tensors of the whole shape."""

    def whole(pair: Pair) -> tuple[Tensor, Tensor]:
        first, second = (torch.from_numpy(np.array(np.broadcast_to(v, shape), dtype=np.float64)) for v in pair)
        return first, second

    slopes = {name: whole(pair) for name, pair in element.slopes.items()}
    largest = torch.finfo(case.compute_dtype).max
    outside = np.array(False)
    for step in element.steps:
        outside = outside | np.asarray(abs(step) > largest)
    return _Element(whole(element.value), slopes, torch.from_numpy(np.array(outside)))


def _sample(case: Case, t: dict[str, Tensor], eps: Array) -> _Element:
    element = formulas.sample(case.form, t["mu"].numpy(), t["logvar"].numpy(), eps, case.temperature)
    return _tensors(case, element, eps.shape)


def _term(case: Case, t: dict[str, Tensor], shape: torch.Size) -> _Element:
    weighted = ["pos_weight"] if "pos_weight" in t else []
    formula: Callable[..., Element] = (
        formulas.bernoulli_of_probs
        if case.probs
        else formulas.bernoulli_weighted
        if weighted
        else formulas.DENSITIES[case.op]
    )
    options = {option.name for option in OPERATORS[case.op].options}
    counted: dict[str, Any] = case.by_logarithm if case.location_scale else {}
    if case.counted_data:
        counted = case.by_logarithm | {"eps": case.form.eps}
    forms = case.forms if "prior" in case.options else case.form
    form = [forms] if "param_eps" in options else []
    scaled = {"x_scale": case.x_scale} if "x_scale" in options else {}
    off = torch.ones(())
    if case.softmax:
        log_mean, off = _log_mean(case, t)
        t = t | {"mean": log_mean}
    arrays = (t[name].numpy() for name in (*case.operands, *weighted) if name != "log_library")
    element = _tensors(case, formula(*form, *arrays, **scaled, **counted), shape)
    if case.softmax:
        slopes = {name: (slope, terms * off) for name, (slope, terms) in element.slopes.items()}
        element = element._replace(value=(element.value[0], element.value[1] * off), slopes=slopes)
    return element if case.free_bits is None else _floored(case, element, case.free_bits)


def _over_event(case: Case, value: Tensor, f: Callable[..., Tensor]) -> Tensor:
    """Of a function of rows, an event each."""
    return f(value.flatten(-case.event_ndim), -1).reshape(value.shape)


def _log_mean(case: Case, t: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """log μ = log_library + log softmax of the logits; and by how much more than a unit what is made of it is off.

    It is a sum of rounded numbers, each of which is off by half a unit of its size.
    """
    log_shares, library = _over_event(case, t["mean"], torch.log_softmax), t.get("log_library", torch.zeros(()))
    return log_shares + library, 1 + (log_shares.abs() + library.abs()) / 2


def _by_logits(case: Case, logits: Tensor, by_log: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """A gradient by the logarithms of shares, and its terms, as those by the logits: less each share of the sum."""
    shares, events = _over_event(case, logits, torch.softmax), tuple(range(-case.event_ndim, 0))
    grad, terms = (value.expand(shares.shape) for value in by_log)
    return grad - shares * grad.sum(events, keepdim=True), terms + shares * terms.sum(events, keepdim=True)


def _floored(case: Case, element: _Element, floor: float) -> _Element:
    """max(KL, floor), without slopes at the floor and below it."""
    value, terms = element.value
    # So near the floor that rounding decides on which side: either gradient is right.
    eps = torch.finfo(case.compute_dtype).eps
    near, below = (value - floor).abs() <= 8 * eps * terms, value <= floor
    slopes = {
        name: (torch.where(below, 0.0, slope), torch.where(near, size + slope.abs() / eps, size))
        for name, (slope, size) in element.slopes.items()
    }
    return _Element((torch.clamp(value, min=floor), terms.clamp(min=floor)), slopes, element.outside)
