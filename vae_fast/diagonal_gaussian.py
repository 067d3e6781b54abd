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
        moments: a tensor of any floating dtype; ``dim`` has an even size, μ comes first.
        dim: the dim that holds both: 1 for images and videos, −1 for tokens and channels-last layouts.
        logvar_bounds: (low, high) to which the second half is clamped, with no gradient outside; None for no clamp.
            By default that of diffusers, (−30, 20), for log σ², and none for what else ``param`` says it is.
        sum_dims: the dims that ``kl`` and ``nll`` sum over, an int or a sequence of ints; None: all but the first.
        deterministic: σ = 0: samples are μ, ``kl`` and ``nll`` are a zero of shape [1].
        backend: "reference", "native", "triton" or "auto", for every operator called; None is what ``use_backend``
            says.
        param: what the second half r is: "logvar" log σ², "logstd" log σ, "std" σ, "var" σ², or "softplus",
            σ = log(1 + e^r), which diffusers' audio posteriors have.
        param_eps: added to σ ("var": to σ²); 1e-4 for diffusers' audio posteriors.

    Dtypes: ``kl``, ``nll`` and the KL of ``rsample_kl`` are float64 for float64 moments, else float32: a sum over
    an image's latents does not fit in float16. Everything else has the dtype of the moments.

    Raises:
        TypeError: moments that are no dense floating tensor; a ``param_eps`` that is no number.
        ValueError: an odd size along ``dim``; dims that moments has not, or twice; an unknown ``param``; bounds of
            low > high.
        RuntimeError: a named backend that cannot serve the call.

    Example:
        >>> q = vae_fast.DiagonalGaussian(torch.zeros(4, 8, 16, 16))
        >>> q.sample(seed=0).shape, q.kl().shape
        (torch.Size([4, 4, 16, 16]), torch.Size([4]))

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
        """μ + τ·σ·ε, differentiable.

        Args:
            generator: where the seed is drawn from. It may be the CPU's whatever the device of the moments: equal
                states then draw equal samples on every device. A sequence has one generator for each datum (dim 0),
                whose sample depends on no other. None: PyTorch's default one.
            seed: an int, or one int64 element on the moments' device; the sample is then a pure function of it.
            stream: which of the seed's streams of noise, from 0 to 2³² − 1. No two have a normal in common.
            noise: ε itself, of μ's shape and any floating dtype: a constant, without a gradient.
            temperature: τ ≥ 0, which multiplies σ.

        Returns:
            z, in the dtype and shape of μ.

        Raises:
            ValueError: a number of generators other than 1 and the number of data; both ``generator`` and ``seed``,
                or ``noise`` and either; ``noise`` of another shape; a negative temperature; a stream out of its
                range.
            TypeError: a seed or stream that is no integer; noise that is no dense tensor of a floating dtype.
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
        """(``sample()``, ``kl()``) by one kernel, where ``sum_dims`` are the last dims; their gradient likewise.

        Args:
            generator: where the seed is drawn from. It may be the CPU's whatever the device of the moments. None:
                PyTorch's default one.
            seed: an int, or one int64 element on the moments' device; the sample is then a pure function of it.
            stream: which of the seed's streams of noise, from 0 to 2³² − 1. No two have a normal in common.
            noise: ε itself, of μ's shape and any floating dtype: a constant, without a gradient.
            temperature: τ ≥ 0, which multiplies σ in the sample alone.

        Returns:
            z, in the dtype and shape of μ; and KL(q ‖ N(0, I)) in nats, summed over ``sum_dims``, float64 for
            float64 moments, else float32.

        Raises:
            ValueError: both ``generator`` and ``seed``, or ``noise`` and either; ``noise`` of another shape; a
                negative temperature; a stream out of its range.
            TypeError: a seed or stream that is no integer; noise that is no dense tensor of a floating dtype.
        """
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
        """KL(q ‖ N(0, I)), or KL(q ‖ other), in nats, summed over ``sum_dims``.

        Args:
            other: a DiagonalGaussian, or whatever has ``mean`` and ``logvar`` that broadcast. None: N(0, I).

        Returns:
            The dims that are not summed over; float64 for float64 moments, else float32.

        Raises:
            ValueError: ``other`` is deterministic: the KL is infinite.
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
        """−log q(sample) in nats.

        Args:
            sample: z, of μ's shape, or a shape that broadcasts to it.
            dims: the dims that are summed over, an int or a sequence of ints. None: ``sum_dims``.

        Returns:
            The dims that are not summed over; float64 for float64 moments, else float32.

        Raises:
            ValueError: dims that moments has not, or twice; a sample of another shape.
        """
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
