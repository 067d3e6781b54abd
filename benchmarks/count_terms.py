"""The likelihoods of counts alone, forward and backward, as scvi-tools calls them: a term for every element.

Of python -m benchmarks scvi the second table: the published distribution, the same compiled, ours, ours of the
softmax's logits beside torch.softmax before ours, and ours of a CSR matrix beside the same dense one.
"""

import torch

import vae_fast as vf

from . import measure

SHAPE = 128, 8_000
ZEROS, ZEROS_OF_CSR = 0.8, 0.9


class Operands:
    """Means about 2, one θ a gene, logits of more zeros, counts of which so many are 0."""

    def __init__(self, zeros, device):
        generator = torch.Generator().manual_seed(0)
        rows, genes = SHAPE

        def leaf(t):
            return t.to(device).requires_grad_()

        self.mean = leaf(torch.rand(SHAPE, generator=generator) * 3 + 0.05)
        self.theta = leaf(torch.rand(genes, generator=generator) * 3 + 0.2)
        self.zero_logits = leaf(torch.randn(SHAPE, generator=generator))
        self.logits = leaf(torch.randn(SHAPE, generator=generator))
        self.log_library = leaf(torch.full((rows, 1), 8.0))
        counts = torch.poisson(torch.rand(SHAPE, generator=generator) * 4 + 1, generator=generator)
        self.x = (counts * (torch.rand(SHAPE, generator=generator) > zeros)).to(device)
        self.upstream = torch.randn(SHAPE, generator=generator).to(device)

    def of_means(self, likelihood):
        """The leaves of a likelihood by its mean: (mean, theta) or (mean, theta, zero_logits)."""
        return [self.mean, self.theta, *([self.zero_logits] if likelihood == "zinb" else [])]

    def graded(self, log_prob, *leaves):
        """A call of the log-likelihood with the gradients by these."""

        def call():
            value = log_prob(*leaves)
            return value, torch.autograd.grad(
                value, leaves, self.upstream if value.ndim == 2 else self.upstream[:, 0]
            )

        return call


def ways(distributions, likelihood, operands):
    """The published log-likelihood and ours, of (mean, theta) or (mean, theta, zero_logits)."""
    x = operands.x

    def published(mean, theta, zero_logits=None):
        if zero_logits is None:
            return distributions.NegativeBinomial(mu=mean, theta=theta, validate_args=False).log_prob(x)
        return distributions.ZeroInflatedNegativeBinomial(
            mu=mean, theta=theta, zi_logits=zero_logits, validate_args=False
        ).log_prob(x)

    def ours(mean, theta, zero_logits=None):
        return vf.negative_binomial_log_prob(mean, theta, x, zero_logits=zero_logits, eps=1e-8, event_ndim=0)

    leaves = operands.of_means(likelihood)
    return [operands.graded(f, *leaves) for f in (published, torch.compile(published), ours)]


def of_logits(likelihood, operands):
    """Ours of a softmax's logits; of torch.softmax; and of means that are there, all summed over the genes."""

    def fused(logits, log_library, theta, zero_logits=None):
        options = {"param": "softmax", "log_library": log_library, "zero_logits": zero_logits}
        return vf.negative_binomial_log_prob(logits, theta, operands.x, **options)

    def apart(logits, log_library, theta, zero_logits=None):
        mean = torch.softmax(logits, -1) * log_library.exp()
        return vf.negative_binomial_log_prob(mean, theta, operands.x, zero_logits=zero_logits)

    def of_mean(mean, theta, zero_logits=None):
        return vf.negative_binomial_log_prob(mean, theta, operands.x, zero_logits=zero_logits)

    mean, *others = operands.of_means(likelihood)
    leaves = operands.logits, operands.log_library, *others
    calls = [operands.graded(f, *leaves) for f in (fused, apart)]
    return [*calls, operands.graded(of_mean, mean, *others)]


def of_csr(likelihood, operands):
    """Ours of a CSR matrix, and of the same dense one."""
    leaves = operands.of_means(likelihood)

    def on(x):
        return lambda mean, theta, zero_logits=None: vf.negative_binomial_log_prob(
            mean, theta, x, zero_logits=zero_logits
        )

    return [operands.graded(on(x), *leaves) for x in (operands.x.to_sparse_csr(), operands.x)]


def check(likelihood, calls):
    """Nothing wrong is timed: values and gradients are the published ones to float32's digits."""
    (want, want_grads), *others = (call() for call in calls)
    for found, grads in others:
        for a, b in zip((found, *grads), (want, *want_grads), strict=True):
            if not torch.allclose(a, b, rtol=1e-3, atol=2e-4 * float(b.abs().max())):
                raise AssertionError(f"{likelihood}: the ways' results differ")


def rows(distributions, likelihoods, in_turns, times, device):
    """Prints the table; ``in_turns`` gives each call's median time and last result."""
    print(
        f"log-likelihood alone, {SHAPE[0]} x {SHAPE[1]:,}, forward and backward: medians of {times}, ms, and peak"
        f" memory in tables of that shape, the result being one. Of {ZEROS:.0%} zeros, of a CSR matrix"
        f" {ZEROS_OF_CSR:.0%}"
    )
    columns = "scvi", "compiled", "ours", "tables, scvi", "ours", "softmax", "torch's", "of mean", "CSR", "dense"
    print(f"{'':>6}", *(f"{name:>{len(name) + 2}}" for name in columns))
    table = SHAPE[0] * SHAPE[1] * 4
    for likelihood in likelihoods:
        operands = Operands(ZEROS, device)
        calls = ways(distributions, likelihood, operands)
        check(likelihood, calls)
        memory = [measure.peak_memory(calls[k], device) / table for k in (0, 2)]
        three = [1e3 * t for t, _ in in_turns(calls, times)]
        logits = [1e3 * t for t, _ in in_turns(of_logits(likelihood, operands), times)]
        csr = [1e3 * t for t, _ in in_turns(of_csr(likelihood, Operands(ZEROS_OF_CSR, device)), times)]
        found = zip(columns, (*three, *memory, *logits, *csr), strict=True)
        print(f"{likelihood:>6}", *(f"{value:>{len(name) + 2}.2f}" for name, value in found), flush=True)
