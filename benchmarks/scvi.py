"""`python -m benchmarks scvi`: scVI's training as scvi-tools has it, and patched, in turns within one run.

Steps of SCVI's module on simulated counts, with Adam as its training plan has it: median time, peak memory, and the
ELBO that both arrive at on the same noise. Then the likelihoods alone, and SCVI.train() as users call it. Needs
scvi-tools.
"""

import argparse
import contextlib
import copy
import io
import logging
import statistics
import sys
import time
import warnings

import torch

import vae_fast as vf

from . import count_terms, measure

GENES, CELLS_A_BATCH = (2_000, 8_000, 20_000), 128
LIKELIHOODS = ("zinb", "nb")
TRAINED = (2_560, 4_000)
# Before the steps that are timed.
WARM = 3


def counts(cells, genes, generator):
    """Negative binomial counts of genes whose means spread over three decades: five of six are 0."""
    level = torch.randn(genes, generator=generator).mul(1.8).sub(2.9).exp()
    size = torch.randn(cells, 1, generator=generator).mul(0.4).exp()
    rate = torch.distributions.Gamma(torch.full((genes,), 1.5), 1.5).sample((cells,)) * level * size
    found = torch.poisson(rate, generator=generator)
    found[:, 0] += 1  # a cell without a count has no library
    return found


def models(library, cells, genes, likelihood, device):
    """Published and patched, of the same weights; and how many of the counts are 0."""
    import anndata

    torch.manual_seed(0)
    x = counts(cells, genes, torch.Generator().manual_seed(0))
    adata = anndata.AnnData(x.numpy())
    library.model.SCVI.setup_anndata(adata)
    published = library.model.SCVI(adata, gene_likelihood=likelihood)
    published.module.to(device)
    return published, vf.integrations.scvi.patch(copy.deepcopy(published)), float((x == 0).float().mean())


class Step:
    """A training step of a model's module on one batch, the k-th on the k-th noise. It gives the loss."""

    def __init__(self, model, device):
        self.module, self.device, self.k = model.module.train(), device, 0
        tensors = next(iter(model._make_data_loader(adata=model.adata, batch_size=CELLS_A_BATCH)))
        self.tensors = {key: t.to(device) for key, t in tensors.items()}
        self.optimiser = torch.optim.Adam(self.module.parameters(), lr=1e-3, eps=0.01, weight_decay=1e-6)

    def __call__(self):
        torch.manual_seed(self.k)
        self.k += 1
        _, _, out = self.module(self.tensors)
        self.optimiser.zero_grad()
        out.loss.backward()
        self.optimiser.step()
        measure.synchronise(self.device)
        return -out.loss.item()


def seconds(call):
    start = time.perf_counter()
    return call(), time.perf_counter() - start


def in_turns(calls, times):
    """For each call its median time and its last result. They alternate, and so meet the same machine."""
    found = [[] for _ in calls]
    for _ in range(times):
        for call, results in zip(calls, found, strict=True):
            results.append(seconds(call))
    return [(statistics.median(t for _, t in results), results[-1][0]) for results in found]


def steps(library, genes, likelihood, times, device):
    """A row of the first table."""
    *both, zeros = models(library, CELLS_A_BATCH, genes, likelihood, device)
    calls = [Step(model, device) for model in both]
    in_turns(calls, WARM)
    memory = [measure.peak_memory(call, device) / 2**20 for call in calls]
    (published, published_elbo), (ours, our_elbo) = in_turns(calls, times)
    return (
        f"{genes:>7,} {likelihood:>5} {zeros:>6.1%} {published * 1e3:>11.1f} {ours * 1e3:>9.1f}"
        f" {published / ours:>7.2f} {memory[0]:>11.1f} {memory[1]:>9.1f} {published_elbo:>15.3f} {our_elbo:>13.3f}"
    )


def training(library, likelihood, epochs, times, device):
    """A row of the second table: SCVI.train(), each time from the start."""
    *both, zeros = models(library, *TRAINED, likelihood, "cpu")

    def train(model):
        def call():
            mine = copy.deepcopy(model)
            library.settings.seed = 0
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                mine.train(
                    max_epochs=epochs,
                    accelerator="gpu" if device == "cuda" else device,
                    batch_size=CELLS_A_BATCH,
                    enable_progress_bar=False,
                )
            return -float(mine.history["elbo_train"].iloc[-1].item())

        return call

    calls = [train(model) for model in both]
    (published, published_elbo), (ours, our_elbo) = in_turns(calls, times)
    return (
        f"{likelihood:>13} {zeros:>6.1%} {published / epochs:>11.2f} {ours / epochs:>9.2f} {published / ours:>7.2f}"
        f" {'':>21} {published_elbo:>15.3f} {our_elbo:>13.3f}"
    )


def main(arguments):
    parser = argparse.ArgumentParser(prog="python -m benchmarks scvi", description=__doc__.partition("\n")[0])
    parser.add_argument("--genes", type=int, nargs="+", default=GENES)
    parser.add_argument("--likelihood", nargs="+", choices=("zinb", "nb", "poisson"), default=LIKELIHOODS)
    parser.add_argument("--steps", type=int, default=15, help="of each model, timed")
    parser.add_argument("--terms", type=int, default=25, help="of each way of a likelihood, timed; 0 leaves it out")
    parser.add_argument("--epochs", type=int, default=3, help="of SCVI.train(); 0 leaves it out")
    parser.add_argument("--trainings", type=int, default=3, help="of each model, timed")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    options = parser.parse_args(arguments)
    try:
        import scvi
    except ModuleNotFoundError:
        sys.exit("python -m benchmarks scvi needs scvi-tools: pip install scvi-tools")
    # Of few workers, of no logger, of data split by chance: none of it is the benchmark's.
    warnings.simplefilter("ignore")
    for name in ("scvi", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    c = measure.conditions(options.device)
    print(f"{c['device']}, {c['threads']} threads, torch {c['versions']['torch']}, scvi-tools {scvi.__version__}")
    print(f"SCVI, a training step of {CELLS_A_BATCH} cells: medians of {options.steps}")
    columns = f"{'speed':>7} {'MiB, scvi':>11} {'MiB, ours':>9} {'ELBO, scvi':>15} {'ELBO, ours':>13}"
    print(f"{'genes':>7} {'':>5} {'zeros':>6} {'ms, scvi':>11} {'ms, ours':>9} {columns}")
    for genes in options.genes:
        for likelihood in options.likelihood:
            print(steps(scvi, genes, likelihood, options.steps, options.device), flush=True)
    if options.terms:
        likelihoods = [name for name in options.likelihood if name != "poisson"]
        count_terms.rows(scvi.distributions, likelihoods, in_turns, options.terms, options.device)
    if options.epochs:
        cells, genes = TRAINED
        print(
            f"SCVI.train() of {cells:,} x {genes:,} counts, {options.epochs} epochs: medians of {options.trainings}"
        )
        print(f"{'':>13} {'zeros':>6} {'s/ep., scvi':>11} {'s/ep.':>9} {'speed':>7} {'':>21} {'ELBO, scvi':>15}"
              f" {'ELBO, ours':>13}")  # fmt: skip
        for likelihood in options.likelihood:
            print(training(scvi, likelihood, options.epochs, options.trainings, options.device), flush=True)
    return 0
