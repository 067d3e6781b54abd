"""The directory of a run: taken back if nothing came of it, used by one process at a time."""

from __future__ import annotations

import itertools
import os
import sys
from contextlib import suppress
from pathlib import Path

from vae_fast.cli.atomic import write_atomic
from vae_fast.cli.checkpoint import CHECKPOINT
from vae_fast.cli.config_file import CONFIG
from vae_fast.cli.errors import CommandError, os_reason
from vae_fast.cli.locks import try_lock

OWN_FILES = (CHECKPOINT, "metrics.csv", "summary.json", CONFIG)


class RunDir:
    """`--out`: `open` creates and locks, `look` says whether a run is there, `close` unlocks, and removes if empty.

    The lock comes before the first look and lasts until `close`, or the death of the process: so what was found is
    what is written over.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._created: list[Path] = []
        self._lock: int | None = None

    def open(self) -> None:
        """CommandError if the directory cannot be made or written to, or is in use by another process."""
        try:
            while self._lock is None:
                self._make()
                self._take_lock()
        except (OSError, ValueError) as error:  # ValueError: a name that no file can have
            self.close()
            reason = os_reason(error) if isinstance(error, OSError) else error
            raise CommandError(f"--out {self.path} cannot be used: {reason}") from error
        except BaseException:
            self.close()
            raise

    def look(self, resume: bool) -> bool:
        """Whether there is a checkpoint. CommandError if there is a run that is not to be resumed."""
        # A link that leads nowhere is something, too.
        held = [name for name in OWN_FILES if os.path.lexists(self.path / name)]
        if held and not resume:
            raise CommandError(f"--out {self.path} already holds a run ({held[0]}): --resume goes on with it")
        return CHECKPOINT in held

    def _make(self) -> None:
        if os.path.lexists(self.path):
            if not os.path.isdir(self.path):
                raise CommandError(f"--out {self.path} is not a directory")
        else:
            base = next(parent for parent in self.path.absolute().parents if os.path.lexists(parent))
            if not os.path.isdir(base) or not os.access(base, os.W_OK | os.X_OK):
                raise CommandError(f"--out {self.path} cannot be created: {base} is not a writable directory")
            missing = itertools.takewhile(lambda d: not os.path.lexists(d), [self.path, *self.path.parents])
            for directory in reversed([*missing]):
                try:
                    directory.mkdir()
                except FileExistsError:
                    continue
                if directory not in self._created:
                    self._created.insert(0, directory)
        if not os.access(self.path, os.W_OK | os.X_OK):
            raise CommandError(f"--out {self.path} is not writable")

    def _take_lock(self) -> None:
        """Leaves `_lock` None where the directory was removed by the process that had it locked."""
        try:
            fd = os.open(self.path, os.O_RDONLY)
        except FileNotFoundError:
            return
        try:
            if not self._is_free(fd):
                raise CommandError(f"--out {self.path} is in use by another run")
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(fd), os.stat(self.path)):
                    self._lock = fd
        finally:
            if self._lock is None:
                os.close(fd)

    def close(self) -> None:
        """Remove the directories that `open` made if they are still empty; unlock."""
        for directory in self._created:
            # While it is locked: another process might have begun to use it.
            if directory != self.path or self._lock is not None:
                with suppress(OSError):
                    directory.rmdir()
        self._created.clear()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def write(self, name: str, content: bytes) -> None:
        """Replace a file of the run in one step."""
        write_atomic(self.path / name, content)

    def _is_free(self, fd: int) -> bool:
        """Lock it; True too where the file system knows no locks, which is said."""
        try:
            return try_lock(fd)
        except OSError:
            print(f"vae_fast: note: {self.path} cannot be locked: let no other run use it", file=sys.stderr)
            return True
