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

    log p(x) = −½ Σ (log σ² + ((x − loc)/σ)² + log 2π) over an event. ``to_event`` makes a wider event of the same
    class, so that ``DiagonalNormal(loc, scale, 0).to_event(1)`` is fused too; ``mask``, ``expand_by`` and all else
    are Pyro's, and so are plates, subsampling and masks. TraceMeanField_ELBO takes the closed form of the
    divergence.

    Args:
        loc: mean, a tensor of any floating dtype or a number.
        scale: σ, or what ``param`` says, a tensor or a number, broadcast against ``loc`` without a copy; its
            gradient has its own shape.
        event_ndim: how many trailing dims make up one event; 0 for ``Normal`` itself.
        param: what ``scale`` is: "std" σ, "logvar" log σ² (the usual encoder's), "logstd" log σ, "var" σ², or
            "softplus", σ = log(1 + e^scale).
        param_eps: added to σ ("var": to σ²); many encoders have "softplus" with 1e-4.
        bounds: (low, high), to which ``scale`` is clamped as it is given; either may be None. None: no clamp.
        bounds_grad: the gradient of ``scale`` outside the bounds: "zero", as torch.clamp's, or "pass", that of the
            value at the bound, as nn.GaussianNLLLoss has it.
        backend: "reference", "native", "triton" or "auto", for every operator called; None is what ``use_backend``
            says.
        validate_args: as in torch.distributions; False leaves out every check that waits for the device. None: what
            ``Distribution.set_default_validate_args`` says.

    Raises:
        TypeError: loc or scale of a complex, integer, quantised, sparse or nested kind.
        ValueError: shapes that do not broadcast, an ``event_ndim`` that does not fit, an unknown ``param``; with
            validation, a NaN in loc, a σ that is not positive, or a value whose last dims are not ``event_shape``.
        RuntimeError: a named backend that cannot serve the call.
        NotImplementedError: ``cdf`` and ``icdf`` unless ``event_ndim=0``.

    Source: Kingma and Welling, "Auto-Encoding Variational Bayes" (2014), section 2.4 and appendices B and C.
    """


class BernoulliVector(distributions.BernoulliVector, _Vector):
    """``vae_fast.distributions.BernoulliVector`` with Pyro's methods: ``Bernoulli(…).to_event(1)``, fused.

    log p(x) = Σ x·log p + (1 − x)·log(1 − p) over an event. ``to_event`` makes a wider event of the same class, so
    that ``BernoulliVector(probs, event_ndim=0).to_event(1)`` is fused too; ``mask``, ``expand_by`` and all else are
    Pyro's.

    Args:
        probs: p, a tensor of any floating dtype or a number; not together with ``logits``.
        logits: log(p/(1 − p)), a tensor of any floating dtype or a number; not together with ``probs``.
        event_ndim: how many trailing dims make up one event; 0 for ``Bernoulli`` itself.
        backend: "reference", "native", "triton" or "auto", for ``log_prob``; None is what ``use_backend`` says.
        validate_args: as in torch.distributions; False leaves out every check that waits for the device, and lets
            values lie between 0 and 1. None: what ``Distribution.set_default_validate_args`` says.

    Raises:
        TypeError: a parameter of a complex, integer, quantised, sparse or nested kind.
        ValueError: both or neither parameter, an ``event_ndim`` that does not fit; with validation, probs outside
            [0, 1], NaN, a value that is neither 0 nor 1, or one whose last dims are not ``event_shape``.
        RuntimeError: a named backend that cannot serve the call.
        NotImplementedError: ``rsample``; ``enumerate_support`` unless ``event_ndim=0``.

    Source: Kingma and Welling, "Auto-Encoding Variational Bayes" (2014), eq. 11 in appendix C.
    """


class _Elements(_Vector):
    """Of distributions whose events have no dims unless they are told."""

    @classmethod
    def infer_shapes(cls, event_ndim: int = 0, **arg_shapes: Sequence[int]) -> tuple[torch.Size, torch.Size]:
        return super().infer_shapes(event_ndim, **arg_shapes)


class Poisson(distributions.Poisson, _Elements):
    """``vae_fast.distributions.Poisson`` with Pyro's methods: ``Poisson(rate)``, fused.

    log p(x) = x·log(λ + ε) − λ − log x!, summed over an event.

    Args:
        rate: λ ≥ 0, a tensor of any floating dtype or a number.
        scale: kept, for ``get_normalized("scale")``.
        eps: ε, in the logarithm alone.
        event_ndim: how many trailing dims make up one event; 0 as Pyro has it.
        backend: "reference", "native", "triton" or "auto", for ``log_prob``; None is what ``use_backend`` says.
        validate_args: as in torch.distributions; False leaves out every check that waits for the device. None: what
            ``Distribution.set_default_validate_args`` says.

    Raises:
        TypeError: a rate of a complex, integer, quantised, sparse or nested kind.
        ValueError: an ``event_ndim`` that does not fit; with validation, a rate that is negative or NaN, a value
            that is no count, or one whose last dims are not ``event_shape``.
        RuntimeError: a named backend that cannot serve the call.
        NotImplementedError: ``rsample``, ``entropy``.

    Source: Johnson, Kemp and Kotz, "Univariate Discrete Distributions" (2005), chapter 4.
    """


class NegativeBinomial(distributions.NegativeBinomial, _Elements):
    """``vae_fast.distributions.NegativeBinomial`` with Pyro's methods: ``NegativeBinomial(total_count, …)``, fused.

    log p(x) = log Γ(x + θ) − log Γ(θ) − log x! + θ·log(θ/(θ + μ)) + x·log(μ/(θ + μ)), summed over an event. It is
    given by ``total_count`` with ``probs`` or ``logits``, or by ``mu`` and ``theta``.

    Args:
        total_count: θ > 0, a tensor of floats or integers, or a number. Broadcast without a copy: one a feature has
            its gradient in its own shape.
        probs: μ/(θ + μ) in [0, 1), a tensor of any floating dtype or a number.
        logits: log(μ/θ), a tensor of any floating dtype or a number.
        mu: μ ≥ 0, a tensor of any floating dtype or a number.
        theta: θ > 0, ∞ too, a tensor of floats or integers, or a number. Broadcast without a copy: one a feature
            has its gradient in its own shape.
        scale: scvi-tools' normalised mean, kept for ``get_normalized("scale")``. Beside ``total_count`` and without
            one it is μ over the sum of μ along the last dim, as there.
        eps: ε inside the logarithms, log(θ + ε), log(μ + ε) and log(θ + μ + ε): 1e-8 makes scvi-tools' values.
        event_ndim: how many trailing dims make up one event; 0 as Pyro has it.
        backend: "reference", "native", "triton" or "auto", for ``log_prob``; None is what ``use_backend`` says.
        validate_args: as in torch.distributions; False leaves out every check that waits for the device. None: what
            ``Distribution.set_default_validate_args`` says.

    Raises:
        TypeError: a parameter of a complex, quantised, sparse or nested kind; of integers, but for θ.
        ValueError: none of the three pairs, shapes that do not broadcast, an ``event_ndim`` that does not fit; with
            validation, parameters out of range or NaN, a value that is no count, or one whose last dims are not
            ``event_shape``.
        RuntimeError: a named backend that cannot serve the call.
        NotImplementedError: ``rsample``, ``entropy``.

    Source: Lopez et al., "Deep generative modeling for single-cell transcriptomics" (2018), its Methods.
    """


class GammaPoisson(distributions.NegativeBinomial, _Elements):
    """``GammaPoisson(concentration, rate)`` of Pyro, fused: Poisson counts whose rate has a Gamma distribution.

    A negative binomial of θ = concentration and μ = concentration/rate: log p(x) = log Γ(x + θ) − log Γ(θ) − log x!
    + θ·log(θ/(θ + μ)) + x·log(μ/(θ + μ)), summed over an event.

    Args:
        concentration: θ > 0, a tensor of floats or integers, or a number. Broadcast without a copy: one a feature
            has its gradient in its own shape.
        rate: that of the Gamma distribution, θ/μ > 0, a tensor of any floating dtype or a number.
        event_ndim: how many trailing dims make up one event; 0 as Pyro has it.
        backend: "reference", "native", "triton" or "auto", for ``log_prob``; None is what ``use_backend`` says.
        validate_args: as in torch.distributions; False leaves out every check that waits for the device. None: what
            ``Distribution.set_default_validate_args`` says.

    Raises:
        TypeError: a parameter of a complex, quantised, sparse or nested kind; a rate of integers.
        ValueError: shapes that do not broadcast, an ``event_ndim`` that does not fit; with validation, parameters
            out of range or NaN, a value that is no count, or one whose last dims are not ``event_shape``.
        RuntimeError: a named backend that cannot serve the call.
        NotImplementedError: ``rsample``, ``entropy``.

    Source: Johnson, Kemp and Kotz, "Univariate Discrete Distributions" (2005), chapter 5.
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

    log p(x) = log(g + (1 − g)·p(0)) of x = 0 and log(1 − g) + log p(x) of all others, summed over an event: g is
    the gate, p the negative binomial. ``mean`` and ``variance`` are those of the inflated counts.

    Args:
        total_count: θ > 0, a tensor of floats or integers, or a number. Broadcast without a copy: one a feature has
            its gradient in its own shape.
        probs: μ/(θ + μ) in [0, 1), a tensor of any floating dtype or a number; not together with ``logits``.
        logits: log(μ/θ), a tensor of any floating dtype or a number; not together with ``probs``.
        gate: g in [0, 1], the probability of a zero besides, a tensor or a number; not together with
            ``gate_logits``. At 0 and 1 gradients by it are finite, though not their limits.
        gate_logits: log(g/(1 − g)), a tensor or a number; not together with ``gate``.
        event_ndim: how many trailing dims make up one event; 0 as Pyro has it.
        backend: "reference", "native", "triton" or "auto", for ``log_prob``; None is what ``use_backend`` says.
        validate_args: as in torch.distributions; False leaves out every check that waits for the device. None: what
            ``Distribution.set_default_validate_args`` says.

    Raises:
        TypeError: a parameter of a complex, quantised, sparse or nested kind; of integers, but for θ.
        ValueError: both or neither of probs and logits, or of gate and gate_logits; shapes that do not broadcast,
            an ``event_ndim`` that does not fit; with validation, parameters out of range or NaN, a value that is no
            count, or one whose last dims are not ``event_shape``.
        RuntimeError: a named backend that cannot serve the call.
        NotImplementedError: ``rsample``, ``entropy``, ``mode``.

    Source: Lopez et al., "Deep generative modeling for single-cell transcriptomics" (2018), its Methods.
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
    """``ZeroInflatedPoisson(rate, gate=… | gate_logits=…)`` of Pyro, fused: θ = ∞ of the negative binomial's.

    log p(x) = log(g + (1 − g)·e^−λ) of x = 0 and log(1 − g) + x·log λ − λ − log x! of all others, summed over an
    event.

    Args:
        rate: λ ≥ 0, a tensor of any floating dtype or a number.
        gate: g in [0, 1], the probability of a zero besides, a tensor or a number; not together with
            ``gate_logits``. At 0 and 1 gradients by it are finite, though not their limits.
        gate_logits: log(g/(1 − g)), a tensor or a number; not together with ``gate``.
        event_ndim: how many trailing dims make up one event; 0 as Pyro has it.
        backend: "reference", "native", "triton" or "auto", for ``log_prob``; None is what ``use_backend`` says.
        validate_args: as in torch.distributions; False leaves out every check that waits for the device. None: what
            ``Distribution.set_default_validate_args`` says.

    Raises:
        TypeError: a parameter of a complex, integer, quantised, sparse or nested kind.
        ValueError: both or neither of gate and gate_logits, shapes that do not broadcast, an ``event_ndim`` that
            does not fit; with validation, parameters out of range or NaN, a value that is no count, or one whose
            last dims are not ``event_shape``.
        RuntimeError: a named backend that cannot serve the call.
        NotImplementedError: ``rsample``, ``entropy``, ``mode``.

    Source: Johnson, Kemp and Kotz, "Univariate Discrete Distributions" (2005), chapter 8.
    """

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
