"""The decorator of a kernel, as triton.jit is that of a function kernels call."""

from collections.abc import Callable
from typing import Any

import triton
import triton.language as tl


def kernel(function: Callable[..., Any]) -> Any:
    """A kernel whose numbers are never specialised.

    Triton would compile it anew where one of them is 1, and where it becomes or ceases to be a multiple of 16.
    """
    numbers = [name for name, kind in function.__annotations__.items() if kind in (tl.int64, "tl.int64")]
    return triton.jit(do_not_specialize=numbers)(function)
