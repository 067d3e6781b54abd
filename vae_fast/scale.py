"""What the second argument of a Gaussian is: log σ², log σ, σ, σ² or softplus⁻¹(σ), and σ from each.

    kind       σ                         log σ²
    logvar     exp(½r) + eps             r                 (eps = 0)
    logstd     exp(r) + eps              2r                (eps = 0)
    std        r + eps                   2 log σ
    var        sqrt(r + eps)             log(r + eps)
    softplus   log(1 + e^r) + eps        2 log σ

r is the raw argument clamped to [low, high]; its gradient is 0 outside. Where eps is not 0 the first two rows
have log σ² = 2 log σ. ``Scale`` holds plain numbers only, in the form the raw operators take them.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

LOGVAR, LOGSTD, STD, VAR, SOFTPLUS = range(5)
KINDS = {"logvar": LOGVAR, "logstd": LOGSTD, "std": STD, "var": VAR, "softplus": SOFTPLUS}


def magnitude(a: Tensor) -> Tensor:
    """|a|, with the left derivative −1 at 0, so that formulas smooth in a keep their derivatives there."""
    return torch.where(a > 0, a, -a)


class Scale(NamedTuple):
    """A parametrisation of σ: its kind, the eps added to σ (σ² for VAR), and the clamp of r."""

    kind: int = LOGVAR
    eps: float = 0.0
    low: float = -math.inf
    high: float = math.inf

    @property
    def bounded(self) -> bool:
        return self.low != -math.inf or self.high != math.inf

    @property
    def logarithmic(self) -> bool:
        """Whether log σ² is the argument itself, or twice it; otherwise σ is nearer to it."""
        return self.kind in (LOGVAR, LOGSTD) and not self.eps

    def clamp(self, raw: Tensor) -> Tensor:
        return torch.clamp(raw, self.low, self.high) if self.bounded else raw

    def inside(self, raw: Tensor, grad: Tensor) -> Tensor:
        """``grad`` where ``raw`` is within the bounds, 0 elsewhere."""
        return torch.where((raw >= self.low) & (raw <= self.high), grad, 0.0) if self.bounded else grad

    def sigma(self, r: Tensor) -> Tensor:
        """σ of the clamped argument."""
        if self.kind == VAR:
            return torch.sqrt(r + self.eps if self.eps else r)
        sigma = (
            torch.exp(0.5 * r)
            if self.kind == LOGVAR
            else torch.exp(r)
            if self.kind == LOGSTD
            else r
            if self.kind == STD
            else torch.where(r > 0, r, 0.0) + torch.log1p(torch.exp(-magnitude(r)))
        )
        return sigma + self.eps if self.eps else sigma

    def dsigma(self, r: Tensor) -> Tensor:
        """dσ/dr."""
        if self.kind == LOGVAR:
            return 0.5 * torch.exp(0.5 * r)
        if self.kind == LOGSTD:
            return torch.exp(r)
        if self.kind == STD:
            return torch.ones_like(r)
        if self.kind == VAR:
            return 0.5 / self.sigma(r)
        e = torch.exp(-magnitude(r))
        return torch.where(r > 0, 1.0, e) / (1.0 + e)

    def log_var(self, r: Tensor) -> Tensor:
        """log σ²."""
        if self.kind == VAR:
            return torch.log(r + self.eps if self.eps else r)
        if self.logarithmic:
            return r if self.kind == LOGVAR else 2.0 * r
        return 2.0 * torch.log(self.sigma(r))

    def dlog_var(self, r: Tensor) -> Tensor:
        """d log σ²/dr."""
        if self.kind == VAR:
            return 1.0 / (r + self.eps if self.eps else r)
        if self.logarithmic:
            return torch.full_like(r, 1.0 if self.kind == LOGVAR else 2.0)
        return 2.0 * self.dsigma(r) / self.sigma(r)

    def inv_sigma(self, r: Tensor) -> Tensor:
        """1/σ."""
        if self.logarithmic:
            return torch.exp(-0.5 * r if self.kind == LOGVAR else -r)
        return 1.0 / self.sigma(r)

    def inv_var(self, r: Tensor) -> Tensor:
        """1/σ²."""
        if self.logarithmic:
            return torch.exp(-r if self.kind == LOGVAR else -2.0 * r)
        if self.kind == VAR:
            return 1.0 / (r + self.eps if self.eps else r)
        inv_sigma = self.inv_sigma(r)
        return inv_sigma * inv_sigma
