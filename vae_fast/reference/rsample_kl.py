"""z = μ + τσε and KL(N(μ, σ²) ‖ N(μp, σp²)) of the same arguments."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vae_fast.operators import OPERATORS, Wanted
from vae_fast.reference.densities import dtypes, gradients
from vae_fast.reference.gaussian_kl import gaussian_kl_bwd, gaussian_kl_fwd
from vae_fast.reference.rsample import rsample_bwd, rsample_fwd

_Sample, _KL = OPERATORS["rsample"].Options, OPERATORS["gaussian_kl"].Options
_NO_GRADIENTS = Wanted(tuple(False for _ in OPERATORS["gaussian_kl"].differentiable_in_forward))


def _those_of(record: Any, options) -> Any:
    """The options of one of the two operators, those of the other left out."""
    return record(**{name: getattr(options, name) for name in record._fields if hasattr(options, name)})


def rsample_kl_fwd(mu, logvar, prior_mu, prior_logvar, options, wanted) -> tuple[Tensor, Tensor | None]:
    """(z, KL(N(μ, σ²) ‖ N(μp, σp²))): rsample and gaussian_kl of the same arguments."""
    z = rsample_fwd(mu, logvar, _those_of(_Sample, options), wanted)
    of_kl = (mu, logvar, prior_mu, prior_logvar, None)
    kl, *_ = gaussian_kl_fwd(*of_kl, _those_of(_KL, options), _NO_GRADIENTS)
    return z, kl


def rsample_kl_bwd(dz, dkl, mu, logvar, prior_mu, prior_logvar, options, wanted) -> tuple[Tensor | None, ...]:
    """The gradients of both results, added before they are rounded; a dz or dkl of None counts as 0."""
    operands = (mu, logvar, prior_mu, prior_logvar)
    dtype, _ = dtypes(operands)
    m, r, prior_m, prior_r = wide = tuple(t if t is None else t.to(dtype) for t in operands)
    from_z: tuple[Tensor | None, ...] = (None, None, None, None)
    pairs = zip(wide, wanted.needs, strict=True)
    from_kl = tuple(torch.zeros_like(t) if need and t is not None else None for t, need in pairs)
    if dz is not None:
        first, second, *_ = wanted.needs
        of_sample = rsample_bwd(dz, m, r, _those_of(_Sample, options), Wanted((first, second)))
        from_z = (*of_sample, None, None)
    if dkl is not None:
        needs = Wanted((*wanted.needs, False))
        *of_kl, _ = gaussian_kl_bwd(dkl, m, r, prior_m, prior_r, None, _those_of(_KL, options), needs)
        from_kl = tuple(of_kl)
    both = (b if a is None else a if b is None else a + b for a, b in zip(from_z, from_kl, strict=True))
    return gradients(wanted, operands, tuple(both))
