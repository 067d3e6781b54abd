"""The gradients of a module's parameters under the current backend and the reference, against float64."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vae_fast.backends import use_backend
from vae_fast.vae import VAE

Loss = Callable[[Any, Any], Tensor]


@dataclass(frozen=True)
class ParameterRow:
    """One parameter's gradient: its errors relative to the largest |truth|, None where there is no gradient."""

    name: str
    shape: tuple[int, ...]
    error: float | None
    reference_error: float | None
    ok: bool


def parameter_rows(module: nn.Module, x: Any, loss: Loss | None, seed: int) -> tuple[ParameterRow, ...]:
    if loss is None:
        if not isinstance(module, VAE):
            raise TypeError(
                f"check_module needs loss=, a function of (module, x): {type(module).__name__} is no vae_fast.VAE"
            )
        loss = _vae_loss
    ours = _gradients(copy.deepcopy(module), x, loss, seed, None)
    theirs = _gradients(copy.deepcopy(module), x, loss, seed, "reference")
    truth = _gradients(copy.deepcopy(module).double(), _widened(x), loss, seed, "reference")
    return tuple(
        _row(name, parameter, ours[name], theirs[name], truth[name])
        for name, parameter in module.named_parameters()
    )


def _vae_loss(vae: Any, x: Any) -> Tensor:
    return vae(x).loss


def _gradients(module: nn.Module, x: Any, loss: Loss, seed: int, backend: str | None) -> dict[str, Tensor | None]:
    """The parameters' gradients by name, as float64, or None; ``backend`` None is the current one."""
    parameters = dict(module.named_parameters())
    # manual_seed seeds every GPU's generator.
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    chosen = nullcontext() if backend is None else use_backend(backend)
    with chosen, torch.random.fork_rng(devices=devices), torch.enable_grad():
        torch.manual_seed(seed)
        value = loss(module, x)
        if not isinstance(value, Tensor) or value.ndim:
            raise TypeError(f"the loss must be a 0-d tensor, got {_describe(value)}")
        wanted = {name: p for name, p in parameters.items() if p.requires_grad}
        grads = (
            torch.autograd.grad(value, list(wanted.values()), allow_unused=True)
            if wanted and value.requires_grad
            else [None] * len(wanted)
        )
    found = {name: grad.detach().double() for name, grad in zip(wanted, grads, strict=True) if grad is not None}
    return {name: found.get(name) for name in parameters}


def _describe(value: Any) -> str:
    return f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def _widened(x: Any) -> Any:
    """x with its floating tensors in float64."""
    if isinstance(x, Tensor):
        return x.double() if x.is_floating_point() else x
    if isinstance(x, dict):
        return {key: _widened(value) for key, value in x.items()}
    return type(x)(map(_widened, x)) if type(x) in (tuple, list) else x


def _row(
    name: str, parameter: Tensor, ours: Tensor | None, theirs: Tensor | None, truth: Tensor | None
) -> ParameterRow:
    shape = tuple(parameter.shape)
    if ours is None or theirs is None or truth is None:
        return ParameterRow(name, shape, None, None, ours is theirs is truth)
    error, reference_error = _error(ours, truth), _error(theirs, truth)
    allowed = max(4 * reference_error, 16 * torch.finfo(parameter.dtype).eps)
    return ParameterRow(name, shape, error, reference_error, error <= allowed)


def _error(grad: Tensor, truth: Tensor) -> float:
    """max |grad − truth| / max |truth|; 0 where both are 0 or both NaN, infinite where only one is finite."""
    if not truth.numel():
        return 0.0
    same = (grad == truth) | (grad.isnan() & truth.isnan())
    difference = torch.where(same, 0.0, (grad - truth).abs()).nan_to_num(nan=math.inf).max().item()
    largest = truth.abs().max().item()
    return difference / largest if difference and largest else math.inf if difference else 0.0
