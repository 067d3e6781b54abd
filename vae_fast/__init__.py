"""vae_fast: the Gaussian-latent evidence lower bound of a variational autoencoder, exact and fused."""

from vae_fast import distributions, integrations
from vae_fast._version import __version__
from vae_fast.backends import Backend, backends, use_backend
from vae_fast.bounds import importance_weights, iwae_bound
from vae_fast.checking import check, check_module
from vae_fast.diagonal_gaussian import DiagonalGaussian
from vae_fast.disentanglement import total_correlation
from vae_fast.monitoring import ActiveUnits, active_units, kl_per_dim
from vae_fast.nn import BernoulliMLP, GaussianMLP, LocalGaussian
from vae_fast.ops.bernoulli_log_prob import bernoulli_log_prob
from vae_fast.ops.continuous_bernoulli_log_prob import continuous_bernoulli_log_prob
from vae_fast.ops.early import early_gradients
from vae_fast.ops.gaussian_entropy import gaussian_entropy
from vae_fast.ops.gaussian_kl import gaussian_kl
from vae_fast.ops.gaussian_log_prob import gaussian_log_prob
from vae_fast.ops.gaussian_mixture_log_prob import gaussian_mixture_log_prob
from vae_fast.ops.laplace_log_prob import laplace_log_prob
from vae_fast.ops.linear_bernoulli_log_prob import linear_bernoulli_log_prob
from vae_fast.ops.logistic_mixture_log_prob import logistic_mixture_log_prob
from vae_fast.ops.mmd import mmd
from vae_fast.ops.negative_binomial_log_prob import negative_binomial_log_prob
from vae_fast.ops.poisson_log_prob import poisson_log_prob
from vae_fast.ops.rsample import rsample
from vae_fast.ops.rsample_kl import rsample_kl
from vae_fast.ops.rsample_log_prob import rsample_log_prob
from vae_fast.ops.standard_normal import standard_normal
from vae_fast.ops.student_t_log_prob import student_t_log_prob
from vae_fast.priors import MixturePrior, StandardNormal, VampPrior
from vae_fast.vae import VAE, VAEOutput

__all__ = [
    "VAE",
    "ActiveUnits",
    "Backend",
    "BernoulliMLP",
    "DiagonalGaussian",
    "GaussianMLP",
    "LocalGaussian",
    "MixturePrior",
    "StandardNormal",
    "VAEOutput",
    "VampPrior",
    "__version__",
    "active_units",
    "backends",
    "bernoulli_log_prob",
    "check",
    "check_module",
    "continuous_bernoulli_log_prob",
    "distributions",
    "early_gradients",
    "gaussian_entropy",
    "gaussian_kl",
    "gaussian_log_prob",
    "gaussian_mixture_log_prob",
    "importance_weights",
    "integrations",
    "iwae_bound",
    "kl_per_dim",
    "laplace_log_prob",
    "linear_bernoulli_log_prob",
    "logistic_mixture_log_prob",
    "mmd",
    "negative_binomial_log_prob",
    "poisson_log_prob",
    "rsample",
    "rsample_kl",
    "rsample_log_prob",
    "standard_normal",
    "student_t_log_prob",
    "total_correlation",
    "use_backend",
]
