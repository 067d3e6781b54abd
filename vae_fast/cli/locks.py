"""Locks that the kernel takes back when the process that holds them dies, however it dies."""

from __future__ import annotations

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


def lock(fd: int) -> None:
    """Wait until no other process holds a lock of this file or directory, and hold it until fd is closed.

    OSError where the file system knows no locks.
    """
    if fcntl is None:
        raise OSError("no file locks on this system")
    fcntl.flock(fd, fcntl.LOCK_EX)


def try_lock(fd: int) -> bool:
    """The same without waiting: False if another process holds it. OSError where the file system knows no locks."""
    if fcntl is None:
        raise OSError("no file locks on this system")
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
