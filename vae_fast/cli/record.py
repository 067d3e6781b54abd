"""checkpoint.json: what it holds, and the one reader of it, which takes nothing on trust."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any

from vae_fast.cli.config import THREADS, TrainConfig, config_from_json
from vae_fast.cli.domains import Number, Whole
from vae_fast.cli.report import COLUMNS, History

_FORMAT = "vae_fast checkpoint 1"
_KEYS = {"format", "epoch", "tensors", "sha256", "config", "settings", "data", "history"}
_SHA256 = re.compile("[0-9a-f]{64}")
_DEVICE = re.compile("[a-z]{1,32}(:[0-9]{1,4})?")
_BACKEND = re.compile("[a-z0-9_]{1,32}")
_SIZE, _FIGURE, _BETA = Whole(1, 2**48), Number(), Number(least=0)
_MOST_DIMS = 32
_MOST_DIGITS = 30  # a 64-bit number has 19; to convert one of millions takes minutes

# A million epochs have 200 MB of figures.
MOST_BYTES = 256 << 20


@dataclass(frozen=True)
class Settings:
    """Device, backend and threads of a run, which a resumed one may change. None: not chosen."""

    device: str = "auto"
    backend: str | None = None
    threads: int | None = None


@dataclass(frozen=True)
class DataFacts:
    """Of the data: the SHA-256 of all of them, and the shape of a datum."""

    sha256: str
    event_shape: tuple[int, ...]

    @property
    def d(self) -> int:
        return math.prod(self.event_shape)


@dataclass(frozen=True)
class Record:
    """A run after `epoch` whole epochs, but for its tensors.

    Attributes:
        sha256: of the file of tensors.
        history: one row of metrics an epoch, in the order of report.COLUMNS.
    """

    epoch: int
    sha256: str
    config: TrainConfig
    settings: Settings
    data: DataFacts
    history: History

    @property
    def tensors(self) -> str:
        """The name of the file of tensors. The content is in it: a file once named never gets another content."""
        return f"checkpoint-{self.epoch:06d}-{self.sha256[:16]}.safetensors"

    def to_bytes(self) -> bytes:
        content = {
            "format": _FORMAT,
            "epoch": self.epoch,
            "tensors": self.tensors,
            "sha256": self.sha256,
            "config": self.config.to_json(),
            "settings": vars(self.settings),
            "data": {
                "sha256": self.data.sha256,
                "d": self.data.d,
                "event_shape": list(self.data.event_shape),
            },
            "history": self.history,
        }
        return (json.dumps(content, allow_nan=False) + "\n").encode()


class OtherFormat(ValueError):
    """JSON, but no checkpoint of this version."""


def read_record(content: bytes) -> Record:
    """The record that checkpoint.json holds. ValueError, with what is wrong, if it could not have been saved so."""
    record = _parse(content)
    if not isinstance(record, dict) or record.get("format") != _FORMAT:
        raise OtherFormat
    if set(record) != _KEYS:
        raise ValueError(f"it has not what a checkpoint has: {', '.join(sorted(set(record) ^ _KEYS))[:200]}")
    config = config_from_json(record["config"])
    epoch = record["epoch"]
    if type(epoch) is not int or not 0 <= epoch <= config.epochs:
        raise ValueError("its epoch is none of its config's")
    digest = _text(record["sha256"], _SHA256, "it names no tensors by their SHA-256")
    settings, data = _settings(record["settings"]), _data(record["data"])
    result = Record(epoch, digest, config, settings, data, _history(record["history"], epoch))
    # It says nothing that we do not know; and what it says is no path.
    if record["tensors"] != result.tensors:
        raise ValueError("it names other tensors than those of its epoch and SHA-256")
    return result


def _parse(content: bytes) -> Any:
    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(items)) < len(items):
            raise ValueError("a name stands twice in it")
        return dict(items)

    def constant(name: str) -> float:
        raise ValueError(f"it holds {name}, which is no JSON")

    def whole(digits: str) -> int:
        if len(digits) > _MOST_DIGITS:
            raise ValueError(f"it holds a number of {len(digits)} digits")
        return int(digits)

    try:
        text = content.decode("utf-8")
        return json.loads(text, object_pairs_hook=pairs, parse_constant=constant, parse_int=whole)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _text(value: Any, pattern: re.Pattern[str], otherwise: str) -> str:
    if not (isinstance(value, str) and pattern.fullmatch(value)):
        raise ValueError(otherwise)
    return value


def _settings(content: Any) -> Settings:
    if not isinstance(content, dict) or set(content) != {"device", "backend", "threads"}:
        raise ValueError("its settings are missing")
    device = _text(content["device"], _DEVICE, "its settings name no device")
    backend, threads = content["backend"], content["threads"]
    if backend is not None:
        _text(backend, _BACKEND, "its settings name no backend")
    if threads is not None:
        try:
            THREADS.check(threads)
        except ValueError as error:
            raise ValueError(f"its settings have a number of threads that cannot be: {error}") from error
    return Settings(device, backend, threads)


def _data(content: Any) -> DataFacts:
    if not isinstance(content, dict) or set(content) != {"sha256", "d", "event_shape"}:
        raise ValueError("it does not say what its data were")
    digest = _text(content["sha256"], _SHA256, "it has no SHA-256 of its data")
    shape = content["event_shape"]
    if not isinstance(shape, list) or not 1 <= len(shape) <= _MOST_DIMS:
        raise ValueError("its data have no shape")
    facts = DataFacts(digest, tuple(_SIZE.check(size) for size in shape))
    if _SIZE.check(content["d"]) != facts.d:
        raise ValueError("its data are not of the size of their shape")
    return facts


def _history(rows: Any, epoch: int) -> History:
    if not isinstance(rows, list) or len(rows) != epoch:
        raise ValueError("its history is not that of its epoch")
    tested = None
    for number, row in enumerate(rows, 1):
        if not isinstance(row, list) or len(row) != len(COLUMNS):
            raise ValueError("its history has other columns")
        if type(row[0]) is not int or row[0] != number:
            raise ValueError(f"its history has another epoch in place of {number}")
        _BETA.check(row[1])
        absent = [value is None for value in row[5:]]
        if any(absent) != all(absent) or tested not in (None, absent):
            raise ValueError("its history has test data in some places only")
        tested = absent
        for value in row[2:] if not any(absent) else row[2:5]:
            try:
                _FIGURE.check(value)
            except ValueError as error:
                raise ValueError(f"its history has a figure in epoch {number} that cannot be: {error}") from error
    return rows
