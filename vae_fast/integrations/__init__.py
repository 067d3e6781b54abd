"""Other libraries' models on the fused kernels: ``vf.integrations.<library>``, imported where it is first named."""

from __future__ import annotations

import importlib
from types import ModuleType

__all__ = ["pyro", "pythae", "scvi"]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
