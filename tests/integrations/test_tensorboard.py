"""`train --tensorboard`, read by TensorBoard's own reader."""

import csv
import subprocess
import sys

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vae_fast.cli import checkpoint
from vae_fast.cli.errors import CommandError
from vae_fast.cli.main import main

TAGS = {f"{which}/{name}" for which in ("train", "test") for name in ("elbo", "log_likelihood", "kl")}


@pytest.fixture
def train(tmp_path):
    np.savez(tmp_path / "data.npz", x=np.random.default_rng(0).random((40, 6)))
    return lambda *args: main([*call(tmp_path), *args])


def call(folder):
    command = ["train", "--data", f"npz:{folder / 'data.npz'}", "--out", str(folder / "run"), "--no-plots"]
    return [*command, "--hidden", "4", "--latent", "2", "--threads", "1", "--warmup", "3"]


def check_scalars(run, epochs):
    """Each figure of metrics.csv once, in order, to float32; and the learning rate."""
    reader = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
    reader.Reload()
    assert {*reader.Tags()["scalars"]} == TAGS | {"train/learning_rate", "train/beta"}
    with open(run / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for tag in TAGS | {"train/beta"}:
        found = [(event.step, event.value) for event in reader.Scalars(tag)]
        column = tag.removeprefix("train/").replace("test/", "test_")
        assert found == [(int(row["epoch"]), float(np.float32(row[column]))) for row in rows], tag
    rates = [(event.step, event.value) for event in reader.Scalars("train/learning_rate")]
    assert rates == [(epoch, float(np.float32(1e-3))) for epoch in range(1, epochs + 1)]


def test_a_run_and_what_goes_on_with_it(train, tmp_path):
    assert train("--tensorboard", "--epochs", "2") == 0
    check_scalars(tmp_path / "run", 2)
    assert train("--tensorboard", "--epochs", "5", "--resume") == 0
    check_scalars(tmp_path / "run", 5)


def test_a_run_begun_without(train, tmp_path):
    assert train("--epochs", "2") == 0
    assert train("--tensorboard", "--epochs", "4", "--resume") == 0
    check_scalars(tmp_path / "run", 4)


def test_no_step_stands_there_twice(train, tmp_path, monkeypatch):
    """After a process that wrote an epoch's figures and died before its checkpoint."""
    real = checkpoint.save_checkpoint

    def failing(directory, record, tensors):
        if record.epoch == 3:
            raise CommandError("the disk is full")
        real(directory, record, tensors)

    monkeypatch.setattr(checkpoint, "save_checkpoint", failing)
    assert train("--tensorboard", "--epochs", "4") == 2
    monkeypatch.undo()
    assert train("--tensorboard", "--epochs", "4", "--resume") == 0
    check_scalars(tmp_path / "run", 4)


def test_of_two_ranks_the_first_one_writes(train, tmp_path):
    ranks = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "vae_fast"]
    subprocess.run([*ranks, *call(tmp_path), "--tensorboard", "--epochs", "2"], check=True, timeout=200)
    assert len([*(tmp_path / "run" / "tensorboard").iterdir()]) == 1
    check_scalars(tmp_path / "run", 2)
