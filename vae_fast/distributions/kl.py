"""The divergences that torch.distributions.kl_divergence finds for the drop-in distributions."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import (
    Bernoulli,
    Beta,
    ContinuousBernoulli,
    Distribution,
    Exponential,
    Gamma,
    Gumbel,
    Independent,
    Laplace,
    MultivariateNormal,
    Normal,
    Pareto,
    Uniform,
    kl_divergence,
    register_kl,
)

from vae_fast.distributions.bernoulli_divergence import divergence
from vae_fast.distributions.bernoulli_vector import BernoulliVector
from vae_fast.distributions.diagonal_normal import DiagonalNormal
from vae_fast.ops import arguments
from vae_fast.ops.gaussian_kl import gaussian_kl
from vae_fast.reference.densities import NONE, reduce


def _drop_in(d: Distribution, event_ndim: int = 0) -> Any:
    """The drop-in form of a distribution, which shares its parameters, with so many more dims in an event.

    None where it has none.
    """
    if isinstance(d, (DiagonalNormal, BernoulliVector)):
        return d.to_event(event_ndim)
    if isinstance(d, Normal):
        return DiagonalNormal(d.loc, d.scale, event_ndim, validate_args=False)
    if isinstance(d, Bernoulli):
        return BernoulliVector(**_given(d), event_ndim=event_ndim, validate_args=False)
    if isinstance(d, Independent):
        return _drop_in(d.base_dist, event_ndim + d.reinterpreted_batch_ndims)
    return None


def _given(d: Bernoulli) -> dict[str, Any]:
    """What PyTorch's Bernoulli was made of; the other parameter is not asked for, which would keep it."""
    probs, logits = vars(d).get("probs"), vars(d).get("logits")
    if probs is None or logits is None:
        return {"probs": d.probs} if logits is None else {"logits": d.logits}
    if d._param is probs:
        return {"probs": probs}
    # Of an expanded one that had both it is not known which: logits, but for outcomes that probs alone exclude.
    certain = ((probs == 0) | (probs == 1)) & (probs != torch.sigmoid(logits))
    return {"logits": torch.where(certain, torch.copysign(torch.full_like(logits, math.inf), probs - 0.5), logits)}


def _pair(p: Distribution, q: Distribution, family: type[Any]) -> tuple[Any, Any] | None:
    """Both in their drop-in form; None where one of them is of another kind.

    Raises NotImplementedError where their events differ in dims.
    """
    a, b = _drop_in(p), _drop_in(q)
    if not isinstance(a, family) or not isinstance(b, family):
        return None
    if a.event_ndim != b.event_ndim:
        raise NotImplementedError(
            f"KL divergence of {p} and {q}: an event has {a.event_ndim} dims in one, {b.event_ndim} in the other"
        )
    return a, b


def _by_elements(p: Any, q: Any) -> Tensor:
    """KL of an Independent of another kind and a drop-in form: that of what it is made of, summed over the event.

    Some other library may have registered it, as Pyro does those of its Delta. Raises NotImplementedError where
    nobody has.
    """
    ndims = [d.reinterpreted_batch_ndims if isinstance(d, Independent) else d.event_ndim for d in (p, q)]
    n = min(ndims)
    if n == 0 != max(ndims):
        raise NotImplementedError(f"no KL divergence of {p} and {q}")
    try:
        kl: Tensor = kl_divergence(_narrowed(p, n), _narrowed(q, n))
    except NotImplementedError as error:
        raise NotImplementedError(f"no KL divergence of {p} and {q}") from error
    return kl.sum(tuple(range(-n, 0))) if n else kl


def _narrowed(d: Any, n: int) -> Any:
    """The same with n dims fewer in an event."""
    if not isinstance(d, Independent):
        return d.to_event(-n)
    rest = d.reinterpreted_batch_ndims - n
    return Independent(d.base_dist, rest) if rest else d.base_dist


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
    pair = _pair(p, q, DiagonalNormal)
    if pair is None:
        return _by_elements(p, q)
    a, b = pair
    options = {"event_ndim": a.event_ndim, "backend": a._backend or b._backend}
    if b._standard and _within(b.batch_shape + b.event_shape, a.batch_shape + a.event_shape):
        return gaussian_kl(a._loc, a._raw, **a._gaussian, **options)
    prior_raw, form = b._raw, dict(b._gaussian)
    if form.pop("bounds_grad") != a._gaussian["bounds_grad"] and form["bounds"] is not None:
        # Of two bounds with unlike gradients the kernel has one.
        prior_raw, form["bounds"] = b._clamped(), None
    # None would be the posterior's.
    form["bounds"] = form["bounds"] or (None, None)
    of_prior = {f"prior_{name}": value for name, value in form.items()}
    return gaussian_kl(a._loc, a._raw, b._loc, prior_raw, **a._gaussian, **of_prior, **options)


