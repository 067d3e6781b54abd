"""z = μ + σε and its gradient."""

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
    *form: Any,
) -> Draw:
    return Draw(sample_shape, seed, seed_tensor, offset, first_sample, SigmaForm(*form))


def rsample_fwd(mu: Tensor, logvar: Tensor, *options: Any) -> Tensor:
    return forward(mu, logvar, _draw(*options))[0]


def rsample_bwd(dz: Tensor, mu: Tensor, logvar: Tensor, *options: Any) -> tuple[Tensor, ...]:
    return backward(dz, None, mu, logvar, _draw(*options[:9]), options[9:11], *options[11:])
