"""What the count densities' public functions check of their data."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_INTEGERS = (torch.int8, torch.int16, torch.int32, torch.int64)


def counts(x: Any) -> Any:
    """Counts of any integer dtype as numbers that kernels read: float32, and float64 where that would round one."""
    if not isinstance(x, Tensor):
        return x
    if x.dtype in _INTEGERS:
        return x.to(torch.float64 if x.dtype == torch.int64 else torch.float32)
    return x.detach() if x.requires_grad else x


def whole(x: Tensor) -> None:
    """Raises ValueError unless every x is a count."""
    values = x.detach().double()
    if not bool(((values >= 0) & (values == values.floor()) & values.isfinite()).all()):
        raise ValueError("x has values that are no counts: negative, fractional, infinite or NaN")


def positive(name: str, values: Tensor) -> None:
    if not bool((values.detach() > 0).all()):
        raise ValueError(f"{name} has values that are not positive")
