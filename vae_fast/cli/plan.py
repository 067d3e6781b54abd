"""What a training is to do: the command line, --config, the run that is there to go on with, and the data."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, fields, replace

import torch

from vae_fast.cli import checkpoint as ckpt
from vae_fast.cli.config import OPTIONS, TrainConfig, resumed_config
from vae_fast.cli.data import Data, is_file, load_data
from vae_fast.cli.errors import CommandError
from vae_fast.cli.model import check_backend, resolve_device
from vae_fast.cli.ranks import Ranks
from vae_fast.cli.record import DataFacts, Settings
from vae_fast.cli.run_dir import RunDir
from vae_fast.cli.targets import check_range


@dataclass(frozen=True)
class Plan:
    """A training before it begins.

    Attributes:
        settings: as chosen, for the checkpoint.
        in_force: with what stands for all that was not chosen, for config.toml.
        device: this rank's.
        saved: the run to go on with.
    """

    config: TrainConfig
    settings: Settings
    in_force: Settings
    data: Data
    device: torch.device
    saved: ckpt.Checkpoint | None

    @property
    def facts(self) -> DataFacts:
        return DataFacts(self.data.sha256, self.data.event_shape)


def make_plan(args: argparse.Namespace, ranks: Ranks, run_dir: RunDir) -> Plan:
    """CommandError for what cannot be, or contradicts the run that is to be gone on with. Sets the threads."""
    given = {name: getattr(args, name) for name in OPTIONS if getattr(args, name) is not None}
    saved = ckpt.load_checkpoint(run_dir.path / ckpt.CHECKPOINT) if run_dir.look(args.resume) else None
    where = str(run_dir.path)
    if saved is None:
        config, settings = TrainConfig(**given), Settings()
    else:
        config, settings = (
            resumed_config(saved.record.config, given, saved.record.epoch, where),
            saved.record.settings,
        )
        if is_file(config.data) and "data" not in given:
            raise CommandError(
                f"--resume: the run in {where} has --data {config.data}: add that, "
                "for no file is opened because a checkpoint names it"
            )
    named = {field.name: getattr(args, field.name) for field in fields(settings)}
    settings = replace(settings, **{name: value for name, value in named.items() if value is not None})
    backend = check_backend(settings.backend)
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    device = resolve_device(settings.device)
    settings = replace(settings, device=str(device))
    device = ranks.place(device)
    in_force = Settings(settings.device, backend, torch.get_num_threads())

    data = load_data(config.data, config.test_size)
    if data.own_split and config.test_size is not None:
        raise CommandError(f"--test-size: {config.data} has a test split of its own")
    if config.likelihood == "bernoulli":
        check_range(data.train, f"{config.data}: the training data")
        if data.test is not None:
            check_range(data.test, f"{config.data}: the test data")
    plan = Plan(config, settings, in_force, data, device, saved)
    if saved is not None and saved.record.data != plan.facts:
        raise CommandError(f"--resume: {config.data} is not the data that the run in {where} was trained on")
    return plan
