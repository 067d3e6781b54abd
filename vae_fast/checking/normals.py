"""What the cases of the operators on pairs are drawn from."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def normals(seed: int) -> Callable[..., Tensor]:
    """A function from sizes to standard normals in float64, the next ones of the seed's at every call."""
    rng = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=rng, dtype=torch.float64)

    return normal
