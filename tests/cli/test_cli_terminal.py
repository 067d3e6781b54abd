"""stdout and stderr that are closed, full or ASCII-only, and what is too large for memory."""

import io
import os
import subprocess
import sys

import pytest
from odd_files import TRAIN, one_line

from vae_fast.cli.main import main
from vae_fast.cli.terminal import Lenient, usable_streams


@pytest.fixture
def call(trained, tmp_path):
    """A training whose lines have a β."""
    data = f"npz:{trained / 'data.npz'}"
    return ["train", "--data", data, "--out", str(tmp_path / "run"), *TRAIN, "--warmup", "3"]


class Failing(io.TextIOWrapper):
    """A terminal that says it is one, and fails at the n-th write with such an error."""

    def __init__(self, error, n=1):
        super().__init__(io.BytesIO(), encoding="utf-8")
        self.error, self.left = error, n

    def write(self, text):
        self.left -= 1
        if self.left <= 0:
            raise self.error
        return super().write(text)

    def isatty(self):
        return True


@pytest.mark.parametrize("n", [1, 3, 10])
@pytest.mark.parametrize(
    "error",
    [
        OSError(5, "Input/output error"),
        OSError(28, "No space left on device"),
        BrokenPipeError(32, "Broken pipe"),
        ValueError("I/O operation on closed file"),
    ],
)
def test_stderr_that_fails_ends_nothing(call, trained, tmp_path, monkeypatch, capsys, error, n):
    """From the first write or a later one on: the run ends as it would, and its last line is on stdout."""
    monkeypatch.setattr(sys, "stderr", Failing(error, n))
    assert main(call) == 0
    assert "checkpoint.json" in capsys.readouterr().out.splitlines()[-1]


def test_no_stderr(call, monkeypatch, capsys):
    """What Python makes of a descriptor that is closed when it starts."""
    monkeypatch.setattr(sys, "stderr", None)
    assert main(call) == 0
    assert main(call) == 2
    assert "error" not in capsys.readouterr().out and sys.stderr is None


def test_ascii_only(call, monkeypatch):
    """β is escaped on stdout, the name of a file on stderr; and the streams are as they were afterwards."""
    out, error = (io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict") for _ in range(2))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", error)
    assert main(call) == 0
    assert main(["evaluate", "müll"]) == 2
    assert out.buffer.getvalue().count(b"\\u03b2 0.") == 2 and b"m\\xfcll" in error.buffer.getvalue()
    assert sys.stdout is out and sys.stderr is error and out.errors == error.errors == "strict"


def test_a_stream_that_cannot_be_told_to_escape():
    class Plain:
        text = ""

        def write(self, text):
            self.text += text.encode("ascii").decode()

    plain = Plain()
    Lenient(plain).write("β\n")
    assert plain.text == "\\u03b2\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="/dev/full")
def test_a_full_stdout_is_one_line(call, monkeypatch, capsys):
    for command in (call, ["info"], ["info", "--json"]):
        with pytest.MonkeyPatch.context() as patch, open("/dev/full", "w") as full:
            patch.setattr(sys, "stdout", full)
            assert main(command) == 1
            full.flush()  # as Python does at exit: nothing is left that could fail
        error = capsys.readouterr().err
        assert error.startswith("vae_fast: error: ") and "No space left" in error and error.count("\n") == 1


def test_closed_descriptors_are_not_reused(call):
    """A file that is opened as number 2 would be written whatever a library has to say."""
    script = (
        "import os, sys\n"
        "for number in (0, 2): os.close(number)\n"
        "sys.stderr = None\n"
        "from vae_fast.cli.main import main\n"
        "status = main(sys.argv[1:])\n"
        "print(status, *(os.readlink(f'/proc/self/fd/{number}') for number in (0, 2)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script, *call], stdout=subprocess.PIPE, text=True, timeout=100)
    assert done.stdout.splitlines()[-1] == "0 /dev/null /dev/null"


def test_what_stderr_shows_is_still_shown(capsys):
    with usable_streams():
        print("a line", file=sys.stderr)
        assert not sys.stderr.isatty() and sys.stderr.encoding.lower() == "utf-8"
    assert capsys.readouterr().err == "a line\n"


@pytest.mark.parametrize("hidden", ["2147483647,2147483647", "40000,2147483647"])
def test_models_that_no_memory_holds(call, capsys, tmp_path, hidden):
    """A layer whose bytes no 64-bit number counts; and one of 3·10¹⁴ bytes, which no address space has."""
    assert main([hidden if part == "4" else part for part in call]) == 1
    error = capsys.readouterr().err
    assert error.startswith("vae_fast: error: out of memory") and error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_more_threads_than_there_can_be(call, capsys):
    assert "at most 1024" in one_line(capsys, *call, "--threads", "100000")
