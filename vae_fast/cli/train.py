"""`train`: fit a VAE to a data set, each epoch a pure function of the one before and the seed."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import vae_fast as vf
from vae_fast.cli import checkpoint as ckpt
from vae_fast.cli import plots, report, scalars
from vae_fast.cli.config_file import CONFIG, config_toml, fill_in, naming
from vae_fast.cli.errors import CommandError, Interrupted, require
from vae_fast.cli.model import build_optimizer, build_vae
from vae_fast.cli.plan import Plan, make_plan
from vae_fast.cli.progress import progress
from vae_fast.cli.ranks import Ranks, connected
from vae_fast.cli.record import Record
from vae_fast.cli.run_dir import RunDir
from vae_fast.cli.streams import derive_seed, epoch_order
from vae_fast.cli.targets import make_targets
from vae_fast.cli.tensors import pack_tensors, unpack_model, unpack_optimizer

_TEST_BATCH = 1000
_STEPS_BETWEEN_LOOKS = 20  # reading the running ELBO waits for a GPU


def run(args: argparse.Namespace) -> int:
    """The `train` command."""
    modules = ["safetensors.torch", "tqdm"]
    modules += (["matplotlib"] if args.plots else []) + ([scalars.MODULE] if args.tensorboard else [])
    for module in modules:
        require(module)
    from_file = fill_in(args)
    with connected() as ranks:
        run_dir = RunDir(Path(args.out))
        try:
            # One process writes, and holds the directory; the others look, and agree below on what they saw.
            if ranks.first:
                run_dir.open()
            with naming(args.config, from_file):
                plan = make_plan(args, ranks, run_dir)
            return _train(args, ranks, run_dir, plan)
        finally:
            run_dir.close()


def _train(args: argparse.Namespace, ranks: Ranks, run_dir: RunDir, plan: Plan) -> int:
    backend, saved = plan.settings.backend, plan.saved
    with vf.use_backend(backend) if backend else nullcontext():
        # All have looked into --out when they agree; only then does the first one write there.
        ranks.agree(plan.config.to_json(), plan.data.sha256, None if saved is None else saved.record.sha256)
        training = Training(plan, ranks)
        return training.run(run_dir, args.plots, args.tensorboard)


class Training:
    """Model, optimiser and history of a run; whole before anything is written."""

    def __init__(self, plan: Plan, ranks: Ranks) -> None:
        config, data, device, saved = plan.config, plan.data, plan.device, plan.saved
        self.plan, self.config, self.data, self.device = plan, config, data, device
        self.ranks = ranks
        self.vae = build_vae(config, data.d)
        if saved is not None:
            unpack_model(saved.tensors, self.vae)
        self.vae.to(device)
        self.optimizer = build_optimizer(config, self.vae)
        if saved is not None:
            unpack_optimizer(saved.tensors, self.vae, self.optimizer)
        self.model = ranks.parallel(self.vae)
        self.n_parameters = sum(p.numel() for p in self.vae.parameters())
        self.history = [] if saved is None else list(saved.record.history)
        fixed = config.binarize != "dynamic"
        self.train_targets = make_targets(data.train, config.binarize, 0).to(device) if fixed else None
        self.test_targets: Tensor | None = None
        if data.test is not None:
            self.test_targets = make_targets(data.test, config.binarize, config.seed, "test").to(device)

    def run(self, run_dir: RunDir, with_plots: bool, with_scalars: bool) -> int:
        """All epochs that are left, then the summary and the plots."""
        where = self.plan.settings.device + (f", {self.ranks.world} ranks" if self.ranks.world > 1 else "")
        self._say(*report.run_lines(self.config, self.data, where, self.n_parameters))
        if self.plan.saved is not None:
            self._say(f"resume {run_dir.path} after epoch {len(self.history)}")
        self.save(run_dir)
        figures = None
        if self.ranks.first:
            run_dir.write(CONFIG, config_toml(self.config, self.plan.in_force))
            if with_scalars:
                figures = scalars.Scalars(run_dir.path, self.history, self.config.lr)
        try:
            with nullcontext() if figures is None else closing(figures):
                self._epochs(run_dir, figures)
        except Interrupted as stop:
            stop.note = f"; --resume goes on from the last whole epoch in {run_dir.path}"
            raise
        if not self.ranks.first:
            return 0
        content = report.summary(self.config, self.data, self.history, self.n_parameters)
        run_dir.write("summary.json", report.summary_json(content))
        files = [ckpt.CHECKPOINT, CONFIG, "metrics.csv", "summary.json"] + (
            [scalars.FOLDER] if with_scalars else []
        )
        if with_plots:
            for name, picture in self._plots():
                run_dir.write(name, picture)
                files.append(name)
        self._say(*report.closing_lines(content, str(run_dir.path), files))
        return 0

    def _say(self, *lines: str) -> None:
        if self.ranks.first:
            for line in lines:
                print(line, flush=True)

    def _plots(self) -> Iterator[tuple[str, bytes]]:
        x, which = self.test_targets, "test"
        if x is None:
            x, which = make_targets(self.data.train, self.config.binarize, self.config.seed, "plots"), "training"
        event_shape, seed = self.data.event_shape, self.config.seed
        return plots.training_plots(self.vae, x, which, event_shape, self.history, seed)

    def save(self, run_dir: RunDir) -> None:
        """Checkpoint first, then metrics.csv, which the checkpoint can always rewrite; by the first rank."""
        if not self.ranks.first:
            return
        tensors, digest = ckpt.tensors_to_bytes(pack_tensors(self.vae, self.optimizer))
        plan = self.plan
        record = Record(len(self.history), digest, self.config, plan.settings, plan.facts, self.history)
        ckpt.save_checkpoint(run_dir.path, record, tensors)
        run_dir.write("metrics.csv", report.metrics_csv(self.history))

    def _epochs(self, run_dir: RunDir, figures: scalars.Scalars | None) -> None:
        steps = math.ceil(len(self.data.train) / self.config.batch_size)
        done = len(self.history)
        with progress("", steps * self.config.epochs, "step", steps * done, shown=self.ranks.first) as bar:
            for epoch in range(done + 1, self.config.epochs + 1):
                bar.set_description(f"epoch {epoch}/{self.config.epochs}", refresh=False)
                metrics = self._epoch(epoch, bar, run_dir)
                self.history.append(report.history_row(metrics))
                # Before the checkpoint: what a killed run left of an epoch is written again, none is missing.
                if figures is not None:
                    figures.write(metrics)
                self.save(run_dir)
                bar.clear()
                self._say(report.epoch_line(metrics, self.config))

    def _epoch(self, epoch: int, bar: Any, run_dir: RunDir) -> report.EpochMetrics:
        config, latent = self.config, self.config.latent
        x = self.train_targets
        if x is None:
            x = make_targets(self.data.train, config.binarize, config.seed, "train", epoch).to(self.device)
        order = epoch_order(config.seed, epoch, len(x)).to(self.device)
        noise = derive_seed(config.seed, "noise", epoch)
        self.vae.beta = config.beta_of(epoch)
        self.vae.train()
        sums = torch.zeros(3, dtype=torch.float64, device=self.device)
        for step, start in enumerate(range(0, len(x), config.batch_size), 1):
            seen = min(start + config.batch_size, len(x))
            share = self.ranks.share(start, seen)
            result = self.model(x[order[share.start : share.stop]], seed=noise, offset=share.start * latent)
            # Σ over this rank's share; the ranks' gradients are averaged, so that this is the mean over the batch.
            loss = (self.vae.beta * result.kl - result.log_likelihood).sum()
            if config.objective != "elbo" and len(share):
                loss = result.loss * len(share)
            loss = loss * self.ranks.world / (seen - start)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
            sums += _sums(result)
            if step % _STEPS_BETWEEN_LOOKS == 0 or seen == len(x):
                elbo = self.ranks.total(sums)[0].item() / seen
                if not math.isfinite(elbo):
                    self._stop(epoch, f"the training ELBO became {elbo}", run_dir)
                bar.set_postfix_str(f"ELBO {elbo:.2f}", refresh=False)
            bar.update()
        if not all(torch.isfinite(p).all() for p in self.vae.parameters()):
            self._stop(epoch, "a weight became NaN or infinite", run_dir)
        tested = self._test()
        if not all(math.isfinite(value) for value in tested):
            self._stop(epoch, f"the test ELBO became {tested[0]}", run_dir)
        return report.EpochMetrics(epoch, self.vae.beta, *self._mean(sums, x), *tested)

    def _stop(self, epoch: int, why: str, run_dir: RunDir) -> None:
        raise CommandError(
            f"{why} in epoch {epoch}; {run_dir.path} keeps the checkpoint of epoch {len(self.history)} "
            f"(a smaller --lr may help)",
            status=1,
        )

    @torch.no_grad()
    def _test(self) -> tuple[float, ...]:
        """Test ELBO and its terms, with the same noise every epoch: the curve shows the weights alone."""
        x = self.test_targets
        if x is None:
            return ()
        self.vae.eval()
        sums = torch.zeros(3, dtype=torch.float64, device=self.device)
        noise = derive_seed(self.config.seed, "test noise")
        for start in range(0, len(x), _TEST_BATCH):
            share = self.ranks.share(start, min(start + _TEST_BATCH, len(x)))
            part = x[share.start : share.stop]
            sums += _sums(self.vae(part, seed=noise, offset=share.start * self.config.latent))
        return self._mean(sums, x)

    def _mean(self, sums: Tensor, x: Tensor) -> tuple[float, ...]:
        """Sums over this rank's shares as means over all data."""
        return tuple((self.ranks.total(sums) / len(x)).tolist())


@torch.no_grad()
def _sums(result: Any) -> Tensor:
    """Σ over a batch of elbo, log-likelihood and KL: float64 [3]."""
    return torch.stack([result.elbo, result.log_likelihood, result.kl]).double().sum(1)
