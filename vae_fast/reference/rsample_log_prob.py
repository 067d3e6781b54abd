"""z = μ + σε, log q(z|x) and log p(z) of the same arguments."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from vae_fast.operators import OPERATORS, Q_GRADS, Wanted
from vae_fast.reference.densities import NONE, broadcast_shape, dtypes, gradients, promoted_dtype, reduce
from vae_fast.reference.formulas import Standardised, by_raw, standardised
from vae_fast.reference.standard_normal import standard_normal_fwd
from vae_fast.sigma import SigmaForm

_Noise, _Options = OPERATORS["standard_normal"].Options, OPERATORS["rsample_log_prob"].Options
_SHARED = tuple(name for name in _Noise._fields if name in _Options._fields)
_PATH = Q_GRADS["path"]


def _eps(mu: Tensor, logvar: Tensor, dtype: torch.dtype, options) -> Tensor:
    """ε in ``dtype``."""
    if options.noise is not None:
        return options.noise.to(dtype)
    drawn = {name: getattr(options, name) for name in _SHARED}
    shape = broadcast_shape(mu, logvar)
    return standard_normal_fwd(_Noise(shape=shape, dtype=dtype, device=mu.device, **drawn), Wanted(()))


class _Prior(NamedTuple):
    """A prior's σ: its form, and the clamped argument. None of them is σ = 1."""

    form: SigmaForm
    r: Tensor | None

    @classmethod
    def of(cls, prior_logvar: Tensor | None, options) -> _Prior:
        form = SigmaForm.of_prior(options)
        return cls(form, None if prior_logvar is None else form.clamp(prior_logvar))

    def standardised(self, difference: Tensor) -> Standardised:
        if self.r is None:
            return Standardised((0.5 * difference) * difference, difference, None)
        return standardised(difference, self.form, self.r)

    def log_sigma(self) -> Tensor | float:
        return 0.0 if self.r is None else self.form.log_sigma(self.r)


def _inverse(sigma: Tensor) -> Tensor:
    """1/σ as a constant, q's parameters not being followed."""
    return 1.0 / sigma.detach()


def _watched(z: Tensor) -> bool:
    """Whether a derivative may be wanted of these very operations."""
    if torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0:
        return True
    return z.requires_grad and torch.is_grad_enabled()


def _followed(eps: Tensor, z: Tensor, sigma: Tensor) -> Tensor:
    """ε as (z − μ)/σ with q's parameters constant: its value, and the derivative of z over σ."""
    if not _watched(z):
        return eps
    inverse = _inverse(sigma)
    z = torch.where(torch.isfinite(z), z, 0.0)
    return eps + (z - z.detach()) * torch.where(torch.isfinite(inverse), inverse, 0.0)


def rsample_log_prob_fwd(mu, logvar, prior_mu, prior_logvar, options, wanted) -> tuple[Tensor, Tensor, Tensor]:
    """z, −Σ(½ε² + log σ + ½ log 2π) and −Σ(½((z − μp)/σp)² + log σp + ½ log 2π), z before it is rounded."""
    operands = (mu, logvar, prior_mu, prior_logvar)
    dtype, result = dtypes(operands)
    form, eps = SigmaForm.of(options), _eps(mu, logvar, dtype, options)
    r = form.clamp(logvar.to(dtype))
    sigma = form.sigma(r)
    z = mu.to(dtype) + sigma * eps
    u = eps
    if options.q_grad == _PATH:
        u, r = _followed(eps, z, sigma), r.detach()
    # The number is ½ log 2π: written out, since a compiler takes a module's float for an input.
    log_q = -((0.5 * u) * u + (form.log_sigma(r) + 0.9189385332046727))
    prior = _Prior.of(None if prior_logvar is None else prior_logvar.to(dtype), options)
    difference = z if prior_mu is None else z - prior_mu.to(dtype)
    log_p = -(prior.standardised(difference).half_square + (prior.log_sigma() + 0.9189385332046727))
    sums = [reduce(term, options.event_ndim, NONE, 1.0).to(result) for term in (log_q, log_p)]
    narrow = promoted_dtype(mu, logvar)
    # torch.compile of torch 2.11 takes a result that is converted to its own dtype for one without a gradient.
    return (z if z.dtype == narrow else z.to(narrow), *sums)


def rsample_log_prob_bwd(dz, dlog_q, dlog_p, *operands_and_options) -> tuple[Tensor | None, ...]:
    """All by way of g, what reaches z: dz, log p's slope −(z − μp)/σp², and for "path" log q's, −ε/σ.

    dμ = Σ g and dr = dσ/dr·Σ g·ε over samples; of "total", log q's slope by r besides, −d log σ/dr. The prior's are
    those of a Gaussian density.
    """
    mu, logvar, prior_mu, prior_logvar, options, wanted = operands_and_options
    operands = (mu, logvar, prior_mu, prior_logvar)
    dtype, _ = dtypes(operands)
    form, eps, shape = SigmaForm.of(options), _eps(mu, logvar, dtype, options), broadcast_shape(mu, logvar)
    raw = logvar.to(dtype)
    r = form.clamp(raw)

    def over_event(g: Tensor) -> Tensor:
        g = g.to(dtype)
        return g.reshape((*g.shape, *(1,) * options.event_ndim)).expand(eps.shape)

    path = options.q_grad == _PATH
    g = torch.zeros_like(eps) if dz is None else dz.to(dtype)
    dprior_mean = None if prior_mu is None else torch.zeros_like(prior_mu, dtype=dtype)
    dprior_raw = None if prior_logvar is None else torch.zeros_like(prior_logvar, dtype=dtype)
    sigma = form.sigma(r) if dlog_p is not None or path else None
    z = None if sigma is None else mu.to(dtype) + sigma * eps
    if dlog_p is not None and z is not None:
        prior = _Prior.of(None if prior_logvar is None else prior_logvar.to(dtype), options)
        standard = prior.standardised(z if prior_mu is None else z - prior_mu.to(dtype))
        dprior_mean = over_event(dlog_p) * standard.slope
        g = g - dprior_mean
        if prior_logvar is not None and prior.r is not None:
            growth = by_raw(standard.half_square - 0.5, standard.wide, prior.form, prior.r)
            dprior_raw = prior.form.inside(prior_logvar.to(dtype), over_event(dlog_p) * growth)
    if path and dlog_q is not None and z is not None and sigma is not None:
        g = g - over_event(dlog_q) * (_followed(eps, z, sigma) * _inverse(sigma))
    draw = (g * eps).sum_to_size(shape) * form.dsigma(r)
    if not path and dlog_q is not None:
        # ½ d log σ²/dr.
        slope = 0.5 * form.dlog_var(r)
        draw = draw - over_event(dlog_q).sum_to_size(shape) * slope
    return gradients(wanted, operands, (g, form.inside(raw, draw), dprior_mean, dprior_raw))
