"""vae_fast: the Gaussian-latent evidence lower bound of a variational autoencoder, exact and fused."""

from vae_fast import distributions, integrations
from vae_fast._version import __version__
from vae_fast.backends import Backend, backends, use_backend
from vae_fast.checking import check, check_module
from vae_fast.diagonal_gaussian import DiagonalGaussian
from vae_fast.monitoring import ActiveUnits, active_units, kl_per_dim
from vae_fast.nn import BernoulliMLP, GaussianMLP, LocalGaussian
from vae_fast.ops import (
    bernoulli_log_prob,
    early_gradients,
    gaussian_kl,
    gaussian_log_prob,
    rsample,
    rsample_kl,
    standard_normal,
)
from vae_fast.vae import VAE, VAEOutput

__all__ = [
    "VAE",
    "ActiveUnits",
    "Backend",
    "BernoulliMLP",
    "DiagonalGaussian",
    "GaussianMLP",
    "LocalGaussian",
    "VAEOutput",
    "__version__",
    "active_units",
    "backends",
    "bernoulli_log_prob",
    "check",
    "check_module",
    "distributions",
    "early_gradients",
    "gaussian_kl",
    "gaussian_log_prob",
    "integrations",
    "kl_per_dim",
    "rsample",
    "rsample_kl",
    "standard_normal",
    "use_backend",
]
