"""`train --tensorboard` against a writer that records its calls; tests/integrations has TensorBoard's reader."""

import importlib
import sys
import types
from pathlib import Path

import pytest
from odd_files import TRAIN, contents

from vae_fast.cli import checkpoint
from vae_fast.cli.errors import CommandError
from vae_fast.cli.main import main
from vae_fast.cli.report import COLUMNS
from vae_fast.cli.scalars import MODULE


class Writer:
    """What `train` uses of a SummaryWriter."""

    made: list = []

    def __init__(self, log_dir, purge_step):
        self.purge_step, self.scalars, self.flushed, self.closed = purge_step, [], 0, False
        self.folder = Path(log_dir)
        self.open()
        self.made.append(self)

    def open(self):
        self.folder.mkdir(exist_ok=True)
        (self.folder / "events").touch()

    def add_scalar(self, tag, value, step):
        assert not self.closed
        self.scalars.append((tag, step, value))

    def flush(self):
        self.flushed = len(self.scalars)

    def close(self):
        self.closed = True

    def steps(self, tag):
        return [step for name, step, _ in self.scalars if name == tag]


@pytest.fixture
def writers(monkeypatch):
    monkeypatch.setattr(Writer, "made", [])
    monkeypatch.setitem(sys.modules, MODULE, types.SimpleNamespace(SummaryWriter=Writer))
    return Writer.made


@pytest.fixture
def call(trained, tmp_path):
    data = f"npz:{trained / 'data.npz'}"
    return lambda *args: ["train", "--data", data, "--out", str(tmp_path / "run"), *TRAIN, *map(str, args)]


def test_an_epoch_s_figures(call, writers, tmp_path, capsys):
    """Those of metrics.csv, under train and test, each on the disk when its epoch ends."""
    assert main(call("--tensorboard", "--warmup", 4, "--lr", 0.25)) == 0
    (writer,) = writers
    assert writer.folder == tmp_path / "run" / "tensorboard" and writer.closed
    assert capsys.readouterr().out.splitlines()[-1].endswith("summary.json, tensorboard")
    figures = {"epoch": {1: 1.0, 2: 2.0}}
    for tag, step, value in writer.scalars:
        which, _, name = tag.partition("/")
        figures.setdefault({"train": "", "test": "test_"}[which] + name, {})[step] = value
    assert figures.pop("learning_rate") == {1: 0.25, 2: 0.25} and figures["beta"] == {1: 0.25, 2: 0.5}
    lines = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    assert figures.keys() == {*COLUMNS}
    assert [[figures[name][step] for name in COLUMNS] for step in (1, 2)] == [
        [float(value) for value in line.split(",")] for line in lines[1:]
    ]
    assert writer.flushed == len(writer.scalars)


def test_it_changes_nothing_else(call, writers, tmp_path):
    assert main(call("--tensorboard")) == 0
    (tmp_path / "run").rename(tmp_path / "with")
    assert main(call()) == 0
    (tmp_path / "with" / "tensorboard" / "events").unlink()
    (tmp_path / "with" / "tensorboard").rmdir()
    assert contents(tmp_path / "with") == contents(tmp_path / "run")


def test_without_test_data(call, writers):
    assert main(call("--tensorboard", "--test-size", 0)) == 0
    assert {tag.partition("/")[0] for tag, *_ in writers[0].scalars} == {"train"}


def test_a_run_that_goes_on(call, writers):
    """At its epoch; and what an earlier process wrote of later ones is void, so that no step stands there twice."""
    assert main(call("--tensorboard")) == 0
    assert main(call("--tensorboard", "--resume", "--epochs", 5)) == 0
    assert [(w.purge_step, w.steps("train/elbo")) for w in writers] == [(1, [1, 2]), (3, [3, 4, 5])]


def test_a_run_that_goes_on_with_it(call, writers):
    """Begun without: the epochs that it has are written too."""
    assert main(call()) == 0
    assert main(call("--tensorboard", "--resume", "--epochs", 3)) == 0
    assert [(w.purge_step, w.steps("test/kl")) for w in writers] == [(1, [1, 2, 3])]


def test_figures_come_before_the_checkpoint(call, writers, monkeypatch, fails):
    """So that of a run that dies between them the epoch is written again; and the writer is closed."""
    real = checkpoint.save_checkpoint

    def failing(directory, record, tensors):
        if record.epoch == 2:
            raise CommandError("the disk is full")
        real(directory, record, tensors)

    monkeypatch.setattr(checkpoint, "save_checkpoint", failing)
    fails(*call("--tensorboard"))
    monkeypatch.undo()
    assert writers[0].steps("train/elbo") == [1, 2] and writers[0].closed


def test_where_nothing_can_be_written(call, writers, monkeypatch, fails, tmp_path):
    def full(*args):
        raise OSError(28, "No space left on device")

    for method in ("open", "add_scalar", "flush", "close"):
        with monkeypatch.context() as patch:
            patch.setattr(Writer, method, full)
            error = fails(*call("--tensorboard", "--resume", "--epochs", 9))
            assert f"cannot write {tmp_path / 'run' / 'tensorboard'}: No space left on device" in error


def test_a_link_is_not_written_through(call, writers, fails, tmp_path):
    assert main(call()) == 0
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run" / "tensorboard").symlink_to(tmp_path / "elsewhere")
    assert "is a symbolic link" in fails(*call("--tensorboard", "--resume", "--epochs", 3))
    assert not list((tmp_path / "elsewhere").iterdir()) and not writers


def test_a_file_in_its_place(call, writers, fails, tmp_path):
    assert main(call()) == 0
    (tmp_path / "run" / "tensorboard").write_text("")
    assert "Not a directory" in fails(*call("--tensorboard", "--resume", "--epochs", 3))


@pytest.mark.parametrize("module", ["tensorboard", MODULE])
def test_without_tensorboard(call, fails, tmp_path, monkeypatch, module):
    """The package is not there; or it is, and torch finds it too old."""
    for name in [n for n in sys.modules if n.split(".")[0] == "tensorboard" or n.startswith(MODULE)]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    if module == MODULE:
        monkeypatch.setitem(sys.modules, "tensorboard", types.SimpleNamespace(__version__="1.0"))
        importlib.import_module("torch.utils")
    error = fails(*call("--tensorboard"))
    assert "tensorboard is needed here" in error and 'pip install "vae_fast[tensorboard]"' in error
    assert not (tmp_path / "run").exists()
