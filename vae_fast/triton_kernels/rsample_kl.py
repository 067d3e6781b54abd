"""z = μ + τσε with KL(N(μ, σ²) ‖ N(μp, σp²)), in one pass, and their gradients together."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from vae_fast.operators import Wanted
from vae_fast.triton_kernels.sampling_launch import Draw, Upstream, backward, forward


def _draw(operands: tuple[Any, ...], options: Any) -> Draw:
    return Draw(operands, options, options.event_ndim, options.free_bits)


def rsample_kl_fwd(
    mu: Tensor,
    logvar: Tensor,
    prior_mu: Tensor | None,
    prior_logvar: Tensor | None,
    options: Any,
    wanted: Wanted,
) -> tuple[Tensor, Tensor]:
    z, kl = forward(_draw((mu, logvar, prior_mu, prior_logvar), options))
    assert kl is not None
    return z, kl


def rsample_kl_bwd(
    dz: Tensor | None,
    dkl: Tensor | None,
    mu: Tensor,
    logvar: Tensor,
    prior_mu: Tensor | None,
    prior_logvar: Tensor | None,
    options: Any,
    wanted: Wanted,
) -> tuple[Tensor, ...]:
    return backward(Upstream(dz, dkl), _draw((mu, logvar, prior_mu, prior_logvar), options), wanted)
