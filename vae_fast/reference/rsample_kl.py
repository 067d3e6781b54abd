"""z = μ + σε and KL(N(μ, σ²) ‖ N(0, I)) of the same arguments."""

from __future__ import annotations

import torch
from torch import Tensor

from vae_fast.reference.densities import NONE, compute_dtype, grad_like, promoted_dtype, together
from vae_fast.reference.gaussian_kl import gaussian_kl_bwd, gaussian_kl_fwd
from vae_fast.reference.rsample import rsample_bwd, rsample_fwd


def rsample_kl_fwd(
    mu,
    logvar,
    sample_shape,
    seed,
    seed_tensor,
    offset,
    first_sample,
    event_ndim,
    free_bits,
    param,
    param_eps,
    low,
    high,
) -> tuple[Tensor, Tensor]:
    """(z, KL(N(μ, σ²) ‖ N(0, I))): rsample and gaussian_kl of the same arguments."""
    form = (param, param_eps, low, high)
    z = rsample_fwd(mu, logvar, sample_shape, seed, seed_tensor, offset, first_sample, *form)
    kl = gaussian_kl_fwd(
        mu, logvar, None, None, None, event_ndim, NONE, 1.0, free_bits, *form, False, False, False, False
    )[0]
    return z, kl


def rsample_kl_bwd(
    dz,
    dkl,
    mu,
    logvar,
    sample_shape,
    seed,
    seed_tensor,
    offset,
    first_sample,
    event_ndim,
    free_bits,
    param,
    param_eps,
    low,
    high,
    need_dmu,
    need_dlogvar,
    packed=None,
    packed_dim=0,
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of both results, added before they are rounded; a dz or dkl of None counts as 0."""
    form, needs = (param, param_eps, low, high), (need_dmu, need_dlogvar)
    dtype = compute_dtype(promoted_dtype(mu, logvar))
    wide = (mu.to(dtype), logvar.to(dtype))
    from_z: tuple[Tensor | None, ...] = (None, None)
    from_kl = from_z
    if dz is None and dkl is None:
        from_z = (torch.zeros_like(wide[0]), torch.zeros_like(wide[1]))
    if dz is not None:
        noise_args = (sample_shape, seed, seed_tensor, offset, first_sample)
        from_z = rsample_bwd(dz, *wide, *noise_args, *form, *needs)
    if dkl is not None:
        options = (None, None, None, event_ndim, NONE, 1.0, free_bits)
        from_kl = gaussian_kl_bwd(dkl, *wide, *options, *form, *needs, False, False, False)
    dmu, dlogvar = (b if a is None else a if b is None else a + b for a, b in zip(from_z, from_kl[:2], strict=True))
    grads = grad_like(need_dmu, mu, dmu), grad_like(need_dlogvar, logvar, dlogvar)
    return together(*grads, packed, packed_dim)
