"""z = μ + τσε and its gradient."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from vae_fast.operators import Wanted
from vae_fast.triton_kernels.drawing import Draw
from vae_fast.triton_kernels.operands import Gradients
from vae_fast.triton_kernels.sampling_class import Upstream
from vae_fast.triton_kernels.sampling_launch import backward, forward


def rsample_fwd(mu: Tensor, logvar: Tensor, options: Any, wanted: Wanted) -> Tensor:
    return forward(Draw((mu, logvar), options))[0]


def rsample_bwd(dz: Tensor, mu: Tensor, logvar: Tensor, options: Any, wanted: Wanted) -> tuple[Tensor, ...]:
    gradients = Gradients((mu, logvar), (0, 1), wanted, mu.device)
    backward(Upstream(dz), Draw((mu, logvar), options), gradients.each)
    return gradients.finished()
