"""The compiled extension: loaded once, after the operators' schemas; what it serves, or why it is not there."""

from __future__ import annotations

import ctypes
from pathlib import Path
from types import SimpleNamespace

import torch

from vae_fast import schemas

FOLDER = Path(__file__).parent
LIBRARY = FOLDER / "_cpu.abi3.so"
# What the build had to say, where it left the library out.
BUILD_RECORD = FOLDER / "_build.txt"
TORCH_MINIMUM = (2, 11)


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2] if part.isdecimal())


def _missing() -> str:
    recorded = BUILD_RECORD.read_text().strip() if BUILD_RECORD.is_file() else ""
    return f"the compiled extension was not built: {recorded or 'there is no ' + LIBRARY.name}"


def _whole(path: Path) -> bool:
    """Whether an ELF file has all its bytes: the loader maps a truncated one, and the process dies of it.

    The section headers are the last thing in the file; bytes 0x28, 0x3a and 0x3c say where they are, and how many.
    """
    with path.open("rb") as file:
        header = file.read(64)
    if len(header) < 64 or header[:6] != b"\x7fELF\x02\x01":
        return True  # the loader will say what it is
    start, size, count = (int.from_bytes(header[at:end], "little") for at, end in ((40, 48), (58, 60), (60, 62)))
    return path.stat().st_size >= start + size * count


def _load() -> str:
    """Registers the library's kernels. Returns why it cannot, empty where it did."""
    if not LIBRARY.is_file():
        return _missing()
    if _version(torch.__version__) < TORCH_MINIMUM:
        return (
            f"the compiled extension needs torch {'.'.join(map(str, TORCH_MINIMUM))}, this is {torch.__version__}"
        )
    if not _whole(LIBRARY):
        return f"the compiled extension {LIBRARY.name} is not whole: install the package again"
    try:
        torch.ops.load_library(str(LIBRARY))
    except Exception as error:
        # torch says which file; the loader's own words are in the cause.
        return f"the compiled extension does not load: {error.__cause__ or error}"
    return ""


REASON = _load()


def instruction_set() -> str:
    """Which of its instruction sets the extension uses here: "baseline", "v3" or "v4" (x86-64-v3, -v4).

    The environment variable VAE_FAST_CPU_ISA, read when the first kernel runs, sets the most it may use.
    """
    if REASON:
        return ""
    name = ctypes.CDLL(str(LIBRARY)).vae_fast_cpu_isa
    name.restype = ctypes.c_char_p
    return str(name().decode())


KERNELS = SimpleNamespace(**{name: getattr(torch.ops.vae_fast, name).default for name in schemas.SCHEMAS})
