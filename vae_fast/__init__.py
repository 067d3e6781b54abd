"""vae_fast: the Gaussian-latent evidence lower bound of a variational autoencoder, exact and fused."""

from vae_fast import integrations
from vae_fast._version import __version__
from vae_fast.backends import Backend, backends, use_backend
from vae_fast.checking import check, check_module
from vae_fast.diagonal_gaussian import DiagonalGaussian
from vae_fast.nn import BernoulliMLP, GaussianMLP, LocalGaussian
from vae_fast.ops import (
    bernoulli_log_prob,
    gaussian_kl,
    gaussian_log_prob,
    rsample,
    rsample_kl,
    standard_normal,
)
from vae_fast.vae import VAE, VAEOutput

__all__ = [
    "VAE",
    "Backend",
    "BernoulliMLP",
    "DiagonalGaussian",
    "GaussianMLP",
    "LocalGaussian",
    "VAEOutput",
    "__version__",
    "backends",
    "bernoulli_log_prob",
    "check",
    "check_module",
    "gaussian_kl",
    "gaussian_log_prob",
    "integrations",
    "rsample",
    "rsample_kl",
    "standard_normal",
    "use_backend",
]
