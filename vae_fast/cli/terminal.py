"""stdout and stderr that can be closed, full or ASCII-only without ending a run that trains."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast


@contextmanager
def usable_streams() -> Iterator[None]:
    """Within: what a stream's encoding lacks is written escaped, and what stderr cannot take is dropped.

    That stdout fails is an OSError as ever: it is what the command was called for.
    """
    _occupy_descriptors()
    before = sys.stderr
    escaping = [(stream, stream.errors) for stream in (sys.stdout, sys.stderr) if hasattr(stream, "reconfigure")]
    for stream, _ in escaping:
        stream.reconfigure(errors="backslashreplace")
    sys.stderr = cast(TextIO, Lenient(before))
    try:
        yield
    finally:
        sys.stderr = before
        for stream, errors in escaping:
            with suppress(OSError, ValueError):
                stream.reconfigure(errors=errors)


def discard(stream: TextIO | None) -> None:
    """Send what a broken stream still holds, and all that follows, to nowhere: Python flushes it at exit."""
    with suppress(OSError, ValueError, AttributeError):
        null = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(null, cast(TextIO, stream).fileno())
        finally:
            os.close(null)


def _occupy_descriptors() -> None:
    """Where a standard stream is closed, the next file opened would get its number, and a library's warnings."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free


class Lenient:
    """A text stream, or None for a closed one, whose errors are nobody's: the rest is dropped."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        if self._stream is not None:
            try:
                self._stream.write(text)
            except UnicodeEncodeError:  # of a stream that cannot be told to escape
                self.write(text.encode("ascii", "backslashreplace").decode())
            except (OSError, ValueError):
                self._give_up()
        return len(text)

    def flush(self) -> None:
        if self._stream is not None:
            try:
                self._stream.flush()
            except (OSError, ValueError):
                self._give_up()

    def _give_up(self) -> None:
        discard(self._stream)
        self._stream = None

    def isatty(self) -> bool:
        return self._stream is not None and not self._stream.closed and self._stream.isatty()

    def __getattr__(self, name: str) -> Any:
        if self._stream is None:
            raise AttributeError(name)
        return getattr(self._stream, name)
