"""z = μ + τσε and its gradient."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from vae_fast.operators import Wanted
from vae_fast.triton_kernels.sampling_launch import Draw, Upstream, backward, forward


def rsample_fwd(mu: Tensor, logvar: Tensor, options: Any, wanted: Wanted) -> Tensor:
    return forward(Draw((mu, logvar, None, None), options))[0]


def rsample_bwd(dz: Tensor, mu: Tensor, logvar: Tensor, options: Any, wanted: Wanted) -> tuple[Tensor, ...]:
    needs = Wanted((*wanted.needs, False, False), wanted.packed, wanted.packed_dim)
    dmu, dlogvar, *_ = backward(Upstream(dz), Draw((mu, logvar, None, None), options), needs)
    return dmu, dlogvar
