"""Masked and padded data: the masked formulas, as their users write them, against `weight`."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

import vae_fast as vf
from helpers.marks import each_backend

pytestmark = each_backend

EXACT = {"rtol": 1e-12, "atol": 1e-12}
B, T, D = 4, 7, 5


def leaves(*shapes):
    return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


def compare(ours, theirs, tensors):
    assert_close(ours, theirs, **EXACT)
    up = torch.randn_like(theirs)
    want = torch.autograd.grad(theirs, tensors, up, retain_graph=True)
    got = torch.autograd.grad(ours, tensors, up, retain_graph=True)
    assert_close(got, want, **EXACT)
    return got


@pytest.fixture
def mask():
    """[B, T]: sequences of 7, 3, 1 and 0 steps."""
    return torch.arange(T)[None, :] < torch.tensor([7, 3, 1, 0])[:, None]


class TestSequences:
    """[B, T] masks for [B, T, D]: each step's KL and log-likelihood counts where the mask is 1."""

    def test_kl(self, mask):
        mu, logvar = leaves((B, T, D), (B, T, D))
        step = -0.5 * (1 + logvar - mu.pow(2) - logvar.exp()).sum(-1)
        # One number a sequence, and the mean over the steps there are.
        compare(
            vf.gaussian_kl(mu, logvar, event_ndim=2, weight=mask[..., None]), (step * mask).sum(1), (mu, logvar)
        )
        ours = vf.gaussian_kl(mu, logvar, weight=mask[..., None], reduction="sum") / mask.sum()
        dmu, dlogvar = compare(ours, (step * mask).sum() / mask.sum(), (mu, logvar))
        assert not dmu[~mask].any() and not dlogvar[~mask].any() and dmu[mask].all()

    def test_log_likelihoods(self, mask):
        logits, mean, logvar = leaves((B, T, D), (B, T, D), (B, T, D))
        x = torch.rand(B, T, D, dtype=torch.float64)
        bce = F.binary_cross_entropy_with_logits(logits, x, reduction="none")
        ours = vf.bernoulli_log_prob(logits, x, event_ndim=2, weight=mask[..., None], scale=-1.0)
        compare(ours, (bce * mask[..., None]).sum((1, 2)), (logits,))
        terms = -0.5 * (math.log(2 * math.pi) + logvar + (x - mean) ** 2 / logvar.exp())
        ours = vf.gaussian_log_prob(mean, logvar, x, event_ndim=2, weight=mask[..., None])
        compare(ours, (terms * mask[..., None]).sum((1, 2)), (mean, logvar))

    def test_whatever_is_in_the_padding(self, mask):
        """Garbage from the padding of an RNN or a transformer: 0 times NaN is NaN, but a weight of 0 is nothing."""
        mu, logvar = leaves((B, T, D), (B, T, D))
        clean = vf.gaussian_kl(mu, logvar, event_ndim=2, weight=mask[..., None])
        grads = torch.autograd.grad(clean.sum(), (mu, logvar))
        for garbage in (math.nan, math.inf, 1e300):
            spoilt = [torch.where(mask[..., None], t, garbage).detach().requires_grad_() for t in (mu, logvar)]
            kl = vf.gaussian_kl(*spoilt, event_ndim=2, weight=mask[..., None])
            assert torch.equal(kl, clean)
            for got, want in zip(torch.autograd.grad(kl.sum(), spoilt), grads, strict=True):
                assert torch.equal(got, want)
        theirs = -0.5 * (1 + spoilt[1] - spoilt[0].pow(2) - spoilt[1].exp()).sum(-1) * mask
        assert not theirs.isfinite().all()


class TestMissingPixels:
    @pytest.fixture
    def x(self):
        """[B, 3, 6, 6] with a third of the pixels missing."""
        x = torch.rand(B, 3, 6, 6, dtype=torch.float64)
        return torch.where(torch.rand(B, 3, 6, 6) < 1 / 3, torch.nan, x)

    def test_bernoulli(self, x):
        (logits,) = leaves(x.shape)
        seen = ~x.isnan()
        bce = F.binary_cross_entropy_with_logits(logits, x.nan_to_num(0.0), reduction="none")
        ours = vf.bernoulli_log_prob(logits, x, event_ndim=3, weight=seen, scale=-1.0)
        (grad,) = compare(ours, (bce * seen).sum((1, 2, 3)), (logits,))
        assert not grad[~seen].any() and grad[seen].all()

    def test_gaussian(self, x):
        mean, logvar = leaves(x.shape, ())
        seen = ~x.isnan()
        terms = -0.5 * (math.log(2 * math.pi) + logvar + (x.nan_to_num(0.0) - mean) ** 2 / logvar.exp())
        ours = vf.gaussian_log_prob(mean, logvar, x, event_ndim=3, weight=seen, reduction="mean")
        grad, _ = compare(ours, (terms * seen).sum() / B, (mean, logvar))
        assert not grad[~seen].any() and grad[seen].all()

    def test_gradient_of_x(self, x):
        """A missing pixel gets gradient 0 itself."""
        (mean,) = leaves(x.shape)
        x = x.requires_grad_()
        log_prob = vf.gaussian_log_prob(mean, 0.0, x, event_ndim=3, weight=~x.isnan(), reduction="sum")
        (grad,) = torch.autograd.grad(log_prob, x)
        assert grad.isfinite().all() and not grad[x.isnan()].any()


class TestImportanceWeights:
    """One weight for each sample and datum, [S, B]: w·log p, w without a gradient."""

    def test_of_samples(self):
        S = 6
        (logits,) = leaves((S, B, D))
        x = torch.rand(B, D, dtype=torch.float64)
        log_w = torch.randn(S, B, dtype=torch.float64)
        w = log_w.softmax(0)
        bce = F.binary_cross_entropy_with_logits(logits, x.expand(S, B, D), reduction="none").sum(-1)
        ours = vf.bernoulli_log_prob(logits, x, weight=w[..., None], reduction="sum", scale=-1.0)
        compare(ours, (w * bce).sum(), (logits,))
        ours = vf.bernoulli_log_prob(logits, x, weight=w[..., None])
        compare(ours, -w * bce, (logits,))

    def test_of_data(self):
        """Classes weighted by how rare they are: one weight a datum, for the KL too."""
        mu, logvar = leaves((B, D), (B, D))
        w = torch.tensor([1.0, 0.25, 3.0, 0.0], dtype=torch.float64, requires_grad=True)
        kl = -0.5 * (1 + logvar - mu.pow(2) - logvar.exp()).sum(-1)
        ours = vf.gaussian_kl(mu, logvar, weight=w[:, None], reduction="mean")
        compare(ours, (w * kl).mean(), (mu, logvar, w))
