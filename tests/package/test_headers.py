"""Every header of csrc compiles by itself, so that no source depends on the order of its includes."""

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
CSRC = ROOT / "csrc"
HEADERS = sorted(path.relative_to(CSRC) for path in CSRC.rglob("*.h"))
COMPILER = os.environ.get("CXX", "g++")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not HEADERS, reason="needs the source tree: csrc is missing"),
    pytest.mark.skipif(shutil.which(COMPILER) is None, reason=f"needs a compiler: there is no {COMPILER}"),
]


@pytest.mark.parametrize("header", HEADERS, ids=str)
def test_by_itself(header, tmp_path):
    source = tmp_path / "alone.cpp"
    source.write_text(f'#include "{header}"\n#include "{header}"\n')
    cuda = header.parts[0] == "cuda" or header.name == "table.h"
    names = ["-DVF_ISA=cuda" if cuda else "-DVF_ISA=here", "-DVF_DISPATCH_KEY=CPU", "-Wno-unknown-pragmas"]
    folders = ["-I", str(CSRC), "-I", str(ROOT / "tests" / "cuda_host")]
    include = Path(torch.__file__).parent / "include"
    if header.parts[0] == "front":
        names += ["-std=c++20", "-DVF_FRONT"]
        found = [include, include / "torch/csrc/api/include", sysconfig.get_paths()["include"]]
    else:
        names += ["-std=c++17", "-DTORCH_TARGET_VERSION=0x020b000000000000"]
        found = [include]
    torch_headers = [part for folder in found for part in ("-isystem", str(folder))]
    command = [COMPILER, "-fsyntax-only", "-Wno-psabi", *names, *folders, *torch_headers, str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
