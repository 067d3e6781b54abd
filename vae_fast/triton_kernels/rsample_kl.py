"""z = μ + σε with KL(N(μ, σ²) ‖ N(0, I)), in one pass, and their gradients together."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from vae_fast.scale import Scale
from vae_fast.triton_kernels.sampling_launch import Draw, backward, forward


def rsample_kl_fwd(
    mu: Tensor,
    logvar: Tensor,
    sample_shape: Sequence[int],
    seed: int,
    seed_tensor: Tensor | None,
    offset: int,
    first_sample: int,
    event_ndim: int,
    free_bits: float | None,
    param: int,
    param_eps: float,
    low: float,
    high: float,
) -> tuple[Tensor, Tensor]:
    form = Scale(param, param_eps, low, high)
    draw = Draw(sample_shape, seed, seed_tensor, offset, first_sample, form, event_ndim, free_bits)
    z, kl = forward(mu, logvar, draw)
    assert kl is not None
    return z, kl


def rsample_kl_bwd(
    dz: Tensor | None,
    dkl: Tensor | None,
    mu: Tensor,
    logvar: Tensor,
    sample_shape: Sequence[int],
    seed: int,
    seed_tensor: Tensor | None,
    offset: int,
    first_sample: int,
    event_ndim: int,
    free_bits: float | None,
    param: int,
    param_eps: float,
    low: float,
    high: float,
    need_dmu: bool,
    need_dlogvar: bool,
) -> tuple[Tensor, ...]:
    form = Scale(param, param_eps, low, high)
    draw = Draw(sample_shape, seed, seed_tensor, offset, first_sample, form, event_ndim, free_bits)
    return backward(dz, dkl, mu, logvar, draw, (need_dmu, need_dlogvar))
