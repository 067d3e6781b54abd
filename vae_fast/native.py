"""The compiled extension: loaded once, after the operators' schemas; what it serves, or why it is not there.

Two libraries: one for the CPU, and one for CUDA, which a torch without CUDA could not load.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor

from vae_fast import schemas
from vae_fast.operators import OPERATORS, PAIRWISE, PAIRWISE_SCHEMAS, Operator, Pairwise

FOLDER = Path(__file__).parent
LIBRARY = FOLDER / "_cpu.abi3.so"
CUDA_LIBRARY = FOLDER / "_cuda.abi3.so"
# What the build had to say where it left a library out: a line for the CPU's, for CUDA's, for the front.
BUILD_RECORD = FOLDER / "_build.txt"
TORCH_MINIMUM = (2, 11)
DEFINED = "VAE_FAST_OPERATORS_DEFINED"


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2] if part.isdecimal())


def missing(library: Path, what: str, line: int) -> str:
    """Why a library is not there, by its line of the build's record."""
    lines = BUILD_RECORD.read_text().splitlines() if BUILD_RECORD.is_file() else []
    recorded = "".join(lines[line : line + 1]).strip()
    if not recorded:
        recorded = f"there is no {library.name}"
        if (FOLDER.parent / "setup.py").is_file():
            recorded += f" among the sources in {FOLDER}, which Python found before any installed package"
    return f"{what} was not built: {recorded}"


def whole(path: Path) -> bool:
    """Whether an ELF file has all its bytes: the loader maps a truncated one, and the process dies of it.

    The section headers are the last thing in the file; bytes 0x28, 0x3a and 0x3c say where they are, and how many.
    """
    with path.open("rb") as file:
        header = file.read(64)
    if len(header) < 64 or header[:6] != b"\x7fELF\x02\x01":
        return True  # the loader will say what it is
    start, size, count = (int.from_bytes(header[at:end], "little") for at, end in ((40, 48), (58, 60), (60, 62)))
    return path.stat().st_size >= start + size * count


def _load(library: Path, what: str) -> str:
    """Registers a library's kernels. Returns why it cannot, empty where it did."""
    if not library.is_file():
        return missing(library, what, 1 if library is CUDA_LIBRARY else 0)
    if _version(torch.__version__) < TORCH_MINIMUM:
        return f"{what} needs torch {'.'.join(map(str, TORCH_MINIMUM))}, this is {torch.__version__}"
    if not whole(library):
        return f"{what} {library.name} is not whole: install the package again"
    # The library defines the operators, unless it is told that they are there.
    os.environ[DEFINED] = "1"
    try:
        torch.ops.load_library(str(library))
    except Exception as error:
        # torch says which file; the loader's own words are in the cause.
        return f"{what} does not load: {error.__cause__ or error}"
    finally:
        del os.environ[DEFINED]
    return ""


REASON = _load(LIBRARY, "the compiled extension")


def _load_cuda() -> str:
    if REASON:
        return REASON
    if CUDA_LIBRARY.is_file() and not torch.version.cuda:
        return f"torch {torch.__version__} is a build without CUDA"
    return _load(CUDA_LIBRARY, "the CUDA extension")


CUDA_REASON = _load_cuda()
DEVICES = () if REASON else ("cpu",) if CUDA_REASON else ("cpu", "cuda")


def instruction_set() -> str:
    """Which of its instruction sets the extension uses here: "baseline", "v3" or "v4" (x86-64-v3, -v4).

    The environment variable VAE_FAST_CPU_ISA sets the most it may use. Raises ValueError where that is no such
    name, as the first call of a kernel does.
    """
    if REASON:
        return ""
    name = ctypes.CDLL(str(LIBRARY)).vae_fast_cpu_isa
    name.restype = ctypes.c_char_p
    found = str(name().decode())
    if found.startswith("!"):
        raise ValueError(found[1:])
    return found


def _rescale(grads: Sequence[Tensor], upstream: Tensor) -> None:
    """Multiplies gradients on a GPU, each dense in memory, by the one element of ``upstream``, in place."""
    present: list[Tensor | None] = [grad for grad in grads if grad.numel()]
    if present:
        torch.ops.vae_fast.rescale_(upstream, *present, *[None] * (4 - len(present)))


def _registered(operator: Operator | Pairwise, key: str) -> bool:
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
    return all(has_kernel(f"vae_fast::{name}", key) for name in operator.schemas)


# The operators that the libraries have kernels of, by device type.
OPS = {
    device: tuple(name for name, op in (OPERATORS | PAIRWISE).items() if _registered(op, device.upper()))
    for device in DEVICES
}
# And of them those that read a CSR matrix of data, on a CPU.
OF_SPARSE = tuple(name for name, operator in OPERATORS.items() if _registered(operator, "SparseCsrCPU"))
KERNELS = SimpleNamespace(
    **schemas.kernels("vae_fast"),
    **{name: schemas.overload("vae_fast", name) for name in PAIRWISE_SCHEMAS},
    rescale=_rescale,
)
# The same in graphs, with gradients of their own.
GRAPH = schemas.in_graphs("vae_fast")
