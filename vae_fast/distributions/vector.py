"""What the drop-in distributions share: the trailing dims of their parameters are one event."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.distributions import Distribution

_INTEGERS = (torch.int8, torch.int16, torch.int32, torch.int64)

Self = TypeVar("Self", bound="Vector")


class Vector(Distribution):
    """Independent elements, of which the last ``event_ndim`` dims are one event."""

    event_ndim: int
    _validate_args: bool

    def __init__(self, shape: Sequence[int], event_ndim: int, validate_args: bool | None) -> None:
        self.event_ndim = event_ndim
        data = len(shape) - event_ndim
        super().__init__(torch.Size(shape[:data]), torch.Size(shape[data:]), validate_args=validate_args)

    def _expand_to(self, shape: torch.Size, like: Vector) -> None:
        """The rest of ``expand``, once the parameters are in place."""
        Vector.__init__(self, shape, like.event_ndim, validate_args=False)
        self._validate_args = like._validate_args

    def to_event(self: Self, reinterpreted_batch_ndims: int | None = None) -> Self:
        """The same elements with more dims in an event, or fewer.

        What ``Independent(d, n)`` is to ``d``, in one distribution.

        Args:
            reinterpreted_batch_ndims: how many more; 0 gives ``d`` itself. None: all of them.

        Returns:
            A distribution of the same class, with the same parameters.

        Raises:
            ValueError: there are not as many dims.
        """
        n = len(self.batch_shape) if reinterpreted_batch_ndims is None else reinterpreted_batch_ndims
        if n == 0:
            return self
        shape = self.batch_shape + self.event_shape
        event_ndim = self.event_ndim + n
        if not 0 <= event_ndim <= len(shape):
            raise ValueError(f"to_event({n}) does not fit event_ndim={self.event_ndim} of shape {tuple(shape)}")
        new = copy.copy(self)
        new.event_ndim = event_ndim
        data = len(shape) - event_ndim
        new._batch_shape, new._event_shape = shape[:data], shape[data:]
        return new


def floating_value(value: Any, dtype: torch.dtype) -> Any:
    """A value as the operators take it: integers, which torch.distributions takes too, in ``dtype``."""
    return value.to(dtype) if isinstance(value, Tensor) and value.dtype in _INTEGERS else value


def as_distributions_broadcast(value: Tensor, *parameters: Tensor | float | None) -> Tensor:
    """A value of another number of dims than the parameters, at the shape of both, which distributions allow."""
    shape = torch.broadcast_shapes(*(p.shape for p in parameters if isinstance(p, Tensor)))
    return value if value.ndim == len(shape) else value.expand(torch.broadcast_shapes(value.shape, shape))
