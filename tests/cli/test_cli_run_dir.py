"""The directory of a run: what is there survives every error, nothing goes elsewhere, one process at a time."""

import itertools
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from odd_files import EVALUATE, TRAIN, contents, copy_of, put_tensors
from safetensors.torch import save

from vae_fast.cli import atomic, plan, run_dir
from vae_fast.cli.atomic import write_atomic
from vae_fast.cli.checkpoint import load_checkpoint
from vae_fast.cli.errors import CommandError
from vae_fast.cli.main import main
from vae_fast.cli.run_dir import RunDir


@pytest.fixture
def resume(run, trained):
    """The command line that goes on with it for an epoch."""
    call = ["train", "--resume", "--data", f"npz:{trained / 'data.npz'}", "--no-plots", "--epochs", "3"]
    return lambda out=run: [*call, "--out", str(out)]


def fail_at(monkeypatch, number, lasting):
    """The number-th call to the disk fails as if it were full, if lasting all after it too; a list of the calls."""
    calls = []

    def failing(name, real):
        def call(*args, **kwargs):
            calls.append(name)
            if len(calls) == number or lasting and len(calls) > number:
                raise OSError(28, "No space left on device")
            return real(*args, **kwargs)

        return call

    for name in ("open", "fsync", "replace", "unlink", "scandir"):
        monkeypatch.setattr(os, name, failing(name, getattr(os, name)))
    return calls


@pytest.mark.parametrize("lasting", [True, False])
def test_whatever_fails_leaves_a_checkpoint(run, resume, tmp_path, monkeypatch, capsys, lasting):
    """Every call to the disk in turn, of a run that goes on: what is left can be loaded, and ends as it should."""
    assert main(resume(copy_of(run, tmp_path / "whole"))) == 0
    whole, refused = contents(tmp_path / "whole"), []
    for number in itertools.count(1):
        out = copy_of(run, tmp_path / f"{number}")
        capsys.readouterr()
        with monkeypatch.context() as patch:
            calls = fail_at(patch, number, lasting)
            status = main(resume(out))
        error = capsys.readouterr().err
        if len(calls) < number:
            break
        # Where the lock fails that is said; where a removal fails it does not matter.
        assert (status, error.count("\n")) == (2, 1) or status == 0 and calls[number - 1] in ("unlink", "scandir")
        refused += [calls[number - 1]] if status else []
        assert load_checkpoint(out / "checkpoint.json").record.epoch in (2, 3)
        assert main(resume(out)) == 0 and contents(out) == whole, (number, calls)
    assert {"open", "fsync", "replace"} <= {*refused} and len(refused) > 20


def test_a_folder_that_cannot_be_made_durable(run, resume, fails, monkeypatch):
    """Then nobody knows which checkpoint.json the disk has: the tensors of both stay."""
    before, real = contents(run), os.fsync

    def fsync(fd):
        if os.path.isdir(f"/proc/self/fd/{fd}"):
            raise OSError(5, "Input/output error")
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    assert "Input/output error" in fails(*resume())
    assert before.items() <= contents(run).items()


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(fd):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(tmp_path / "a", b"new")
    assert not contents(tmp_path)


def planted(run, victim, names):
    for name in names:
        (run / name).unlink(missing_ok=True)
        (run / name).symlink_to(victim)


def test_links_in_a_run_directory_are_not_written_through(run, resume, trained, tmp_path):
    """Under every name that is ever written there, and those of the next epoch's tensors, which can be foreseen."""
    assert main(resume(copy_of(run, tmp_path / "next"))) == 0
    victim = tmp_path / "victim"
    victim.write_text("precious")
    tensors = [name for name in contents(tmp_path / "next") if name.endswith(".safetensors")]
    written = ["config.toml", "metrics.csv", "summary.json", "elbo.png", "samples.png", "evaluation.json", *tensors]
    planted(run, victim, [*written, *(f".{name}.tmp" for name in ("checkpoint.json", *written))])
    call = [part for part in resume() if part != "--no-plots"]
    assert main(call) == 0
    planted(run, victim, ["evaluation.json", ".evaluation.json.tmp"])
    data = f"npz:{trained / 'data.npz'}"
    assert main(["evaluate", str(run), "--data", data, *EVALUATE]) == 0
    assert victim.read_text() == "precious"
    for name in written:
        assert not (run / name).is_symlink() and (run / name).stat().st_size > 0


def test_a_temporary_name_that_was_guessed(run, resume, fails, tmp_path, monkeypatch):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    monkeypatch.setattr(atomic.secrets, "token_hex", lambda n: "0" * 2 * n)
    planted(run, victim, [f".checkpoint.json.{'0' * 16}.tmp"])
    before = contents(run)
    assert "File exists" in fails(*resume())
    assert victim.read_text() == "precious" and contents(run) == before


def test_a_link_that_leads_nowhere_is_a_run(tmp_path, trained, fails):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.csv").symlink_to(tmp_path / "nowhere")
    data = f"npz:{trained / 'data.npz'}"
    assert "already holds a run" in fails("train", "--data", data, "--out", tmp_path / "run", *TRAIN)
    assert main(["train", "--resume", "--data", data, "--out", str(tmp_path / "run"), *TRAIN]) == 0
    assert not (tmp_path / "nowhere").exists()


