"""Checkpoints: a small JSON file that names a safetensors file by its SHA-256, replaced in one step.

The tensors are written under a name that nothing refers to and are made durable; then checkpoint.json is
replaced by one that names them; then older tensors are removed. So at any moment checkpoint.json, if there is
one, is a whole checkpoint, and there is no pickle anywhere.
"""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from vae_fast.cli.atomic import write_atomic
from vae_fast.cli.errors import CommandError, require
from vae_fast.cli.reading import read_beside
from vae_fast.cli.record import MOST_BYTES, OtherFormat, Record, read_record
from vae_fast.cli.tensors import check_tensors, expected_shapes, most_bytes

CHECKPOINT = "checkpoint.json"
_TENSORS = re.compile(r"checkpoint-[0-9]{6,}-[0-9a-f]{16}\.safetensors")
_TRIES = 10


@dataclass(frozen=True)
class Checkpoint:
    """A run after some whole epochs. tensors: `model/<parameter>` and `optimizer/<parameter>/<state>`."""

    record: Record
    tensors: dict[str, Tensor]


def tensors_to_bytes(tensors: dict[str, Tensor]) -> tuple[bytes, str]:
    """The content of their file, and its SHA-256."""
    content = require("safetensors.torch").save({n: t.detach().cpu().contiguous() for n, t in tensors.items()})
    return content, hashlib.sha256(content).hexdigest()


def save_checkpoint(directory: Path, record: Record, tensors: bytes) -> None:
    """Make it the checkpoint in `directory`; the old one stays if the system refuses (CommandError).

    tensors: what the record has the SHA-256 of.
    """
    try:
        write_atomic(directory / record.tensors, tensors)
        write_atomic(directory / CHECKPOINT, record.to_bytes())
    except BaseException:
        _remove_unless_named(directory, record.tensors)
        raise
    for name in _tensors_in(directory):
        if name != record.tensors:
            _remove(directory / name)


def _remove_unless_named(directory: Path, tensors: str) -> None:
    """Take back the tensors of a checkpoint that could not be saved, unless checkpoint.json names them.

    It does where a resumed run begins by saving what it began from, and where the last step alone failed. Where it
    cannot be read they stay: too many files are better than too few.
    """
    if os.path.lexists(directory / CHECKPOINT):
        try:
            if read_record(read_beside(directory / CHECKPOINT, MOST_BYTES)).tensors == tensors:
                return
        except (CommandError, ValueError):
            return
    _remove(directory / tensors)


def _tensors_in(directory: Path) -> list[str]:
    try:
        return [entry.name for entry in os.scandir(directory) if _TENSORS.fullmatch(entry.name)]
    except OSError:
        return []


def _remove(path: Path) -> None:
    """What cannot be removed stays: the next checkpoint tries again."""
    with suppress(OSError):
        os.unlink(path)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read and verify a checkpoint, given its JSON file. CommandError if anything is not as it was saved.

    No other files are opened than that one and the tensors beside it, neither of which may be a symbolic link.
    """
    for tries_left in reversed(range(_TRIES)):
        content = read_beside(path, MOST_BYTES)
        try:
            return _load(path, content)
        except CommandError:
            # A training that goes on may have replaced both files between our readings.
            if not tries_left or content == read_beside(path, MOST_BYTES):
                raise
    raise AssertionError


def _load(path: Path, content: bytes) -> Checkpoint:
    try:
        record = read_record(content)
    except OtherFormat:
        raise CommandError(f"{path} is not a checkpoint of this version of vae_fast") from None
    except ValueError as error:
        raise CommandError(f"{path} is corrupted: {error}") from error
    where, shapes = path.with_name(record.tensors), expected_shapes(record, path)
    content = read_beside(where, most_bytes(shapes))
    if hashlib.sha256(content).hexdigest() != record.sha256:
        raise CommandError(f"{where} is corrupted: its SHA-256 is not the one in {CHECKPOINT}")
    safetensors = require("safetensors.torch")
    try:
        tensors = safetensors.load(content)
    except Exception as error:  # of several kinds, the library's own among them
        raise CommandError(f"{where} is not a safetensors file: {error}") from error
    check_tensors(tensors, shapes, path)
    return Checkpoint(record, tensors)
