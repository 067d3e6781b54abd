"""A small VAE with each kind of prior, and what its terms and gradients are by plain formulas."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import Bernoulli, Categorical, Independent, Laplace, MixtureSameFamily, Normal

import vae_fast as vf

B, D, L, K = 3, 5, 2, 4
SAMPLED = {"elbo": 3, "iwae": 4, "miwae": (2, 3), "dreg": 4, "stl": 4}
each_objective = pytest.mark.parametrize("objective", SAMPLED)
each_prior = pytest.mark.parametrize("kind", ["mixture", "vamp", "own"])


class Encoder(nn.Module):
    latent_shape = (L,)

    def __init__(self):
        super().__init__()
        self.both = nn.Linear(D, 2 * L)
        self.calls = []

    def forward(self, x):
        self.calls.append(len(x))
        return self.both(x).chunk(2, -1)


class Own(nn.Module):
    """A user's prior: Laplace variables of one scale, of torch.distributions."""

    def __init__(self):
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(0.3))

    def distribution(self):
        return Independent(Laplace(torch.zeros(L).to(self.log_scale), self.log_scale.exp().expand(L)), 1)

    def log_prob(self, z):
        return self.distribution().log_prob(z)

    def sample(self, n, *, seed=None, generator=None):
        u = torch.special.ndtr(
            vf.rsample(torch.zeros(n, L).to(self.log_scale), 0.0, seed=seed, generator=generator)
        )
        return self.distribution().base_dist.icdf(u)


def prior(kind):
    if kind == "vamp":
        return vf.VampPrior(K, D, init=torch.rand(K, D) * 1.4 - 0.2)
    return {"mixture": lambda: mixture(), "own": Own}[kind]()


def mixture(latent=L):
    made = vf.MixturePrior(K, latent)
    with torch.no_grad():
        made.logvar.normal_(0, 0.5), made.weight_logits.normal_()
    return made.double()


def model(kind, objective="elbo", n_samples=1, **options):
    torch.manual_seed(0)
    nets = Encoder(), nn.Linear(L, D)
    return vf.VAE(*nets, prior=prior(kind), objective=objective, n_samples=n_samples, **options).double()


def data(n=B):
    return torch.rand(n, D, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def of_torch(mixed):
    latent = mixed.mu.ndim - 1
    parts = Independent(Normal(mixed.mu, torch.exp(mixed.logvar / 2)), latent)
    return MixtureSameFamily(Categorical(logits=mixed.weight_logits), parts)


def published(vae, z):
    """log p(z) of the VampPrior as its authors' code has it, whose normal leaves its constant out."""
    inputs = torch.clamp(vae.prior.pseudo_inputs, 0, 1) if vae.prior.bounded else vae.prior.pseudo_inputs
    mean, log_var = vae.encoder(inputs)
    log_normal = -0.5 * (log_var + (z.unsqueeze(-2) - mean) ** 2 / log_var.exp())
    a = log_normal.sum(-1) - math.log(len(mean))
    a_max = a.max(-1).values
    return a_max + (a - a_max.unsqueeze(-1)).exp().sum(-1).log() - z.shape[-1] / 2 * math.log(2 * math.pi)


def plain_log_prior(vae, z):
    if isinstance(vae.prior, vf.VampPrior):
        return published(vae, z)
    return (of_torch(vae.prior) if isinstance(vae.prior, vf.MixturePrior) else vae.prior).log_prob(z)


def drawn(vae, x, seed):
    """z [n, B, L] as the call with this seed draws it, with its graph, and its distribution's two parameters."""
    mu, logvar = vae.encode(x)
    n = math.prod(vae.n_samples) if isinstance(vae.n_samples, tuple) else vae.n_samples
    eps = vf.rsample(torch.zeros_like(mu), 0.0, (n,), seed=seed)
    return mu + torch.exp(0.5 * logvar) * eps, mu, logvar


def terms(vae, x, z, mu, logvar):
    """(log p(x|z), log p(z), log q(z|x)), [n, B] each."""
    log_p = Bernoulli(logits=vae.decoder(z), validate_args=False).log_prob(x).sum(-1)
    return log_p, plain_log_prior(vae, z), Normal(mu, torch.exp(0.5 * logvar)).log_prob(z).sum(-1)


def of_the_paper(objective, vae, x, seed):
    """Every parameter's gradient of −mean over the data, sample by sample: φ's by log q and z, and by the prior."""
    z, mu, logvar = drawn(vae, x, seed)
    own, phi = [*vae.decoder.parameters(), *vae.prior.parameters()], [*vae.encoder.parameters()]
    n = len(z)
    log_p, log_prior, log_q = terms(vae, x, z, mu, logvar)
    log_w = log_p + log_prior - log_q
    of_m = log_w.detach().view(*(SAMPLED["miwae"] if objective == "miwae" else (1, n)), B)
    weight = (of_m.softmax(1) / len(of_m)).view(n, B)
    if objective in ("stl", "elbo"):
        weight = torch.full_like(weight, 1 / n)
    whole = (weight * log_w).sum() / -B
    if objective not in ("stl", "dreg"):
        return torch.autograd.grad(whole, phi + own)
    by_own = torch.autograd.grad(whole, own, retain_graph=True)
    # φ by way of z, and by that of the components, whose z is fixed.
    place = z.detach().requires_grad_()
    log_p, log_prior, log_q = terms(vae, x, place, mu.detach(), logvar.detach())
    (slope,) = torch.autograd.grad((log_p + log_prior - log_q).sum(), place)
    of_z = weight**2 if objective == "dreg" else weight
    moved = (of_z[..., None] * slope * z).sum() + (weight * plain_log_prior(vae, z.detach())).sum()
    return *torch.autograd.grad(moved / -B, phi), *by_own
