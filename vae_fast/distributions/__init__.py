"""Drop-in forms for torch.distributions: diagonal Gaussians and Bernoulli vectors on the fused operators.

``kl_divergence`` of torch.distributions knows them, among themselves and with ``Independent(Normal)``,
``Independent(Bernoulli)``, ``MultivariateNormal``, and what PyTorch has divergences from and to ``Normal`` for.
"""

from vae_fast.distributions import kl as _kl  # registers the divergences
from vae_fast.distributions.bernoulli_vector import BernoulliVector
from vae_fast.distributions.diagonal_normal import DiagonalNormal

__all__ = ["BernoulliVector", "DiagonalNormal"]
del _kl
