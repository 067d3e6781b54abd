"""What of σ's parametrisation, the posterior's and the prior's, a kernel is compiled for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vae_fast.sigma import LOGSTD, LOGVAR, PASS

# The form of log σ² in calls whose operands with dims are all of half types: their formulas are light.py's.
LIGHT = -2

# What bounds do: nothing, clamp with no gradient outside, clamp with the gradient at the bound.
FREE, STOPPING, PASSING = range(3)

# A prior's second argument in the posterior's form and bounds; or in its form, and bounds of its own.
ALIKE: tuple[()] = ()
SAME = -1


def _bounds_of(low: float, high: float, bounds_grad: int) -> int:
    if low == -math.inf and high == math.inf:
        return FREE
    return PASSING if bounds_grad == PASS else STOPPING


def are_half(parameters: Sequence[Tensor | None], others: Sequence[Tensor | None] = ()) -> bool:
    """Whether all parameters with dims are of one half type, and others with dims of any, or bytes."""
    dtypes = {t.dtype for t in parameters if t is not None and t.ndim}
    if len(dtypes) != 1 or dtypes.pop().itemsize != torch.float16.itemsize:
        return False
    return all([t is None or not t.ndim or t.element_size() <= torch.float16.itemsize for t in others])


def form_of(options: Any, light: bool = False) -> tuple[int, bool, int]:
    """The posterior's form, whether it has an eps, and what its bounds do. ``light``: ``LIGHT``, if it is plain."""
    if light and is_plain(options):
        return LIGHT, False, FREE
    return options.param, options.param_eps != 0.0, _bounds_of(options.low, options.high, options.bounds_grad)


def is_plain(options: Any) -> bool:
    """Whether log σ² is the argument itself, without bounds."""
    if options.param != LOGVAR or options.param_eps != 0.0:
        return False
    return bool(options.low == -math.inf and options.high == math.inf)


def are_plain(options: Any) -> bool:
    """Whether that holds for the prior too."""
    return is_plain(options) and prior_form_of(options) == ALIKE


def prior_form_of(options: Any) -> tuple[Any, ...]:
    """The prior's form (``SAME``, with its eps, as the posterior's), eps, bounds and what they do; or ``ALIKE``.

    Numbers that a kernel is compiled for: as arguments they would make every launch longer.
    """
    o = options
    same = o.prior_param == o.param and o.prior_param_eps == o.param_eps
    if same and o.prior_low == o.low and o.prior_high == o.high:
        return ALIKE
    form, eps = (SAME, 0.0) if same else (o.prior_param, o.prior_param_eps)
    return form, eps, o.prior_low, o.prior_high, _bounds_of(o.prior_low, o.prior_high, o.bounds_grad)


def parts_of(options: Any, prior_logvar: Any) -> int:
    """In how many parts a tile of a KL is taken: two, to a prior whose σ, or σ itself, is no exponential."""
    o = options
    if prior_logvar is None:
        return 1
    forms = ((o.param, o.param_eps), (o.prior_param, o.prior_param_eps))
    return 2 if any([form not in (LOGVAR, LOGSTD) or eps != 0.0 for form, eps in forms]) else 1
