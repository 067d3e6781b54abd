"""What to watch while a VAE trains: the KL of each latent, and how many latents are in use."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from vae_fast.ops import arguments
from vae_fast.ops.arguments import Bounds, Param
from vae_fast.ops.gaussian_kl import gaussian_kl
from vae_fast.tracing import public

__all__ = ["ActiveUnits", "active_units", "kl_per_dim"]


class ActiveUnits(NamedTuple):
    """What ``active_units`` returns; nothing in it has waited for the device.

    Args:
        number: how many latents are active, a 0-d int64 tensor.
        mask: which, [*latent], bool.
        variance: variance over the data of each latent's posterior mean, [*latent]; float64 for float64 means, else
            float32.
    """

    number: Tensor
    mask: Tensor
    variance: Tensor


@public
@torch.no_grad()
def kl_per_dim(
    mu: Tensor,
    logvar: Tensor | float,
    *,
    prior_mu: Tensor | float | None = None,
    prior_logvar: Tensor | float | None = None,
    event_ndim: int = 1,
    param: Param = "logvar",
    param_eps: float = 0.0,
    bounds: Bounds | None = None,
    backend: str | None = None,
) -> Tensor:
    """KL(q(z_j|x) ‖ p(z_j)) of each latent j, averaged over the data, in nats: which latents carry information.

    1/N Σ_i ½((μ_ij − μp)²/σp² + σ_ij²/σp² − 1 − log(σ_ij²/σp²)). Their sum is the mean over the data of
    ``gaussian_kl``. The latents are read once; no graph is kept.

    Args:
        mu: the posteriors' means μ, [*data, *latent], of any floating dtype.
        logvar: log σ², or what ``param`` says it is: a tensor of any floating dtype, or a number. It is broadcast
            against ``mu``.
        prior_mu: the prior's mean μp: a tensor, a number, or None for 0. It is broadcast against mu and logvar.
        prior_logvar: log σp², or what ``param`` says of it too: a tensor, a number, or None for σp = 1. It is
            broadcast against the others.
        event_ndim: how many trailing dims of the broadcast shape make one latent vector; all others are averaged.
        param: what logvar and prior_logvar are: "logvar" log σ², "logstd" log σ, "std" σ, "var" σ², or "softplus",
            σ = log(1 + e^logvar).
        param_eps: added to σ and σp ("var": to their squares).
        bounds: (low, high), to which logvar and prior_logvar are clamped as they are given; either may be None.
            None: no clamp.
        backend: "reference", "native", "triton" or "auto"; None is what ``use_backend`` says.

    Returns:
        [*latent], the last ``event_ndim`` dims; float64 where the arguments promote to it, else float32. NaN for
        no data.

    Raises:
        TypeError: arguments of a complex, integer, quantised, sparse or nested kind; an option that is no number;
            DTensors mixed with plain tensors.
        ValueError: shapes that do not broadcast, an ``event_ndim`` larger than the number of dims, tensors on
            different devices, an unknown ``param``, bounds of low > high.
        RuntimeError: a named backend that cannot serve the call.

    Example:
        >>> vae_fast.kl_per_dim(torch.ones(100, 3), 0.0)
        tensor([0.5000, 0.5000, 0.5000])

    Source: Kingma and Welling, "Auto-Encoding Variational Bayes" (2014), appendix B, before its sum over j.
    """
    kl = gaussian_kl(
        mu,
        logvar,
        prior_mu,
        prior_logvar,
        event_ndim=0,
        param=param,
        param_eps=param_eps,
        bounds=bounds,
        backend=backend,
    )
    data_ndim = kl.ndim - arguments.event_dims(event_ndim, kl.shape, "mu, logvar and the prior")
    return kl.mean(tuple(range(data_ndim))) if data_ndim else kl


@public
@torch.no_grad()
def active_units(mu: Tensor, *, threshold: float = 0.01, event_ndim: int = 1) -> ActiveUnits:
    """How many latents are in use: those with Var_x(E[z_j|x]) > ``threshold``.

    The variance, over the data, of the posterior mean: with N − 1 in the denominator, and 0 for one datum.

    Args:
        mu: posterior means of the data, [*data, *latent], of any floating dtype.
        threshold: the variance above which a latent is active; Burda et al. take 0.01.
        event_ndim: how many trailing dims of ``mu`` make one latent vector.

    Returns:
        (number, mask, variance), tensors on mu's device: how many, 0-d int64; which, [*latent], bool; and each
        one's variance, [*latent], float64 for float64 means, else float32.

    Raises:
        TypeError: mu of a complex, integer, quantised, sparse or nested kind.
        ValueError: an ``event_ndim`` larger than the number of dims; no data.

    Example:
        >>> units = vae_fast.active_units(torch.tensor([[0.0, 1.0], [0.0, -1.0]]))
        >>> units.number, units.mask
        (tensor(1), tensor([False,  True]))

    Source: Burda, Grosse and Salakhutdinov, "Importance Weighted Autoencoders" (2016), section 5.2.
    """
    mu = arguments.floating("mu", mu)
    data_ndim = mu.ndim - arguments.event_dims(event_ndim, mu.shape, "mu")
    rows = mu.reshape(mu.shape[:data_ndim].numel(), *mu.shape[data_ndim:])
    if not len(rows):
        raise ValueError(f"mu, of shape {list(mu.shape)}, holds no data")
    wide = rows if rows.dtype == torch.float64 else rows.float()
    variance = wide.var(0) if len(rows) > 1 else torch.zeros_like(wide[0])
    mask = variance > threshold
    return ActiveUnits(mask.sum(), mask, variance)
