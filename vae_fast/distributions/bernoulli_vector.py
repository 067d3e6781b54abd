"""The Bernoulli vector as a torch.distributions.Distribution, on the fused operators."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.utils import clamp_probs, lazy_property

from vae_fast.distributions import bernoulli_terms as terms
from vae_fast.distributions.vector import Vector, as_distributions_broadcast, floating_value
from vae_fast.ops import arguments
from vae_fast.ops.bernoulli_log_prob import bernoulli_log_prob
from vae_fast.reference.densities import NONE, compute_dtype, reduce


class BernoulliVector(Vector):
    """Independent Bernoulli variables: ``Independent(Bernoulli(…), event_ndim)``, fused.

    log p(x) = Σ x·log p + (1 − x)·log(1 − p) over an event. Values and gradients are those of torch.distributions,
    and accurate in both tails, where those are not. For ``log_prob``, ``probs`` are converted to logits as there,
    clamped to [ε, 1 − ε], in passes of their own: pass logits where there are any. Entropy, variance and
    divergences are PyTorch's own operations, of whichever was given, unclamped. ``kl_divergence`` takes it with
    another one, with ``Independent(Bernoulli)`` and, for ``event_ndim=0``, with ``Bernoulli``.

    Args:
        probs: p, a tensor of any floating dtype or a number; not together with ``logits``. Positional arguments
            have ``Bernoulli``'s order.
        logits: log(p/(1 − p)), a tensor of any floating dtype or a number; not together with ``probs``.
        event_ndim: how many trailing dims make up one event; 0 for ``Bernoulli`` itself.
        backend: "reference", "native", "triton" or "auto", for ``log_prob``; None is what ``use_backend`` says.
        validate_args: as in torch.distributions; False leaves out every check that waits for the device, and lets
            values lie between 0 and 1. None: what ``Distribution.set_default_validate_args`` says.

    Shapes: ``batch_shape`` and ``event_shape`` are the parameter's shape, cut before its last ``event_ndim`` dims.
    ``sample(sample_shape)`` has sample_shape + batch_shape + event_shape; ``log_prob``, ``entropy`` and
    ``kl_divergence`` have one number a batch element.

    Dtypes: values of any floating or integer dtype or bool; samples have the parameter's dtype; densities are
    float64 for float64, else float32.

    Raises:
        TypeError: a parameter of a complex, integer, quantised, sparse or nested kind.
        ValueError: both or neither parameter, an ``event_ndim`` that does not fit; with validation, probs outside
            [0, 1], NaN, a value that is neither 0 nor 1, or one whose last dims are not ``event_shape``.
        RuntimeError: a named backend that cannot serve the call.
        NotImplementedError: ``rsample``; ``enumerate_support`` unless ``event_ndim=0``.

    Example:
        >>> p = vae_fast.distributions.BernoulliVector(logits=torch.zeros(100, 784))
        >>> p.log_prob(p.sample((8,))).shape
        torch.Size([8, 100])

    Source: Kingma and Welling, "Auto-Encoding Variational Bayes" (2014), eq. 11 in appendix C.
    """

    arg_constraints = {"probs": constraints.unit_interval, "logits": constraints.real}

    def __init__(
        self,
        probs: Tensor | float | None = None,
        logits: Tensor | float | None = None,
        event_ndim: int = 1,
        *,
        backend: str | None = None,
        validate_args: bool | None = None,
    ) -> None:
        name, given = ("probs", probs) if logits is None else ("logits", logits)
        if given is None or (probs is not None and logits is not None):
            raise ValueError("pass either probs or logits, not both")
        is_tensor = isinstance(given, Tensor)
        param = arguments.floating(name, given) if is_tensor else torch.full((), arguments.number(name, given))
        setattr(self, name, param)
        self._given, self._backend = name, backend
        event_ndim = arguments.event_dims(event_ndim, param.shape, name)
        super().__init__(param.shape, event_ndim, validate_args)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> BernoulliVector:
        new: BernoulliVector = self._get_checked_instance(BernoulliVector, _instance)
        shape = torch.Size(batch_shape) + self.event_shape
        for name in ("probs", "logits"):
            if name in self.__dict__:
                setattr(new, name, getattr(self, name).expand(shape))
        new._given, new._backend = self._given, self._backend
        new._expand_to(shape, self)
        return new

    @lazy_property
    def logits(self) -> Tensor:
        return terms.log_odds(clamp_probs(self.probs))

    @lazy_property
    def probs(self) -> Tensor:
        return terms.logistic(self._wide()).to(self.logits.dtype)

    @property
    def _param(self) -> Tensor:
        """What was given: the other one is computed, and kept, once it is asked for."""
        param: Tensor = getattr(self, self._given)
        return param

    def _wide(self) -> Tensor:
        """The same in the dtype that arithmetic is done in."""
        return self._param.to(compute_dtype(self._param.dtype))

    @property
    def param_shape(self) -> torch.Size:
        return self._param.shape

    @constraints.dependent_property(is_discrete=True)
    def support(self) -> constraints.Constraint:
        single = constraints.boolean
        return constraints.independent(single, self.event_ndim) if self.event_ndim else single

    @property
    def mean(self) -> Tensor:
        return self.probs

    @property
    def mode(self) -> Tensor:
        param, even = self._param, 0.0 if self._given == "logits" else 0.5
        return torch.where(param == even, math.nan, (param > even).to(param.dtype))

    @property
    def variance(self) -> Tensor:
        p = self._wide()
        return (terms.variance(p) if self._given == "logits" else p * (1.0 - p)).to(self._param.dtype)

    @property
    def stddev(self) -> Tensor:
        p = self._wide()
        return (terms.stddev(p) if self._given == "logits" else (p * (1.0 - p)).sqrt()).to(self._param.dtype)

    def sample(self, sample_shape: Sequence[int] = (), *, generator: torch.Generator | None = None) -> Tensor:
        """Zeros and ones, as ``torch.bernoulli`` draws them, without a graph.

        Args:
            sample_shape: leading dims of independent samples.
            generator: what they are drawn from. None: PyTorch's default one.

        Returns:
            sample_shape + batch_shape + event_shape, in the parameter's dtype.
        """
        with torch.no_grad():
            return torch.bernoulli(
                self.probs.expand(self._extended_shape(torch.Size(sample_shape))), generator=generator
            )

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        raise NotImplementedError("a Bernoulli variable has no reparameterised sample")

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        value = floating_value(value, self._param.dtype)
        logits = self.logits
        value = as_distributions_broadcast(value, logits)
        return bernoulli_log_prob(logits, value, event_ndim=self.event_ndim, backend=self._backend)

    def entropy(self) -> Tensor:
        of = terms.entropy if self._given == "logits" else terms.entropy_of_probs
        return reduce(of(self._wide()), self.event_ndim, NONE, 1.0)

    @property
    def has_enumerate_support(self) -> bool:  # type: ignore[override]
        return self.event_ndim == 0

    def enumerate_support(self, expand: bool = True) -> Tensor:
        if self.event_ndim:
            raise NotImplementedError(f"the support of {self.event_shape.numel()} variables is not enumerated")
        values = torch.arange(2, dtype=self._param.dtype, device=self._param.device)
        values = values.view(2, *(1,) * len(self.batch_shape))
        return values.expand(2, *self.batch_shape) if expand else values
