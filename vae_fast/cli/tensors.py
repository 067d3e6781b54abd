"""The tensors of a checkpoint: a model's weights and its optimiser's state by name, and which there must be."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from vae_fast.cli.errors import CommandError
from vae_fast.cli.model import build_vae, optimizer_state
from vae_fast.cli.record import Record

# Of a file's header: a JSON object with a line a tensor.
_HEADER, _HEADER_A_TENSOR = 4096, 1024


def pack_tensors(vae: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The model and the optimiser's state as named tensors."""
    tensors = {f"model/{name}": tensor for name, tensor in vae.state_dict().items()}
    for name, parameter in vae.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer/{name}/{key}"] = value
    return tensors


def unpack_model(tensors: dict[str, Tensor], vae: nn.Module) -> None:
    """Load the saved weights."""
    names = [name for name in tensors if name.startswith("model/")]
    vae.load_state_dict({name.removeprefix("model/"): tensors[name] for name in names})


def unpack_optimizer(tensors: dict[str, Tensor], vae: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Restore the optimiser's state exactly."""
    state: dict[int, dict[str, Tensor]] = {}
    for index, (name, _) in enumerate(vae.named_parameters()):
        prefix = f"optimizer/{name}/"
        found = {key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)}
        if found:
            state[index] = found
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state})


def expected_shapes(record: Record, where: Path) -> dict[str, torch.Size]:
    """The shape of each tensor of a record's checkpoint, by name, worked out without making any.

    CommandError if the sizes of such a model overflow.
    """
    try:
        with torch.device("meta"):
            vae = build_vae(record.config, record.data.d)
    except RuntimeError as error:
        raise CommandError(f"{where} is a checkpoint of another model, which is too large: {error}") from error
    shapes = {f"model/{name}": tensor.shape for name, tensor in vae.state_dict().items()}
    for key in optimizer_state(record.config, record.epoch):
        for name, parameter in vae.named_parameters():
            shapes[f"optimizer/{name}/{key}"] = torch.Size() if key == "step" else parameter.shape
    return shapes


def most_bytes(shapes: dict[str, torch.Size]) -> int:
    """How large a file of such tensors can be."""
    return 4 * sum(shape.numel() for shape in shapes.values()) + _HEADER + _HEADER_A_TENSOR * len(shapes)


def check_tensors(tensors: dict[str, Tensor], shapes: dict[str, torch.Size], where: Path) -> None:
    """CommandError unless names, shapes and dtypes are the expected ones, and weights finite."""
    for name in sorted(tensors.keys() | shapes.keys()):
        found, shape = tensors.get(name), shapes.get(name)
        if found is None or found.shape != shape or found.dtype != torch.float32:
            there = "missing" if found is None else f"{str(found.dtype).removeprefix('torch.')} {list(found.shape)}"
            here = "not known" if shape is None else f"float32 {list(shape)}"
            raise CommandError(f"{where} is a checkpoint of another model: {name} is {there} there, {here} here")
        # The optimiser's may be infinite: a gradient's square overflows before the gradient does.
        if name.startswith("model/") and not torch.isfinite(found).all():
            raise CommandError(f"{where} is corrupted: {name} holds NaN or infinite values")
