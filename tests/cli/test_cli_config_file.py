"""`train --config`: what a file may say, who wins, and that a run's own config.toml makes the run again."""

import importlib
import os
import random
import subprocess
import sys
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from odd_files import TRAIN, a_device, a_directory, a_link_to_nowhere, a_pipe, contents, mutated, too_long
from safetensors.torch import load_file

from vae_fast.cli import config_file
from vae_fast.cli.checkpoint import load_checkpoint
from vae_fast.cli.config import TrainConfig
from vae_fast.cli.config_file import config_toml, read_config
from vae_fast.cli.errors import CommandError
from vae_fast.cli.main import main
from vae_fast.cli.record import Settings

toml = importlib.import_module(config_file._READER)


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, x=np.random.default_rng(0).random((40, 6)))
    return f"npz:{path}"


@pytest.fixture
def train(tmp_path, data):
    """Trains in tmp_path/name with these arguments and no others but --no-plots; returns the directory."""

    def run(name, *args):
        assert main(["train", "--out", str(tmp_path / name), "--no-plots", *map(str, args)]) == 0
        return tmp_path / name

    return run


@pytest.fixture
def written(tmp_path, data):
    """A file with these lines, and small networks unless they say otherwise."""

    def write(*lines):
        own = ["hidden = [4]", "latent = 2", "epochs = 2", "threads = 1", f"data = '{data}'"]
        keys = {line.partition(" ")[0] for line in lines}
        path = tmp_path / "options.toml"
        path.write_text("\n".join([*lines, *(line for line in own if line.partition(" ")[0] not in keys)]))
        return path

    return write


def tensors(out):
    (path,) = out.glob("*.safetensors")
    return load_file(path)


def config_of(out):
    return load_checkpoint(out / "checkpoint.json").record.config


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--likelihood", "gaussian", "--mean-activation", "sigmoid", "--lr", "3e-4", "--seed", 2**40],
        ["--hidden", "none", "--binarize", "dynamic", "--beta", 2, "--warmup", 3, "--test-size", 0],
        ["--objective", "miwae", "--samples", "2x3", "--optimizer", "adagrad", "--activation", "gelu"],
        ["--hidden", "5,3", "--test-size", 7, "--batch-size", 9, "--backend", "reference", "--device", "cpu"],
    ],
)
def test_a_run_s_own_file_makes_it_again(train, data, options):
    """Bit for bit: the weights and the optimiser's state, and all else that a run leaves."""
    first = train("first", *TRAIN, "--data", data, *options)
    again = train("again", "--config", first / "config.toml")
    assert config_of(again) == config_of(first)
    these, those = tensors(first), tensors(again)
    assert these.keys() == those.keys() and all(torch.equal(these[name], those[name]) for name in these)
    for name in ("config.toml", "metrics.csv", "summary.json"):
        assert (again / name).read_bytes() == (first / name).read_bytes()


def test_what_was_not_chosen_is_written_as_it_was(train, data, tmp_path):
    """Bits hang on the number of threads and on the backend, so that the file says which these were."""
    first = tmp_path / "first"
    call = [sys.executable, "-m", "vae_fast", "train", "--out", str(first), "--data", data]
    call += ["--latent", "2", "--epochs", "1", "--no-plots"]
    variables = {"VAE_FAST_BACKEND": "reference", "OMP_NUM_THREADS": str(torch.get_num_threads())}
    subprocess.run(call, env={**os.environ, **variables}, check=True, capture_output=True, timeout=100)
    found = toml.loads((first / "config.toml").read_text())
    assert found["threads"] == torch.get_num_threads() and found["backend"] == "reference"
    assert found["device"] == load_checkpoint(first / "checkpoint.json").record.settings.device
    assert found.keys() == {name.replace("_", "-") for name in asdict(TrainConfig())} - {"test-size"} | {
        "device",
        "backend",
        "threads",
    }
    again = train("again", "--config", first / "config.toml")
    assert (again / "metrics.csv").read_bytes() == (first / "metrics.csv").read_bytes()


