"""z = μ + σε and its gradient."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from vae_fast.operators import Wanted
from vae_fast.triton_kernels.sampling_launch import Draw, Upstream, backward, forward


def rsample_fwd(mu: Tensor, logvar: Tensor, options: Any, wanted: Wanted) -> Tensor:
    return forward(mu, logvar, Draw(options))[0]


def rsample_bwd(dz: Tensor, mu: Tensor, logvar: Tensor, options: Any, wanted: Wanted) -> tuple[Tensor, ...]:
    return backward(Upstream(dz), mu, logvar, Draw(options), wanted)
