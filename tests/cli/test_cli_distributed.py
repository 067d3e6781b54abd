"""`torchrun -m vae_fast train`: two ranks do what one process does, and end together."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from vae_fast.cli.errors import CommandError
from vae_fast.cli.main import main
from vae_fast.cli.ranks import Ranks

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
SMALL = ["--hidden", "16", "--latent", "3", "--threads", "1", "--no-plots"]


def two_ranks(*args):
    command = [*TORCHRUN, "-m", "vae_fast", "train", *SMALL, *map(str, args)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def trained(*args):
    """What two ranks print."""
    process = two_ranks(*args)
    printed, errors = process.communicate(timeout=100)
    assert process.returncode == 0, errors
    return printed


def alone(*args):
    assert main(["train", *SMALL, *map(str, args)]) == 0


def metrics(out):
    with open(out / "metrics.csv", newline="") as file:
        rows = list(csv.reader(file))[1:]
    return torch.tensor([[float(value) for value in row] for row in rows], dtype=torch.float64)


def tensors(out):
    (path,) = out.glob("*.safetensors")
    return load_file(path)


def check_equal(these, those, names, tolerance):
    """To so many times the largest entry of each tensor."""
    assert these.keys() == those.keys()
    names = [name for name in these if re.fullmatch(names, name)]
    assert len(names) == 10
    for name in names:
        assert (these[name] - those[name]).abs().max() <= tolerance * those[name].abs().max(), name


@pytest.mark.parametrize("world", [1, 2, 3, 7])
@pytest.mark.parametrize("n", [0, 1, 2, 6, 100, 101])
def test_shares(world, n):
    """They are the batch cut into pieces in order, of sizes that differ by one at most."""
    shares = [Ranks(rank, world).share(50, 50 + n) for rank in range(world)]
    assert [place for share in shares for place in share] == list(range(50, 50 + n))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_devices():
    """Ranks share a CPU; of GPUs each takes its own, which is not the caller's to number."""
    cpu, one, two = torch.device("cpu"), Ranks(), Ranks(1, 2, 10_000)
    assert one.place(torch.device("cuda:1")) == torch.device("cuda:1") and two.place(cpu) == cpu
    with pytest.raises(CommandError, match="use --device cuda"):
        two.place(torch.device("cuda:1"))
    with pytest.raises(CommandError, match="rank 1 has no GPU of its own: there are"):
        two.place(torch.device("cuda"))


def test_one_step_is_that_of_one_process(tmp_path):
    """All 1,437 digits as one batch, 718 and 719 of them a rank: loss, and gradient, which Adam's first moment is.

    Float32 sums of 1,437 terms in another order: 2e-7 measured for the gradient, 5e-10 for the means, which are
    summed in float64. Without the offset the means are off by 2e-3, with the ranks' means averaged as if of equal
    sizes the gradient by 2e-5.
    """
    step = ["--data", "digits", "--test-size", 360, "--batch-size", 2000, "--epochs", 1, "--beta", 0.5]
    printed = trained(*step, "--out", tmp_path / "two")
    assert printed.count("epoch 1/1") == 1 and ", 2 ranks" in printed
    alone(*step, "--out", tmp_path / "one")
    two, one = (tmp_path / name for name in ("two", "one"))
    torch.testing.assert_close(metrics(two), metrics(one), rtol=1e-8, atol=0)
    check_equal(tensors(two), tensors(one), "optimizer/.*/exp_avg", 1e-6)
    assert {path.name for path in two.iterdir() if path.suffix != ".safetensors"} == {
        "checkpoint.json",
        "config.toml",
        "metrics.csv",
        "summary.json",
    }


def rank_1_of(torchrun):
    """The process that torchrun started as rank 1."""
    for child in Path(f"/proc/{torchrun.pid}/task/{torchrun.pid}/children").read_text().split():
        if b"RANK=1" in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
            return int(child)
    raise AssertionError("no rank 1")


def epoch_of(out):
    try:
        return json.loads((out / "checkpoint.json").read_text())["epoch"]
    except FileNotFoundError:
        return -1


def test_a_killed_rank_ends_all_and_the_run_goes_on(tmp_path):
    """49 data in batches of 16: the last batch is one datum, of which the first rank has none.

    The parameters of some tens of Adam steps agree to 1e-7 where measured; wrong noise moves them by 1e-2.
    """
    path = tmp_path / "data.npz"
    np.savez(path, x=np.random.default_rng(0).random((62, 9)) ** 3)
    run = ["--data", f"npz:{path}", "--test-size", 13, "--batch-size", 16, "--binarize", "dynamic"]
    two, one = (tmp_path / name for name in ("two", "one"))
    process = two_ranks(*run, "--epochs", 100_000, "--out", two)
    deadline = time.monotonic() + 60
    while process.poll() is None and epoch_of(two) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(rank_1_of(process), signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert re.search("^vae_fast: rank 0: (error: another rank ended|stopped by SIGTERM)", errors, re.M), errors
    epochs = epoch_of(two) + 3
    trained(*run, "--epochs", epochs, "--out", two, "--resume")
    alone(*run, "--epochs", epochs, "--out", one)
    torch.testing.assert_close(metrics(two), metrics(one), rtol=1e-6, atol=1e-6)
    check_equal(tensors(two), tensors(one), "model/.*", 2e-6)


@pytest.mark.parametrize("world", [1, 2])
def test_a_rank_leaves_without_the_interpreter_s_end(world):
    """With its status and all it printed; a process of its own ends as any."""
    code = (
        "import atexit; from vae_fast.cli.ranks import leave; atexit.register(print, 'the end', flush=True);"
        "print('said', end=' '); leave(3)"
    )
    place = {"TORCHELASTIC_RUN_ID": "0", "RANK": "0", "WORLD_SIZE": str(world), "LOCAL_RANK": "0"}
    done = subprocess.run(
        (sys.executable, "-c", code), env=os.environ | place, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 3, done.stderr
    assert done.stdout.split() == (["said", "the", "end"] if world == 1 else ["said"])
