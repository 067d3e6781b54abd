"""What the second argument of a Gaussian is: log σ², log σ, σ, σ² or softplus⁻¹(σ), and σ from each.

    kind       σ                         log σ²
    logvar     exp(½r) + eps             r                 (eps = 0)
    logstd     exp(r) + eps              2r                (eps = 0)
    std        r + eps                   2 log σ
    var        sqrt(r + eps)             log(r + eps)
    softplus   log(1 + e^r) + eps        2 log σ

r is the raw argument clamped to [low, high]; its gradient is 0 outside, or with "pass" what it is at the bound.
Where eps is not 0 the first two rows have log σ² = 2 log σ. ``SigmaForm`` holds plain numbers only, as the raw
operators take them.

An exponential that is beyond the range of a dtype is not formed but where it is the result: σ is s·e^q, where q is
not 0 only for arguments so far out that e^q alone is left of σ.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vae_fast.operators import BOUNDS_GRADS, FORMS
from vae_fast.wide import Wide, half_exp, wide, wide_exp

LOGVAR, LOGSTD, STD, VAR, SOFTPLUS = FORMS.values()
ZERO, PASS = BOUNDS_GRADS.values()


def magnitude(a: Tensor) -> Tensor:
    """|a|, with the left derivative −1 at 0, so that formulas smooth in a keep their derivatives there."""
    return torch.where(a > 0, a, -a)


class _StraightClamp(torch.autograd.Function):
    """A clamp whose gradient is that of the identity."""

    generate_vmap_rule = True

    @staticmethod
    def forward(raw: Tensor, low: float, high: float) -> Tensor:
        return torch.clamp(raw, low, high)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return grad, None, None

    @staticmethod
    def jvp(ctx: Any, draw: Tensor, *_: Any) -> Tensor:
        # No view of the argument: forward mode may not have its tangent in two places.
        return draw.clone()


class SigmaForm(NamedTuple):
    """A parametrisation of σ: its kind, the eps added to σ (σ² for VAR), the clamp of r and its gradient."""

    kind: int = LOGVAR
    eps: float = 0.0
    low: float = -math.inf
    high: float = math.inf
    bounds_grad: int = ZERO

    @classmethod
    def of(cls, options: Any) -> SigmaForm:
        """That of an operator's options."""
        return cls(options.param, options.param_eps, options.low, options.high, options.bounds_grad)

    @classmethod
    def of_prior(cls, options: Any) -> SigmaForm:
        """The prior's."""
        bounds = (options.prior_low, options.prior_high)
        return cls(options.prior_param, options.prior_param_eps, *bounds, options.bounds_grad)

    @property
    def bounded(self) -> bool:
        return self.low != -math.inf or self.high != math.inf

    @property
    def logarithmic(self) -> bool:
        """Whether log σ² is the argument itself, or twice it; otherwise σ is nearer to it."""
        return self.kind in (LOGVAR, LOGSTD) and not self.eps

    def clamp(self, raw: Tensor) -> Tensor:
        if not self.bounded:
            return raw
        if self.bounds_grad == PASS:
            clamped: Tensor = _StraightClamp.apply(raw, self.low, self.high)
            return clamped
        return torch.clamp(raw, self.low, self.high)

    def inside(self, raw: Tensor, grad: Tensor) -> Tensor:
        """``grad`` where ``raw`` is within the bounds, 0 elsewhere unless bounds pass it on."""
        if not self.bounded or self.bounds_grad == PASS:
            return grad
        return torch.where((raw >= self.low) & (raw <= self.high), grad, 0.0)

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
            return half_exp(0.5 * r)
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
        return r if self.kind == LOGVAR and not self.eps else 2.0 * self.log_sigma(r)

    def log_sigma(self, r: Tensor) -> Tensor:
        """log σ, finite wherever it is."""
        if self.logarithmic:
            return 0.5 * r if self.kind == LOGVAR else r
        if self.kind == VAR:
            return 0.5 * torch.log(r + self.eps if self.eps else r)
        s, q = self._parts(r)
        return torch.log(s) if q is None else torch.log(s) + q

    def dlog_var(self, r: Tensor) -> Tensor:
        """d log σ²/dr."""
        if self.logarithmic:
            return torch.full_like(r, 1.0 if self.kind == LOGVAR else 2.0)
        return self.wide_dlog_var(r).narrow()

    def inv_var(self, r: Tensor) -> Tensor:
        """1/σ², for a σ² that is an ordinary number."""
        if self.logarithmic:
            return torch.exp(-r if self.kind == LOGVAR else -2.0 * r)
        if self.kind == VAR:
            return 1.0 / (r + self.eps if self.eps else r)
        inv_sigma = 1.0 / self.sigma(r)
        return inv_sigma * inv_sigma

    # What follows is for a KL whose two parametrisations are not both logarithmic.

    def _parts(self, r: Tensor) -> tuple[Tensor, Tensor | None]:
        """(s, q) of σ = s·e^q; a q of None is 0."""
        if self.kind in (STD, VAR) or (self.kind == SOFTPLUS and self.eps):
            return self.sigma(r), None
        if self.kind == SOFTPLUS:
            far = self._far_below(r)
            return torch.where(far, 1.0, self.sigma(torch.where(far, 0.0, r))), torch.where(far, r, 0.0)
        # Where eps is nothing beside e^a, or there is none.
        a = 0.5 * r if self.kind == LOGVAR else r
        far = (a if self.eps else magnitude(a)) > (600.0 if r.dtype == torch.float64 else 60.0)
        return torch.where(far, 1.0, torch.exp(torch.where(far, 0.0, a)) + self.eps), torch.where(far, a, 0.0)

    @staticmethod
    def _far_below(r: Tensor) -> Tensor:
        """Where a softplus and its derivative are e^r."""
        return r < (-40.0 if r.dtype == torch.float64 else -20.0)

    def wide_var(self, r: Tensor) -> Wide:
        """σ²."""
        if self.kind == VAR:
            return wide(r + self.eps if self.eps else r)
        s, q = self._parts(r)
        sigma = wide(s) if q is None else wide(s).times(wide_exp(q))
        return sigma.times(sigma)

    def var_ratio(self, r: Tensor, prior: SigmaForm, prior_r: Tensor) -> Wide:
        """σ²/σp²."""
        if self.kind == prior.kind == VAR:
            return self.wide_var(r).over(prior.wide_var(prior_r))
        return _square_ratio(self._parts(r), prior._parts(prior_r))

    def var_ratio_slopes(self, r: Tensor, prior: SigmaForm, prior_r: Tensor) -> tuple[Wide, Wide]:
        """σ²/σp² times d log σ²/dr, and times d log σp²/dr.

        Each in one exponential, since the ratio may be beyond all range and the derivative below it.
        """
        own, other = self._parts(r), prior._parts(prior_r)
        ratio = self.var_ratio(r, prior, prior_r)
        by_own, by_prior = ratio.times(self.wide_dlog_var(r)), ratio.times(prior.wide_dlog_var(prior_r))
        if self._exponential_slope:
            slope, p = self._slope_parts(r)
            by_own = _square_ratio(_shifted(own, p, 0.5), other).times(wide(slope))
        if prior._exponential_slope:
            slope, p = prior._slope_parts(prior_r)
            by_prior = _square_ratio(own, _shifted(other, p, -0.5)).times(wide(slope))
        return by_own, by_prior

    @property
    def _exponential_slope(self) -> bool:
        """Whether d log σ²/dr may be an exponential where σ is none."""
        return bool(self.eps) and self.kind not in (STD, VAR)

    def _slope_parts(self, r: Tensor) -> tuple[Tensor, Tensor | None]:
        """(s, p) of d log σ²/dr = s·e^p, not for VAR; of p and σ's q one is 0."""
        s, q = self._parts(r)
        if self.kind == STD:
            return 2.0 / s, None
        if self.kind == SOFTPLUS:
            far = self._far_below(r)
            slope = torch.where(far, 2.0, 2.0 * self.dsigma(torch.where(far, 0.0, r))) / s
            # σ′ is e^r there, as σ is without eps.
            return slope, torch.where(far, r, 0.0) if self.eps else None
        assert q is not None
        a, factor = (0.5 * r, 1.0) if self.kind == LOGVAR else (r, 2.0)
        return factor / s, torch.where(q == 0, a, 0.0)

    def wide_dlog_var(self, r: Tensor) -> Wide:
        """d log σ²/dr."""
        if self.logarithmic:
            return wide(self.dlog_var(r))
        if self.kind in (VAR, STD):
            x = wide(r + self.eps if self.eps else r)
            return Wide((1.0 if self.kind == VAR else 2.0) / x.m, -x.n)
        s, p = self._slope_parts(r)
        return wide(s) if p is None else wide(s).times(wide_exp(p))


_Parts = tuple[Tensor, Tensor | None]


def _shifted(parts: _Parts, p: Tensor | None, by: float) -> _Parts:
    """s·e^(q + by·p)."""
    s, q = parts
    assert p is not None
    return s, by * p if q is None else q + by * p


def _square_ratio(own: _Parts, other: _Parts) -> Wide:
    """(s·e^q over the other)²."""
    (s, q), (other_s, other_q) = own, other
    ratio = wide(s).over(wide(other_s))
    if q is not None or other_q is not None:
        d, error = difference(*(torch.zeros_like(s) if a is None else a for a in (q, other_q)))
        e = wide_exp(d)
        ratio = ratio.times(Wide(torch.where(e.m.isinf(), e.m, e.m + e.m * error), e.n))
    return ratio.times(ratio)


def difference(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """a − b rounded, and its rounding error (Knuth's two-sum); 0 where a step of it is infinite."""
    d = a - b
    a, b, rounded = a.detach(), b.detach(), d.detach()
    b_part = a - rounded
    error = (a - (rounded + b_part)) + (b_part - b)
    return d, torch.where(torch.isfinite(error), error, 0.0)
