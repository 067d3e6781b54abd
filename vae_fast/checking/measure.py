"""How far a result is from its truth, in units of ε·Σ|terms|, and how far it may be."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vae_fast.checking.cases import Case
from vae_fast.checking.truth import Expected
from vae_fast.reference.densities import MEAN
from vae_fast.sigma import SOFTPLUS

# What adding up n terms in float32 tiles may cost, as a share of Σ|terms|, is this times 1 + log2 n.
_SUM = 1e-7
_SMALLEST = 5e-324


def error(got: Tensor, want: Expected) -> Tensor:
    """|got − truth| in units of ε·Σ|terms|, ε of the expected dtype, plus that dtype's smallest number.

    Infinity counts as the power of two that follows the dtype's largest number, on both sides: overflow is right
    where the truth overflows. NaN is right where the truth is NaN, and infinitely wrong elsewhere. Where a step of
    the formula is out of range (``outside``), infinity and NaN are what IEEE arithmetic makes of it.
    """
    info = torch.finfo(want.dtype)
    first = math.ldexp(1.0, math.frexp(info.max)[1] - 1)
    # All is halved: 2¹⁰²⁴ is no float64.
    value = (0.5 * got.detach().cpu().double()).clamp(-first, first)
    truth = (0.5 * want.truth.double()).clamp(-first, first)
    unit = info.eps * (0.5 * want.terms.double()).nan_to_num(nan=0.0).clamp(max=first)
    unit = unit + max(0.5 * info.smallest_normal * info.eps, _SMALLEST)
    errors = torch.where(value == truth, 0.0, (value - truth).abs() / unit)
    right = (value.isnan() & truth.isnan()) | (want.outside & ~got.detach().cpu().isfinite())
    return torch.where(right, 0.0, errors.nan_to_num(nan=math.inf))


def bar(case: Case, name: str, want: Expected) -> float:
    """The largest error allowed, in the same units: 2 for z, 3 for all else, and what adding up may cost.

    A σ that is a softplus, or has ``param_eps`` added, is rounded before it is used and may itself be 2 units off:
    what goes with σ² is then 4 further off, a gradient by σ's argument, which goes with σ³, 6. Where σ² is not the
    exponential of its argument, the gradient by it has a quotient and a product more, each rounded by half a unit;
    so is every product of a gradient with an upstream gradient, a weight, or the 1/n of a mean. The truth of a
    float64 result is itself float64: twice the bar.
    """
    if name == "eps":
        return 0.0
    bound = 2.0 if name == "z" else 3.0
    rounded = case.form.kind == SOFTPLUS or case.form.eps != 0
    if rounded and case.op not in ("rsample", "bernoulli_log_prob") and name != "z":
        bound += 6.0 if name.endswith("logvar") else 4.0
    if name not in case.spec.results:
        factors = (case.inputs == "ordinary") + case.weighted + (case.reduction == MEAN)
        bound += 0.5 * factors
        if name.endswith("logvar") and not case.form.logarithmic:
            bound += 1.0
    if want.n > 1:
        share = 1.0 if want.dtype == torch.float64 else _SUM / torch.finfo(want.dtype).eps
        bound += share * (1 + math.log2(want.n))
    return 2 * bound if want.dtype == torch.float64 else bound
