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


_LEAN = re.compile(rf"\({_NUMBER} lean\)")


def lean():
    """Of each function of csrc/lean.h, "lean_exp(T x)" and so on, the errors of its results."""
    text = (Path(__file__).parents[2] / "csrc" / "lean.h").read_text("utf-8")
    blocks = re.findall(r"((?:^//.*\n)+)((?:^(?!//|\n).*\n)+)", text, re.MULTILINE)
    found = {}
    for comment, function in blocks:
        errors = [float(e) for e in _LEAN.findall(re.sub(r"\n//", "", comment))]
        if errors:
            (name,) = re.findall(r"^VF_INLINE .*?(\w+\(.*\)) \{$", function, re.MULTILINE)
            found[name] = errors
    return found


def has_fma(isa):
    return isa in ("v3", "v4") or platform.machine() in ("aarch64", "arm64")


def of(four, isa, dtype):
    """The one for an instruction set and a dtype: float32's with a fused multiply-add and without, float64's."""
    return four[(0 if has_fma(isa) else 1) + (2 if dtype == torch.float64 else 0)]