def test_the_command_line_wins(train, written):
    out = train("run", "--config", written("latent = 3", 'activation = "relu"', "samples = 2"), "--latent", 4)
    config = config_of(out)
    assert (config.latent, config.activation, config.samples, config.hidden) == (4, "relu", 2, (4,))
    assert toml.loads((out / "config.toml").read_text())["latent"] == 4
    assert load_checkpoint(out / "checkpoint.json").record.settings.threads == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("layers = 3", "'layers' is not known: use data, likelihood"),
        ("batch_size = 3", "'batch_size' is not known"),
        ('out = "run"', "'out' is not known"),
        ("[model]\nwidth = 2", "'model' is not known"),
        ('latent = "2"', "latent cannot be so: it is not a whole number of at least 1"),
        ("latent = 2.0", "latent cannot be so"),
        ("latent = true", "latent cannot be so"),
        ("latent = 0", "latent cannot be so"),
        ("latent = 0x" + "f" * 20000, "latent cannot be so"),
        ("latent = " + "9" * 20000, "is not TOML"),
        ("lr = nan", "lr cannot be so: it is not a finite number above 0"),
        ("lr = inf", "lr cannot be so"),
        ("lr = 1979-05-27", "lr cannot be so"),
        ("beta = -1", "beta cannot be so"),
        ("hidden = 500", "hidden cannot be so: it is no list of layer widths"),
        ("hidden = [500, 0]", "hidden cannot be so"),
        ("samples = [5]", "samples cannot be so"),
        ('activation = "step"', "activation cannot be so: it is none of tanh, relu"),
        ("data = 5", "data cannot be so"),
        ("threads = 100000", "threads cannot be so"),
        ("device = 0", "device cannot be so"),
        ('device = "abacus"', "--device 'abacus' cannot be used here"),
        ('backend = "abacus"', "--backend 'abacus' is not known"),
        ('data = "nothing"', "--data 'nothing' is not known"),
        ("test-size = 40", "--test-size 40 leaves nothing to train on"),
        ('mean-activation = "sigmoid"', "--mean-activation sigmoid needs --likelihood gaussian"),
        ('objective = "miwae"', "--objective miwae takes a pair"),
        ("latent = ", "is not TOML: Invalid value"),
        ("latent = 2\nlatent = 2", "is not TOML"),
        ("a = " + "[" * 100_000, "options.toml"),
    ],
)
def test_what_a_file_cannot_say(fails, written, tmp_path, line, message):
    """One line, which names the file; and nothing is left behind."""
    path = written(line)
    error = fails("train", "--config", path, "--out", tmp_path / "run")
    assert f"error: {path}" in error and message in error
    assert not (tmp_path / "run").exists()


def test_an_error_of_the_command_line_names_no_file(fails, written, tmp_path):
    error = fails("train", "--config", written("seed = 1"), "--out", tmp_path / "run", "--device", "abacus")
    assert error.startswith("vae_fast: error: --device 'abacus'")


@pytest.mark.parametrize("odd", [a_link_to_nowhere, a_pipe, a_directory, a_device, too_long])
def test_what_is_no_file_of_options(fails, written, tmp_path, odd):
    path = written()
    odd(path, tmp_path)
    assert str(path) in fails("train", "--config", path, "--out", tmp_path / "run")


def test_a_file_that_is_not_there_or_no_text(fails, tmp_path):
    path = tmp_path / "options.toml"
    assert "No such file" in fails("train", "--config", path, "--out", tmp_path / "run")
    path.write_bytes(b"data = '\xff'")
    assert "is not TOML" in fails("train", "--config", path, "--out", tmp_path / "run")


@pytest.mark.parametrize("spec", ['npz:it\'s "a" \\ b.npz', "npz:a\x7f\n\t\x01b", "npz:β\N{GRINNING FACE}é\u2028"])
def test_any_text_can_be_written(tmp_path, spec):
    config = replace(TrainConfig(), data=spec)
    (tmp_path / "a.toml").write_bytes(config_toml(config, Settings("cpu", "auto", 1)))
    assert read_config(tmp_path / "a.toml")["data"] == spec


def test_a_name_that_is_no_text(tmp_path):
    """Of a file's name whose bytes are no UTF-8, which TOML cannot hold: said, in a file that can be read."""
    (tmp_path / "a.toml").write_bytes(config_toml(replace(TrainConfig(), data="npz:a\udcff"), Settings()))
    assert "data" not in read_config(tmp_path / "a.toml")
    assert "say --data" in (tmp_path / "a.toml").read_text()


