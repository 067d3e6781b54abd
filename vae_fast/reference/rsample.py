"""z = μ + σε."""

from __future__ import annotations

from torch import Tensor

from vae_fast.reference.densities import broadcast_shape, compute_dtype, grad_like, promoted_dtype, together
from vae_fast.reference.standard_normal import standard_normal_fwd
from vae_fast.scale import Scale


def _eps(mu: Tensor, logvar: Tensor, sample_shape, seed, seed_tensor, offset, first_sample) -> Tensor:
    """ε in compute dtype. Half types use the float32 normal unrounded."""
    shape, dtype = broadcast_shape(mu, logvar), compute_dtype(promoted_dtype(mu, logvar))
    return standard_normal_fwd(sample_shape, shape, seed, seed_tensor, offset, first_sample, dtype, mu.device)


def rsample_fwd(
    mu, logvar, sample_shape, seed, seed_tensor, offset, first_sample, param, param_eps, low, high
) -> Tensor:
    """z = μ + σε, of shape sample_shape + broadcast(mu, logvar).shape in what mu and logvar promote to."""
    scale = Scale(param, param_eps, low, high)
    eps = _eps(mu, logvar, sample_shape, seed, seed_tensor, offset, first_sample)
    sigma = scale.sigma(scale.clamp(logvar.to(eps.dtype)))
    z = mu.to(eps.dtype) + sigma * eps
    # torch.compile of torch 2.11 takes a result that is converted to its own dtype for one without a gradient.
    dtype = promoted_dtype(mu, logvar)
    return z if z.dtype == dtype else z.to(dtype)


def rsample_bwd(
    dz,
    mu,
    logvar,
    sample_shape,
    seed,
    seed_tensor,
    offset,
    first_sample,
    param,
    param_eps,
    low,
    high,
    need_dmu,
    need_dlogvar,
    packed=None,
    packed_dim=0,
) -> tuple[Tensor | None, Tensor | None]:
    """dμ = Σ dz over samples, dr = dσ/dr · Σ dz·ε."""
    dz = dz.to(compute_dtype(promoted_dtype(mu, logvar)))
    dlogvar = None
    if need_dlogvar:
        scale, raw = Scale(param, param_eps, low, high), logvar.to(dz.dtype)
        eps = _eps(mu, logvar, sample_shape, seed, seed_tensor, offset, first_sample)
        weighted = (dz * eps).sum_to_size(broadcast_shape(mu, logvar))
        dlogvar = scale.inside(raw, weighted * scale.dsigma(scale.clamp(raw)))
    grads = grad_like(need_dmu, mu, dz), grad_like(need_dlogvar, logvar, dlogvar)
    return together(*grads, packed, packed_dim)
