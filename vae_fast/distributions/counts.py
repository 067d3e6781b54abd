"""What the distributions of counts share: parameters as given, shapes, Poisson counts, scvi-tools' helpers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.distributions import constraints

from vae_fast.distributions.vector import Vector, floating_value
from vae_fast.ops import arguments
from vae_fast.reference.densities import compute_dtype, is_number, promoted_dtype

Parameter = Tensor | float
Self = TypeVar("Self", bound="Counts")


class Counts(Vector):
    """Independent counts, of parameters that are kept as they are given: the first a tensor with a device."""

    arg_constraints: dict[str, constraints.Constraint] = {}

    def __init__(
        self,
        given: dict[str, Parameter],
        *,
        scale: Tensor | None,
        eps: float,
        event_ndim: int,
        backend: str | None,
        validate_args: bool | None,
    ) -> None:
        (first, value), *others = given.items()
        like = next((t for t in given.values() if isinstance(t, Tensor) and t.is_floating_point()), torch.empty(()))
        if isinstance(value, Tensor):
            main = arguments.floating(first, value)
        else:
            main = torch.full((), arguments.number(first, value), dtype=like.dtype, device=like.device)
        wide = compute_dtype(main.dtype)
        rest = {name: arguments.floating_or_number(name, floating_value(t, wide)) for name, t in others}
        self._tensors = {first: main, **rest}
        self._main, self._dtype = first, promoted_dtype(main, *rest.values())
        self._scale, self._eps, self._backend = scale, arguments.number("eps", eps), backend
        shape = arguments.broadcast_shape(first, main.shape, **rest)
        event_ndim = arguments.event_dims(event_ndim, shape, " and ".join(given))
        # What validation looks at: of all the names that a class knows a parameter by, those that were given.
        self.arg_constraints = {name: type(self).arg_constraints[name] for name in given}
        super().__init__(shape, event_ndim, validate_args)

    def expand(self: Self, batch_shape: Sequence[int], _instance: Any = None) -> Self:
        new: Self = self._get_checked_instance(type(self), _instance)
        vars(new).update(vars(self))
        shape = torch.Size(batch_shape) + self.event_shape
        whole = self._tensors[self._main].expand(self.batch_shape + self.event_shape).expand(shape)
        new._tensors = {**self._tensors, self._main: whole}
        if isinstance(self._scale, Tensor):
            new._scale = self._scale.expand(shape)
        new._expand_to(shape, self)
        return new

    @constraints.dependent_property(is_discrete=True)
    def support(self) -> constraints.Constraint:
        single = constraints.nonnegative_integer
        return constraints.independent(single, self.event_ndim) if self.event_ndim else single

    def _wide(self, name: str) -> Tensor:
        """A parameter in the dtype that arithmetic is done in; numbers in that of the tensors."""
        t = self._tensors[name]
        return t.to(compute_dtype(self._dtype if is_number(t) else t.dtype))

    def _whole(self, t: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """In the full shape, on the parameters' device; 0-d tensors, numbers among them, in their dtype."""
        dtype = dtype or (t.dtype if t.ndim else self._dtype)
        return t.to(self._tensors[self._main].device, dtype).expand(self.batch_shape + self.event_shape)

    def _narrow(self, t: Tensor) -> Tensor:
        """What was computed of the parameters, in their dtype."""
        return self._whole(t, self._dtype)

    @property
    def scale(self) -> Tensor | None:
        """scvi-tools' normalised mean, as it was given: nothing here is computed of it."""
        return self._scale

    def get_normalized(self, key: str) -> Tensor | None:
        """scvi-tools' way to ask for the mean before any inflation, or for ``scale``.

        Args:
            key: "mu" or "scale".

        Returns:
            batch_shape + event_shape; None of a scale that was not given.

        Raises:
            ValueError: another key.
        """
        if key not in ("mu", "scale"):
            raise ValueError(f"normalized key {key} not recognized: it is 'mu' or 'scale'")
        normalized: Tensor | None = self.mean if key == "mu" else self.scale
        return normalized

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        raise NotImplementedError("counts have no reparameterised sample")

    def __repr__(self) -> str:
        # As the raw operators have them, a number is a 0-d float64 tensor.
        shown = [f"{k}: {t.item() if t.ndim == 0 else tuple(t.shape)}" for k, t in self._tensors.items()]
        return f"{type(self).__name__}({', '.join(shown)}, event_ndim: {self.event_ndim})"
