"""The directory of a run: made late, taken back if nothing came of it, used by one process at a time."""

from __future__ import annotations

import os
from pathlib import Path

from vae_fast.cli.atomic import write_atomic
from vae_fast.cli.checkpoint import CHECKPOINT
from vae_fast.cli.errors import CommandError, os_reason

OWN_FILES = (CHECKPOINT, "metrics.csv", "summary.json")


class RunDir:
    """`--out`. Constructing only looks; `open` creates and locks; `close` unlocks, and removes it if empty."""

    def __init__(self, path: Path, resume: bool) -> None:
        """CommandError if `path` is no directory, not writable, or holds a run that is not to be resumed."""
        self.path = path
        self._created: list[Path] = []
        self._lock: int | None = None
        try:
            if path.exists():
                if not path.is_dir():
                    raise CommandError(f"--out {path} is not a directory")
                if not os.access(path, os.W_OK | os.X_OK):
                    raise CommandError(f"--out {path} is not writable")
                held = [name for name in OWN_FILES if (path / name).exists()]
                if held and not resume:
                    raise CommandError(f"--out {path} already holds a run ({held[0]}): --resume goes on with it")
            else:
                base = next(parent for parent in path.absolute().parents if parent.exists())
                if not base.is_dir() or not os.access(base, os.W_OK | os.X_OK):
                    raise CommandError(f"--out {path} cannot be created: {base} is not a writable directory")
        except OSError as error:
            raise CommandError(f"--out {path} cannot be used: {os_reason(error)}") from error
        self.has_checkpoint = (path / CHECKPOINT).exists()

    def open(self) -> None:
        """Create the directory, and lock it until `close` or the death of the process."""
        missing = []
        for directory in (self.path, *self.path.parents):
            if directory.exists():
                break
            missing.append(directory)
        try:
            for directory in reversed(missing):
                directory.mkdir(exist_ok=True)
                self._created.insert(0, directory)
            self._lock = os.open(self.path, os.O_RDONLY)
        except OSError as error:
            self.close()
            raise CommandError(f"--out {self.path} cannot be created: {os_reason(error)}") from error
        if not _lock(self._lock):
            self.close()
            raise CommandError(f"--out {self.path} is in use by another run")

    def close(self) -> None:
        """Unlock; remove the directories that `open` made if they are still empty."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        for directory in self._created:
            try:
                directory.rmdir()
            except OSError:
                break
        self._created.clear()

    def write(self, name: str, content: bytes) -> None:
        """Replace a file of the run in one step."""
        write_atomic(self.path / name, content)


def _lock(fd: int) -> bool:
    """False if another process holds the lock; True too where the file system knows no locks."""
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True
