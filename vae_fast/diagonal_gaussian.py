"""A diagonal Gaussian whose mean and log-variance are the halves of one tensor, as in latent diffusion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vae_fast import seeds
from vae_fast.ops import arguments, packed
from vae_fast.ops.arguments import Bounds, Param

# To what latent diffusion clamps log σ².
_LATENT_DIFFUSION = (-30.0, 20.0)
_LOG_VARIANCE = {"param": "logvar", "param_eps": 0.0, "bounds": None}


class DiagonalGaussian:
    """q = N(μ, σ²), with μ and log σ² the two halves of ``moments`` along ``dim``.

    In the place of diffusers' ``DiagonalGaussianDistribution(moments)``: the same methods and attributes, and by
    ``param`` and ``param_eps`` of its other posteriors. The halves are read where they are, and ``moments`` gets
    its gradient in one buffer from every method.

    Args:
        moments: floating; ``dim`` has an even size, μ comes first.
        dim: the dim that holds both: 1 for images and videos, −1 for tokens and channels-last layouts.
        logvar_bounds: (low, high) to which the second half is clamped, with no gradient outside; None for no clamp.
            By default that of diffusers, (−30, 20), for log σ², and none for what else ``param`` says it is.
        sum_dims: the dims that ``kl`` and ``nll`` sum over; by default all but the first.
        deterministic: σ = 0: samples are μ, ``kl`` and ``nll`` are a zero of shape [1].
        backend: as ``rsample``.
        param, param_eps: what the second half is, as ``rsample`` has it: "logvar", or "softplus" with 1e-4 for
            diffusers' audio posteriors.

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
        logvar_bounds: Bounds | None = _LATENT_DIFFUSION,
        sum_dims: int | Sequence[int] | None = None,
        deterministic: bool = False,
        backend: str | None = None,
        *,
        param: Param = "logvar",
        param_eps: float = 0.0,
    ) -> None:
        self.parameters = arguments.floating("moments", moments)
        (self.dim,) = _dims("dim", dim, moments)
        if moments.shape[self.dim] % 2:
            raise ValueError(f"moments of shape {tuple(moments.shape)} cannot be halved along dim {dim}")
        if logvar_bounds is _LATENT_DIFFUSION and param != "logvar":
            logvar_bounds = None
        self._sigma = arguments.sigma_form(param, param_eps, logvar_bounds)
        self._form = {"param": param, "param_eps": param_eps, "bounds": logvar_bounds}
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
        """log σ², of the clamped argument."""
        return self._sigma.log_var(self._argument)

    @property
    def std(self) -> Tensor:
        """σ."""
        return torch.zeros_like(self.mean) if self.deterministic else self._sigma.sigma(self._argument)

    @property
    def var(self) -> Tensor:
        """σ²."""
        if self.deterministic:
            return torch.zeros_like(self.mean)
        return torch.exp(self.logvar) if self._sigma.logarithmic else self.std.square()

    @property
    def _argument(self) -> Tensor:
        """The second half, clamped."""
        return self._sigma.clamp(self.parameters.chunk(2, self.dim)[1])

    def mode(self) -> Tensor:
        """μ."""
        return self.mean

    def sample(
        self,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        *,
        seed: int | Tensor | None = None,
        stream: int = 0,
        noise: Tensor | None = None,
        temperature: float = 1.0,
    ) -> Tensor:
        """μ + τ·σ·ε, differentiable, in the dtype and shape of μ.

        ``generator`` may be the CPU's whatever the device of the moments: equal states then draw equal samples on
        every device. A sequence has one generator for each datum (dim 0), whose sample depends on no other.
        ``seed``, ``stream``, ``noise`` (ε itself) and ``temperature`` (τ) are those of ``rsample``.

        Raises ValueError for a number of generators other than 1 and the number of data, and where both
        ``generator`` and ``seed`` are given, or ``noise`` and either.
        """
        if self.deterministic:
            return self.mean.clone()
        drawn: dict[str, Any] = {"seed": seed, "stream": stream, "noise": noise, "temperature": temperature}
        if isinstance(generator, Sequence) and len(generator) != 1:
            if seed is not None or noise is not None:
                raise ValueError("pass seed or generator, not both, or noise alone")
            if not generator or len(generator) != len(self.parameters):
                raise ValueError(f"{len(generator)} generators for {len(self.parameters)} data")
            rows = self.parameters.split(1)
            samples = [self._sample(row, g, drawn) for row, g in zip(rows, generator, strict=True)]
            return torch.cat(samples)
        return self._sample(self.parameters, generator, drawn)

    def _sample(self, moments: Tensor, generator: Any, drawn: dict[str, Any]) -> Tensor:
        drawn = self._drawn(generator, drawn)
        return packed.sample(moments, self.dim, drawn=drawn, form=self._form, backend=self.backend)

    def _drawn(self, generator: Any, drawn: dict[str, Any]) -> dict[str, Any]:
        """With the generator, or, from a CPU's for another device, a seed drawn from it."""
        if isinstance(generator, Sequence):
            (generator,) = generator
        alone = drawn["seed"] is None and drawn["noise"] is None
        if generator is not None and alone and generator.device.type == "cpu" != self.parameters.device.type:
            seed = seeds.draw(generator, generator.device)
            on_device = seed.to(self.parameters.device) if isinstance(seed, Tensor) else seed
            return drawn | {"seed": on_device}
        return drawn | {"generator": generator}

    def rsample_kl(
        self,
        generator: torch.Generator | None = None,
        *,
        seed: int | Tensor | None = None,
        stream: int = 0,
        noise: Tensor | None = None,
        temperature: float = 1.0,
    ) -> tuple[Tensor, Tensor]:
        """(``sample()``, ``kl()``) by one kernel, where ``sum_dims`` are the last dims; their gradient likewise."""
        order = self._order(self.sum_dims)
        drawn: dict[str, Any] = {"seed": seed, "stream": stream, "noise": noise, "temperature": temperature}
        if self.deterministic or order != sorted(order):
            return self.sample(generator, **drawn), self.kl()
        return packed.sample_kl(
            self.parameters,
            self.dim,
            event_ndim=len(self.sum_dims),
            drawn=self._drawn(generator, drawn),
            form=self._form,
            backend=self.backend,
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
        if isinstance(other, DiagonalGaussian):
            return self._kl(*other.parameters.chunk(2, other.dim), form=other._form)
        return self._kl(other.mean, other.logvar, form=_LOG_VARIANCE)

    def _kl(self, *prior: Tensor, form: dict[str, Any] | None = None) -> Tensor:
        """To a prior whose second half is of a form, or to N(0, I)."""
        order = self._order(self.sum_dims)
        return packed.kl(
            _walked(self.parameters, order),
            order.index(self.dim),
            *(_walked(t, order) for t in prior),
            event_ndim=len(self.sum_dims),
            form=self._form,
            prior_form=form,
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
            form=self._form,
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
