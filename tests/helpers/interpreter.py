"""Triton's interpreter as the tests use it: with a GPU's bfloat16, and faster.

The interpreter truncates to bfloat16, and loses subnormal numbers on the way back. And at every call of one jit
function by another it replaces the language anew, which takes longer than everything else; it was replaced when the
kernel was launched.
"""

import torch
import triton.language as tl
from triton.runtime import interpreter

from vae_fast.triton_kernels import launch  # noqa: F401

_convert = interpreter._convert_float
_replaced = set()


def _convert_float(value, from_dtype, to_dtype, rounding_mode):
    if (from_dtype, to_dtype) == (tl.float32, tl.bfloat16):
        return torch.tensor(value).to(torch.bfloat16).view(torch.int16).numpy().view("uint16")
    if (from_dtype, to_dtype) == (tl.bfloat16, tl.float32):
        return (value.astype("uint32") << 16).view("float32")
    return _convert(value, from_dtype, to_dtype, rounding_mode)


def _call(self, *args, **kwargs):
    # Triton's own functions see the language under another name, which is replaced for good.
    if not any(value is tl for value in self.fn.__globals__.values()) and self.fn.__module__ not in _replaced:
        _replaced.add(self.fn.__module__)
        interpreter._patch_lang(self.fn)
    try:
        return self.rewrite()(*args, **kwargs)
    except Exception as error:
        raise interpreter.InterpreterError(repr(error)) from error


def mend():
    interpreter._convert_float = _convert_float
    interpreter.InterpretedFunction.__call__ = _call
