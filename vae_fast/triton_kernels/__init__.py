"""The Triton backend: why it cannot serve here, if it cannot; its kernels, if it can.

Triton is imported where there is a GPU for it, or where TRITON_INTERPRET=1 runs its kernels on the CPU.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from typing import Any

import torch

from vae_fast.triton_kernels.interpreter import INTERPRETED

MINIMUM = (3, 6)

DEVICES = ("cpu", "cuda") if INTERPRETED else ("cuda",)


def _version() -> str:
    try:
        return importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        # A build of PyTorch's own goes by another name.
        return str(importlib.import_module("triton").__version__)


def _missing() -> str:
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed (pip install triton)"
    if not INTERPRETED and torch.cuda.device_count() == 0:
        return "there is no CUDA GPU here (TRITON_INTERPRET=1 runs the kernels on the CPU, slowly, to try them)"
    version = _version()
    if tuple(int(part) for part in version.split(".")[:2]) < MINIMUM:
        return f"it needs triton {'.'.join(map(str, MINIMUM))}, this is {version}"
    return ""


REASON = _missing()

KERNELS: Any = None
"""A function for every raw operator, and ``rescale`` and ``with_kept`` of early.py."""
TRACED: Any = None
"""The same as operators of their own, torch.ops.vae_fast_triton.<op>_fwd and _bwd: what a compiler sees."""
GRAPH: Any = None
"""Those with gradients of their own, for graphs that have to carry them."""

if not REASON:
    from vae_fast.triton_kernels import operators

    KERNELS, TRACED, GRAPH = operators.KERNELS, operators.TRACED, operators.GRAPH
