"""`python -m benchmarks pairs`: what is between pairs of a datum and a component, against its whole tables.

The total correlation of a β-TCVAE, a mixture's log-density as a VampPrior has it, the maximum mean discrepancy of
an InfoVAE, VDVAE's likelihood of pixels, forward and backward: as published code writes them, compiled, and ours.
Median time in turns within one run, peak memory, and the values and gradients, which have to be those of float64.
"""

import argparse
import math
import statistics
import sys

import torch

import vae_fast as vf

from . import measure

SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


def _log_normal(z, mu, logvar):
    return -0.5 * ((z[:, None] - mu) ** 2 * torch.exp(-logvar) + logvar + math.log(2 * math.pi))


def published_total_correlation(mu, logvar, z):
    terms, shift = _log_normal(z, mu, logvar), math.log(len(z) * 60_000)
    return (torch.logsumexp(terms.sum(2), 1) - (torch.logsumexp(terms, 1) - shift).sum(1) - shift).mean()


def published_mixture(mu, logvar, z):
    return (torch.logsumexp(_log_normal(z, mu, logvar).sum(2), 1) - math.log(len(mu))).mean()


def published_mmd(x, y):
    c = 2 * x.shape[1]

    def table(a, b):
        square = (a[:, None] - b[None]).pow(2).sum(-1)
        return sum(s * c / (s * c + square) for s in SCALES)

    def own(k):
        return (k.sum() - k.diagonal().sum()) / (len(k) * (len(k) - 1))

    return own(table(x, x)) + own(table(y, y)) - 2 * table(x, y).mean()


# Of the mixture of logistics.
LOGISTICS = 10


def pixels(h):
    """As many RGB pixels of 8 bits as h has rows, scaled to [−1, 1] in its dtype."""
    levels = torch.arange(3 * len(h), device=h.device).mul(7919).remainder(256).view(len(h), 3)
    return (2 * levels - 255).to(h.dtype) / 255


def cut(h):
    """logits, means, log-scales and coefficients, [n, 3, K] but for the first, of a network's output."""
    logits, rest = h.split((LOGISTICS, 9 * LOGISTICS), 1)
    return logits, *rest.unflatten(1, (3, 3 * LOGISTICS)).split(LOGISTICS, 2)


def published_logistics(h):
    x = pixels(h).unsqueeze(-1)
    logits, means, log_scales, coefficients = cut(h)
    log_scales, coefficients = log_scales.clamp(min=-7.0), torch.tanh(coefficients)
    red, green = x[:, 0], x[:, 1]
    green_mean = means[:, 1] + coefficients[:, 0] * red
    blue_mean = means[:, 2] + coefficients[:, 1] * red + coefficients[:, 2] * green
    centred = x - torch.stack((means[:, 0], green_mean, blue_mean), 1)
    rate = torch.exp(-log_scales)
    plus, minus, middle = rate * (centred + 1 / 255), rate * (centred - 1 / 255), rate * centred
    delta = torch.sigmoid(plus) - torch.sigmoid(minus)
    softplus = torch.nn.functional.softplus
    density = middle - log_scales - 2 * softplus(middle) - math.log(127.5)
    inner = torch.where(delta > 1e-5, torch.log(delta.clamp(min=1e-12)), density)
    terms = torch.where(x < -0.999, plus - softplus(plus), torch.where(x > 0.999, -softplus(minus), inner))
    return -torch.logsumexp(terms.sum(1) + torch.log_softmax(logits, -1), -1).mean()


def our_logistics(h):
    logits, means, log_scales, coefficients = cut(h)
    return vf.logistic_mixture_log_prob(
        logits, means, log_scales, pixels(h), coefficients=coefficients, reduction="mean", scale=-1.0
    )


