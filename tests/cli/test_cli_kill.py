"""A run killed at any moment ends, resumed, with the bits of one that was not; signals end it with one line."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

# A fresh process that forks one child per kill: torch is imported once, and each child really dies of SIGKILL.
DRIVER = r"""
import json, os, random, signal, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
import safetensors.torch, tqdm
from vae_fast.cli.main import main

data, root, mode = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
CALLS = ("fsync", "replace", "unlink", "mkdir")

def train(out, resume):
    call = ["train", "--data", data, "--out", str(out), "--hidden", "8", "--latent", "2", "--epochs", "2"]
    call += ["--batch-size", "8", "--threads", "1", "--binarize", "dynamic", "--no-plots"]
    return main(call + (["--resume"] if resume else []))

def in_child(out, arm=lambda: None, resume=True, wait=None):
    pid = os.fork()
    if pid == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        arm()
        os._exit(train(out, resume))
    if wait is not None:
        time.sleep(wait)
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)

def kill_at(number, torn):
    # Dies at the number-th call that changes what is on disk; torn: with half of an unsynced file lost.
    def arm():
        seen = [0]
        def wrap(name, real):
            def call(*args, **kwargs):
                seen[0] += 1
                if seen[0] == number:
                    if torn and name == "fsync" and os.path.isfile(f"/proc/self/fd/{args[0]}"):
                        size = os.fstat(args[0]).st_size
                        os.truncate(f"/proc/self/fd/{args[0]}", size // 2)
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*args, **kwargs)
            return call
        for name in CALLS:
            setattr(os, name, wrap(name, getattr(os, name)))
    return arm

def contents(out):
    return {path.name: path.read_bytes() for path in out.iterdir()}

# In this process, so that the children find all that PyTorch imports late; and again in one, for its time.
assert train(root / "whole", resume=False) == 0
started = time.monotonic()
assert in_child(root / "again", resume=False) == 0
took = time.monotonic() - started
assert contents(root / "again") == contents(root / "whole")
whole = contents(root / "whole")
kills = 0
if mode == "calls":
    number = 0
    while True:
        number += 1
        out = root / f"{number}"
        status = in_child(out, kill_at(number, torn=number % 2 == 0), resume=False)
        if status == 0:
            break
        assert status == -signal.SIGKILL, status
        kills += 1
        if number % 3 == 0:
            in_child(out, kill_at(4, torn=True))
        assert in_child(out) == 0, number
        assert contents(out) == whole, (number, sorted(contents(out)))
else:
    # A run that ends before its time is up says that this machine is quicker than when `took` was measured.
    random.seed(1)
    number = 0
    while kills < 16:
        number += 1
        out = root / f"{number}"
        for _ in range(3):
            if in_child(out, wait=random.uniform(0, took)) == -signal.SIGKILL:
                kills += 1
            else:
                took *= 0.8
        assert in_child(out) == 0
        assert contents(out) == whole, (number, sorted(contents(out)))
print(json.dumps(kills))
"""


@pytest.fixture
def npz(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, x=np.random.default_rng(0).random((40, 9)))
    return path


@pytest.mark.parametrize(("mode", "least"), [("calls", 30), ("times", 16)])
def test_killed_and_resumed_is_unbroken(tmp_path, npz, mode, least):
    """Killed before every fsync, rename, unlink and mkdir of a run in turn; and at random times, repeatedly."""
    command = [sys.executable, "-c", DRIVER, f"npz:{npz}", str(tmp_path), mode]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) >= least


@pytest.mark.parametrize(("number", "status"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGKILL", -9)])
def test_signals(tmp_path, npz, number, status):
    """The real command, stopped after its first epochs; what it leaves resumes."""
    out = tmp_path / "run"
    call = [sys.executable, "-m", "vae_fast", "train", "--data", f"npz:{npz}", "--out", str(out)]
    call += ["--hidden", "8", "--latent", "2", "--epochs", "100000", "--threads", "1", "--no-plots"]
    process = subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while process.poll() is None and epoch_of(out) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, getattr(signal, number))
    _, error = process.communicate(timeout=60)
    assert process.returncode == status
    if number == "SIGKILL":
        assert error == ""
    else:
        assert error == f"vae_fast: stopped by {number}; --resume goes on from the last whole epoch in {out}\n"
    from vae_fast.cli.main import main

    epochs = str(epoch_of(out) + 1)
    resume = ["train", "--data", f"npz:{npz}", "--out", str(out), "--resume", "--epochs", epochs, "--no-plots"]
    assert main(resume) == 0
    assert epoch_of(out) == int(epochs)


def epoch_of(out):
    try:
        return json.loads((out / "checkpoint.json").read_text())["epoch"]
    except FileNotFoundError:
        return -1