def test_what_a_killed_process_left_is_removed(tmp_path):
    """But not what a living one writes, nor what only looks like it."""
    path = tmp_path / "a.json"
    stray, other = tmp_path / f".a.json.{'1' * 16}.tmp", tmp_path / f".b.json.{'1' * 16}.tmp"
    pipe = tmp_path / f".a.json.{'2' * 16}.tmp"
    stray.write_bytes(b"half")
    other.write_bytes(b"half")
    os.mkfifo(pipe)
    with atomic._temporary(path) as (living, _):
        write_atomic(path, b"new")
        assert {*tmp_path.iterdir()} == {path, other, pipe, living}
        os.replace(living, path)
    assert path.read_bytes() == b"" and {*tmp_path.iterdir()} == {path, other, pipe}


def test_a_temporary_file_taken_for_abandoned_before_it_was_locked(tmp_path, monkeypatch):
    real, taken = atomic.lock, []

    def lock(fd):
        if not taken:
            taken.extend(tmp_path.iterdir())
            os.unlink(taken[0])
        real(fd)

    monkeypatch.setattr(atomic, "lock", lock)
    write_atomic(tmp_path / "a", b"new")
    assert len(taken) == 1 and contents(tmp_path) == {"a": b"new"}


def test_files_have_the_usual_mode(tmp_path):
    before = os.umask(0o027)
    try:
        write_atomic(tmp_path / "a", b"")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("there", [False, True])
def test_two_trainings_that_start_together(tmp_path, trained, fails, monkeypatch, there):
    """The second starts when the first has found no run: it is refused, and the first ends undisturbed."""
    out, data = tmp_path / "a" / "run", f"npz:{trained / 'data.npz'}"
    if there:
        out.mkdir(parents=True)
    call, real, messages = ["train", "--data", data, "--out", str(out), *TRAIN], plan.load_data, []

    def load(*args):
        monkeypatch.setattr(plan, "load_data", real)
        messages.extend(fails(*call, *more) for more in ([], ["--resume"], ["--seed", "1"]))
        return real(*args)

    monkeypatch.setattr(plan, "load_data", load)
    assert main(call) == 0
    assert len(messages) == 3 and all("is in use by another run" in message for message in messages)
    assert contents(out) == contents(trained / "run")
    assert main([*call, "--resume"]) == 0


def test_a_directory_that_is_in_use_is_not_taken_back(tmp_path):
    """Nor by the process that ends first, if another one has begun to use it."""
    path = tmp_path / "a" / "run"
    first, second = RunDir(path), RunDir(path)
    first.open()
    with pytest.raises(CommandError, match="in use"):
        second.open()
    assert path.is_dir()
    first.close()
    assert not (tmp_path / "a").exists()
    second.open()
    second.write("metrics.csv", b"")
    second.close()
    assert path.is_dir()


def test_a_directory_that_another_locks_first_is_not_taken_back(tmp_path, monkeypatch):
    """Nor by the process that made it."""
    slow, fast, real = RunDir(tmp_path / "a" / "run"), RunDir(tmp_path / "a" / "run"), RunDir._take_lock

    def take_lock(self):
        if self is slow:
            fast.open()
        real(self)

    monkeypatch.setattr(RunDir, "_take_lock", take_lock)
    with pytest.raises(CommandError, match="in use"):
        slow.open()
    fast.write("metrics.csv", b"")
    fast.close()
    assert contents(tmp_path / "a" / "run") == {"metrics.csv": b""}


def test_a_directory_that_is_taken_back_while_it_is_being_locked(tmp_path, monkeypatch):
    """The lock of a directory that is no more would be worth nothing: it is made again."""
    path, real, locked = tmp_path / "run", run_dir.try_lock, []

    def try_lock(fd):
        if not locked:
            path.rmdir()
        locked.append(fd)
        return real(fd)

    monkeypatch.setattr(run_dir, "try_lock", try_lock)
    mine, other = RunDir(path), RunDir(path)
    mine.open()
    with pytest.raises(CommandError, match="in use"):
        other.open()
    mine.close()
    assert len(locked) == 3 and not path.exists()


HOLD = """
import sys
from pathlib import Path
from vae_fast.cli.run_dir import RunDir
held = RunDir(Path(sys.argv[1]))
held.open()
print("held", flush=True)
sys.stdin.read()
"""


def test_the_lock_dies_with_its_process(run, resume, fails):
    call = [sys.executable, "-c", HOLD, str(run)]
    with subprocess.Popen(call, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        before = contents(run)
        assert "is in use by another run" in fails(*resume())
        assert contents(run) == before
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert main(resume()) == 0


def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch, capsys):
    def flock(fd, operation):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", flock)
    held = RunDir(tmp_path / "run")
    held.open()
    held.write("metrics.csv", b"epoch\n")
    held.close()
    assert "cannot be locked" in capsys.readouterr().err
    assert contents(tmp_path / "run") == {"metrics.csv": b"epoch\n"}


def test_figures_that_are_not_finite_are_valid_json(run, trained, tmp_path):
    """Weights as large as float32 has them, of which the figures cannot be finite."""
    tensors = load_checkpoint(run / "checkpoint.json").tensors
    put_tensors(run, save({name: t * 3e38 if "model" in name else t for name, t in tensors.items()}))
    assert main(["evaluate", str(run), "--data", f"npz:{trained / 'data.npz'}", *EVALUATE]) == 0

    def constant(name):
        raise AssertionError(name)

    result = json.loads((run / "evaluation.json").read_text(), parse_constant=constant)
    assert result["elbo"]["mean"] is None and np.isfinite(result["n_data"])
