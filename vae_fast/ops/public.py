"""The public function of an operator: the compiled front's where it takes a call, the Python one's elsewhere."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from vae_fast import backends, front
from vae_fast.tracing import public

_F = TypeVar("_F", bound=Callable[..., Any])


def operator(function: _F) -> _F:
    """Makes the Python function of an operator, which has its name, the public one."""
    op = function.__name__
    return public(function, front.functions_of(op, inspect.signature(function), backends.native_below(op)))
