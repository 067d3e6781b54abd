"""The reparameterised sample and its KL divergence to the prior, in one pass, and their gradients."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vae_fast.backends import choose
from vae_fast.checks import countable
from vae_fast.operators import OPERATORS
from vae_fast.ops import arguments
from vae_fast.ops.arguments import Bounds, BoundsGrad, Param
from vae_fast.ops.autograd import draw
from vae_fast.ops.noise_source import source
from vae_fast.ops.public import operator

_Options = OPERATORS["rsample_kl"].Options


@operator
def rsample_kl(
    mu: Tensor,
    logvar: Tensor | float,
    sample_shape: int | Sequence[int] = (),
    *,
    prior_mu: Tensor | float | None = None,
    prior_logvar: Tensor | float | None = None,
    event_ndim: int = 1,
    free_bits: float | None = None,
    temperature: float = 1.0,
    seed: int | Tensor | None = None,
    offset: int = 0,
    first_sample: int = 0,
    stream: int = 0,
    generator: torch.Generator | None = None,
    noise: Tensor | None = None,
    param: Param = "logvar",
    param_eps: float = 0.0,
    bounds: Bounds | None = None,
    bounds_grad: BoundsGrad = "zero",
    prior_param: Param | None = None,
    prior_param_eps: float | None = None,
    prior_bounds: Bounds | None = None,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Sample of q = N(μ, σ²) and KL(q ‖ N(μp, σp²)) together: what a VAE's encoder output is used for.

    z as ``rsample`` gives it, bit for bit where the prior is of no wider dtype, and the KL, over the event dims, as
    ``gaussian_kl``: to N(0, I), or to a prior that a network gives (hierarchical and recurrent VAEs).

    Args:
        prior_mu, prior_logvar: the prior's: tensors, numbers, or None for mean 0 and σp = 1. They broadcast to the
            shape that mu and logvar have together.
        event_ndim: how many trailing dims of broadcast(mu, logvar) make one latent vector.
        free_bits: λ: every element's KL counts as max(KL, λ), with no gradient where KL ≤ λ.
        temperature: of the sample alone, as ``rsample``; the KL is of q.
        prior_param, prior_param_eps, prior_bounds: as ``gaussian_kl``.
        others: as ``rsample``. Two latents with one ``seed`` take each its own ``stream``: their noise is the same
            otherwise.

    Returns:
        (z, kl): z of shape sample_shape + broadcast(mu, logvar).shape; kl ≥ 0 of the shape of the data dims,
        without sample dims, float64 for float64 arguments and float32 for all others.

    Raises:
        as ``rsample``; ValueError for an ``event_ndim`` larger than the number of dims, or a prior of more elements
        than mu and logvar have.

    Source: Kingma and Welling, "Auto-Encoding Variational Bayes" (2014), eq. 10 and appendix B; free bits:
    Kingma et al. (2016), eq. 15, per latent and datum.
    """
    operands, shape, composite, _ = arguments.operands("rsample_kl", mu, logvar, prior_mu, prior_logvar)
    if prior_mu is not None or prior_logvar is not None:
        arguments.prior_fits(operands, shape)
    own = arguments.parametrisation(param, param_eps, bounds)
    code, eps, low, high = own
    prior = arguments.prior_parametrisation(own, prior_param, prior_param_eps, prior_bounds)
    prior_code, prior_eps, prior_low, prior_high = prior
    arguments.event_dims(event_ndim, shape, "mu and logvar")
    free = None if free_bits is None else arguments.number("free_bits", free_bits)
    name = choose("rsample_kl", mu.device, backend, mu.numel())
    samples = arguments.sizes("sample_shape", sample_shape)
    countable((*samples, *shape), "z")
    drawn = source(seed, generator, noise, (offset, first_sample, stream), mu, samples, shape)
    options = _Options(
        sample_shape=samples,
        seed=drawn.seed,
        offset=drawn.offset,
        first_sample=drawn.first_sample,
        temperature=arguments.temperature(temperature),
        event_ndim=event_ndim,
        free_bits=free,
        param=code,
        param_eps=eps,
        low=low,
        high=high,
        bounds_grad=arguments.bounds_grad_code(bounds_grad),
        prior_param=prior_code,
        prior_param_eps=prior_eps,
        prior_low=prior_low,
        prior_high=prior_high,
    )
    z, kl = draw("rsample_kl", name, operands, options, composite, drawn)
    return z, kl
