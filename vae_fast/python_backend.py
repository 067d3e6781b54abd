"""A backend written in Python: a package with a module for each operator that it has.

Module <op> has ``<op>_fwd(<operands…>, options, wanted)`` and, with the upstream gradients before the operands,
``<op>_bwd``. ``options`` is the operator's record of them, ``wanted`` says which gradients to make (operators.py).
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from vae_fast.operators import PAIRWISE, SIGNATURES, Signature


def of_arguments(signature: Signature, function: Callable[..., Any]) -> Callable[..., Any]:
    """Such a function as one of the raw operator's arguments, in its schema's order."""
    split = signature.split

    def call(*args: Any) -> Any:
        tensors, options, wanted = split(args)
        return function(*tensors, options, wanted)

    return call


def kernels(package: str) -> SimpleNamespace:
    """The functions of the operators that a package has, by the raw operators' names and of their arguments."""
    found = {}
    for name, signature in SIGNATURES.items():
        module = f"{package}.{signature.operator.name}"
        if importlib.util.find_spec(module) is not None:
            found[name] = of_arguments(signature, getattr(importlib.import_module(module), name))
    return SimpleNamespace(**found)


def add_pairwise(kernels: SimpleNamespace, package: str, op: str) -> None:
    """Adds those of an operator on pairs, if any; the functions take the raw operators' arguments as they are."""
    module = f"{package}.{op}"
    if importlib.util.find_spec(module) is not None:
        for name in PAIRWISE[op].schemas:
            setattr(kernels, name, getattr(importlib.import_module(module), name))
