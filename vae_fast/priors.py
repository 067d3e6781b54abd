"""Priors p(z) of a VAE: N(0, I), a learned mixture, and the mixture of the posteriors of learned pseudo-inputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from . import seeds
from .nn import Shape, _shape
from .ops.gaussian_log_prob import gaussian_log_prob
from .ops.gaussian_mixture_log_prob import gaussian_mixture_log_prob
from .ops.rsample import rsample
from .ops.standard_normal import standard_normal

__all__ = ["GaussianMixture", "MixturePrior", "StandardNormal", "VampPrior", "check_prior"]

Seed = int | Tensor
Encode = Callable[[Tensor], tuple[Tensor, Tensor | float]]

# The stream of a seed that components are chosen by; z has stream 0, as everywhere.
_COMPONENT_STREAM = 1


def _positive(n_components: int) -> int:
    if n_components < 1:
        raise ValueError(f"n_components must be at least 1, got {n_components}")
    return n_components


class StandardNormal(nn.Module):
    r"""The prior N(0, I), to which the KL of a diagonal Gaussian has a closed form.

    .. math:: \log p(z) = -\tfrac12 \sum_d (z_d^2 + \log 2\pi)

    What ``VAE(prior=None)`` has. It has no parameters.

    Args:
        latent_shape: size or shape of one latent vector; without it :meth:`log_prob` takes the last dim for one,
            and :meth:`sample` cannot be called. A VAE asks its encoder.

    Raises:
        ValueError: z whose last dims are not ``latent_shape``; a sample of vectors whose shape is not known.

    Example:
        >>> vae_fast.StandardNormal(2).log_prob(torch.zeros(3, 2))
        tensor([-1.8379, -1.8379, -1.8379])

    Source: Kingma and Welling, "Auto-Encoding Variational Bayes" (2014), section 3.
    """

    closed_form = True
    """Whether the KL to it has a closed form."""

    def __init__(self, latent_shape: Shape | None = None) -> None:
        super().__init__()
        self.latent_shape = None if latent_shape is None else _shape(latent_shape)

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z) of ``z`` [..., *latent]: [...], in nats; float64 for float64, else float32."""
        event_ndim = 1 if self.latent_shape is None else len(self.latent_shape)
        _check_latent(z, self.latent_shape)
        return gaussian_log_prob(torch.zeros_like(z), 0.0, z, event_ndim=event_ndim)

    @torch.no_grad()
    def sample(self, n: int, *, seed: Seed | None = None, generator: torch.Generator | None = None) -> Tensor:
        """Draws of z, sample 0 of the seed's noise, without a graph.

        Args:
            n: how many.
            seed: an int, or one int64 element; the draws are then a pure function of it. Without a seed it is drawn
                from ``generator``.
            generator: where the seed is drawn from, not together with ``seed``. None: PyTorch's default one.

        Returns:
            [n, *latent], of PyTorch's default dtype and device.

        Raises:
            ValueError: the shape of a latent vector is not known; both ``seed`` and ``generator``.
        """
        if self.latent_shape is None:
            raise ValueError(
                "sample() does not know the shape of a latent vector: pass StandardNormal(latent_shape)"
            )
        return rsample(torch.zeros(n, *self.latent_shape), 0.0, seed=seed, generator=generator)

    def extra_repr(self) -> str:
        return "" if self.latent_shape is None else f"latent_shape={self.latent_shape}"


