"""z = μ + σε and KL(N(μ, σ²) ‖ N(0, I)) of the same arguments."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vae_fast.operators import OPERATORS, Wanted
from vae_fast.reference.densities import compute_dtype, gradients, promoted_dtype
from vae_fast.reference.gaussian_kl import gaussian_kl_bwd, gaussian_kl_fwd
from vae_fast.reference.rsample import rsample_bwd, rsample_fwd

_KL, _Both = OPERATORS["gaussian_kl"].Options, OPERATORS["rsample_kl"].Options
_SHARED = tuple(name for name in _KL._fields if name in _Both._fields)
_NO_PRIOR_NO_WEIGHT = (None, None, None)
_NO_GRADIENTS = Wanted(tuple(False for _ in OPERATORS["gaussian_kl"].differentiable_in_forward))


def _kl_options(options) -> Any:
    """Those of the KL, which the two operators have in common."""
    return _KL(**{name: getattr(options, name) for name in _SHARED})


def rsample_kl_fwd(mu, logvar, options, wanted) -> tuple[Tensor, Tensor | None]:
    """(z, KL(N(μ, σ²) ‖ N(0, I))): rsample and gaussian_kl of the same arguments."""
    z = rsample_fwd(mu, logvar, options, wanted)
    kl, *_ = gaussian_kl_fwd(mu, logvar, *_NO_PRIOR_NO_WEIGHT, _kl_options(options), _NO_GRADIENTS)
    return z, kl


def rsample_kl_bwd(dz, dkl, mu, logvar, options, wanted) -> tuple[Tensor | None, ...]:
    """The gradients of both results, added before they are rounded; a dz or dkl of None counts as 0."""
    dtype = compute_dtype(promoted_dtype(mu, logvar))
    wide = (mu.to(dtype), logvar.to(dtype))
    of_halves = Wanted(wanted.needs)
    from_z: tuple[Tensor | None, ...] = (None, None)
    from_kl = from_z
    if dz is None and dkl is None:
        from_z = (torch.zeros_like(mu, dtype=dtype), torch.zeros_like(logvar, dtype=dtype))
    if dz is not None:
        from_z = rsample_bwd(dz, *wide, options, of_halves)
    if dkl is not None:
        of_kl = Wanted((*wanted.needs, *(False for _ in _NO_PRIOR_NO_WEIGHT)))
        dmu, dlogvar, *_ = gaussian_kl_bwd(dkl, *wide, *_NO_PRIOR_NO_WEIGHT, _kl_options(options), of_kl)
        from_kl = (dmu, dlogvar)
    both = (b if a is None else a if b is None else a + b for a, b in zip(from_z, from_kl, strict=True))
    return gradients(wanted, (mu, logvar), tuple(both))
