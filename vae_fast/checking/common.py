"""The formulas that users write in PyTorch, in the operands' own dtype: what the check compares the errors with."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import ContinuousBernoulli, Laplace, Normal, StudentT, kl_divergence

from vae_fast import noise
from vae_fast.checking.cases import Case
from vae_fast.checking.forms import Form
from vae_fast.checking.operands import Operands
from vae_fast.operators import OPERATORS


def common(case: Case, operands: Operands) -> tuple[Tensor, ...]:
    """The case's results by PyTorch's own functions; none where it has none."""
    t, weight = dict(operands.tensors), operands.weight
    if weight is not None and "masked" in case.options:
        first = case.operands[0]
        t[first] = t[first].masked_fill(weight == 0, OPERATORS[case.op].operands[0].neutral)
    if case.op == "bernoulli_log_prob":
        target = _scaled(case, t["x"], t["logits"].dtype).expand(torch.broadcast_shapes(t["x"].shape, case.shape))
        loss = F.binary_cross_entropy if case.probs else F.binary_cross_entropy_with_logits
        positive: dict[str, Any] = {} if operands.pos_weight is None else {"pos_weight": operands.pos_weight}
        terms = -loss(t["logits"].expand(target.shape), target, reduction="none", **positive)
        return (_reduced(case, terms, weight),)
    if case.op == "gaussian_log_prob":
        mean = t["mean"]
        normal = Normal(mean, _sigma(case.form, mean, t["logvar"]), validate_args=False)
        return (_reduced(case, normal.log_prob(_scaled(case, t["x"], mean.dtype)), weight),)
    if case.counted_data:
        return (_reduced(case, _count(case, t), weight),)
    if case.op == "continuous_bernoulli_log_prob":
        y = t["logits"]
        continuous = ContinuousBernoulli(logits=y, validate_args=False)
        return (_reduced(case, continuous.log_prob(_scaled(case, t["x"], y.dtype)), weight),)
    if case.location_scale:
        return (_reduced(case, _location_scale(case, t), weight),)
    results = []
    if case.sampled:
        sigma = _sigma(case.form, t["mu"], t["logvar"])
        sigma = sigma if case.temperature == 1.0 else sigma * case.temperature
        eps = _noise(case, t["mu"]) if operands.noise is None else operands.noise.to(t["mu"].dtype)
        results.append(t["mu"] + sigma * eps)
    if case.spec.of_samples:
        for normal in _at_sample(case, t):
            results.append(_reduced(case, normal.log_prob(results[0]), weight))
        return tuple(results)
    if case.op in ("rsample_kl", "gaussian_kl"):
        kl = _kl(case, t)
        if case.free_bits is not None:
            kl = kl.clamp(min=case.free_bits)
        results.append(_reduced(case, kl, weight))
    return tuple(results)


def _location_scale(case: Case, t: dict[str, Any]) -> Tensor:
    loc = t["loc"]
    scale = torch.as_tensor(t["b" if "b" in t else "sigma"], dtype=loc.dtype, device=loc.device)
    scale = scale.exp() if case.by_logarithm["log_scale"] else scale
    made = (
        StudentT(t["df"], loc, scale, validate_args=False)
        if "df" in t
        else Laplace(loc, scale, validate_args=False)
    )
    log_prob: Tensor = made.log_prob(_scaled(case, t["x"], loc.dtype))
    return log_prob


def _count(case: Case, t: dict[str, Any]) -> Tensor:
    """By log Γ and logarithms of what has ε added, as single-cell models have them."""
    eps, by_log = case.form.eps, case.by_logarithm
    first = t[case.operands[0]]
    x = t["x"].to(first.dtype)
    if case.softmax:
        rows = first.expand(case.shape).flatten(-case.event_ndim)
        mu = rows.softmax(-1).reshape(case.shape) * t.get("log_library", torch.zeros(())).exp()
    else:
        mu = first.exp() if by_log.get("log_mean") or by_log.get("log_rate") else first
    if case.op == "poisson_log_prob":
        return torch.xlogy(x, mu + eps) - mu - torch.lgamma(x + 1)
    theta = torch.as_tensor(t["theta"], dtype=first.dtype, device=first.device)
    theta = theta.exp() if by_log["log_theta"] else theta
    both = torch.log(theta + mu + eps)
    none = theta * (torch.log(theta + eps) - both)
    some = x * (torch.log(mu + eps) - both) + torch.lgamma(x + theta) - torch.lgamma(theta) - torch.lgamma(x + 1)
    if "zero_logits" not in t:
        return none + some
    pi = t["zero_logits"]
    return torch.where(x == 0, torch.logaddexp(pi, none), none + some) - F.softplus(pi)


def _at_sample(case: Case, t: dict[str, Any]) -> tuple[Normal, Normal]:
    """q and the prior, whose densities are those of a sample."""
    mu, sigma = t["mu"], _sigma(case.form, t["mu"], t["logvar"])
    if "path" in case.options:
        mu, sigma = mu.detach(), sigma.detach()
    return Normal(mu, sigma, validate_args=False), _prior(case, t)


def _kl(case: Case, t: dict[str, Any]) -> Tensor:
    mu, raw = t["mu"], t["logvar"]
    if "prior_mu" not in t and case.form.param == "logvar" and not case.form.eps:
        logvar = _clamped(case.form, mu, raw)
        return -0.5 * (1 + logvar - mu**2 - logvar.exp())
    return kl_divergence(Normal(mu, _sigma(case.form, mu, raw), validate_args=False), _prior(case, t))


def _prior(case: Case, t: dict[str, Any]) -> Normal:
    mu = t["mu"]
    if "prior_mu" not in t:
        return Normal(torch.zeros_like(mu), torch.ones_like(mu), validate_args=False)
    return Normal(t["prior_mu"], _sigma(case.prior_form, mu, t["prior_logvar"]), validate_args=False)


def _clamped(form: Form, like: Tensor, raw: Tensor | float) -> Tensor:
    raw = raw if isinstance(raw, Tensor) else torch.tensor(raw, dtype=like.dtype, device=like.device)
    if form.bounded and form.passing:
        # As nn.GaussianNLLLoss clamps.
        raw = raw.clone()
        with torch.no_grad():
            raw.clamp_(form.low, form.high)
        return raw
    return raw.clamp(form.low, form.high) if form.bounded else raw


def _sigma(form: Form, like: Tensor, raw: Tensor | float) -> Tensor:
    r = _clamped(form, like, raw)
    if form.param == "var":
        return torch.sqrt(r + form.eps)
    if form.param == "std":
        sigma = r
    elif form.param == "logvar":
        sigma = torch.exp(0.5 * r)
    elif form.param == "logstd":
        sigma = torch.exp(r)
    else:
        sigma = F.softplus(r)
    return sigma + form.eps if form.eps else sigma


def _noise(case: Case, mu: Tensor) -> Tensor:
    eps = noise.normals(case.sample_shape, case.shape, case.seed, None, *case.counted, mu.device)
    return eps.to(mu.dtype)


def _scaled(case: Case, x: Tensor, dtype: torch.dtype) -> Tensor:
    x = x.to(dtype)
    return x if case.x_scale == 1.0 else x * case.x_scale


def _reduced(case: Case, terms: Tensor, weight: Tensor | None) -> Tensor:
    terms = terms if weight is None else terms * weight.to(terms.dtype)
    if case.reduction != "none":
        n_data = terms.shape[: terms.ndim - case.event_ndim].numel()
        out = terms.sum() / n_data if case.reduction == "mean" else terms.sum()
    else:
        out = terms.sum(tuple(range(-case.event_ndim, 0))) if case.event_ndim else terms
    return out if case.factor == 1.0 else out * case.factor
