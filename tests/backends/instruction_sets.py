"""Sources of these tests, compiled as csrc/cpu is: once for each instruction set that this processor has."""

import platform
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent
COMPILER = shutil.which("g++") or shutil.which("c++")
needed = [
    pytest.mark.skipif(COMPILER is None, reason="needs a C++ compiler"),
    pytest.mark.skipif(not (HERE.parents[1] / "csrc").is_dir(), reason="needs the source tree: csrc is missing"),
]

FLAGS = ("-std=c++17", "-O3", "-ffp-contract=off", "-fno-math-errno", "-Wall", "-Wextra", "-Werror", "-Wno-psabi")
SETS = {"baseline": ()}
if platform.machine() in ("x86_64", "AMD64"):
    capability = torch.backends.cpu.get_cpu_capability()
    if capability in ("AVX2", "AVX512"):
        SETS["v3"] = ("-march=x86-64-v3",)
    if capability == "AVX512":
        SETS["v4"] = ("-march=x86-64-v4",)


def compiled(name, isa, folder):
    """NAME.cpp of this folder as a library in ``folder``."""
    out = folder / f"{name}-{isa}.so"
    command = (COMPILER, *FLAGS, f"-DVF_ISA={isa}", *SETS[isa], "-shared", "-fPIC", HERE / f"{name}.cpp", "-o", out)
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out
