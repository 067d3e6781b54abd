"""The drop-in distributions for Pyro's models and guides: ``pip install pyro-ppl``.

>>> from vae_fast.integrations.pyro import BernoulliVector, DiagonalNormal, NegativeBinomial  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import torch
from torch import Tensor
from torch.distributions import constraints

try:
    from pyro.distributions.torch_distribution import TorchDistributionMixin
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(f"vae_fast.integrations.pyro needs Pyro (pip install pyro-ppl): {error}") from error

from vae_fast import distributions
from vae_fast.distributions.counts import Counts, Parameter
from vae_fast.ops import arguments

__all__ = [
    "BernoulliVector",
    "DiagonalNormal",
    "GammaPoisson",
    "NegativeBinomial",
    "Poisson",
    "ZeroInflatedNegativeBinomial",
    "ZeroInflatedPoisson",
]


class _Vector(TorchDistributionMixin):
    @classmethod
    def infer_shapes(cls, event_ndim: int = 1, **arg_shapes: Sequence[int]) -> tuple[torch.Size, torch.Size]:
        """(batch_shape, event_shape) of what arguments of these shapes, () for a number, and event_ndim make.

        Raises ValueError where the shapes do not broadcast, or event_ndim does not fit.
        """
        shape = torch.broadcast_shapes(*map(torch.Size, arg_shapes.values()))
        data = len(shape) - arguments.event_dims(event_ndim, shape, ", ".join(arg_shapes))
        return shape[:data], shape[data:]


class DiagonalNormal(distributions.DiagonalNormal, _Vector):
    """``vae_fast.distributions.DiagonalNormal`` with Pyro's methods: ``Normal(loc, scale).to_event(1)``, fused.

    Arguments and results are the same. ``to_event`` makes a wider event of the same class, so that
    ``DiagonalNormal(loc, scale, 0).to_event(1)`` is fused too; ``mask``, ``expand_by`` and all else are Pyro's, and
    so are plates, subsampling and masks. TraceMeanField_ELBO takes the closed form of the divergence.
    """


class BernoulliVector(distributions.BernoulliVector, _Vector):
    """``vae_fast.distributions.BernoulliVector`` with Pyro's methods: ``Bernoulli(…).to_event(1)``, fused.

    Arguments and results are the same, and ``to_event`` as in ``DiagonalNormal``.
    """


class _Elements(_Vector):
    """Of distributions whose events have no dims unless they are told."""

    @classmethod
    def infer_shapes(cls, event_ndim: int = 0, **arg_shapes: Sequence[int]) -> tuple[torch.Size, torch.Size]:
        return super().infer_shapes(event_ndim, **arg_shapes)


class Poisson(distributions.Poisson, _Elements):
    """``vae_fast.distributions.Poisson`` with Pyro's methods: ``Poisson(rate)``, fused."""


class NegativeBinomial(distributions.NegativeBinomial, _Elements):
    """``vae_fast.distributions.NegativeBinomial`` with Pyro's methods: ``NegativeBinomial(total_count, …)``, fused.

    Arguments and results are the same: ``total_count`` with ``probs`` or ``logits``, or ``mu`` and ``theta``.
    """


class GammaPoisson(distributions.NegativeBinomial, _Elements):
    """``GammaPoisson(concentration, rate)`` of Pyro, fused: Poisson counts whose rate has a Gamma distribution.

    A negative binomial of θ = concentration and μ = concentration/rate, and otherwise as ``NegativeBinomial``.
    """

    arg_constraints = {"concentration": constraints.positive, "rate": constraints.positive}
    _THETA = ("concentration",)

    def __init__(
        self,
        concentration: Parameter,
        rate: Parameter,
        *,
        event_ndim: int = 0,
        backend: str | None = None,
        validate_args: bool | None = None,
    ) -> None:
        Counts.__init__(
            self,
            {"rate": rate, "concentration": concentration},
            scale=None,
            eps=0.0,
            event_ndim=event_ndim,
            backend=backend,
            validate_args=validate_args,
        )

    def _ratio(self) -> Tensor:
        return 1.0 / self._wide("rate")

    @property
    def concentration(self) -> Tensor:
        return self.theta

    @property
    def rate(self) -> Tensor:
        return self._whole(self._tensors["rate"])


class _Gated(distributions.ZeroInflatedNegativeBinomial, _Elements):
    """Pyro's names of the zeros."""

    @property
    def gate(self) -> Tensor:
        return self.zi_probs

    @property
    def gate_logits(self) -> Tensor:
        return self.zi_logits


class ZeroInflatedNegativeBinomial(_Gated):
    """``ZeroInflatedNegativeBinomial(total_count, probs=… | logits=…, gate=… | gate_logits=…)`` of Pyro, fused.

    As ``vae_fast.distributions.ZeroInflatedNegativeBinomial``, whose zi_probs and zi_logits are the gate.
    """

    def __init__(
        self,
        total_count: Parameter,
        *,
        probs: Parameter | None = None,
        logits: Parameter | None = None,
        gate: Parameter | None = None,
        gate_logits: Parameter | None = None,
        event_ndim: int = 0,
        backend: str | None = None,
        validate_args: bool | None = None,
    ) -> None:
        super().__init__(
            total_count,
            probs,
            logits,
            zi_probs=gate,
            zi_logits=gate_logits,
            event_ndim=event_ndim,
            backend=backend,
            validate_args=validate_args,
        )


class ZeroInflatedPoisson(_Gated):
    """``ZeroInflatedPoisson(rate, gate=… | gate_logits=…)`` of Pyro, fused: θ = ∞ of the negative binomial's."""

    def __init__(
        self,
        rate: Parameter,
        *,
        gate: Parameter | None = None,
        gate_logits: Parameter | None = None,
        event_ndim: int = 0,
        backend: str | None = None,
        validate_args: bool | None = None,
    ) -> None:
        super().__init__(
            mu=rate,
            theta=inf,
            zi_probs=gate,
            zi_logits=gate_logits,
            event_ndim=event_ndim,
            backend=backend,
            validate_args=validate_args,
        )

    @property
    def rate(self) -> Tensor:
        return self.mu
