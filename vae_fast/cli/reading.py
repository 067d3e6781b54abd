"""Opening files that come from elsewhere: regular files only, and no more of one than was to be expected."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from vae_fast.cli.errors import CommandError, os_reason

_LIKELY = 256 << 20
_RATIO = 100
# A pipe without a writer would keep an ordinary open waiting.
_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


def open_regular(path: Path, follow: bool = True) -> BinaryIO:
    """Open a file for reading; CommandError unless it is a regular one.

    follow: whether a symbolic link will do. One in a directory that came from elsewhere may lead out of it.
    """
    try:
        # Looked at first: to open a device can do something. And afterwards, for it may have changed.
        _check(path, os.stat(path, follow_symlinks=follow))
        file = open(os.open(path, _READ | (0 if follow else getattr(os, "O_NOFOLLOW", 0))), "rb")
        try:
            _check(path, os.fstat(file.fileno()))
        except BaseException:
            file.close()
            raise
        return file
    except OSError as error:
        raise CommandError(f"cannot read {path}: {os_reason(error)}") from error
    except ValueError as error:  # a name with a NUL, or that the file system's encoding lacks
        raise CommandError(f"cannot read {path}: {error}") from error


def _check(path: Path, status: os.stat_result) -> None:
    if stat.S_ISLNK(status.st_mode):
        raise CommandError(f"cannot read {path}: it is a symbolic link, which a checkpoint must not hold")
    if not stat.S_ISREG(status.st_mode):
        raise CommandError(f"cannot read {path}: it is not a regular file")


def read_beside(path: Path, most: int) -> bytes:
    """The content of a file of a checkpoint, no symbolic link; CommandError if it has more than `most` bytes."""
    with open_regular(path, follow=False) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise CommandError(f"{path} has {size:,} bytes, a checkpoint like this one at most {most:,}")
        try:
            return file.read(size)
        except OSError as error:
            raise CommandError(f"cannot read {path}: {os_reason(error)}") from error


def check_ratio(what: str, packed: int, unpacked: int, remedy: str) -> None:
    """CommandError if so much can only come of a file of `packed` bytes that was made to fill the memory.

    Deflate reaches 1032 to 1. Data that are mostly zeros reach some tens.
    """
    if unpacked > max(_LIKELY, _RATIO * packed):
        raise CommandError(f"{what}: {packed:,} bytes would unpack to {unpacked:,}: if they are meant to, {remedy}")