class GaussianMixture(NamedTuple):
    r"""A mixture of K diagonal Gaussians as tensors: what both priors with components are at one call.

    .. math:: p(z) = \sum_k w_k\, \mathcal N(z; \mu_k, \mathrm{diag}\, \sigma_k^2)

    Args:
        mu: the components' means, [K, *latent].
        logvar: log σ², a tensor that broadcasts to ``mu``, or a number.
        log_weight: log w_k, [K], of weights that sum to 1; None for 1/K each.
    """

    mu: Tensor
    logvar: Tensor | float
    log_weight: Tensor | None = None

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z) of ``z`` [..., *latent]: [...], in nats, by :func:`vae_fast.gaussian_mixture_log_prob`."""
        mu, logvar, z = self._flat(z)
        return gaussian_mixture_log_prob(mu, logvar, z, log_weight=self.log_weight)

    def responsibilities(self, z: Tensor) -> Tensor:
        """p(k|z) = w_k N_k(z) / Σ_j w_j N_j(z) of ``z`` [..., *latent]: [..., K]."""
        mu, logvar, z = self._flat(z)
        table = z.unsqueeze(-2).expand(*z.shape[:-1], *mu.shape)
        log_joint = gaussian_log_prob(mu, logvar, table)
        return torch.softmax(log_joint if self.log_weight is None else log_joint + self.log_weight, -1)

    @torch.no_grad()
    def sample(self, n: int, *, seed: Seed | None = None, generator: torch.Generator | None = None) -> Tensor:
        """Draws of z, without a graph: each of a component that is chosen by the weights.

        z has sample 0 of the seed's noise, components a stream of their own.

        Args:
            n: how many.
            seed: an int, or one int64 element; the draws are then a pure function of it. Without a seed it is drawn
                from ``generator``.
            generator: where the seed is drawn from, not together with ``seed``. None: PyTorch's default one.

        Returns:
            [n, *latent], in mu's dtype and on its device.

        Raises:
            ValueError: both ``seed`` and ``generator``.
        """
        mu = self.mu
        if seed is None:
            seed, generator = seeds.draw(generator, mu.device), None
        if generator is not None:
            raise ValueError("pass seed or generator, not both")
        eps = standard_normal(n, seed=seed, stream=_COMPONENT_STREAM, device=mu.device, dtype=torch.float64)
        weight = mu.new_ones(len(mu), dtype=torch.float64)
        ends = (weight if self.log_weight is None else self.log_weight.to(weight.dtype).exp()).cumsum(0)
        # Φ(ε) is uniform in (0, 1), and a component of weight 0 has no interval to be found in.
        chosen = torch.searchsorted(ends / ends[-1], torch.special.ndtr(eps))
        logvar = self.logvar.expand_as(mu)[chosen] if isinstance(self.logvar, Tensor) else self.logvar
        return rsample(mu[chosen], logvar, seed=seed)

    def _flat(self, z: Tensor) -> tuple[Tensor, Tensor | float, Tensor]:
        """μ and log σ² [K, D], z [..., D]: a latent vector in one dim."""
        mu, logvar, latent = self.mu, self.logvar, self.mu.shape[1:]
        _check_latent(z, latent)
        if len(latent) == 1:
            return mu, logvar, z
        size = math.prod(latent)
        if isinstance(logvar, Tensor):
            logvar = logvar.expand_as(mu).reshape(len(mu), size)
        return mu.reshape(len(mu), size), logvar, z.reshape(*z.shape[: z.ndim - len(latent)], size)


class MixturePrior(nn.Module):
    r"""A mixture of K diagonal Gaussians whose means, variances and weights are learned.

    .. math::
        \log p(z) = \log \sum_{k=1}^{K} w_k\, \mathcal N(z; \mu_k, \mathrm{diag}\, \sigma_k^2),
        \qquad w = \mathrm{softmax}(l)

    Args:
        n_components: how many there are, K.
        latent_shape: size or shape of one latent vector.
        spread: the means start as draws from N(0, spread²), the variances at 1, the weights at 1/K.
        device: of the parameters. None: PyTorch's default one.
        dtype: of the parameters. None: PyTorch's default one.

    Shapes: ``mu`` and ``logvar`` [K, *latent], ``weight_logits`` l [K].

    Raises:
        ValueError: no component; z whose last dims are not ``latent_shape``.

    Example:
        >>> prior = vae_fast.MixturePrior(10, 2)
        >>> z = prior.sample(5, seed=0)
        >>> prior.log_prob(z).shape, prior.responsibilities(z).shape
        (torch.Size([5]), torch.Size([5, 10]))

    Source: Jiang, Zheng, Tan, Tang and Zhou, "Variational Deep Embedding" (2017): components are clusters.
    """

    closed_form = False
    """Whether the KL to it has a closed form."""

    def __init__(
        self,
        n_components: int,
        latent_shape: Shape,
        *,
        spread: float = 1.0,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        size = (_positive(n_components), *_shape(latent_shape))
        self.mu = nn.Parameter(spread * torch.randn(size, device=device, dtype=dtype))
        self.logvar = nn.Parameter(torch.zeros(size, device=device, dtype=dtype))
        self.weight_logits = nn.Parameter(torch.zeros(n_components, device=device, dtype=dtype))

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Shape of one latent vector."""
        return tuple(self.mu.shape[1:])

    def mixture(self) -> GaussianMixture:
        """The mixture as it is now, its weights normalised; with the parameters' graph."""
        logits = self.weight_logits
        wide = logits.float() if logits.itemsize < 4 else logits
        return GaussianMixture(self.mu, self.logvar, wide.log_softmax(0))

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z) of ``z`` [..., *latent]: [...], in nats; float64 for float64, else float32."""
        return self.mixture().log_prob(z)

    def sample(self, n: int, *, seed: Seed | None = None, generator: torch.Generator | None = None) -> Tensor:
        """Draws of z, without a graph: each of a component that is chosen by the weights.

        Args:
            n: how many.
            seed: an int, or one int64 element; the draws are then a pure function of it. Without a seed it is drawn
                from ``generator``.
            generator: where the seed is drawn from, not together with ``seed``. None: PyTorch's default one.

        Returns:
            [n, *latent], in mu's dtype and on its device.

        Raises:
            ValueError: both ``seed`` and ``generator``.
        """
        return self.mixture().sample(n, seed=seed, generator=generator)

    def responsibilities(self, z: Tensor) -> Tensor:
        """p(k|z), the softmax over k of log w_k + log N_k(z), of ``z`` [..., *latent]: [..., K].

        Of z ~ q(z|x), Jiang et al.'s q(c|x): which cluster x belongs to (eq. 16).
        """
        return self.mixture().responsibilities(z)

    def predict(self, z: Tensor) -> Tensor:
        """The component of the largest responsibility for ``z`` [..., *latent]: [...], int64."""
        return self.responsibilities(z).argmax(-1)

    def extra_repr(self) -> str:
        return f"n_components={len(self.mu)}, latent_shape={self.latent_shape}"


class VampPrior(nn.Module):
    r"""The mixture of the posteriors of K pseudo-inputs, which are learned: components by the VAE's own encoder.

    .. math:: p(z) = \frac{1}{K} \sum_{k=1}^{K} q_\phi(z|u_k)

    The encoder stays the VAE's: this module has the pseudo-inputs only, and is given the encoder for each call by
    :meth:`with_encoder`. A VAE does that, once a call, so that the encoder sees K data more; where its
    batch normalisation takes statistics, they are a batch of their own. The encoder's gradient has the prior's
    part too.

    Args:
        n_components: how many pseudo-inputs there are, K.
        data_shape: size or shape of one datum.
        init: [K, *data_shape], where the pseudo-inputs start: data, for instance. uint8 is taken as x/255, bool as
            0 and 1. None: they are drawn from N(0.5, 0.01²).
        bounded: whether the encoder sees them clamped to [0, 1], as the published code has it. An element at a
            bound or beyond has no gradient: with data that are 0 or 1, start a little inside.
        device: of the parameters. None: PyTorch's default one.
        dtype: of the parameters. None: PyTorch's default one.

    Shapes: ``pseudo_inputs`` [K, *data_shape], not clamped.

    Raises:
        ValueError: no component; ``init`` of another shape.

    Example:
        >>> encoder = vae_fast.GaussianMLP(6, 2, (4,))
        >>> vae_fast.VampPrior(10, 6).with_encoder(encoder).log_prob(torch.zeros(5, 2)).shape
        torch.Size([5])

    Source: Tomczak and Welling, "VAE with a VampPrior" (2018), eq. 9.
    """

    closed_form = False
    """Whether the KL to it has a closed form."""

    def __init__(
        self,
        n_components: int,
        data_shape: Shape,
        *,
        init: Tensor | None = None,
        bounded: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        size = (_positive(n_components), *_shape(data_shape))
        start = torch.empty(size, device=device, dtype=dtype)
        if init is None:
            start.normal_(0.5, 0.01)
        elif tuple(init.shape) != size:
            raise ValueError(f"init must be [n_components, *data_shape], {list(size)}, got {list(init.shape)}")
        else:
            start.copy_(init.detach())
            start /= 255 if init.dtype == torch.uint8 else 1
        self.pseudo_inputs = nn.Parameter(start)
        self.bounded = bounded

    def inputs(self) -> Tensor:
        """[K, *data_shape]: the pseudo-inputs as the encoder sees them."""
        return nn.functional.hardtanh(self.pseudo_inputs, 0.0, 1.0) if self.bounded else self.pseudo_inputs

    def with_encoder(self, encode: Encode) -> GaussianMixture:
        """The mixture under an encoder, ``encode(u) -> (mu, logvar)``, such as ``vae.encode``."""
        mu, logvar = encode(self.inputs())
        return GaussianMixture(mu, logvar)

    def extra_repr(self) -> str:
        n, *data = self.pseudo_inputs.shape
        return f"n_components={n}, data_shape={tuple(data)}, bounded={self.bounded}"


def check_prior(prior: Any, latent_shape: Shape | None) -> tuple[int, ...] | None:
    """The shape of a latent vector, by the caller or by the prior, of a prior that a VAE can take.

    Raises TypeError for another one, and ValueError where the two shapes differ.
    """
    name = type(prior).__name__
    if not isinstance(prior, nn.Module):
        raise TypeError(f"the prior must be an nn.Module, got {name}")
    has = {method for method in ("log_prob", "sample", "with_encoder") if callable(getattr(prior, method, None))}
    if "with_encoder" not in has and not {"log_prob", "sample"} <= has:
        raise TypeError(
            "the prior must have the methods log_prob(z) and sample(n, seed=, generator=), or with_encoder(encode) "
            f"for an object that has them; {name} has {', '.join(sorted(has)) or 'none of these'}"
        )
    if getattr(prior, "closed_form", False) and not isinstance(prior, StandardNormal):
        raise TypeError(f"closed_form is StandardNormal's alone: {name} must not set it")
    shapes = [_shape(s) for s in (latent_shape, getattr(prior, "latent_shape", None)) if s is not None]
    if len(set(shapes)) > 1:
        raise ValueError(f"the encoder's latent vectors have the shape {shapes[0]}, the prior's {shapes[1]}")
    return shapes[0] if shapes else None


def _check_latent(z: Tensor, latent: Sequence[int] | None) -> None:
    if latent is not None and (z.ndim < len(latent) or tuple(z.shape[z.ndim - len(latent) :]) != tuple(latent)):
        raise ValueError(f"the prior's z must be [..., {', '.join(map(str, latent))}], got {list(z.shape)}")
