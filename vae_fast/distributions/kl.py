"""The divergences that torch.distributions.kl_divergence finds for the drop-in distributions."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Distribution, Independent, Normal, register_kl

from vae_fast.distributions.bernoulli_vector import BernoulliVector
from vae_fast.distributions.diagonal_normal import DiagonalNormal
from vae_fast.ops.gaussian_kl import gaussian_kl
from vae_fast.scale import LOGSTD, LOGVAR, SOFTPLUS, STD, Scale


def _drop_in(d: Distribution, event_ndim: int = 0) -> Any:
    """The drop-in form of a distribution, which shares its parameters, with so many more dims in an event."""
    if isinstance(d, (DiagonalNormal, BernoulliVector)):
        return d.to_event(event_ndim) if event_ndim else d
    if isinstance(d, Normal):
        return DiagonalNormal(d.loc, d.scale, event_ndim, validate_args=False)
    if isinstance(d, Bernoulli):
        same = BernoulliVector(logits=d.logits, event_ndim=event_ndim, validate_args=False)
        same.probs = d.probs
        return same
    if isinstance(d, Independent):
        return _drop_in(d.base_dist, event_ndim + d.reinterpreted_batch_ndims)
    raise NotImplementedError(f"no KL divergence of {type(d).__name__} and a drop-in distribution")


def _pair(p: Distribution, q: Distribution, family: type[Any]) -> tuple[Any, Any]:
    """Both in their drop-in form. Raises NotImplementedError where their events differ in kind or in dims."""
    a, b = _drop_in(p), _drop_in(q)
    if not isinstance(a, family) or not isinstance(b, family):
        raise NotImplementedError(f"no KL divergence of {p} and {q}")
    if a.event_ndim != b.event_ndim:
        raise NotImplementedError(
            f"KL divergence of {p} and {q}: an event has {a.event_ndim} dims in one, {b.event_ndim} in the other"
        )
    return a, b


def _as(form: Scale, q: DiagonalNormal) -> Tensor:
    """The second argument that has q's σ in another form, one without eps and bounds."""
    r = q._clamped()
    if form.kind in (LOGVAR, LOGSTD):
        log_var = q._form.log_var(r)
        return log_var if form.kind == LOGVAR else 0.5 * log_var
    sigma = q._form.sigma(r)
    return sigma if form.kind == STD else sigma * sigma


def _within(shape: torch.Size, other: torch.Size) -> bool:
    """Whether a shape broadcasts to another one."""
    pairs = zip(reversed(shape), reversed(other), strict=False)
    return len(shape) <= len(other) and all(n in (1, m) for n, m in pairs)


@register_kl(DiagonalNormal, DiagonalNormal)
@register_kl(DiagonalNormal, Independent)
@register_kl(Independent, DiagonalNormal)
@register_kl(DiagonalNormal, Normal)
@register_kl(Normal, DiagonalNormal)
def _kl_gaussian(p: Distribution, q: Distribution) -> Tensor:
    """``gaussian_kl``, to N(0, I) where the numbers q was made of say so."""
    a, b = _pair(p, q, DiagonalNormal)
    options = {"event_ndim": a.event_ndim, "backend": a._backend or b._backend}
    if b._standard and _within(b.batch_shape + b.event_shape, a.batch_shape + a.event_shape):
        return gaussian_kl(a._loc, a._raw, **a._gaussian, **options)
    if a._form == b._form:
        return gaussian_kl(a._loc, a._raw, b._loc, b._raw, **a._gaussian, **options)
    if a._form.kind != SOFTPLUS and not a._form.eps and not a._form.bounded:
        return gaussian_kl(a._loc, a._raw, b._loc, _as(a._form, b), **a._gaussian, **options)
    std = Scale(STD)
    return gaussian_kl(a._loc, _as(std, a), b._loc, _as(std, b), param="std", **options)


@register_kl(BernoulliVector, BernoulliVector)
@register_kl(BernoulliVector, Independent)
@register_kl(Independent, BernoulliVector)
@register_kl(BernoulliVector, Bernoulli)
@register_kl(Bernoulli, BernoulliVector)
def _kl_bernoulli(p: Distribution, q: Distribution) -> Tensor:
    """What p's probabilities as targets cost under q, less what they cost under p."""
    a, b = _pair(p, q, BernoulliVector)
    kl: Tensor = a._log_prob(a.probs) - b._log_prob(a.probs)
    # Logits of probabilities 0 and 1 are clamped, finite; where q excludes what p allows, the divergence is not.
    excluded = ((b.probs == 0) & (a.probs > 0)) | ((b.probs == 1) & (a.probs < 1))
    excluded = excluded & (b.probs != torch.sigmoid(b.logits))
    elements = math.prod(excluded.shape[kl.ndim :])
    return kl + torch.where(excluded, math.inf, 0.0).reshape(*kl.shape, elements).sum(-1)
