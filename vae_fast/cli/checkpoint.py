"""Checkpoints: a small JSON file that names a safetensors file by its SHA-256, replaced in one step.

The tensors are written under a name that nothing refers to and are made durable; then checkpoint.json is
replaced by one that names them; then older tensors are removed. So at any moment checkpoint.json, if there is
one, is a whole checkpoint, and there is no pickle anywhere.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vae_fast.cli.atomic import fsync_dir, temporary_name, write_atomic, write_durably
from vae_fast.cli.config import TrainConfig, config_from_json
from vae_fast.cli.errors import CommandError, os_reason, require
from vae_fast.cli.report import COLUMNS, History

CHECKPOINT = "checkpoint.json"
_FORMAT = "vae_fast checkpoint 1"
_TENSORS = re.compile(r"checkpoint-\d{6,}-[0-9a-f]{16}\.safetensors")


@dataclass(frozen=True)
class Checkpoint:
    """A run after `epoch` whole epochs.

    Attributes:
        config: what the run was started with.
        settings: device, backend and threads it ran with; a resumed run may change them.
        data: sha256 of the data, d and the shape of a datum.
        history: one row of metrics an epoch, in the order of report.COLUMNS.
        tensors: `model/<parameter>` and `optimizer/<parameter>/<state>`.
    """

    epoch: int
    config: TrainConfig
    settings: dict[str, Any]
    data: dict[str, Any]
    history: History
    tensors: dict[str, Tensor]


def save_checkpoint(directory: Path, checkpoint: Checkpoint) -> None:
    """Make `checkpoint` the one in `directory`; the old one stays if the system refuses (CommandError)."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.tensors.items()}
    content = require("safetensors.torch").save(tensors)
    digest = hashlib.sha256(content).hexdigest()
    # The content is in the name: a file that checkpoint.json refers to is never opened for writing again.
    name = f"checkpoint-{checkpoint.epoch:06d}-{digest[:16]}.safetensors"
    if _sha256(directory / name) != digest:
        write_durably(directory / name, content)
        fsync_dir(directory)
    record = {
        "format": _FORMAT,
        "epoch": checkpoint.epoch,
        "tensors": name,
        "sha256": digest,
        "config": checkpoint.config.to_json(),
        "settings": checkpoint.settings,
        "data": checkpoint.data,
        "history": checkpoint.history,
    }
    try:
        write_atomic(directory / CHECKPOINT, (json.dumps(record) + "\n").encode())
    except CommandError:
        (directory / name).unlink(missing_ok=True)
        raise
    remove_strays(directory, keep=name)


def _sha256(path: Path) -> str | None:
    """None if there is no such file."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None


def remove_strays(directory: Path, keep: str | None) -> None:
    """Remove the tensors of other epochs and what a killed process left half-written."""
    for path in directory.glob("checkpoint-*.safetensors"):
        if path.name != keep and _TENSORS.fullmatch(path.name):
            path.unlink(missing_ok=True)
    temporary_name(directory / CHECKPOINT).unlink(missing_ok=True)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read and verify a checkpoint, given its JSON file. CommandError if anything is not as it was saved."""
    try:
        record = json.loads(path.read_bytes())
    except OSError as error:
        raise CommandError(f"cannot read {path}: {os_reason(error)}") from error
    except ValueError as error:
        raise CommandError(f"{path} is corrupted: {error}") from error
    if not isinstance(record, dict) or record.get("format") != _FORMAT:
        raise CommandError(f"{path} is not a checkpoint of this version of vae_fast")
    try:
        config = config_from_json(record["config"])
        epoch, history = record["epoch"], record["history"]
        settings, data = record["settings"], record["data"]
        name, digest = record["tensors"], record["sha256"]
        # A name, not a path: a checkpoint from elsewhere must not make us read other files.
        if not (isinstance(name, str) and _TENSORS.fullmatch(name) and isinstance(digest, str)):
            raise ValueError("it names no tensors file")
        if not (isinstance(epoch, int) and isinstance(history, list) and len(history) == epoch):
            raise ValueError("its history is not that of its epoch")
        if not all(isinstance(row, list) and len(row) == len(COLUMNS) for row in history):
            raise ValueError("its history has other columns")
        if not (isinstance(settings["device"], str) and isinstance(settings["threads"], int | None)):
            raise ValueError("its settings are missing")
        if not (isinstance(data["d"], int) and isinstance(data["sha256"], str)):
            raise ValueError("it does not say what its data were")
    except (KeyError, ValueError, TypeError) as error:
        raise CommandError(f"{path} is corrupted: {error}") from error
    tensors = _load_tensors(path.with_name(name), digest)
    return Checkpoint(epoch, config, settings, data, history, tensors)


def _load_tensors(path: Path, digest: str) -> dict[str, Tensor]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CommandError(f"cannot read {path}: {os_reason(error)}") from error
    if hashlib.sha256(content).hexdigest() != digest:
        raise CommandError(f"{path} is corrupted: its SHA-256 is not the one in {CHECKPOINT}")
    try:
        return require("safetensors.torch").load(content)
    except CommandError:
        raise
    except Exception as error:
        raise CommandError(f"{path} is not a safetensors file: {error}") from error


def pack_tensors(vae: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The model and the optimiser's state as named tensors."""
    tensors = {f"model/{name}": tensor for name, tensor in vae.state_dict().items()}
    for name, parameter in vae.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer/{name}/{key}"] = value
    return tensors


def unpack_model(tensors: dict[str, Tensor], vae: nn.Module, where: str) -> None:
    """Load the saved weights; CommandError unless all names, shapes and dtypes are the model's."""
    saved = {name.removeprefix("model/"): t for name, t in tensors.items() if name.startswith("model/")}
    current = vae.state_dict()
    for name in sorted(saved.keys() | current.keys()):
        a, b = saved.get(name), current.get(name)
        if a is None or b is None or a.shape != b.shape or a.dtype != b.dtype:
            raise CommandError(
                f"{where} is a checkpoint of another model: {name} is {_describe(a)} there, {_describe(b)} here"
            )
    vae.load_state_dict(saved)


def unpack_optimizer(
    tensors: dict[str, Tensor], vae: nn.Module, optimizer: torch.optim.Optimizer, where: str
) -> None:
    """Restore the optimiser's state exactly; CommandError if it is not of this model and optimiser."""
    state: dict[int, dict[str, Tensor]] = {}
    unused = {name for name in tensors if name.startswith("optimizer/")}
    for index, (name, parameter) in enumerate(vae.named_parameters()):
        prefix = f"optimizer/{name}/"
        found = {key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)}
        for key, tensor in found.items():
            if key != "step" and tensor.shape != parameter.shape:
                raise CommandError(
                    f"{where} is a checkpoint of another model: {prefix}{key} is {_describe(tensor)}"
                )
            unused.discard(prefix + key)
        if found:
            state[index] = found
    if unused:
        raise CommandError(f"{where} is a checkpoint of another model: {min(unused)} has no parameter here")
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state})


def _describe(tensor: Tensor | None) -> str:
    return "missing" if tensor is None else f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
