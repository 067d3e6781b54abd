"""What the build of the CUDA kernels needs to find: nvcc, its toolkit, a torch with CUDA, the GPUs to compile for.

CUDA_HOME names the toolkit's folder; without it nvcc is looked for on the path, and asked where its toolkit is: it
may be a script that calls another one. TORCH_CUDA_ARCH_LIST names the targets, as for PyTorch's own extensions.
"""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

# The last one as PTX too, for GPUs to come.
TARGETS = "8.0 8.6 8.9 9.0 10.0 12.0+PTX"


class Missing(Exception):
    """What there is not."""


@dataclass(frozen=True)
class Toolkit:
    nvcc: str
    home: Path
    version: tuple[int, int]

    @property
    def libraries(self):
        found = [folder for folder in ("lib64", "lib", "targets/x86_64-linux/lib") if (self.home / folder).is_dir()]
        return [str(self.home / folder) for folder in found]


def _said(*command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except OSError as error:
        raise Missing(f"{command[0]} does not run: {error}") from None
    if done.returncode != 0:
        raise Missing(f"{' '.join(command)} fails: {(done.stderr or done.stdout).strip()[-500:]}")
    return done.stdout + done.stderr


def _home_of(nvcc):
    """The folder of the toolkit that an nvcc belongs to, by its own words."""
    top = re.search(r"^#\$ TOP=(.+)$", _said(nvcc, "--dryrun", "-x", "cu", "-c", os.devnull), re.MULTILINE)
    return Path(top.group(1)).resolve() if top else Path(nvcc).resolve().parent.parent


def toolkit():
    """The CUDA toolkit. Raises Missing."""
    wanted = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    nvcc = str(Path(wanted) / "bin" / "nvcc") if wanted else shutil.which("nvcc")
    if not nvcc:
        raise Missing("there is no nvcc: install the CUDA toolkit, put nvcc on the path, or set CUDA_HOME")
    if not Path(nvcc).is_file():
        raise Missing(f"CUDA_HOME is {wanted}, and there is no {nvcc}")
    release = re.search(r"release (\d+)\.(\d+)", _said(nvcc, "--version"))
    if not release:
        raise Missing(f"{nvcc} does not say its version")
    home = Path(wanted) if wanted else _home_of(nvcc)
    if not (home / "include" / "cuda_runtime.h").is_file():
        raise Missing(f"the toolkit's headers are not in {home / 'include'}: set CUDA_HOME to the toolkit's folder")
    found = Toolkit(nvcc, home, (int(release.group(1)), int(release.group(2))))
    if not any(list(Path(folder).glob("libcudart.so*")) for folder in found.libraries):
        raise Missing(f"there is no libcudart.so in {home}: set CUDA_HOME to the toolkit's folder")
    return found


def check_torch(torch, found):
    """Raises Missing where torch is not one for this toolkit."""
    if not torch.version.cuda:
        raise Missing(f"torch {torch.__version__} is a build without CUDA")
    if int(torch.version.cuda.split(".")[0]) != found.version[0]:
        ours = ".".join(map(str, found.version))
        raise Missing(f"torch {torch.__version__} is for CUDA {torch.version.cuda}, {found.nvcc} for {ours}")


def targets(found):
    """nvcc's arguments for the GPUs to compile for."""
    wanted = os.environ.get("TORCH_CUDA_ARCH_LIST", "").replace(";", " ").split()
    known = None if wanted else _said(found.nvcc, "--list-gpu-arch").split()
    arguments, last = [], ""
    for target in wanted or TARGETS.split():
        number = re.fullmatch(r"(\d+)\.(\d+)([af]?)(\+PTX)?", target)
        if not number:
            raise Missing(
                f"TORCH_CUDA_ARCH_LIST has {target!r}, which is no compute capability such as 9.0 or 9.0+PTX"
            )
        name = "".join(number.group(1, 2, 3))
        if known is not None and f"compute_{name}" not in known:
            continue  # newer than this toolkit, or older than it still knows
        arguments.append(f"-gencode=arch=compute_{name},code=sm_{name}")
        last = name
        if number.group(4):
            arguments.append(f"-gencode=arch=compute_{name},code=compute_{name}")
    if known is not None and last and f"-gencode=arch=compute_{last},code=compute_{last}" not in arguments:
        arguments.append(f"-gencode=arch=compute_{last},code=compute_{last}")
    if not arguments:
        raise Missing(f"{found.nvcc} compiles for none of {TARGETS}")
    return arguments
