"""`python -m benchmarks`: pytest on this folder, with its options and conftest.py's; or one of COMMANDS."""

import importlib.util
import os
import sys
from pathlib import Path

NEEDED = ("pytest", "pytest-benchmark", "pytest-timeout", "matplotlib")
if missing := [package for package in NEEDED if not importlib.util.find_spec(package.replace("-", "_"))]:
    sys.exit(f"python -m benchmarks: pip install {' '.join(missing)}")

import pytest  # noqa: E402

from . import calls, iwae, pairs, scvi  # noqa: E402

COMMANDS = {"scvi": scvi.main, "calls": calls.main, "iwae": iwae.main, "pairs": pairs.main}


def main(arguments):
    """Runs the benchmarks. Gives pytest's exit status: 0 where all ran, 1 where a backend of vae_fast was wrong."""
    # With OpenMP as users have it: threads that do not spin add the time of waking them to every parallel loop.
    if os.environ.pop("OMP_WAIT_POLICY", None):
        os.execv(sys.executable, [sys.executable, "-m", "benchmarks", *arguments])
    if arguments and arguments[0] in COMMANDS:
        return COMMANDS[arguments[0]](arguments[1:])
    options = ["--benchmark-max-time=0.4", "--benchmark-min-rounds=5", "--benchmark-warmup=on"]
    options += [
        "--benchmark-warmup-iterations=3",
        "--benchmark-disable-gc",
        "--benchmark-quiet",
        "-q",
        "--no-header",
        "-p",
        "no:cacheprovider",
    ]
    return pytest.main([str(Path(__file__).parent), *options, *arguments])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