def test_every_number_is_read_as_it_was_written(tmp_path):
    for number in (1e-300, 1e300, 0.1, 5e-324, 12345678.9, 1e22):
        (tmp_path / "a.toml").write_bytes(config_toml(replace(TrainConfig(), lr=number, beta=number), Settings()))
        found = read_config(tmp_path / "a.toml")
        assert (found["lr"], found["beta"]) == (number, number)


class TestResume:
    """With --resume the file's options count as the command line's: what they contradict is refused."""

    def test_more_epochs(self, train, data):
        whole = train("whole", *TRAIN, "--data", data, "--epochs", 4)
        part = train("part", *TRAIN, "--data", data, "--epochs", 2)
        train("part", "--resume", "--config", part / "config.toml", "--epochs", 4)
        for name in ("metrics.csv", "config.toml", *(path.name for path in whole.glob("*.safetensors"))):
            assert (part / name).read_bytes() == (whole / name).read_bytes()
        assert toml.loads((part / "config.toml").read_text())["epochs"] == 4

    def test_what_contradicts_the_run(self, train, written, fails, data):
        out = train("run", *TRAIN, "--data", data)
        before = contents(out)
        for line, message in (("latent = 3", "has --latent 2, not --latent 3"), ("epochs = 1", "is at epoch 2")):
            path = written(line)
            error = fails("train", "--resume", "--config", path, "--out", out)
            assert f"error: {path}: --resume" in error and message in error
        assert contents(out) == before

    def test_settings_may_change(self, train, written, data):
        out = train("run", *TRAIN, "--data", data)
        train("run", "--resume", "--config", written("threads = 2", 'backend = "reference"'))
        settings = load_checkpoint(out / "checkpoint.json").record.settings
        assert (settings.threads, settings.backend) == (2, "reference")

    def test_where_nothing_is_yet(self, train, written, data):
        started = train("run", "--resume", "--config", written())
        assert tensors(started).keys() == tensors(train("other", *TRAIN, "--data", data)).keys()

    def test_the_file_in_the_directory_is_read_if_it_is_said(self, train, data, fails):
        """Not because it lies there: it may have come with a checkpoint from elsewhere."""
        out = train("run", *TRAIN, "--data", data)
        right = (out / "config.toml").read_bytes()
        (out / "config.toml").write_text("no TOML")
        assert "add that" in fails("train", "--resume", "--out", out)
        assert "is not TOML" in fails("train", "--resume", "--out", out, "--config", out / "config.toml")
        train("run", "--resume", "--data", data)
        assert (out / "config.toml").read_bytes() == right

    def test_a_file_that_was_there_is_kept(self, train, written, fails, tmp_path):
        """One by hand in a directory without a run: it is not written over, unless --resume says so."""
        out = tmp_path / "run"
        out.mkdir()
        written().rename(out / "config.toml")
        before = contents(out)
        call = ["train", "--config", out / "config.toml", "--out", out]
        assert "already holds a run (config.toml)" in fails(*call)
        assert contents(out) == before


def test_without_a_reader(fails, written, tmp_path, monkeypatch):
    """Python 3.10 has none."""
    monkeypatch.setattr(config_file, "_READER", "tomli_that_is_not_here")
    error = fails("train", "--config", written(), "--out", tmp_path / "run")
    assert "tomli_that_is_not_here is needed here" in error and 'pip install "vae_fast[train]"' in error


def test_fuzz(tmp_path):
    """Files with some bytes changed: each is read, or refused in one line that names it."""
    chance, path, read, n = random.Random(0), tmp_path / "a.toml", 0, 3000
    content = config_toml(replace(TrainConfig(), test_size=3), Settings("cpu", "auto", 1))
    for _ in range(n):
        path.write_bytes(mutated(content, chance))
        try:
            assert read_config(path).keys() <= {*asdict(TrainConfig()), *vars(Settings())}
            read += 1
        except CommandError as error:
            assert error.status == 2 and str(error).isprintable() and str(path) in str(error)
    assert n / 20 < read < n / 2
