"""Files that are either the old one or the whole new one, whenever the process dies."""

from __future__ import annotations

import os
from pathlib import Path

from vae_fast.cli.errors import CommandError, os_reason


def fsync_dir(directory: Path) -> None:
    """Make the names in a directory durable."""
    fd = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_durably(path: Path, content: bytes) -> None:
    """Write and fsync a file nobody refers to yet. CommandError if the system refuses."""
    try:
        with open(path, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        path.unlink(missing_ok=True)
        raise CommandError(f"cannot write {path}: {os_reason(error)}") from error


def temporary_name(path: Path) -> Path:
    """Where write_atomic prepares `path`: a fixed hidden name beside it, so that strays do not pile up."""
    return path.with_name(f".{path.name}.tmp")


def write_atomic(path: Path, content: bytes) -> None:
    """Replace `path` by `content` in one step that survives a crash. CommandError if the system refuses."""
    temporary = temporary_name(path)
    write_durably(temporary, content)
    try:
        os.replace(temporary, path)
        fsync_dir(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise CommandError(f"cannot write {path}: {os_reason(error)}") from error
