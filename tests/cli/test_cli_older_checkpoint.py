"""A checkpoint that version 0.1.0 left, in checkpoint_1: every later version reads it and goes on with it."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest

from vae_fast.cli.main import main

pytest.importorskip("safetensors")
HELD = Path(__file__).with_name("checkpoint_1")


@pytest.fixture
def older(tmp_path, monkeypatch):
    """Its folder, and beside it its data, of which the checkpoint has the SHA-256."""
    monkeypatch.chdir(tmp_path)
    np.savez("data.npz", x=(np.arange(120).reshape(20, 6) * 7 % 11 / 10).astype(np.float32))
    return Path(shutil.copytree(HELD, tmp_path / "run"))


def test_it_goes_on(older):
    command = ["train", "--resume", "--data", "npz:data.npz", "--epochs", "2", "--no-plots", "--out", str(older)]
    assert main(command) == 0
    with open(older / "metrics.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert float(rows[0]["elbo"]) == pytest.approx(-4.390, abs=5e-4)


def test_it_is_evaluated(older, capsys):
    assert main(["evaluate", str(older), "--data", "npz:data.npz", "--n-samples", "2", "--gap-steps", "1"]) == 0
    assert "ELBO" in capsys.readouterr().out
