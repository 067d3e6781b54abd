"""Every header of csrc compiles by itself, so that no source depends on the order of its includes."""

import os
import shutil
import subprocess
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
    torch_headers = [
        "-DTORCH_TARGET_VERSION=0x020b000000000000",
        "-isystem",
        str(Path(torch.__file__).parent / "include"),
    ]
    command = [COMPILER, "-std=c++17", "-fsyntax-only", "-Wno-psabi", *names, *folders, *torch_headers, str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
