"""Scales that are not log σ²: each library's own formula, as its users write it, against `param` and its options.

A row is a head's raw output → σ, and what to pass instead. Sample, KL and log-likelihood, with their gradients by
mean and raw output, are those of the formula.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Normal, kl_divergence
from torch.testing import assert_close

import vae_fast as vf
from helpers.marks import each_backend

pytestmark = each_backend


@dataclass(frozen=True)
class Head:
    sigma: Callable[[torch.Tensor], torch.Tensor]
    """σ, as the library has it."""
    options: dict = field(default_factory=dict)
    """The options of the functions here."""
    argument: Callable[[torch.Tensor], torch.Tensor] = lambda raw: raw
    """What is passed to them."""


HEADS = {
    # Pyro's VAE example: the encoder returns exp of its head as the scale of a Normal.
    "pyro": Head(torch.exp, {"param": "logstd"}),
    # The same with the scale at hand.
    "pyro_scale": Head(torch.exp, {"param": "std"}, torch.exp),
    # TensorFlow Probability's IndependentNormal, and the diagonal of its MultivariateNormalTriL, shifted by 1e-5.
    "tfp": Head(F.softplus, {"param": "softplus"}),
    "tfp_shifted": Head(lambda raw: F.softplus(raw) + 1e-5, {"param": "softplus", "param_eps": 1e-5}),
    # scvi-tools' encoder: a variance with a floor, exp(raw) + 1e-4.
    "scvi": Head(lambda raw: (raw.exp() + 1e-4).sqrt(), {"param": "var", "param_eps": 1e-4}, torch.exp),
    # VDVAE: logsigma.
    "vdvae": Head(torch.exp, {"param": "logstd"}),
    # Dreamer's latent state: softplus(raw) + 0.1; and its second version's 2·sigmoid(raw/2) + 0.1.
    "dreamer": Head(lambda raw: F.softplus(raw) + 0.1, {"param": "softplus", "param_eps": 0.1}),
    "dreamer_sigmoid": Head(
        lambda raw: 2 * torch.sigmoid(raw / 2) + 0.1,
        {"param": "std", "param_eps": 0.1},
        lambda raw: 2 * torch.sigmoid(raw / 2),
    ),
    # diffusers: log σ² clamped to [−30, 20].
    "diffusers": Head(lambda raw: (0.5 * raw.clamp(-30.0, 20.0)).exp(), {"bounds": (-30, 20)}),
    # A clamped log σ, as in soft actor-critic.
    "clamped": Head(lambda raw: raw.clamp(-5.0, 2.0).exp(), {"param": "logstd", "bounds": (-5, 2)}),
}


@pytest.fixture(params=HEADS)
def head(request):
    return HEADS[request.param]


def operands(dtype, *outside):
    """(mean, raw) of two Gaussians and x; the first raw's last values are what lies outside bounds."""
    mean, raw, prior_mean, prior_raw, x = (torch.randn(6, 9, dtype=torch.float64) for _ in range(5))
    raw, prior_raw = 1.5 * raw, 0.5 * prior_raw
    raw[-1, : len(outside)] = torch.tensor(outside, dtype=torch.float64)
    return [t.to(dtype).requires_grad_() for t in (mean, raw, prior_mean, prior_raw, x)]


def sample(head, mean, raw, eps):
    return mean + head.sigma(raw) * eps


def kl(head, mean, raw):
    return kl_divergence(Normal(mean, head.sigma(raw), False), Normal(0.0, 1.0, False)).sum(-1)


def kl_to_prior(head, mean, raw, prior_mean, prior_raw):
    """Dreamer's posterior to its prior, and every other one's."""
    q, p = Normal(mean, head.sigma(raw), False), Normal(prior_mean, head.sigma(prior_raw), False)
    return kl_divergence(q, p).sum(-1)


def log_prob(head, mean, raw, x):
    return Normal(mean, head.sigma(raw), False).log_prob(x).sum(-1)


