"""The errors that stand above the functions of a header of csrc, as csrc/formulas.h says what they mean."""

import platform
import re
from pathlib import Path

import torch

_NUMBER = r"(\d+\.\d+)"
_ERRORS = re.compile(rf"\({_NUMBER};\s+{_NUMBER}\s+without\s+FMA;\s+float64\s+{_NUMBER};\s+{_NUMBER}\)")


def stated(header):
    """Of each comment that has any: its sets of four, and the functions below it, "exp(T x)" and so on."""
    text = (Path(__file__).parents[2] / "csrc" / header).read_text("utf-8")
    for comment, functions in re.findall(r"((?:^//.*\n)+)((?:^(?!//|\n).*\n)+)", text, re.MULTILINE):
        found = [[float(e) for e in four] for four in _ERRORS.findall(re.sub(r"\n//", "", comment))]
        if found:
            yield found, re.findall(r"^VF_(?:INLINE|RARE) .*?(\w+\(.*\)) \{$", functions, re.MULTILINE)


def of(four, isa, dtype):
    """The one for an instruction set and a dtype: float32's with a fused multiply-add and without, float64's."""
    has_fma = isa in ("v3", "v4") or platform.machine() in ("aarch64", "arm64")
    return four[(0 if has_fma else 1) + (2 if dtype == torch.float64 else 0)]
