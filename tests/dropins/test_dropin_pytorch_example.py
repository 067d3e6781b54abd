"""PyTorch's VAE example: its reparameterize() and loss_function(), against the one-line forms on the same noise."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

import vae_fast as vf
from helpers.marks import each_backend

pytestmark = each_backend

PIXELS, HIDDEN, LATENT = 36, 24, 4


class Model(nn.Module):
    """A layer each way, as in the example; ``activation`` is sigmoid, or nothing for logits."""

    def __init__(self, activation):
        super().__init__()
        self.activation = activation
        self.enter, self.leave = nn.Linear(PIXELS, HIDDEN), nn.Linear(HIDDEN, PIXELS)
        self.to_mu, self.to_logvar = nn.Linear(HIDDEN, LATENT), nn.Linear(HIDDEN, LATENT)
        self.from_z = nn.Linear(LATENT, HIDDEN)

    def encode(self, x):
        h = F.relu(self.enter(x))
        return self.to_mu(h), self.to_logvar(h)

    def decode(self, z):
        return self.activation(self.leave(F.relu(self.from_z(z))))


def reparameterize(mu, logvar):
    std = torch.exp(0.5 * logvar)
    eps = torch.randn_like(std)
    return mu + eps * std


def kl_divergence(mu, logvar):
    return -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())


def of_probabilities(recon_x, x, mu, logvar):
    return F.binary_cross_entropy(recon_x, x, reduction="sum") + kl_divergence(mu, logvar)


def of_logits(logits, x, mu, logvar):
    return F.binary_cross_entropy_with_logits(logits, x, reduction="sum") + kl_divergence(mu, logvar)


FORMS = {
    "probabilities": (torch.sigmoid, of_probabilities, {"param": "probs"}),
    "logits": (lambda t: t, of_logits, {}),
}


def as_in_the_example(model, loss_function, x):
    mu, logvar = model.encode(x)
    return loss_function(model.decode(reparameterize(mu, logvar)), x, mu, logvar)


def in_one_line(model, options, x):
    mu, logvar = model.encode(x)
    z, kl = vf.rsample_kl(mu, logvar, seed=11)
    return kl.sum() - vf.bernoulli_log_prob(model.decode(z), x, reduction="sum", **options)


def in_two_lines(model, options, x):
    """The functions of the example kept, their bodies changed."""
    mu, logvar = model.encode(x)
    recon_x = model.decode(vf.rsample(mu, logvar, seed=11))
    kl = vf.gaussian_kl(mu, logvar, reduction="sum")
    return kl + vf.bernoulli_log_prob(recon_x, x, reduction="sum", scale=-1.0, **options)


def with_grads(model, loss):
    return loss.detach(), *torch.autograd.grad(loss, list(model.parameters()))


@pytest.fixture(params=FORMS)
def case(request, monkeypatch):
    """(model, the example's loss, options, x) in float32; torch.randn_like draws the noise of seed 11."""
    monkeypatch.setattr(torch, "randn_like", lambda t: vf.standard_normal(t.shape, seed=11, dtype=t.dtype))
    activation, loss_function, options = FORMS[request.param]
    x = torch.rand(8, PIXELS).round(decimals=1)
    x[0, :2] = torch.tensor([0.0, 1.0])
    return Model(activation), loss_function, options, x


@pytest.mark.parametrize("ours", [in_one_line, in_two_lines])
def test_float64(case, ours):
    """Loss and every parameter's gradient agree to the roundings of sums of a few hundred terms."""
    model, loss_function, options, x = case
    model, x = model.double(), x.double()
    want = with_grads(model, as_in_the_example(model, loss_function, x))
    got = with_grads(model, ours(model, options, x))
    for a, b in zip(got, want, strict=True):
        assert_close(a, b, rtol=1e-12, atol=1e-12 * b.abs().max().item())


def test_float32(case):
    """In float32 loss and gradients are no further from float64 than the example's, or than four roundings.

    The matrix products, which are the same, make most of the error: it is of another sign now and then.
    """
    model, loss_function, options, x = case
    theirs = with_grads(model, as_in_the_example(model, loss_function, x))
    ours = with_grads(model, in_one_line(model, options, x))
    model, x = model.double(), x.double()
    truth = with_grads(model, as_in_the_example(model, loss_function, x))
    for got, want, exact in zip(ours, theirs, truth, strict=True):
        error, allowed = ((t.double() - exact).abs().max() for t in (got, want))
        assert error <= allowed + 4 * torch.finfo(torch.float32).eps * exact.abs().max()


def test_a_saturated_sigmoid(backend):
    """Where a probability has become 0 or 1: the logarithm's −100, and the gradient, of F.binary_cross_entropy."""
    p = torch.tensor([[0.0, 1.0, 0.0, 1.0, 1e-44, 0.5]], requires_grad=True)
    x = torch.tensor([[1.0, 0.0, 0.0, 1.0, 1.0, 0.3]])
    loss = F.binary_cross_entropy(p, x, reduction="sum")
    (want,) = torch.autograd.grad(loss, p)
    ours = vf.bernoulli_log_prob(p, x, param="probs", reduction="sum", scale=-1.0)
    assert_close(ours, loss, rtol=1e-6, atol=0.0)
    assert_close(torch.autograd.grad(ours, p)[0], want, rtol=1e-6, atol=0.0)
