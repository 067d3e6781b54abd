"""How far a result is from its truth, in units of its dtype, and how far it may be.

Results are tensors; truths are arrays of float64, or of numbers in more digits (formulas.py).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from vae_fast.checking.cases import Case
from vae_fast.checking.forms import Array, Form
from vae_fast.checking.formulas import Forms
from vae_fast.checking.truth import Expected

# What adding up n terms in float32 tiles may cost, as a share of Σ|terms|, is this times 1 + log2 n.
SUM = 1e-7

# What a term of half types may be off by on a GPU, and a gradient before it is rounded, as a share of Σ|terms|.
LIGHT = 1e-5

_to_float = np.frompyfunc(float, 1, 1)


def as_float(values: Array) -> Array:
    """As float64."""
    values = np.asarray(values)
    return values if values.dtype == np.float64 else np.asarray(_to_float(values), np.float64)


def _first_beyond(dtype: torch.dtype) -> float:
    """Half the power of two that follows the largest number of the dtype: 2¹⁰²⁴ is no float64."""
    return math.ldexp(1.0, math.frexp(torch.finfo(dtype).max)[1] - 1)


def spacing(truth: Array, dtype: torch.dtype) -> Array:
    """The distance between neighbouring numbers of the dtype at each truth."""
    info = torch.finfo(dtype)
    with np.errstate(all="ignore"):
        _, exponent = np.frexp(np.abs(as_float(truth)))
    smallest, largest = np.frexp(info.tiny)[1], np.frexp(info.max)[1]
    return np.ldexp(info.eps, np.clip(exponent, smallest, largest) - 1)


def units(terms: Array, dtype: torch.dtype) -> Array:
    """ε·Σ|terms|, which underflow makes no smaller than the smallest number of the dtype."""
    info = torch.finfo(dtype)
    with np.errstate(all="ignore"):
        terms = np.where(terms != terms, 0.0, terms)
        return info.eps * np.minimum(terms, 2 * info.max) + info.smallest_normal * info.eps


def error(result: Tensor, truth: Array, unit: Array, dtype: torch.dtype | None = None) -> Array:
    """|result − truth| in ``unit``s, as float64 of the truth's shape.

    Infinity counts as the power of two that follows the largest finite number of the dtype (the result's own where
    not given), on both sides: an overflow where the truth overflows is no error, and one just below it costs what
    the truth lacks to that number. NaN is right where the truth is NaN, and infinitely wrong elsewhere.
    """
    first = _first_beyond(dtype or result.dtype)
    with np.errstate(all="ignore"):
        values = result.detach().double().cpu().numpy().reshape(np.shape(truth))
        both_nan = np.isnan(values) & np.asarray(truth != truth, bool)
        # Halved.
        values, halved = np.clip(values / 2, -first, first), np.clip(truth / 2, -first, first)
        difference = np.abs(values - halved)
        errors = as_float(np.where(difference == 0, 0.0, difference / unit * 2))
        return np.where(both_nan, 0.0, np.where(np.isnan(errors), np.inf, errors))


def measured(got: Tensor, want: Expected) -> Tensor:
    """A case's error in units of ε·Σ|terms|, ε of the expected dtype.

    Where a step of the formula is out of range (``outside``), infinity, NaN and 0 are what IEEE arithmetic makes of
    it.
    """
    unit = units(want.terms.double().numpy(), want.dtype)
    errors = torch.from_numpy(error(got, want.truth.double().numpy(), unit, want.dtype))
    got = got.detach().cpu()
    errors = torch.where(want.outside & (~got.isfinite() | (got == 0)), 0.0, errors)
    return errors if want.lost is None else torch.where(want.lost, 0.0, errors)


def density_bar(form: Form | Forms, by_scale: bool = False) -> float:
    """The units of ε·Σ|terms| that a Gaussian's density, or a gradient of it, may be off by.

    3; a σ that is a softplus, or has ``param_eps`` added, is rounded before it is used and may itself be 2 units
    off: what goes with σ² is then 4 further off, a gradient by σ's argument (``by_scale``), which goes with σ³, 6.
    """
    return 3.0 + (6.0 if by_scale else 4.0) * form.rounded


def count_bar(by_logarithm: bool) -> float:
    """The same of a count's density, or one of a location and a scale: 4; 2 more for a parameter's exponential."""
    return 6.0 if by_logarithm else 4.0


def _is_light(case: Case) -> bool:
    """Whether a GPU's formulas for half types may serve."""
    half = case.torch_dtype.itemsize == torch.float16.itemsize
    return half and (case.backend == "triton" or (case.backend == "native" and case.device != "cpu"))


def bar(case: Case, name: str, want: Expected) -> float:
    """The largest error allowed of a case's result: 2 units for z, 3 for all else, and what adding up may cost.

    To ``density_bar`` comes, where σ² is not the exponential of its argument, a quotient and a product in the
    gradient by it, each rounded by half a unit; so is every product of a gradient with an upstream gradient, a
    weight, or the 1/n of a mean. A float32 result of half types is off by ``LIGHT`` on a GPU. The truth of a
    float64 result is itself float64: twice the bar.
    """
    if name == "eps":
        return 0.0
    by_scale = name.endswith("logvar")
    forms = case.forms if "prior" in case.options else Forms(case.form, case.form)
    if name == "z":
        bound = 2.0
    else:
        bound = density_bar(forms, by_scale) if case.density and not case.counted_data else 3.0
    if case.counted_data or case.location_scale:
        bound = count_bar(any(case.by_logarithm.values()))
    if name not in case.spec.results:
        bound += 0.5 * ((case.inputs == "ordinary") + case.weighted + (case.reduction == "mean"))
        if by_scale and not (forms.own.logarithmic and forms.prior.logarithmic):
            bound += 1.0
    if _is_light(case) and want.dtype == torch.float32:
        bound = max(bound, LIGHT / torch.finfo(want.dtype).eps)
    if want.n > 1:
        share = 1.0 if want.dtype == torch.float64 else SUM / torch.finfo(want.dtype).eps
        bound += share * (1 + math.log2(want.n))
    return 2 * bound if want.dtype == torch.float64 else bound
