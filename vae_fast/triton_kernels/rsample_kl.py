"""z = μ + σε with KL(N(μ, σ²) ‖ N(0, I)), in one pass, and their gradients together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from vae_fast.sigma import SigmaForm
from vae_fast.triton_kernels.sampling_launch import Draw, backward, forward


def _draw(
    sample_shape: Sequence[int],
    seed: int,
    seed_tensor: Tensor | None,
    offset: int,
    first_sample: int,
    event_ndim: int,
    free_bits: float | None,
    *form: Any,
) -> Draw:
    return Draw(sample_shape, seed, seed_tensor, offset, first_sample, SigmaForm(*form), event_ndim, free_bits)


def rsample_kl_fwd(mu: Tensor, logvar: Tensor, *options: Any) -> tuple[Tensor, Tensor]:
    z, kl = forward(mu, logvar, _draw(*options))
    assert kl is not None
    return z, kl


def rsample_kl_bwd(
    dz: Tensor | None, dkl: Tensor | None, mu: Tensor, logvar: Tensor, *options: Any
) -> tuple[Tensor, ...]:
    return backward(dz, dkl, mu, logvar, _draw(*options[:11]), options[11:13], *options[13:])
