"""Where a call's seed comes from: its argument, its generator, or PyTorch's default generator."""

from __future__ import annotations

import operator
import threading
from typing import Any, cast

import torch
from torch import Tensor

from vae_fast import tracing


def wrap(value: int) -> int:
    """``value`` modulo 2⁶⁴, as the signed 64-bit integer with the same bits."""
    if -(2**63) <= value < 2**63:
        return value
    return (value + 2**63) % 2**64 - 2**63


def whole(name: str, value: int) -> int:
    """An integer argument as it is. Raises TypeError for anything else."""
    if isinstance(value, (int, torch.SymInt)):
        return value  # a trace's would be bound to its present value
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {type(value).__name__}") from None


def integer(name: str, value: int) -> int:
    """An integer argument, taken modulo 2⁶⁴. Raises TypeError for anything else."""
    value = whole(name, value)
    return value if isinstance(value, torch.SymInt) else wrap(value)


def _mix(state: int) -> int:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014): neighbouring states to unrelated seeds."""
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & (2**64 - 1)
    state = (state ^ (state >> 27)) * 0x94D049BB133111EB & (2**64 - 1)
    return state ^ (state >> 31)


# Seeds are drawn from [0, _END).
_END = 2**63 - 1


class _Drawn(threading.local):
    """One int64 a thread, to draw seeds into: making a tensor would cost as much as drawing it."""

    def __init__(self) -> None:
        # For every later draw of the thread, whatever modes the first one is under.
        with torch.inference_mode(False), torch._C.DisableTorchFunction():
            self.tensor = torch.empty((), dtype=torch.int64, device="cpu")


_drawn = _Drawn()


def _from_cpu(generator: torch.Generator | None) -> int:
    place = _drawn.tensor
    drawn = place.random_(_END) if generator is None else place.random_(_END, generator=generator)
    return cast(int, drawn.item())


def _from_cuda(device: torch.device, generator: torch.Generator | None) -> tuple[int, Tensor | None]:
    if torch.cuda.is_current_stream_capturing():
        # On the device, so that each replay of the graph draws anew.
        drawn = torch.empty((1,), dtype=torch.int64, device=device)
        return 0, drawn.random_(generator=generator)
    if generator is None:
        index = torch.cuda.current_device() if device.index is None else device.index
        generator = torch.cuda.default_generators[index]
    # The generator's state on the host, advanced as one kernel would advance it: no launch, no sync.
    offset = generator.get_offset()
    generator.set_offset(offset + 4)
    return wrap(_mix(generator.initial_seed() + 0x9E3779B97F4A7C15 * (offset // 4 + 1) & (2**64 - 1))), None


def resolve(
    seed: int | Tensor | None, generator: torch.Generator | None, device: torch.device
) -> tuple[Any, Tensor | None]:
    """(seed, seed_tensor) as the raw operators take them; draws one where ``seed`` is None.

    (None, None) stands for noise that is not seeded, which is ONNX's only one.

    Raises TypeError for a seed that is neither an integer nor a one-element int64 tensor, ValueError for a
    seed tensor of another size or device, or where both ``seed`` and ``generator`` are given.
    """
    if seed is not None:
        if generator is not None:
            raise ValueError("pass seed or generator, not both")
        if not isinstance(seed, Tensor):
            return integer("seed", seed), None
        if seed.dtype != torch.int64:
            raise TypeError(f"seed must be an int or an int64 tensor, got {seed.dtype}")
        if seed.numel() != 1:
            raise ValueError(f"seed must hold one element, got shape {tuple(seed.shape)}")
        if seed.device != device:
            raise ValueError(f"seed is on {seed.device}, the other tensors on {device}")
        return 0, seed
    if generator is not None and torch.compiler.is_compiling():
        raise ValueError("under torch.compile pass seed=, or use the default generator; not generator=")
    if generator is not None and generator.device.type != device.type:
        raise ValueError(f"generator is for {generator.device}, the tensors are on {device}")
    traced = tracing.traced()
    if traced or torch._C._are_functorch_transforms_active() or torch._C._is_tracing():
        # An operation that all of them see: a number would be the same at every run of a graph, and there is none
        # of fake tensors. Under vmap it follows its `randomness`: an error, one draw, or one for each example.
        if traced and tracing.to_onnx():
            return None, None
        if generator is None:
            return 0, torch.randint(_END, (1,), device=device)
        return 0, torch.randint(_END, (1,), generator=generator, device=device)
    if device.type == "cuda":
        return _from_cuda(device, generator)
    if device.type == "meta":
        return 0, None
    return _from_cpu(generator) if device.type == "cpu" else int(torch.randint(_END, (), device=device)), None


def draw(generator: torch.Generator | None, device: torch.device) -> int | Tensor:
    """A seed for several calls, to be passed as their ``seed``."""
    seed, tensor = resolve(None, generator, device)
    drawn: int | Tensor = seed if tensor is None else tensor
    return drawn
