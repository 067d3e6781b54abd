"""The reparameterised sample and its KL divergence to N(0, I), in one pass, and their gradients."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vae_fast import seeds
from vae_fast.backends import choose
from vae_fast.checks import countable
from vae_fast.operators import OPERATORS
from vae_fast.ops import arguments
from vae_fast.ops.arguments import Bounds, Param
from vae_fast.ops.autograd import draw
from vae_fast.tracing import public

_Options = OPERATORS["rsample_kl"].Options


@public
def rsample_kl(
    mu: Tensor,
    logvar: Tensor | float,
    sample_shape: int | Sequence[int] = (),
    *,
    event_ndim: int = 1,
    free_bits: float | None = None,
    seed: int | Tensor | None = None,
    offset: int = 0,
    first_sample: int = 0,
    generator: torch.Generator | None = None,
    param: Param = "logvar",
    param_eps: float = 0.0,
    bounds: Bounds | None = None,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Sample of q = N(μ, σ²) and KL(q ‖ N(0, I)) together: what a VAE's encoder output is used for.

    z as ``rsample`` gives it, bit for bit, and Σ ½(μ² + σ² − 1 − log σ²) over the event dims as ``gaussian_kl``.

    Args:
        event_ndim: how many trailing dims of broadcast(mu, logvar) make one latent vector.
        free_bits: λ: every element's KL counts as max(KL, λ), with no gradient where KL ≤ λ.
        others: as ``rsample``. Of two latents with one ``seed``, the second takes a ``first_sample`` of its own:
            their noise is the same otherwise.

    Returns:
        (z, kl): z of shape sample_shape + broadcast(mu, logvar).shape; kl ≥ 0 of the shape of the data dims,
        without sample dims, float64 for float64 arguments and float32 for all others.

    Raises:
        as ``rsample``; ValueError for an ``event_ndim`` larger than the number of dims.

    Source: Kingma and Welling, "Auto-Encoding Variational Bayes" (2014), eq. 10 and appendix B; free bits:
    Kingma et al. (2016), eq. 15, per latent and datum.
    """
    operands, shape, composite, _ = arguments.operands("rsample_kl", mu, logvar)
    code, eps, low, high = arguments.parametrisation(param, param_eps, bounds)
    arguments.event_dims(event_ndim, shape, "mu and logvar")
    free = None if free_bits is None else arguments.number("free_bits", free_bits)
    name = choose("rsample_kl", mu.device, backend, mu.numel())
    samples = arguments.sizes("sample_shape", sample_shape)
    countable((*samples, *shape), "z")
    offset, first_sample = seeds.integer("offset", offset), seeds.integer("first_sample", first_sample)
    key, key_tensor = seeds.resolve(seed, generator, mu.device)
    options = _Options(
        sample_shape=samples,
        seed=key,
        offset=offset,
        first_sample=first_sample,
        event_ndim=event_ndim,
        free_bits=free,
        param=code,
        param_eps=eps,
        low=low,
        high=high,
    )
    z, kl = draw("rsample_kl", name, operands, options, composite, key_tensor)
    return z, kl
