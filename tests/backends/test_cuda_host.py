"""The CUDA kernels, compiled for this processor (tests/cuda_host) and run on CPU tensors: no GPU or CUDA needed.

The whole matrix, under sanitizers and more schedules, is `make test-cuda-host`.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HOST = ROOT / "tests" / "cuda_host"
COMPILER = os.environ.get("CXX", "g++")
CHOSEN = "not reference and (like_the_definition or around or samples or offsets or whole_range and float32)"

pytestmark = [
    pytest.mark.skipif(not (ROOT / "csrc").is_dir(), reason="needs the source tree: csrc/ is missing"),
    pytest.mark.skipif(shutil.which(COMPILER) is None, reason=f"needs a C++ compiler: {COMPILER} is missing"),
    pytest.mark.timeout(900),
]


def build(folder):
    command = (sys.executable, str(HOST / "build.py"), str(folder))
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A package whose native kernels are those of csrc/cuda."""
    return Path(os.environ.get("VAE_FAST_CUDA_HOST") or build(tmp_path_factory.mktemp("host") / "package"))


def run(package, *command, schedule="forward", **environment):
    env = {**os.environ, "PYTHONPATH": str(package), "VF_HOST_SCHEDULE": schedule, **environment}
    return subprocess.run(command, capture_output=True, text=True, env=env, cwd=ROOT / "tests")


def splits(package, schedule, **environment):
    return run(package, sys.executable, str(HOST / "splits.py"), schedule=schedule, **environment)


def test_is_the_cuda_kernels(package):
    code = "from vae_fast import native; print(native.instruction_set(), native.__file__)"
    done = run(package, sys.executable, "-c", code)
    assert done.stdout.startswith("cuda on the host") and str(package) in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("schedule", ["forward", pytest.param("3", marks=pytest.mark.slow)])
def test_like_the_definition(package, schedule):
    """Random shapes, strides, dtypes and options: the CPU kernels' own test."""
    pytest_ = (str(Path(sys.executable).with_name("pytest")), "-q", "-p", "no:cacheprovider")
    files = "backends/test_native.py", "operators/test_noise_bits.py", "operators/test_scale_range.py"
    done = run(package, *pytest_, *files, "-k", CHOSEN, schedule=schedule, VAE_FAST_TEST_CASES="120")
    assert done.returncode == 0, done.stdout[-3000:]


def test_kept_gradients(package):
    """Left, scaled or made anew by each thread; all of them are for `make test-cuda-host`."""
    pytest_ = (str(Path(sys.executable).with_name("pytest")), "-q", "-p", "no:cacheprovider")
    chosen = "not triton and (gaussian_kl or float32 or least or strides)"
    done = run(package, *pytest_, "operators/test_kept_gradients.py", "-k", chosen)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "skipped" not in done.stdout


@pytest.fixture(scope="module")
def split_forward(package):
    """What the results of every split come to where blocks and threads run one after another."""
    done = splits(package, "forward")
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("schedule", [pytest.param(k, marks=pytest.mark.slow) for k in ("reverse", "1")])
def test_every_split_under_every_schedule(package, split_forward, schedule):
    """The same bits in whichever order blocks and threads run, and right ones."""
    done = splits(package, schedule)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == split_forward


def test_even_chunks(package):
    """The kernels for whole, aligned chunks give the general ones' bits."""
    done = run(package, sys.executable, str(HOST / "splits.py"), "even")
    assert done.returncode == 0, done.stderr[-3000:]


def barriers():
    """Every __syncthreads() of the kernels, as fibers.cpp is told of it: file and line."""
    for path in sorted((ROOT / "csrc" / "cuda").glob("*")):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if "__syncthreads();" in line:
                yield f"{path.name}:{number}"


@pytest.mark.slow
@pytest.mark.parametrize("barrier", list(barriers()) if (ROOT / "csrc").is_dir() else [])
def test_a_missing_barrier_shows(package, split_forward, barrier):
    def shows(schedule):
        done = splits(package, schedule, VF_HOST_WITHOUT=barrier)
        return done.returncode != 0 or done.stdout != split_forward

    assert any(map(shows, ("forward", "reverse", "1")))
