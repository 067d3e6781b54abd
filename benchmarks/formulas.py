"""The formulas as users write them in PyTorch; densities are summed. What every benchmark compares with."""

import math
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch.distributions import Bernoulli, Independent, Normal, kl_divergence

from vae_fast.operators import OPERATORS


def _as(x, like):
    """Targets as these formulas need them: bytes of 0 to 255 become floats of 0 to 1."""
    return x if x.dtype == like.dtype else x.to(like.dtype) / 255


def standard_normal(like):
    return torch.randn_like(like)


def rsample(mu, logvar):
    std = torch.exp(0.5 * logvar)
    return mu + torch.randn_like(std) * std


def rsample_kl(mu, logvar):
    std = torch.exp(0.5 * logvar)
    return mu + torch.randn_like(std) * std, gaussian_kl(mu, logvar)


def gaussian_kl(mu, logvar):
    return -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())


def bernoulli_log_prob(logits, x):
    return -F.binary_cross_entropy_with_logits(logits, _as(x, logits), reduction="sum")


def gaussian_log_prob(mean, logvar, x):
    return -0.5 * torch.sum(math.log(2 * math.pi) + logvar + (_as(x, mean) - mean) ** 2 * torch.exp(-logvar))


def gaussian_nll_loss(mean, logvar, x):
    return -F.gaussian_nll_loss(mean, _as(x, mean), logvar.exp(), full=True, reduction="sum")


EAGER = SimpleNamespace(**{op: globals()[op] for op in OPERATORS})


def _normal(mean, logvar):
    return Normal(mean, torch.exp(0.5 * logvar), validate_args=False)


def _rsample(mu, logvar):
    return _normal(mu, logvar).rsample()


def _rsample_kl(mu, logvar):
    q = Independent(_normal(mu, logvar), 1, validate_args=False)
    return q.rsample(), _kl(mu, logvar)


def _kl(mu, logvar):
    standard = Normal(torch.zeros_like(mu), torch.ones_like(mu), validate_args=False)
    return kl_divergence(_normal(mu, logvar), standard).sum()


# torch.distributions' ways, where there are some.
DISTRIBUTIONS = SimpleNamespace(
    standard_normal=lambda like: Normal(
        torch.zeros_like(like), torch.ones_like(like), validate_args=False
    ).sample(),
    rsample=_rsample,
    rsample_kl=_rsample_kl,
    gaussian_kl=_kl,
    bernoulli_log_prob=lambda y, x: Bernoulli(logits=y, validate_args=False).log_prob(_as(x, y)).sum(),
    gaussian_log_prob=lambda mean, logvar, x: _normal(mean, logvar).log_prob(_as(x, mean)).sum(),
)

# torch.nn.functional's own function, where there is one beside the form most users write.
FUNCTIONAL = SimpleNamespace(gaussian_log_prob=gaussian_nll_loss)
