"""How far `train` and `evaluate` are: a bar with the time left on a terminal, a line a minute elsewhere."""

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time

import pytest
from odd_files import TRAIN

from vae_fast.cli import progress
from vae_fast.cli.main import main

JUDGE = ["--n-samples", "2", "--elbo-samples", "3", "--gap-steps", "4", "--threads", "1"]
# tqdm's: percent, bar, how many of how many, time taken, time left.
BAR = r" +(\d+)%\|.*?\| *([\d.k]+)/([\d.k]+) \[\d\d:\d\d<(\d\d:\d\d|\?)"


class Screen(io.StringIO):
    """A terminal."""

    def isatty(self):
        return True


@pytest.fixture
def call(trained, tmp_path):
    data = f"npz:{trained / 'data.npz'}"
    return ["train", "--data", data, "--out", str(tmp_path / "run"), *TRAIN]


@pytest.fixture
def judge(trained, tmp_path, call):
    assert main(call) == 0
    return ["evaluate", str(tmp_path / "run"), "--data", f"npz:{trained / 'data.npz'}", *JUDGE]


@pytest.fixture
def every_step(monkeypatch):
    """tqdm draws each step, whatever the time."""
    real = progress.require("tqdm").tqdm

    def drawn(**options):
        return real(**options, mininterval=0, miniters=1)

    monkeypatch.setattr(progress.require("tqdm"), "tqdm", drawn)


def shown(monkeypatch, stream, args):
    """What a command leaves on such a stderr."""
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        assert main(args) == 0
    return stream.getvalue()


class TestOnATerminal:
    @pytest.fixture(autouse=True)
    def _every_step(self, every_step):
        pass

    def test_train(self, call, monkeypatch):
        """One bar over the whole run, which is gone at its end; epochs are printed without it in the way."""
        drawn = shown(monkeypatch, Screen(), call)
        bars = re.findall(r"epoch (\d)/2:" + BAR, drawn)
        # 16 data in batches of 100: one step an epoch.
        assert [bar[:4] for bar in dict.fromkeys(bars)] == [("1", "50", "1", "2"), ("2", "100", "2", "2")]
        assert re.fullmatch(r"\r *\r?", drawn[drawn.rindex("\r", 0, -1) :])

    def test_a_run_that_goes_on(self, call, monkeypatch):
        """What was done before counts as done, and not for the speed."""
        assert main(call) == 0
        drawn = shown(monkeypatch, Screen(), [*call, "--resume", "--epochs", "8"])
        assert [bar[1] for bar in re.findall(r"epoch (\d)/8:" + BAR, drawn)][0] == "38"

    def test_evaluate(self, judge, monkeypatch):
        """Each of the three steps ends at all of its work: 4 data by 3 draws, 4 steps and 3 draws, log p(x)."""
        drawn = shown(monkeypatch, Screen(), judge)
        for what, total in (("1/3 ELBO", "12.0"), ("2/3 amortisation gap", "28.0"), ("3/3 log p\\(x\\)", "4.00")):
            bars = re.findall(what + ":" + BAR, drawn)
            assert bars[-1] == ("100", total, total, "00:00"), (what, bars)
        drawn = shown(monkeypatch, Screen(), [*judge, "--gap-steps", "0"])
        assert "2/2 log p(x)" in drawn and "gap" not in drawn


def test_on_a_real_one(call):
    """A pseudo-terminal of 100 columns: the bar is drawn there, the epochs' lines go to stdout."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("4H", 24, 100, 0, 0))
    command = [sys.executable, "-m", "vae_fast", *call]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=its, text=True) as process:
        os.close(its)
        drawn = b"".join(iter(lambda: read_from(ours), b"")).decode()
        printed = process.stdout.read()
    os.close(ours)
    assert process.returncode == 0 and "epoch 2/2  train ELBO" in printed and "%" not in printed
    assert re.search(r"\r +0%\|.*\| *0/2 \[00:00<\?", drawn)


def read_from(terminal):
    """What is there; nothing when its last user is gone."""
    try:
        return os.read(terminal, 10_000)
    except OSError:
        return b""


class TestElsewhere:
    def test_what_ends_soon_says_nothing(self, call, judge, monkeypatch):
        assert shown(monkeypatch, io.StringIO(), [*call, "--resume", "--epochs", "4"]) == ""
        assert shown(monkeypatch, io.StringIO(), judge) == ""

    def test_a_line_a_minute(self, call, judge, monkeypatch):
        """By a clock that each step takes ten seconds on."""
        seconds = iter(range(0, 10**6, 10))
        monkeypatch.setattr(time, "monotonic", lambda: next(seconds))
        said = shown(monkeypatch, io.StringIO(), [*call, "--resume", "--epochs", "40"]).splitlines()
        assert said[0] == "epoch 8/40: 20 %, 5 min left" and said[-1] == "epoch 38/40: 95 %, 0 min left"
        assert len(said) == 6 and all(re.fullmatch(r"epoch \d+/40: \d+ %, \d min left", line) for line in said)
        said = shown(monkeypatch, io.StringIO(), [*judge, "--gap-steps", "20"])
        assert said.startswith("2/3 amortisation gap: 26 %, 3 min left\n2/3 amortisation gap: 52 %, 2 min left\n")
        assert "\r" not in said and "\x1b" not in said

    def test_hours(self):
        assert [progress._clock(s) for s in (0, 29, 60, 3600, 3600 * 26 + 59)] == [
            "0 min",
            "0 min",
            "1 min",
            "1:00 h",
            "26:01 h",
        ]


@pytest.mark.parametrize("stream", [Screen, io.StringIO])
def test_all_ranks_but_the_first_are_silent(stream, monkeypatch, every_step):
    monkeypatch.setattr(sys, "stderr", stream())
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", -1)
    with progress.progress("what", 3, shown=False) as bar:
        for _ in range(3):
            bar.update()
    assert sys.stderr.getvalue() == ""
