"""The package with csrc/cuda as its kernels for CPU tensors: compiled by a host compiler against cuda_runtime.h.

python tests/cuda_host/build.py FOLDER [SANITIZERS] leaves a package in FOLDER, in which the library of the
CPU's kernels is this one. All tests of the operators then run on it. CXX and CXXFLAGS are heeded, MAX_JOBS says how
many compile at a time.
"""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT))

import setup_operators  # noqa: E402


def sources():
    csrc = ROOT / "csrc"
    return [
        csrc / "ops.cpp",
        csrc / "mixture.cpp",
        csrc / "mmd.cpp",
        csrc / "logistic_mixture.cpp",
        csrc / "operands.cpp",
        csrc / "rescale.cpp",
        *sorted(csrc.glob("cuda/*.cpp")),
        *sorted(csrc.glob("cuda/*.cu")),
        *sorted(HERE.glob("*.cpp")),
    ]


def build(folder, sanitizers=""):
    """Makes the package in ``folder``."""
    import torch

    torch_folder = Path(torch.__file__).parent
    package, objects = folder / "vae_fast", folder / "objects"
    objects.mkdir(parents=True, exist_ok=True)
    shutil.copytree(ROOT / "vae_fast", package, ignore=shutil.ignore_patterns("*.so", "_build.txt", "__pycache__"))
    setup_operators.write(objects)
    compiler = os.environ.get("CXX", "g++")
    # As nvcc is called, where it matters: no contraction, a multiply-add where it is written.
    flags = ["-std=c++17", "-O1", "-ffp-contract=off", "-fno-strict-aliasing", "-fPIC", "-march=native"]
    flags += ["-fvisibility=hidden", "-Wno-psabi", "-DVF_ISA=cuda", "-DVF_LEAN=1", "-DVF_DISPATCH_KEY=CPU"]
    flags += ["-DTORCH_TARGET_VERSION=0x020b000000000000", "-isystem", str(torch_folder / "include")]
    flags += ["-I", str(HERE), "-I", str(objects), *os.environ.get("CXXFLAGS", "").split()]
    if sanitizers:
        flags += [f"-fsanitize={sanitizers}", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-g"]

    def compile_one(source):
        target = objects / f"{source.stem}{source.suffix[1:]}.o"
        subprocess.run([compiler, *flags, "-x", "c++", "-c", str(source), "-o", str(target)], check=True)
        return str(target)

    with ThreadPoolExecutor(int(os.environ.get("MAX_JOBS", 0)) or os.cpu_count()) as pool:
        compiled = list(pool.map(compile_one, sources()))
    libraries = ["-L", str(torch_folder / "lib"), "-ltorch", "-ltorch_cpu", "-lc10"]
    link = [f"-fsanitize={sanitizers}"] if sanitizers else []
    subprocess.run(
        [compiler, "-shared", *compiled, *libraries, *link, "-o", str(package / "_cpu.abi3.so")], check=True
    )
    shutil.rmtree(objects)


if __name__ == "__main__":
    build(Path(sys.argv[1]), *sys.argv[2:3])
