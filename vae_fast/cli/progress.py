"""How far a long step is, and the time that is left: a bar on a terminal, elsewhere a line a minute. On stderr."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

from vae_fast.cli.errors import require

_SECONDS_BETWEEN_LINES = 60.0


def progress(what: str, total: int, unit: str = "", initial: int = 0, shown: bool = True) -> Any:
    """A context with tqdm's methods. `initial`: what an earlier process did of `total`, which tells no speed."""
    tqdm = require("tqdm").tqdm
    if shown and not sys.stderr.isatty():
        return Lines(what, total, initial)
    return tqdm(
        total=total,
        initial=initial,
        desc=what,
        unit=unit,
        unit_scale=not unit,
        leave=False,
        disable=not shown,
        dynamic_ncols=True,
        file=sys.stderr,
    )


class Lines:
    """tqdm's methods for a stream that is read later: nothing of what ends within a minute."""

    def __init__(self, what: str, total: int, initial: int) -> None:
        self.what, self.total, self.n, self._initial = what, total, initial, initial
        self._started = self._said = time.monotonic()

    def update(self, n: int = 1) -> None:
        self.n += n
        now = time.monotonic()
        if now - self._said >= _SECONDS_BETWEEN_LINES:
            self._said = now
            left = (now - self._started) * (self.total - self.n) / max(self.n - self._initial, 1)
            print(f"{self.what}: {100 * self.n // self.total} %, {_clock(left)} left", file=sys.stderr, flush=True)

    def set_description(self, what: str, refresh: bool = False) -> None:
        self.what = what

    def set_postfix_str(self, text: str, refresh: bool = False) -> None:
        """A bar's figures: lines of epochs have them."""

    def clear(self) -> None:
        """Nothing is in the way of what is printed."""

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Nothing is left open."""


def _clock(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60}:{minutes % 60:02d} h" if minutes >= 60 else f"{minutes} min"
