"""The scale of a location-scale density, given by itself or by its logarithm."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from vae_fast.operators import SCALE_PARAMS
from vae_fast.wide import Wide, wide, wide_exp

_LOG_SCALE = SCALE_PARAMS["log_scale"]


class Scale(NamedTuple):
    """What the parameter says of it."""

    raw: Tensor
    by_log: bool

    @classmethod
    def of(cls, raw: Tensor, options) -> Scale:
        return cls(raw, options.param == _LOG_SCALE)

    def log(self) -> Tensor:
        return self.raw if self.by_log else torch.log(self.raw)

    def wide(self) -> Wide:
        return wide_exp(self.raw) if self.by_log else wide(self.raw)

    def under(self, value: Tensor) -> Tensor:
        """value/scale: finite whenever it is, and 0 where the value is, whatever the scale but NaN."""
        none = (value == 0) & ~self.raw.isnan()
        if not self.by_log:
            return value / torch.where(none & (self.raw == 0), 1.0, self.raw)
        ordinary = self.raw.detach().abs() < (700.0 if value.dtype == torch.float64 else 85.0)
        near = value * torch.exp(-torch.where(ordinary, self.raw, 0.0))
        far = wide(torch.where(ordinary | none, 1.0, value)).times(wide_exp(-torch.where(ordinary, 0.0, self.raw)))
        return torch.where(ordinary, near, torch.where(none, 0.0, far.narrow()))

    def by_raw(self, slope: Tensor) -> Tensor:
        """The derivative by the parameter, of one by the scale's logarithm."""
        return slope if self.by_log else slope / self.raw
