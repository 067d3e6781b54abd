"""What the second argument of a Gaussian is, and σ of it, as textbooks write it; apart from the package's own."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

# Float64, or numbers in more digits.
Array = Any


def softplus(a: Array, f: Any = np) -> Array:
    return f.where(a > 0, a, 0.0) + f.log1p(f.exp(-abs(a)))


def sigmoid(a: Array, f: Any = np) -> Array:
    small = f.exp(-abs(a))
    return f.where(a > 0, 1.0, small) / (1 + small)


class Form(NamedTuple):
    """What the second argument of a Gaussian is, by its public names; ``low`` and ``high`` are the bounds.

    ``passing``: outside the bounds its slope is that at the bound.
    """

    param: str = "logvar"
    eps: float = 0.0
    low: float = -math.inf
    high: float = math.inf
    passing: bool = False

    @property
    def bounded(self) -> bool:
        return self.low != -math.inf or self.high != math.inf

    @property
    def bounds(self) -> tuple[float, float] | None:
        return (self.low, self.high) if self.bounded else None

    @property
    def positive(self) -> bool:
        """Whether the argument is σ or σ² itself."""
        return self.param in ("std", "var")

    @property
    def logarithmic(self) -> bool:
        """Whether log σ² is the argument itself, or twice it; otherwise σ is nearer to it."""
        return self.param in ("logvar", "logstd") and not self.eps

    @property
    def rounded(self) -> bool:
        """Whether σ is rounded on the way to what is made of it."""
        return self.param == "softplus" or self.eps != 0

    def clamp(self, raw: Array, f: Any = np) -> Array:
        if not self.bounded:
            return raw
        return f.where(raw < self.low, self.low, f.where(raw > self.high, self.high, raw))

    def inside(self, raw: Array, grad: Array, f: Any = np) -> Array:
        """``grad`` where ``raw`` is within the bounds, 0 elsewhere unless they pass it."""
        if not self.bounded or self.passing:
            return grad
        return f.where((raw >= self.low) & (raw <= self.high), grad, 0.0)

    def sigma(self, r: Array, f: Any = np) -> Array:
        """σ of the clamped argument."""
        if self.param == "var":
            return f.sqrt(r + self.eps)
        if self.param == "std":
            return r + self.eps
        if self.param == "softplus":
            return softplus(r, f) + self.eps
        return f.exp(r / 2 if self.param == "logvar" else r) + self.eps

    def dsigma(self, r: Array, f: Any = np) -> Array:
        """dσ/dr."""
        if self.param == "var":
            return 0.5 / f.sqrt(r + self.eps)
        if self.param == "std":
            return f.ones(np.shape(r))
        if self.param == "softplus":
            return sigmoid(r, f)
        if self.param == "logstd":
            return f.exp(r)
        quarter = f.exp(r / 4)  # e^(½r) may be beyond the largest number, and half of it not
        return quarter / 2 * quarter

    def log_var(self, r: Array, f: Any = np) -> Array:
        """log σ²."""
        if self.logarithmic:
            return r if self.param == "logvar" else 2 * r
        return f.log(r + self.eps) if self.param == "var" else 2 * f.log(self.sigma(r, f))

    def dlog_var(self, r: Array, f: Any = np) -> Array:
        """d log σ²/dr."""
        if self.logarithmic:
            return f.ones(np.shape(r)) * (1 if self.param == "logvar" else 2)
        return 1 / (r + self.eps) if self.param == "var" else 2 * self.dsigma(r, f) / self.sigma(r, f)

    def inverse(self, r: Array, f: Any = np) -> Array:
        """1/σ."""
        if self.logarithmic:
            return f.exp(-r / 2 if self.param == "logvar" else -r)
        return 1 / self.sigma(r, f)

    def inverse_square(self, r: Array, f: Any = np) -> Array:
        """1/σ²."""
        if self.logarithmic:
            return f.exp(-r if self.param == "logvar" else -2 * r)
        return 1 / (r + self.eps) if self.param == "var" else 1 / self.sigma(r, f) / self.sigma(r, f)
