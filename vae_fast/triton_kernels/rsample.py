"""z = μ + σε and its gradient."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from vae_fast.scale import Scale
from vae_fast.triton_kernels.sampling_launch import Draw, backward, forward


def rsample_fwd(
    mu: Tensor,
    logvar: Tensor,
    sample_shape: Sequence[int],
    seed: int,
    seed_tensor: Tensor | None,
    offset: int,
    first_sample: int,
    param: int,
    param_eps: float,
    low: float,
    high: float,
) -> Tensor:
    form = Scale(param, param_eps, low, high)
    draw = Draw(sample_shape, seed, seed_tensor, offset, first_sample, form)
    return forward(mu, logvar, draw)[0]


def rsample_bwd(
    dz: Tensor,
    mu: Tensor,
    logvar: Tensor,
    sample_shape: Sequence[int],
    seed: int,
    seed_tensor: Tensor | None,
    offset: int,
    first_sample: int,
    param: int,
    param_eps: float,
    low: float,
    high: float,
    need_dmu: bool,
    need_dlogvar: bool,
) -> tuple[Tensor, ...]:
    form = Scale(param, param_eps, low, high)
    draw = Draw(sample_shape, seed, seed_tensor, offset, first_sample, form)
    return backward(dz, None, mu, logvar, draw, (need_dmu, need_dlogvar))
