"""Poisson counts as a torch.distributions.Distribution, on the fused operator."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import constraints

from vae_fast.distributions.counts import Counts
from vae_fast.distributions.vector import as_distributions_broadcast
from vae_fast.ops.poisson_log_prob import poisson_log_prob


class Poisson(Counts):
    """Independent Poisson counts: ``Poisson(rate)`` of torch.distributions and of scvi-tools, fused.

    log p(x) = x·log(λ + ε) − λ − log x!, summed over an event. Values and gradients are theirs; there is none by x.

    Args:
        rate: λ ≥ 0, a tensor of any floating dtype or a number.
        scale: kept, for ``get_normalized("scale")``.
        eps: ε, in the logarithm alone.
        event_ndim: how many trailing dims make up one event; 0 as torch.distributions has it.
        backend: "reference", "native", "triton" or "auto", for ``log_prob``; None is what ``use_backend`` says.
        validate_args: as in torch.distributions; False leaves out every check that waits for the device. None: what
            ``Distribution.set_default_validate_args`` says.

    Shapes: ``batch_shape`` and ``event_shape`` are the rate's shape, cut before its last ``event_ndim`` dims.
    ``sample(sample_shape)`` has sample_shape + batch_shape + event_shape, ``log_prob`` one number a batch element.

    Dtypes: counts of any floating or integer dtype or bool; samples and densities are float64 for float64, else
    float32, since half types do not hold counts.

    Raises:
        TypeError: a rate of a complex, integer, quantised, sparse or nested kind.
        ValueError: an ``event_ndim`` that does not fit; with validation, a rate that is negative or NaN, a value
            that is no count, or one whose last dims are not ``event_shape``.
        RuntimeError: a named backend that cannot serve the call.
        NotImplementedError: ``rsample``, ``entropy``.

    Example:
        >>> p = vae_fast.distributions.Poisson(torch.full((100, 20), 3.0), event_ndim=1)
        >>> p.log_prob(p.sample((8,))).shape
        torch.Size([8, 100])

    Source: Johnson, Kemp and Kotz, "Univariate Discrete Distributions" (2005), chapter 4.
    """

    arg_constraints = {"rate": constraints.nonnegative}

    def __init__(
        self,
        rate: Tensor | float,
        *,
        scale: Tensor | None = None,
        eps: float = 0.0,
        event_ndim: int = 0,
        backend: str | None = None,
        validate_args: bool | None = None,
    ) -> None:
        super().__init__(
            {"rate": rate},
            scale=scale,
            eps=eps,
            event_ndim=event_ndim,
            backend=backend,
            validate_args=validate_args,
        )

    @property
    def rate(self) -> Tensor:
        return self._whole(self._tensors["rate"])

    @property
    def mean(self) -> Tensor:
        return self.rate

    @property
    def mode(self) -> Tensor:
        return self.rate.floor()

    @property
    def variance(self) -> Tensor:
        return self.rate

    def sample(self, sample_shape: Sequence[int] | None = ()) -> Tensor:
        """Counts from PyTorch's default generator, as ``torch.poisson`` draws them.

        Args:
            sample_shape: leading dims of independent samples.

        Returns:
            sample_shape + batch_shape + event_shape; float64 for a float64 rate, else float32.
        """
        with torch.no_grad():
            return torch.poisson(self._wide("rate").expand(self._extended_shape(torch.Size(sample_shape or ()))))

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        rate = self._tensors["rate"]
        return poisson_log_prob(
            rate,
            as_distributions_broadcast(value, rate),
            eps=self._eps,
            event_ndim=self.event_ndim,
            backend=self._backend,
        )
