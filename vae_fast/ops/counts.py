"""What the count densities' public functions check of their data."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def constant(x: Any) -> Any:
    """Data without a gradient."""
    return x.detach() if isinstance(x, Tensor) and x.requires_grad else x


def whole(x: Tensor) -> None:
    """Raises ValueError unless every x is a count."""
    values = x.detach().double()
    if not bool(((values >= 0) & (values == values.floor()) & values.isfinite()).all()):
        raise ValueError("x has values that are no counts: negative, fractional, infinite or NaN")


def positive(name: str, values: Tensor) -> None:
    if not bool((values.detach() > 0).all()):
        raise ValueError(f"{name} has values that are not positive")