def pairs(head, dtype, *outside):
    """(name, the formula, ours, operands) of every function of σ."""
    mean, raw, prior_mean, prior_raw, x = operands(dtype, *outside)
    eps, a, o = vf.standard_normal(mean.shape, seed=7, dtype=dtype), head.argument, head.options
    yield "sample", lambda m, r: sample(head, m, r, eps), lambda m, r: vf.rsample(m, a(r), seed=7, **o), (mean, raw)
    yield "kl", lambda *t: kl(head, *t), lambda m, r: vf.gaussian_kl(m, a(r), **o), (mean, raw)
    yield (
        "kl_to_prior",
        lambda *t: kl_to_prior(head, *t),
        lambda m, r, pm, pr: vf.gaussian_kl(m, a(r), pm, a(pr), **o),
        (mean, raw, prior_mean, prior_raw),
    )
    yield (
        "log_prob",
        lambda *t: log_prob(head, *t),
        lambda m, r, x: vf.gaussian_log_prob(m, a(r), x, **o),
        (mean, raw, x),
    )


def with_grads(f, tensors):
    out = f(*tensors)
    return out.detach(), *torch.autograd.grad(out, tensors, torch.ones_like(out))


def test_float64(head):
    """Values and gradients are the formula's to some roundings of the largest of a row's terms."""
    for _, formula, ours, tensors in pairs(head, torch.float64):
        for got, want in zip(with_grads(ours, tensors), with_grads(formula, tensors), strict=True):
            assert_close(got, want, rtol=1e-12, atol=1e-12)


def test_outside_bounds():
    """Where the raw output is clamped its gradient is 0, in the formula and in ours."""
    for name, outside in (("diffusers", (-31.0, 21.0)), ("clamped", (-6.0, 3.0))):
        for kind, formula, ours, tensors in pairs(HEADS[name], torch.float64, *outside):
            got = with_grads(ours, tensors)
            want = with_grads(formula, tensors)
            for a, b in zip(got, want, strict=True):
                assert_close(a, b, rtol=1e-12, atol=1e-12 * b.abs().max().item(), msg=kind)
            assert not got[2][-1, :2].any() and got[2][-1, 2:].all()


def test_float32(head):
    """No result is further from the formula in float64 than the formula in float32, or than 10ε of the largest.

    10ε: three for a function of σ, six for a σ that is rounded itself, one for the sum.
    """
    for name, formula, ours, tensors in pairs(head, torch.float32):
        wide = [t.detach().double().requires_grad_() for t in tensors]
        if name == "sample":
            eps = vf.standard_normal(tensors[0].shape, seed=7).double()
            truth = with_grads(lambda m, r, eps=eps: sample(head, m, r, eps), wide)
        else:
            truth = with_grads(formula, wide)
        for got, want, exact in zip(with_grads(ours, tensors), with_grads(formula, tensors), truth, strict=True):
            assert got.dtype == torch.float32
            error, allowed = ((t.double() - exact).abs().max() for t in (got, want))
            bar = 10 * torch.finfo(torch.float32).eps * exact.abs().max()
            assert error <= max(allowed, bar), name


def test_vdvae_own_formula():
    """VDVAE's closed form of the KL, in log σ of both."""

    def analytical_kl(mu1, mu2, logsigma1, logsigma2):
        return -0.5 + logsigma2 - logsigma1 + 0.5 * (logsigma1.exp() ** 2 + (mu1 - mu2) ** 2) / logsigma2.exp() ** 2

    mean, raw, prior_mean, prior_raw, _ = operands(torch.float64)
    tensors = (mean, raw, prior_mean, prior_raw)
    ours = with_grads(lambda m, r, pm, pr: vf.gaussian_kl(m, r, pm, pr, param="logstd", event_ndim=0), tensors)
    theirs = with_grads(lambda m, r, pm, pr: analytical_kl(m, pm, r, pr), tensors)
    for got, want in zip(ours, theirs, strict=True):
        assert_close(got, want, rtol=1e-12, atol=1e-12)


def test_the_table_tells_wrong_options():
    """A row whose option is left out is another distribution: the comparison above sees it."""
    for head in HEADS.values():
        for option in head.options:
            wrong = Head(head.sigma, {k: v for k, v in head.options.items() if k != option}, head.argument)
            _, formula, ours, tensors = next(pairs(wrong, torch.float64, -31.0, 21.0))
            assert not torch.allclose(ours(*tensors), formula(*tensors), rtol=1e-9, atol=1e-9), option
