"""`python -m benchmarks iwae`: training steps on the importance-weighted bound, in turns within one run.

Kingma and Welling's networks, 784-500-20, with the bound of K samples as one writes it in PyTorch, the same
compiled, and with each objective of ``vf.VAE``: median time, peak memory, and the bound, which has to be eager's on
the same samples.
"""

import argparse
import math
import statistics
import sys

import torch
from torch import nn
from torch.distributions import Normal
from torch.nn.functional import binary_cross_entropy_with_logits

import vae_fast as vf

from . import measure

WARM = 3
OBJECTIVES = ("iwae", "dreg", "stl")


def log_weights(decoder, x, z, mu, logvar):
    """log p(x|z) + log p(z) − log q(z|x) of z [K, B, latent], as usually written."""
    logits = decoder(z)
    log_p = -binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none").sum(-1)
    q = Normal(mu, torch.exp(0.5 * logvar), validate_args=False)
    prior = Normal(torch.zeros_like(mu), torch.ones_like(mu), validate_args=False)
    return log_p + prior.log_prob(z).sum(-1) - q.log_prob(z).sum(-1)


class Published(nn.Module):
    def __init__(self, vae, samples):
        super().__init__()
        self.encoder, self.decoder, self.samples = vae.encoder, vae.decoder, samples

    def forward(self, x):
        mu, logvar = self.encoder(x)
        z = mu + torch.exp(0.5 * logvar) * torch.randn(self.samples, *mu.shape, device=mu.device)
        log_w = log_weights(self.decoder, x, z, mu, logvar)
        return -(log_w.logsumexp(0) - math.log(self.samples)).mean()


def networks(objective, samples, device):
    torch.manual_seed(0)
    nets = vf.GaussianMLP(784, 20, (500,)), vf.BernoulliMLP(20, 784, (500,))
    return vf.VAE(*nets, objective=objective, n_samples=samples).to(device)


def wrong(vae, x):
    """By how much the bound of a call is another one than that of the usual formulas at its samples, relatively."""
    with torch.no_grad():
        out = vae(x, seed=1)
        log_w = log_weights(vae.decoder, x, out.z, *vae.encode(x))
        bound = log_w.mean(0) if vae.objective == "stl" else log_w.logsumexp(0) - math.log(len(out.z))
    return float(((out.elbo - bound) / bound).abs().max())


class Step:
    """A training step, the k-th on the k-th noise. ``bound`` is the last one's."""

    def __init__(self, module, loss, x):
        self.loss, self.x, self.k = loss, x, 0
        self.optimiser = torch.optim.Adam(module.parameters(), lr=1e-3, fused=True)

    def __call__(self):
        torch.manual_seed(self.k)
        self.k += 1
        self.optimiser.zero_grad()
        loss = self.loss(self.x)
        loss.backward()
        self.optimiser.step()
        measure.synchronise(self.x.device.type)
        self.bound = -loss.item()


def main(arguments):
    parser = argparse.ArgumentParser(prog="python -m benchmarks iwae", description=__doc__.partition("\n")[0])
    parser.add_argument("--samples", type=int, default=50, help="K")
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--steps", type=int, default=15, help="of each way, timed")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    options = parser.parse_args(arguments)
    torch.manual_seed(0)
    x = (torch.rand(options.batch, 784) < 0.3).float().to(options.device)
    ways = {}
    published = Published(networks("elbo", 1, options.device), options.samples)
    ways["eager"] = Step(published, published, x)
    compiled = Published(networks("elbo", 1, options.device), options.samples)
    ways["torch.compile"] = Step(compiled, torch.compile(compiled), x)
    for objective in OBJECTIVES:
        vae = networks(objective, options.samples, options.device)
        if not wrong(vae, x) < 1e-5:
            sys.exit(f"the bound of {objective} is wrong, and is not timed")
        ways[objective] = Step(vae, lambda x, vae=vae: vae(x).loss, x)
    measure.timed(ways, WARM)
    memory = [measure.peak_memory(call, options.device) / 2**20 for call in ways.values()]
    medians = {name: statistics.median(found) for name, found in measure.timed(ways, options.steps).items()}
    c = measure.conditions(options.device)
    print(f"{c['device']}, {c['threads']} threads, torch {c['versions']['torch']}, {c['date']}")
    print(
        f"784-500-20, {options.batch} data of {options.samples} samples: medians of {options.steps} training steps"
    )
    print(f"{'':>14} {'ms':>8} {'speed':>6} {'peak MiB':>9} {'of eager':>8} {'bound':>9}")
    for (name, step), held in zip(ways.items(), memory, strict=True):
        seconds, share = medians[name], held / memory[0]
        speed = medians["eager"] / seconds
        print(f"{name:>14} {seconds * 1e3:>8.1f} {speed:>6.2f} {held:>9.1f} {share:>8.2f} {step.bound:>9.2f}")
    return 0
