"""What values an option may have, said once: for the text of a command line, and for the JSON of a checkpoint.

`parse` takes text (and raises argparse.ArgumentTypeError), `check` a value of JSON (ValueError); both return the
option's value.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from typing import Any

# PyTorch's sizes and seeds are 64-bit.
_MOST = 2**63 - 1
_MOST_LAYERS = 1000


@dataclass(frozen=True)
class Whole:
    """A whole number of least..most."""

    least: int
    most: int = _MOST

    def parse(self, text: str) -> int:
        try:
            return self.check(int(text))
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not {self._words()}") from None

    def check(self, value: Any) -> int:
        # A bool is an int to Python.
        if type(value) is not int or not self.least <= value <= self.most:
            raise ValueError(f"it is not {self._words()}")
        return value

    def _words(self) -> str:
        most = "" if self.most == _MOST else f" and at most {self.most}"
        return f"a whole number of at least {self.least}{most}"


@dataclass(frozen=True)
class Number:
    """A finite number above `above`, or of at least `least`."""

    above: float = -math.inf
    least: float = -math.inf

    def parse(self, text: str) -> float:
        try:
            return self.check(float(text))
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not {self._words()}") from None

    def check(self, value: Any) -> float:
        if type(value) not in (int, float):
            raise ValueError(f"it is not {self._words()}")
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not (math.isfinite(number) and number > self.above and number >= self.least):
            raise ValueError(f"it is not {self._words()}")
        return number

    def _words(self) -> str:
        if self.above > -math.inf:
            return f"a finite number above {self.above:g}"
        return f"a finite number of at least {self.least:g}" if self.least > -math.inf else "a finite number"


@dataclass(frozen=True)
class Choice:
    """One of some words; argparse has them as `choices`."""

    words: tuple[str, ...]

    def check(self, value: Any) -> str:
        if type(value) is not str or value not in self.words:
            raise ValueError(f"it is none of {', '.join(self.words)}")
        return value


@dataclass(frozen=True)
class Text:
    """Any text that is not absurdly long."""

    most: int

    def check(self, value: Any) -> str:
        if type(value) is not str or len(value) > self.most:
            raise ValueError(f"it is not text of at most {self.most} characters")
        return value


@dataclass(frozen=True)
class Samples:
    """How many samples of a datum: `50` → 50; or so many bounds of so many each: `5x10` → (5, 10)."""

    number: Whole = Whole(1, 2**31 - 1)

    def parse(self, text: str) -> int | tuple[int, int]:
        try:
            parts = [int(part) for part in text.split("x")]
            return self.check(parts if len(parts) > 1 else parts[0])
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number of samples such as 50 or 5x10") from None

    def check(self, value: Any) -> int | tuple[int, int]:
        if type(value) is not list:
            return self.number.check(value)
        if len(value) != 2:
            raise ValueError("it is neither a number of samples nor a pair of them")
        return self.number.check(value[0]), self.number.check(value[1])


@dataclass(frozen=True)
class Widths:
    """The widths of hidden layers: `500,250` → (500, 250); `none` → (), a linear model."""

    width: Whole = Whole(1, 2**31 - 1)

    def parse(self, text: str) -> tuple[int, ...]:
        try:
            return () if text == "none" else self.check([int(part) for part in text.split(",")])
        except ValueError:
            raise argparse.ArgumentTypeError(
                f"{text!r} is not a list of layer widths such as 500 or 500,250 (or none)"
            ) from None

    def check(self, value: Any) -> tuple[int, ...]:
        if type(value) is not list or len(value) > _MOST_LAYERS:
            raise ValueError("it is no list of layer widths")
        return tuple(self.width.check(width) for width in value)
