"""Which path a call takes: a backend behind one autograd.Function, or the reference formulas in the open."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from vae_fast import reference
from vae_fast.backends import kernel

_PLAIN = (Tensor, torch.nn.Parameter)


def in_the_open(**tensors: Tensor | None) -> bool:
    """Whether PyTorch must see the reference's own operations.

    So under functorch transforms (vmap, grad, jvp …) and forward-mode AD, and for tensor subclasses: whatever
    backend is named, the reference formulas serve there. Raises TypeError where a DTensor meets plain tensors.
    """
    subclasses = [t for t in tensors.values() if t is not None and type(t) not in _PLAIN]
    if subclasses:
        _refuse_mixed_dtensors(tensors)
        return True
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def _refuse_mixed_dtensors(tensors: dict[str, Tensor | None]) -> None:
    distributed = {n: type(t).__name__ == "DTensor" for n, t in tensors.items() if t is not None and t.ndim}
    if any(distributed.values()) and not all(distributed.values()):
        kinds = (f"{n} is a {'DTensor' if d else 'plain tensor'}" for n, d in distributed.items())
        raise TypeError(f"{', '.join(kinds)}: pass local tensors (DTensor.to_local()) for all of them")


def distinct(args: Sequence[Any]) -> Sequence[Any]:
    """The arguments, a repeated tensor as a view: torch.compile does not trace a Function that gets one twice."""
    if not torch.compiler.is_compiling():
        return args
    return [
        a.view_as(a) if isinstance(a, Tensor) and any(a is other for other in args[:k]) else a
        for k, a in enumerate(args)
    ]


def backward_kernel(backend: str, name: str) -> Any:
    """The raw operator of a backward pass: the reference's where that pass is itself to be differentiated."""
    return getattr(reference, name) if torch.is_grad_enabled() else kernel(backend, name)


def asked(needs: tuple[bool, ...], grads: tuple[Tensor | None, ...]) -> list[Tensor | None]:
    """The gradients autograd asked for, None for the others."""
    return [grad if need else None for need, grad in zip(needs, grads, strict=True)]
