"""The formulas as users write them in PyTorch; densities are summed. What every benchmark compares with."""

import math
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch.distributions import (
    Bernoulli,
    ContinuousBernoulli,
    Independent,
    Laplace,
    NegativeBinomial,
    Normal,
    Poisson,
    StudentT,
    kl_divergence,
)

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


def rsample_log_prob(mu, logvar):
    """A sample, and log p(z) − log q(z|x) at it."""
    std = torch.exp(0.5 * logvar)
    z = mu + torch.randn_like(std) * std
    log_p = -0.5 * torch.sum(math.log(2 * math.pi) + z.pow(2))
    return z, log_p - gaussian_log_prob(mu, logvar, z)


def gaussian_kl(mu, logvar):
    return -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())


def bernoulli_log_prob(logits, x):
    return -F.binary_cross_entropy_with_logits(logits, _as(x, logits), reduction="sum")


def gaussian_log_prob(mean, logvar, x):
    return -0.5 * torch.sum(math.log(2 * math.pi) + logvar + (_as(x, mean) - mean) ** 2 * torch.exp(-logvar))


def gaussian_nll_loss(mean, logvar, x):
    return -F.gaussian_nll_loss(mean, _as(x, mean), logvar.exp(), full=True, reduction="sum")


def negative_binomial_log_prob(mean, theta, *rest):
    """As single-cell models write it, of (mean, theta, x), or (mean, theta, zero_logits, x) zero-inflated."""
    *zero_logits, x = rest
    x, eps = x.to(mean.dtype), 1e-8
    total = torch.log(theta + mean + eps)
    none = theta * (torch.log(theta + eps) - total)
    some = x * (torch.log(mean + eps) - total) + torch.lgamma(x + theta) - torch.lgamma(theta) - torch.lgamma(x + 1)
    if not zero_logits:
        return torch.sum(none + some)
    (pi,) = zero_logits
    of_zero, of_others = F.softplus(none - pi) - F.softplus(-pi), none + some - pi - F.softplus(-pi)
    return torch.sum((x < eps).to(mean.dtype) * of_zero + (x > eps).to(mean.dtype) * of_others)


def poisson_log_prob(rate, x):
    x = x.to(rate.dtype)
    return torch.sum(x * torch.log(rate) - rate - torch.lgamma(x + 1))


def continuous_bernoulli_log_prob(logits, x):
    """As its authors' code has it: by the mean, with a series where that is near ½."""
    mean = torch.sigmoid(logits)
    near = (mean > 0.49) & (mean < 0.51)
    far = torch.where(near, 0.4, mean)
    log_norm = torch.log((torch.log1p(-far) - torch.log(far)) / (1 - 2 * far))
    squared = (mean - 0.5) ** 2
    log_norm = torch.where(near, math.log(2) + (4 / 3 + 104 / 45 * squared) * squared, log_norm)
    return torch.sum(log_norm) - F.binary_cross_entropy_with_logits(logits, _as(x, logits), reduction="sum")


def laplace_log_prob(loc, b, x):
    return -torch.sum(torch.log(2 * b) + torch.abs(_as(x, loc) - loc) / b)


def student_t_log_prob(loc, sigma, df, x):
    y = (_as(x, loc) - loc) / sigma
    norm = torch.lgamma(0.5 * (df + 1)) - torch.lgamma(0.5 * df) - 0.5 * torch.log(math.pi * df) - torch.log(sigma)
    return torch.sum(norm - 0.5 * (df + 1) * torch.log1p(y**2 / df))


EAGER = SimpleNamespace(**{op: globals()[op] for op in OPERATORS})


def _normal(mean, logvar):
    return Normal(mean, torch.exp(0.5 * logvar), validate_args=False)


def _rsample(mu, logvar):
    return _normal(mu, logvar).rsample()


def _rsample_kl(mu, logvar):
    q = Independent(_normal(mu, logvar), 1, validate_args=False)
    return q.rsample(), _kl(mu, logvar)


def _rsample_log_prob(mu, logvar):
    q = _normal(mu, logvar)
    z = q.rsample()
    standard = Normal(torch.zeros_like(mu), torch.ones_like(mu), validate_args=False)
    return z, (standard.log_prob(z) - q.log_prob(z)).sum()


def _kl(mu, logvar):
    standard = Normal(torch.zeros_like(mu), torch.ones_like(mu), validate_args=False)
    return kl_divergence(_normal(mu, logvar), standard).sum()


def _negative_binomial(mean, theta, *rest):
    """Zero inflation is not torch.distributions': a mixture by logaddexp."""
    *zero_logits, x = rest
    x = x.to(mean.dtype)
    logits = torch.log(mean) - torch.log(theta)
    log_prob = NegativeBinomial(theta, logits=logits, validate_args=False).log_prob(x)
    if zero_logits:
        zero, alive = F.logsigmoid(zero_logits[0]), F.logsigmoid(-zero_logits[0]) + log_prob
        log_prob = torch.where(x == 0, torch.logaddexp(zero, alive), alive)
    return log_prob.sum()


# torch.distributions' ways, where there are some.
DISTRIBUTIONS = SimpleNamespace(
    standard_normal=lambda like: Normal(
        torch.zeros_like(like), torch.ones_like(like), validate_args=False
    ).sample(),
    rsample=_rsample,
    rsample_kl=_rsample_kl,
    rsample_log_prob=_rsample_log_prob,
    gaussian_kl=_kl,
    bernoulli_log_prob=lambda y, x: Bernoulli(logits=y, validate_args=False).log_prob(_as(x, y)).sum(),
    gaussian_log_prob=lambda mean, logvar, x: _normal(mean, logvar).log_prob(_as(x, mean)).sum(),
    negative_binomial_log_prob=_negative_binomial,
    poisson_log_prob=lambda rate, x: Poisson(rate, validate_args=False).log_prob(x.to(rate.dtype)).sum(),
    continuous_bernoulli_log_prob=lambda y, x: (
        ContinuousBernoulli(logits=y, validate_args=False).log_prob(_as(x, y)).sum()
    ),
    laplace_log_prob=lambda loc, b, x: Laplace(loc, b, validate_args=False).log_prob(_as(x, loc)).sum(),
    student_t_log_prob=lambda loc, sigma, df, x: (
        StudentT(df, loc, sigma, validate_args=False).log_prob(_as(x, loc)).sum()
    ),
)

# torch.nn.functional's own function, where there is one beside the form most users write.
FUNCTIONAL = SimpleNamespace(gaussian_log_prob=gaussian_nll_loss)