# (what, sizes, published, ours, operands)
CASES = (
    (
        "total correlation",
        "B = 1024, D = 10",
        published_total_correlation,
        lambda mu, logvar, z: vf.total_correlation(mu, logvar, z, n_data=60_000).mean(),
        ((1024, 10),) * 3,
    ),
    (
        "total correlation",
        "B = 2048, D = 10",
        published_total_correlation,
        lambda mu, logvar, z: vf.total_correlation(mu, logvar, z, n_data=60_000).mean(),
        ((2048, 10),) * 3,
    ),
    (
        "mixture",
        "B = 512, K = 500, D = 40",
        published_mixture,
        lambda mu, logvar, z: vf.gaussian_mixture_log_prob(mu, logvar, z, reduction="mean"),
        ((500, 40), (500, 40), (512, 40)),
    ),
    ("mmd", "n = m = 1000, D = 16", published_mmd, vf.mmd, ((1000, 16),) * 2),
    (
        "mixture of logistics",
        "32 images of 32×32×3, K = 10",
        published_logistics,
        our_logistics,
        ((32 * 32 * 32, 10 * LOGISTICS),),
    ),
)


class Call:
    """Forward and backward, on the same operands every time."""

    def __init__(self, function, operands, device):
        self.function, self.operands, self.device = function, operands, device

    def __call__(self):
        self.value = self.function(*self.operands)
        self.grads = torch.autograd.grad(self.value, self.operands)
        measure.synchronise(self.device)


def backends(device):
    """What ours are called, and the backend of each: on a GPU every one there is."""
    if torch.device(device).type == "cpu":
        return {"vae_fast": "auto"}
    table = vf.backends()
    return {
        name: name for name in ("native", "triton") if table[name].available and table[name].serves("mmd", "cuda")
    }


def by(backend, function):
    """The function of a backend: total correlation takes no name of one."""

    def call(*operands):
        with vf.use_backend(backend):
            return function(*operands)

    return call


def drawn(shapes, device):
    torch.manual_seed(0)
    # A second operand that is a log σ² stays near 0; points are what they are.
    values = [torch.randn(shape) * (0.3 if k == 1 and len(shapes) == 3 else 1) for k, shape in enumerate(shapes)]
    return [v.to(device).requires_grad_() for v in values]


def wrong(call, published):
    """By how much a call's value and gradients differ from float64's, of the largest of each."""
    exact = Call(published, [t.detach().double().requires_grad_() for t in call.operands], call.device)
    exact()
    call()
    pairs = zip((call.value.detach(), *call.grads), (exact.value.detach(), *exact.grads), strict=True)
    return max(float((a.double() - b).abs().max() / b.abs().max()) for a, b in pairs)


def main(arguments):
    parser = argparse.ArgumentParser(prog="python -m benchmarks pairs", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9, help="of each way, timed")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    options = parser.parse_args(arguments)
    c = measure.conditions(options.device)
    print(f"{c['device']}, {c['threads']} threads, torch {c['versions']['torch']}, {c['date']}")
    print(f"Forward and backward, float32: medians of {options.rounds}")
    for name, sizes, published, ours, shapes in CASES:
        ways = {
            "eager": Call(published, drawn(shapes, options.device), options.device),
            "torch.compile": Call(torch.compile(published), drawn(shapes, options.device), options.device),
        }
        for way, backend in backends(options.device).items():
            ways[way] = Call(by(backend, ours), drawn(shapes, options.device), options.device)
            off = wrong(ways[way], published)
            # An MMD near 0 is a difference of means of seven terms each.
            if not off < 1e-4:
                sys.exit(f"{name}: {off:.1e} off, and not timed")
        measure.timed(ways, 2)
        memory = {way: measure.peak_memory(call, options.device) / 2**20 for way, call in ways.items()}
        medians = {way: statistics.median(found) for way, found in measure.timed(ways, options.rounds).items()}
        print(f"\n{name}, {sizes}\n{'':>14} {'ms':>8} {'speed':>6} {'peak MiB':>9}")
        for way in ways:
            speed = medians["eager"] / medians[way]
            print(f"{way:>14} {medians[way] * 1e3:>8.2f} {speed:>6.1f} {memory[way]:>9.2f}")
    return 0
