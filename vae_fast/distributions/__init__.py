"""Drop-in forms for torch.distributions: diagonal Gaussians, Bernoulli vectors and counts on the fused operators.

``kl_divergence`` of torch.distributions knows them, among themselves and with ``Independent(Normal)``,
``Independent(Bernoulli)``, ``MultivariateNormal``, and what PyTorch has divergences from and to ``Normal`` for. Of
counts it knows none.
"""

from vae_fast.distributions import kl as _kl  # registers the divergences
from vae_fast.distributions.bernoulli_vector import BernoulliVector
from vae_fast.distributions.diagonal_normal import DiagonalNormal
from vae_fast.distributions.negative_binomial import NegativeBinomial
from vae_fast.distributions.poisson import Poisson
from vae_fast.distributions.zero_inflated_negative_binomial import ZeroInflatedNegativeBinomial

__all__ = ["BernoulliVector", "DiagonalNormal", "NegativeBinomial", "Poisson", "ZeroInflatedNegativeBinomial"]
del _kl