@register_kl(BernoulliVector, BernoulliVector)
@register_kl(BernoulliVector, Independent)
@register_kl(Independent, BernoulliVector)
@register_kl(BernoulliVector, Bernoulli)
@register_kl(Bernoulli, BernoulliVector)
def _kl_bernoulli(p: Distribution, q: Distribution) -> Tensor:
    """Σ of each variable's divergence, by logits or probabilities, whichever it was given by."""
    pair = _pair(p, q, BernoulliVector)
    if pair is None:
        return _by_elements(p, q)
    a, b = pair
    x, y = a._wide(), b._wide()
    shape = arguments.broadcast_shape("p", x.shape, q=y)
    dtype = torch.promote_types(x.dtype, y.dtype)
    of = divergence[a._given, b._given]
    return reduce(of(x.to(dtype).expand(shape), y.to(dtype).expand(shape)), a.event_ndim, NONE, 1.0)


def _require_vectors(d: DiagonalNormal) -> None:
    if d.event_ndim != 1:
        raise NotImplementedError(f"KL divergence of {d} and a MultivariateNormal, whose events have 1 dim")


@register_kl(DiagonalNormal, MultivariateNormal)
def _kl_to_multivariate(p: DiagonalNormal, q: MultivariateNormal) -> Tensor:
    """With Λ = L⁻¹ of q's Σ = L·Lᵀ: that of diagonal Gaussians with L's diagonal, ½ Σ_{i>j} (Λ_ij·σ_j)² more.

    The mean's part is ½‖Λ(loc − m)‖². So nothing cancels where p and q are near, as traces and determinants would.
    """
    _require_vectors(p)
    scale_tril, diagonal = _factors(q)
    identity = torch.eye(scale_tril.shape[-1], dtype=scale_tril.dtype, device=scale_tril.device)
    inverse = torch.linalg.solve_triangular(scale_tril, identity, upper=False)
    whitened = (inverse @ (p.loc - q.loc).unsqueeze(-1)).squeeze(-1)
    centred = DiagonalNormal(whitened * diagonal, p._raw, validate_args=False, backend=p._backend, **p._gaussian)
    kl = kl_divergence(centred, DiagonalNormal(torch.zeros_like(diagonal), diagonal, validate_args=False))
    return kl + 0.5 * (inverse.tril(-1).square().sum(-2) * p.variance).sum(-1)


@register_kl(MultivariateNormal, DiagonalNormal)
def _kl_of_multivariate(p: MultivariateNormal, q: DiagonalNormal) -> Tensor:
    """That of a diagonal Gaussian with L's diagonal, and ½ Σ_{i>j} (L_ij/σ_i)²."""
    _require_vectors(q)
    scale_tril, diagonal = _factors(p)
    kl = kl_divergence(DiagonalNormal(p.loc, diagonal, validate_args=False), q)
    return kl + 0.5 * (scale_tril.tril(-1) / q.scale.unsqueeze(-1)).square().sum((-2, -1))


def _factors(d: MultivariateNormal) -> tuple[Tensor, Tensor]:
    """The Cholesky factor, in d's batch shape or less, and its diagonal."""
    return d._unbroadcasted_scale_tril, d._unbroadcasted_scale_tril.diagonal(dim1=-2, dim2=-1)


def _normal(d: Distribution) -> Distribution:
    """A DiagonalNormal of single numbers as PyTorch's Normal; every other distribution as it is."""
    if not isinstance(d, DiagonalNormal):
        return d
    if d.event_ndim:
        raise NotImplementedError(f"{d} has events of {d.event_ndim} dims: its other side must be an Independent")
    return Normal(d.loc, d.scale, validate_args=False)


def _kl_of_numbers(p: Distribution, q: Distribution) -> Tensor:
    """PyTorch's own, of the equivalent Normal. ``Independent`` of them come here by ``_by_elements``."""
    kl: Tensor = kl_divergence(_normal(p), _normal(q))
    return kl


# What else PyTorch has divergences from and to Normal for.
for _family in (Beta, ContinuousBernoulli, Exponential, Gamma, Gumbel, Laplace, Pareto, Uniform):
    register_kl(_family, DiagonalNormal)(_kl_of_numbers)
    register_kl(DiagonalNormal, _family)(_kl_of_numbers)
