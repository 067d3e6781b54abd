"""What a case's results should be: the reference's formulas in float64, and what an error is measured against.

Every truth stands beside Σ|terms|, the sum of the absolute values of what is added up to it: rounding errors are
proportional to it, not to the result, which may cancel. Terms and slopes are taken element by element; weights,
upstream gradients and sums are then the same for both.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from vae_fast import reference
from vae_fast.checking.cases import Case
from vae_fast.checking.operands import Operands
from vae_fast.reference.bernoulli_log_prob import LOGITS, PROBS
from vae_fast.reference.densities import MEAN, NONE, compute_dtype
from vae_fast.reference.formulas import half_expm1, half_expm1_minus, standardised


class Expected(NamedTuple):
    """A result or gradient: its truth and Σ|terms| (float64), the number of elements added up, its dtype.

    ``outside`` marks where a step of the formula leaves the range of the dtype it is computed in.
    """

    truth: Tensor
    terms: Tensor
    n: int
    dtype: torch.dtype
    outside: Tensor


class _Element(NamedTuple):
    """One element's value and slopes by operand, each with its Σ|terms|; all of the broadcast shape.

    ``outside`` marks the elements whose formula has a step beyond the range of the dtype it is computed in.
    """

    value: tuple[Tensor, Tensor]
    slopes: dict[str, tuple[Tensor, Tensor]]
    outside: Tensor


def expected(case: Case, operands: Operands, upstreams: dict[str, Tensor]) -> dict[str, Expected]:
    """Every result and gradient of the case by name ("z", "dmu", …), on the CPU.

    ``upstreams`` holds the gradients that reach the results.
    """
    if case.op == "standard_normal":
        eps = _noise(case, case.shape).to(case.torch_dtype)
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
    if case.op in ("rsample", "rsample_kl"):
        sample = _sample(case, full, shape)
        outside = sample.outside
        results["z"] = Expected(*sample.value, 1, case.torch_dtype, outside.expand(sample.value[0].shape))
        g = ups["z"]
        grads = {name: (g * slope, g.abs() * terms) for name, (slope, terms) in sample.slopes.items()}
    if case.op != "rsample":
        name = case.spec.results[-1]
        element = _ELEMENTS[case.op](case, full)
        hidden = None if weight is None else weight.expand(shape) == 0
        w = torch.ones(()) if weight is None else weight
        n_data = math.prod(shape[: len(shape) - case.event_ndim])
        factor = case.factor / (n_data if n_data else math.nan) if case.reduction == MEAN else case.factor
        value, terms = (_reduced(case, _seen(v, hidden) * w) * factor for v in element.value)
        count = math.prod(shape) if case.reduction != NONE else math.prod(shape[len(shape) - case.event_ndim :])
        beyond = _reduced(case, element.outside.double().expand(shape)) > 0
        results[name] = Expected(value, terms.abs(), count, compute_dtype(case.torch_dtype), beyond)
        outside = outside | element.outside
        g = ups[name]
        g = (g.reshape((*g.shape, *(1,) * case.event_ndim)) if case.reduction == NONE else g) * factor * w
        for operand, (slope, terms) in element.slopes.items():
            from_z = grads.get(operand)
            whole = (_seen(slope, hidden) * g, _seen(terms, hidden) * g.abs())
            grads[operand] = (
                whole
                if from_z is None
                else (from_z[0] + _shared(case, whole[0]), from_z[1] + _shared(case, whole[1]))
            )
    for operand, (grad, terms) in grads.items():
        given = operands.tensors[operand]
        if isinstance(given, Tensor) and given.is_floating_point():
            grad, terms = (v.expand(torch.broadcast_shapes(v.shape, shape)) for v in (grad, terms))
            count = grad.numel() // max(1, given.numel())
            beyond = outside.double().expand(grad.shape).sum_to_size(given.shape) > 0
            grad, terms = grad.sum_to_size(given.shape), terms.sum_to_size(given.shape)
            results["d" + operand] = Expected(grad, terms, count, given.dtype, beyond)
    return results


def _wide(value: Tensor | float) -> Tensor:
    return value.detach().cpu().double() if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64)


def _beyond(case: Case, *values: Tensor) -> Tensor:
    """Where a σ that is sampled with, or a difference of finite numbers, is beyond the dtype it is computed in."""
    largest = torch.finfo(compute_dtype(case.torch_dtype)).max
    found = torch.zeros((), dtype=torch.bool)
    for value in values:
        found = found | (value.abs() > largest)
    return found


def _seen(value: Tensor, hidden: Tensor | None) -> Tensor:
    """``value`` with 0 where the weight is 0, whatever the operands are there."""
    return value if hidden is None else torch.where(hidden, 0.0, value)


def _reduced(case: Case, value: Tensor) -> Tensor:
    if case.reduction != NONE:
        return value.sum()
    return value.sum(tuple(range(-case.event_ndim, 0))) if case.event_ndim else value


def _shared(case: Case, value: Tensor) -> Tensor:
    """What does not depend on the sample, as a share of each sample, whose sum it is."""
    return value / math.prod(case.sample_shape)


def _noise(case: Case, shape: torch.Size | tuple[int, ...]) -> Tensor:
    offset, first_sample = case.noise
    device = torch.device("cpu")
    samples = case.sample_shape
    return reference.KERNELS.standard_normal_fwd(
        samples, shape, case.seed, None, offset, first_sample, torch.float32, device
    )


def _all(grads: tuple[Tensor | None, ...]) -> list[Tensor]:
    """The gradients that were asked for."""
    return [grad for grad in grads if grad is not None]


# ---- the operators -----------------------------------------------------------------------------------------


def _sample(case: Case, t: dict[str, Tensor], shape: torch.Size) -> _Element:
    """z = μ + σε with |μ| + |σε|, and its slopes 1 and ε·dσ/dr."""
    form, raw = case.form, t["logvar"]
    eps, r = _noise(case, shape).double(), form.clamp(raw)
    step, ones = form.sigma(r) * eps, torch.ones_like(eps)
    slope = form.inside(raw, form.dsigma(r) * eps)
    slopes = {"mu": (ones, ones), "logvar": (slope, slope.abs())}
    return _Element((t["mu"] + step, t["mu"].abs() + step.abs()), slopes, _beyond(case, form.sigma(r)))


def _kl(case: Case, t: dict[str, Tensor]) -> _Element:
    """Terms ½(μ−μp)²/σp² and ½(e^d − 1 − d), d = log σ²/σp²; slopes (μ−μp)/σp², ½(e^d − 1) and both together.

    Where σ itself, not its logarithm, is the argument, it is rounded before the second is small: the terms are
    then ½e^d, ½, ½|log σ²| and ½|log σp²|.
    """
    form = case.form
    operands = (t["mu"], t["logvar"], t.get("prior_mu"), t.get("prior_logvar"))
    has_prior = operands[2] is not None
    options = (0, NONE, 1.0, case.free_bits, *form)
    wanted = (True, True, has_prior, has_prior, False)
    value, *_ = reference.KERNELS.gaussian_kl_fwd(*operands, None, *options, False, False, False, False)
    slopes = _all(reference.KERNELS.gaussian_kl_bwd(torch.ones_like(value), *operands, None, *options, *wanted))

    r = form.clamp(t["logvar"])
    if has_prior:
        prior_r = form.clamp(t["prior_logvar"])
        half_square, dmean, _ = standardised(t["mu"] - t["prior_mu"], form, prior_r)
        log_vars = form.log_var(r), form.log_var(prior_r)
        d = log_vars[0] - log_vars[1]
    else:
        half_square, dmean = 0.5 * t["mu"] * t["mu"], t["mu"]
        d = form.log_var(r)
        log_vars = (d, torch.zeros_like(d))
    outside = _beyond(case, t["mu"] - t["prior_mu"]) if has_prior else _beyond(case)
    growth = half_expm1(d)
    if form.logarithmic:
        spread, growth = half_expm1_minus(d), growth.abs()
    else:
        growth = growth + 1.0
        spread = growth + 0.5 * sum(v.abs() for v in log_vars)
    terms = half_square + spread
    by_mean, by_scale = dmean.abs(), growth * form.dlog_var(r).abs()
    sizes = [by_mean, by_scale]
    if has_prior:
        sizes += [by_mean, (half_square + growth) * form.dlog_var(prior_r).abs()]
    if case.free_bits is not None:
        # So near the floor that rounding decides on which side: either gradient is right.
        eps = torch.finfo(compute_dtype(case.torch_dtype)).eps
        near = (value - case.free_bits).abs() <= 8 * eps * terms
        without_floor = reference.KERNELS.gaussian_kl_bwd(
            torch.ones_like(value), *operands, None, *options[:3], None, *form, *wanted
        )
        sizes = [
            torch.where(near, size + slope.abs() / eps, size)
            for size, slope in zip(sizes, _all(without_floor), strict=True)
        ]
        terms = terms.clamp(min=case.free_bits)
    found = zip(case.operands, slopes, sizes, strict=True)
    return _Element((value, terms), {name: (slope, size) for name, slope, size in found}, outside)


def _bernoulli(case: Case, t: dict[str, Tensor]) -> _Element:
    """Terms |y|·w and log1p(e^−|y|), w = y > 0 ? 1 − t : t; slopes t − σ(y), of terms w and σ(−|y|), and y.

    A target that is a product with ``x_scale`` has a rounding of its own, of size t.
    """
    if case.probs:
        return _bernoulli_of_probs(case, t)
    y, x = t["logits"], t["x"]
    options = (0, NONE, 1.0, case.x_scale, LOGITS)
    value, *_ = reference.KERNELS.bernoulli_log_prob_fwd(y, x, None, *options, False, False)
    dlogits, dx = _all(
        reference.KERNELS.bernoulli_log_prob_bwd(torch.ones_like(value), y, x, None, *options, True, True, False)
    )
    target, size = x * case.x_scale, y.abs()
    wrong = torch.where(y > 0, 1.0 - target, target)
    if case.x_scale != 1.0:
        wrong = wrong + target
    certain = torch.where((wrong == 0) & torch.isinf(size), 0.0, size)
    e = torch.exp(-size)
    terms = certain * wrong + torch.log1p(e)
    slopes = {"logits": (dlogits, wrong + e / (1.0 + e)), "x": (dx, dx.abs())}
    return _Element((value, terms), slopes, _beyond(case))


def _bernoulli_of_probs(case: Case, t: dict[str, Tensor]) -> _Element:
    """Terms t·|log p| and (1 − t)·|log(1 − p)|, clamped; slopes (t − p)/max(p(1 − p), 1e-12) and the logs' own.

    t − p is rounded once. A target that is a product with ``x_scale`` has a rounding of its own, of size t.
    """
    p, x = t["logits"], t["x"]
    options = (0, NONE, 1.0, case.x_scale, PROBS)
    value, *_ = reference.KERNELS.bernoulli_log_prob_fwd(p, x, None, *options, False, False)
    ones = torch.ones_like(value)
    dp, dx = _all(reference.KERNELS.bernoulli_log_prob_bwd(ones, p, x, None, *options, True, True, False))
    target, log_p, log_q = x * case.x_scale, torch.log(p), torch.log1p(-p)
    by_target = target if case.x_scale != 1.0 else torch.zeros_like(target)
    size_p, size_q = (-log.clamp(min=-100.0) for log in (log_p, log_q))
    terms = target * size_p + (1.0 - target + by_target) * size_q
    slopes = {
        "logits": (dp, dp.abs() + by_target / (p * (1.0 - p)).clamp(min=1e-12)),
        "x": (dx, (size_p + size_q) * case.x_scale),
    }
    return _Element((value, terms), slopes, _beyond(case))


def _gaussian(case: Case, t: dict[str, Tensor]) -> _Element:
    """Terms ½|log σ²|, ½log 2π and ½((x−m)/σ)²; slopes (x−m)/σ² and ½(((x−m)/σ)² − 1)·d log σ²/dr.

    Data that are a product with ``x_scale`` have a rounding of their own, of size |x|.
    """
    form, raw = case.form, t["logvar"]
    operands, options = (t["mean"], raw, t["x"], None), (0, NONE, 1.0, case.x_scale, *form)
    value, *_ = reference.KERNELS.gaussian_log_prob_fwd(*operands, *options, False, False, False)
    ones = torch.ones_like(value)
    slopes = _all(reference.KERNELS.gaussian_log_prob_bwd(ones, *operands, *options, True, True, True, False))
    r, x = form.clamp(raw), t["x"] * case.x_scale
    half_square, dmean, _ = standardised(x - t["mean"], form, r)
    by_mean, square = dmean.abs(), half_square
    if case.x_scale != 1.0:
        by_mean = by_mean + x.abs() * form.inv_var(r)
        square = square + (x * dmean).abs()
    terms = square + 0.5 * (form.log_var(r).abs() + math.log(2 * math.pi))
    sizes = (by_mean, (square + 0.5) * form.dlog_var(r).abs(), by_mean * case.x_scale)
    found = zip(case.operands, slopes, sizes, strict=True)
    outside = _beyond(case, x - t["mean"])
    return _Element((value, terms), {name: (slope, size) for name, slope, size in found}, outside)


_ELEMENTS = {
    "rsample_kl": _kl,
    "gaussian_kl": _kl,
    "bernoulli_log_prob": _bernoulli,
    "gaussian_log_prob": _gaussian,
}
