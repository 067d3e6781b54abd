"""z = μ + τσε with KL(N(μ, σ²) ‖ N(μp, σp²)), in one pass, and their gradients together."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from vae_fast.operators import Wanted
from vae_fast.triton_kernels.drawing import Draw
from vae_fast.triton_kernels.operands import Gradients
from vae_fast.triton_kernels.sampling_class import Upstream
from vae_fast.triton_kernels.sampling_launch import backward, forward


def _draw(mu: Tensor, logvar: Tensor, prior_mu: Tensor | None, prior_logvar: Tensor | None, options: Any) -> Draw:
    plain = prior_mu is None and prior_logvar is None
    operands = (mu, logvar) if plain else (mu, logvar, prior_mu, prior_logvar)
    return Draw(operands, options, options.event_ndim, options.free_bits)


def rsample_kl_fwd(
    mu: Tensor,
    logvar: Tensor,
    prior_mu: Tensor | None,
    prior_logvar: Tensor | None,
    options: Any,
    wanted: Wanted,
) -> tuple[Tensor, Tensor]:
    z, kl = forward(_draw(mu, logvar, prior_mu, prior_logvar, options))
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
    gradients = Gradients((mu, logvar, prior_mu, prior_logvar), (0, 1, 2, 3), wanted, mu.device)
    backward(Upstream(dz, dkl), _draw(mu, logvar, prior_mu, prior_logvar, options), gradients.each)
    return gradients.finished()
