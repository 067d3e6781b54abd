"""z = μ + τσε."""

from __future__ import annotations

from torch import Tensor

from vae_fast.operators import OPERATORS, Wanted
from vae_fast.reference.densities import broadcast_shape, compute_dtype, gradients, promoted_dtype
from vae_fast.reference.standard_normal import standard_normal_fwd
from vae_fast.sigma import SigmaForm

_Noise, _Sample = OPERATORS["standard_normal"].Options, OPERATORS["rsample"].Options
_SHARED = tuple(name for name in _Noise._fields if name in _Sample._fields)


def _eps(mu: Tensor, logvar: Tensor, options) -> Tensor:
    """ε in compute dtype. Half types use the float32 normal unrounded."""
    shape, dtype = broadcast_shape(mu, logvar), compute_dtype(promoted_dtype(mu, logvar))
    if options.noise is not None:
        return options.noise.to(dtype)
    drawn = {name: getattr(options, name) for name in _SHARED}
    return standard_normal_fwd(_Noise(shape=shape, dtype=dtype, device=mu.device, **drawn), Wanted(()))


def _tempered(sigma: Tensor, options) -> Tensor:
    return sigma if options.temperature == 1.0 else sigma * options.temperature


def rsample_fwd(mu, logvar, options, wanted) -> Tensor:
    """z = μ + τσε, of shape sample_shape + broadcast(mu, logvar).shape in what mu and logvar promote to."""
    form, eps = SigmaForm.of(options), _eps(mu, logvar, options)
    sigma = _tempered(form.sigma(form.clamp(logvar.to(eps.dtype))), options)
    z = mu.to(eps.dtype) + sigma * eps
    # torch.compile of torch 2.11 takes a result that is converted to its own dtype for one without a gradient.
    dtype = promoted_dtype(mu, logvar)
    return z if z.dtype == dtype else z.to(dtype)


def rsample_bwd(dz, mu, logvar, options, wanted) -> tuple[Tensor | None, ...]:
    """dμ = Σ dz over samples, dr = τ·dσ/dr · Σ dz·ε."""
    dz = dz.to(compute_dtype(promoted_dtype(mu, logvar)))
    dlogvar = None
    _, need_dlogvar = wanted.needs
    if need_dlogvar:
        form, raw = SigmaForm.of(options), logvar.to(dz.dtype)
        weighted = (dz * _eps(mu, logvar, options)).sum_to_size(broadcast_shape(mu, logvar))
        dlogvar = form.inside(raw, weighted * _tempered(form.dsigma(form.clamp(raw)), options))
    return gradients(wanted, (mu, logvar), (dz, dlogvar))
