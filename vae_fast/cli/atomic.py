"""Files that are either the old one or the whole new one, whenever the process dies, and never another's file."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vae_fast.cli.errors import CommandError, os_reason
from vae_fast.cli.locks import lock, try_lock

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)


def write_atomic(path: Path, content: bytes) -> None:
    """Replace `path` by `content` in one step that survives a crash. CommandError if the system refuses.

    A symbolic link at `path` is replaced, not followed. After an error `path` may be the old file or the new one:
    the new one where only the folder could not be made durable.
    """
    try:
        _remove_abandoned(path)
        with _temporary(path) as (temporary, fd):
            with open(fd, "wb", closefd=False) as file:
                file.write(content)
                file.flush()
                os.fsync(fd)
            os.replace(temporary, path)
        _fsync_dir(path.parent)
    except OSError as error:
        raise CommandError(f"cannot write {path}: {os_reason(error)}") from error


@contextmanager
def _temporary(path: Path) -> Iterator[tuple[Path, int]]:
    """A new file beside `path`, under a name that nobody can know before; removed unless it was renamed.

    It is locked while it is written: one that is not locked belonged to a process that died.
    """
    while True:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
        fd = os.open(temporary, _NEW, 0o666)
        with suppress(OSError):  # a file system without locks: then nobody takes it for abandoned either
            lock(fd)
        if os.fstat(fd).st_nlink:
            break
        os.close(fd)  # taken for abandoned before it was locked
    try:
        yield temporary, fd
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    finally:
        os.close(fd)


def _remove_abandoned(path: Path) -> None:
    """Remove what killed processes left of their attempts to write `path`."""
    name = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{16}}\.tmp")
    for stray in [entry.name for entry in os.scandir(path.parent) if name.fullmatch(entry.name)]:
        _remove_if_abandoned(path.with_name(stray))


def _remove_if_abandoned(temporary: Path) -> None:
    """Remove a temporary file unless the process that writes it is alive. Errors are no matter: it stays."""
    with suppress(OSError):
        if temporary.is_symlink() or not temporary.is_file():
            return
        fd = os.open(temporary, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
        try:
            if try_lock(fd):
                os.unlink(temporary)
        finally:
            os.close(fd)


def _fsync_dir(directory: Path) -> None:
    """Make the names in a directory durable."""
    fd = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
