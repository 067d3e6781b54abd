"""A diagonal Gaussian whose mean and log-variance are the halves of one tensor, as in latent diffusion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vae_fast import seeds
from vae_fast.ops import arguments, packed
from vae_fast.ops.arguments import Bounds
from vae_fast.ops.gaussian_kl import gaussian_kl


class DiagonalGaussian:
    """q = N(μ, σ²), with μ and log σ² the two halves of ``moments`` along ``dim``.

    In the place of diffusers' ``DiagonalGaussianDistribution(moments)``: the same methods and attributes. The
    halves are read where they are, and ``moments`` gets its gradient in one buffer from every method.

    Args:
        moments: floating; ``dim`` has an even size, μ comes first.
        dim: the dim that holds both: 1 for images and videos, −1 for tokens and channels-last layouts.
        logvar_bounds: (low, high) to which log σ² is clamped, with no gradient outside; None for no clamp.
        sum_dims: the dims that ``kl`` and ``nll`` sum over; by default all but the first.
        deterministic: σ = 0: samples are μ, ``kl`` and ``nll`` are a zero of shape [1].
        backend: as ``rsample``.

    ``kl``, ``nll`` and the KL of ``rsample_kl`` are float64 for float64 moments, else float32: a sum over an
    image's latents does not fit in float16. Everything else has the dtype of the moments.

    Raises:
        TypeError: moments that are no dense floating tensor.
        ValueError: an odd size along ``dim``; dims that moments has not, or twice.

    Source: Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models" (2022), appendix G.
    """

    def __init__(
        self,
        moments: Tensor,
        dim: int = 1,
        logvar_bounds: Bounds | None = (-30.0, 20.0),
        sum_dims: int | Sequence[int] | None = None,
        deterministic: bool = False,
        backend: str | None = None,
    ) -> None:
        self.parameters = arguments.floating("moments", moments)
        (self.dim,) = _dims("dim", dim, moments)
        if moments.shape[self.dim] % 2:
            raise ValueError(f"moments of shape {tuple(moments.shape)} cannot be halved along dim {dim}")
        self.logvar_bounds = logvar_bounds
        self.sum_dims = _dims("sum_dims", range(1, moments.ndim) if sum_dims is None else sum_dims, moments)
        self.deterministic = deterministic
        self.backend = backend

    @property
    def mean(self) -> Tensor:
        """μ: a view of the moments."""
        return self.parameters.chunk(2, self.dim)[0]

    @property
    def logvar(self) -> Tensor:
        """log σ², clamped."""
        form = arguments.sigma_form("logvar", 0.0, self.logvar_bounds)
        return form.clamp(self.parameters.chunk(2, self.dim)[1])

    @property
    def std(self) -> Tensor:
        """σ."""
        return torch.zeros_like(self.mean) if self.deterministic else torch.exp(0.5 * self.logvar)

    @property
    def var(self) -> Tensor:
        """σ²."""
        return torch.zeros_like(self.mean) if self.deterministic else torch.exp(self.logvar)

    def mode(self) -> Tensor:
        """μ."""
        return self.mean

    def sample(
        self,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        *,
        seed: int | Tensor | None = None,
    ) -> Tensor:
        """μ + σ·ε, differentiable, in the dtype and shape of μ.

        ``generator`` may be the CPU's whatever the device of the moments: equal states then draw equal samples on
        every device. A sequence has one generator for each datum (dim 0), whose sample depends on no other.
        ``seed`` is that of ``rsample``.

        Raises ValueError for a number of generators other than 1 and the number of data, and where both
        ``generator`` and ``seed`` are given.
        """
        if self.deterministic:
            return self.mean.clone()
        if isinstance(generator, Sequence) and len(generator) != 1:
            if seed is not None:
                raise ValueError("pass seed or generator, not both")
            if not generator or len(generator) != len(self.parameters):
                raise ValueError(f"{len(generator)} generators for {len(self.parameters)} data")
            rows = self.parameters.split(1)
            drawn = [self._sample(row, g, None) for row, g in zip(rows, generator, strict=True)]
            return torch.cat(drawn)
        return self._sample(self.parameters, generator, seed)

    def _sample(self, moments: Tensor, generator: Any, seed: int | Tensor | None) -> Tensor:
        options = self._noise(generator, seed)
        return packed.sample(moments, self.dim, bounds=self.logvar_bounds, backend=self.backend, **options)

    def _noise(self, generator: Any, seed: int | Tensor | None) -> dict[str, Any]:
        if isinstance(generator, Sequence):
            (generator,) = generator
        if generator is not None and seed is None and generator.device.type == "cpu" != self.parameters.device.type:
            drawn = seeds.draw(generator, generator.device)
            on_device = drawn.to(self.parameters.device) if isinstance(drawn, Tensor) else drawn
            return {"seed": on_device, "generator": None}
        return {"seed": seed, "generator": generator}

    def rsample_kl(
        self, generator: torch.Generator | None = None, *, seed: int | Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """(``sample()``, ``kl()``) by one kernel, where ``sum_dims`` are the last dims; their gradient likewise."""
        order = self._order(self.sum_dims)
        if self.deterministic or order != sorted(order):
            return self.sample(generator, seed=seed), self.kl()
        options = self._noise(generator, seed)
        return packed.sample_kl(
            self.parameters,
            self.dim,
            event_ndim=len(self.sum_dims),
            bounds=self.logvar_bounds,
            backend=self.backend,
            **options,
        )

    def kl(self, other: DiagonalGaussian | None = None) -> Tensor:
        """KL(q ‖ N(0, I)), or KL(q ‖ other), summed over ``sum_dims``.

        ``other`` is a DiagonalGaussian, or whatever has ``mean`` and ``logvar`` that broadcast. Raises ValueError
        for one that is deterministic: the KL is infinite.
        """
        if self.deterministic:
            return self._zero()
        if other is None:
            return self._kl()
        if getattr(other, "deterministic", False):
            raise ValueError("other is deterministic: the KL divergence to it is infinite")
        if isinstance(other, DiagonalGaussian) and other.logvar_bounds == self.logvar_bounds:
            return self._kl(*other.parameters.chunk(2, other.dim))
        # Clamped already, each to its own bounds.
        order = self._order(self.sum_dims)
        q = (_walked(self.mean, order), _walked(self.logvar, order))
        prior = (_walked(other.mean, order), _walked(other.logvar, order))
        return gaussian_kl(*q, *prior, event_ndim=len(self.sum_dims), backend=self.backend)

    def _kl(self, *prior: Tensor) -> Tensor:
        order = self._order(self.sum_dims)
        return packed.kl(
            _walked(self.parameters, order),
            order.index(self.dim),
            *(_walked(t, order) for t in prior),
            event_ndim=len(self.sum_dims),
            bounds=self.logvar_bounds,
            backend=self.backend,
        )

    def nll(self, sample: Tensor, dims: int | Sequence[int] | None = None) -> Tensor:
        """−log q(sample) in nats, summed over ``dims``: by default ``sum_dims``."""
        if self.deterministic:
            return self._zero()
        summed = self.sum_dims if dims is None else _dims("dims", dims, self.parameters)
        order = self._order(summed)
        return packed.log_prob(
            _walked(self.parameters, order),
            order.index(self.dim),
            _walked(sample, order),
            event_ndim=len(summed),
            scale=-1.0,
            bounds=self.logvar_bounds,
            backend=self.backend,
        )

    def _order(self, summed: tuple[int, ...]) -> list[int]:
        """All dims, those that are summed over at the end."""
        return [d for d in range(self.parameters.ndim) if d not in summed] + list(summed)

    def _zero(self) -> Tensor:
        return torch.zeros(1, device=self.parameters.device)


def _dims(name: str, dims: int | Sequence[int], moments: Tensor) -> tuple[int, ...]:
    """Dims counted from 0, in order."""
    given, ndim = (dims,) if isinstance(dims, int) else tuple(dims), moments.ndim
    if any(not -ndim <= d < ndim for d in given):
        raise ValueError(f"{name}={dims} does not fit moments of shape {tuple(moments.shape)}")
    counted = tuple(sorted(d % ndim for d in given))
    if len(set(counted)) < len(counted):
        raise ValueError(f"{name}={dims} names a dim twice")
    return counted


def _walked(t: Tensor, order: list[int]) -> Tensor:
    """A view of ``t`` with its dims in this order."""
    return t if order == sorted(order) else t.permute(order)
