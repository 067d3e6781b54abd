"""`train --tensorboard`: the figures of each epoch as scalars for TensorBoard, beside the run's other files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vae_fast.cli.errors import CommandError, os_reason, require
from vae_fast.cli.report import EpochMetrics, History

FOLDER = "tensorboard"
MODULE = "torch.utils.tensorboard"


class Scalars:
    """Writes an epoch at a time. CommandError if the system refuses."""

    def __init__(self, run: Path, history: History, lr: float) -> None:
        """history: the epochs that the run has already. They are written too where nothing is there yet."""
        self._folder, self._lr = run / FOLDER, lr
        # What an earlier process wrote of later epochs is void: each epoch stands there once.
        first = len(history) + 1 if self._holds_any() else 1
        with self._refused():
            writer = require(MODULE).SummaryWriter
            self._writer: Any = writer(str(self._folder), purge_step=first)
        for row in history[first - 1 :]:
            self.write(EpochMetrics(*row))  # type: ignore[arg-type]

    def write(self, metrics: EpochMetrics) -> None:
        """An epoch, on the disk at once."""
        figures = {"train/learning_rate": self._lr, "train/beta": metrics.beta}
        for name, value in vars(metrics).items():
            if name not in ("epoch", "beta") and value is not None:
                which = "test" if name.startswith("test_") else "train"
                figures[f"{which}/{name.removeprefix('test_')}"] = value
        with self._refused():
            for tag, value in figures.items():
                self._writer.add_scalar(tag, value, metrics.epoch)
            self._writer.flush()

    def close(self) -> None:
        with self._refused():
            self._writer.close()

    def _holds_any(self) -> bool:
        # The writer would follow a link out of the run's directory.
        if self._folder.is_symlink():
            raise CommandError(f"{self._folder} is a symbolic link: nothing is written through it")
        with self._refused():
            try:
                return bool(os.listdir(self._folder))
            except FileNotFoundError:
                return False

    @contextmanager
    def _refused(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise CommandError(f"cannot write {self._folder}: {os_reason(error)}") from error
