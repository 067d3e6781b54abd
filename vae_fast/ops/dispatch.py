"""Which path a call takes: a backend behind an autograd.Function, or the reference's own operations (composite)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from vae_fast import reference, tracing
from vae_fast.backends import kernel
from vae_fast.checks import FLOATS

_PLAIN = tracing.PLAIN
_FLOATS, _STRIDED = FLOATS, torch.strided
# By names of their own: looking them up would take longer than the calls.
_compiling = torch.compiler.is_compiling
_is_legacy_batch = torch._C._functorch.is_legacy_batchedtensor
_is_wrapped = torch._C._functorch.is_functorch_wrapped_tensor


def needs_composite(**tensors: Tensor | None) -> bool:
    """Whether PyTorch must see the operations that the operator is composed of: the reference's.

    So under functorch transforms (vmap, grad, jvp …) and forward-mode AD, and for tensor subclasses: whatever
    backend is named, the reference formulas serve there. Raises TypeError where a DTensor meets plain tensors.
    """
    subclasses = [t for t in tensors.values() if t is not None and type(t) not in _PLAIN]
    if subclasses:
        _refuse_mixed_dtensors(tensors)
        return True
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def uniform(first: Any, *others: Any) -> bool:
    """Whether all (but None) are plain dense tensors of one floating dtype, device and shape, outside transforms.

    The common call. It needs no other check of its tensors, and at small sizes those take as long as the kernel.
    """
    try:
        if type(first) not in _PLAIN or first.layout is not _STRIDED:
            return False
        dtype, shape, device = first.dtype, first.shape, first.device
        if dtype not in _FLOATS:
            return False
        n_dims = len(shape)
        # The last ones are the likeliest to differ.
        for t in reversed(others):
            if t is None:
                continue
            if type(t) not in _PLAIN or t.dtype != dtype or t.device != device:
                return False
            # By length first: a comparison of sizes at unlike places would bind them in a trace.
            other = t.shape
            if len(other) != n_dims or other != shape:
                return False
            if t.layout is not _STRIDED:
                return False
        return not torch._C._are_functorch_transforms_active() and forward_ad._current_level < 0
    except RuntimeError:
        # A nested tensor of the strided layout has no shape: the checks of each operand refuse it by name.
        if not any(isinstance(t, Tensor) and t.is_nested for t in (first, *others)):
            raise
        return False


def _is_dtensor(tensor: Tensor) -> bool:
    # By name: the import would take as long as that of all the rest.
    return type(tensor).__name__ == "DTensor"


def refuse_dtensors(**tensors: Tensor) -> None:
    """Raises TypeError for a DTensor where noise is drawn: its shards would all take that of the first one."""
    for name, tensor in tensors.items():
        if _is_dtensor(tensor):
            raise TypeError(
                f"{name} is a DTensor, whose shards do not know their place in the noise: pass local tensors "
                "(DTensor.to_local()), and as offset= how many elements of mu come before them"
            )


def _refuse_mixed_dtensors(tensors: dict[str, Tensor | None]) -> None:
    distributed = {n: _is_dtensor(t) for n, t in tensors.items() if t is not None and t.ndim}
    if any(distributed.values()) and not all(distributed.values()):
        kinds = (f"{n} is a {'DTensor' if d else 'plain tensor'}" for n, d in distributed.items())
        raise TypeError(f"{', '.join(kinds)}: pass local tensors (DTensor.to_local()) for all of them")


def distinct(args: Sequence[Any]) -> Sequence[Any]:
    """The arguments, a repeated tensor as a view: torch.compile does not trace a Function that gets one twice."""
    if not _compiling():
        return args
    return [
        a.view_as(a) if isinstance(a, Tensor) and any(a is other for other in args[:k]) else a
        for k, a in enumerate(args)
    ]


def differentiable(*tensors: Any) -> bool:
    """Whether autograd has to know of a call with these tensors."""
    if not torch.is_grad_enabled():
        return False
    # A generator expression would take as long as the rest of the checks.
    for t in tensors:
        if t is not None and t.requires_grad:
            return True
    return False


def batched(upstream: Tensor | None) -> bool:
    """Whether this is a batch of upstream gradients (is_grads_batched, vmap), which no kernel can read."""
    if upstream is None or _compiling():
        return False
    return bool(_is_legacy_batch(upstream) or _is_wrapped(upstream))


def backward_kernel(backend: str, name: str, *upstream: Tensor | None) -> Any:
    """The raw operator of a backward pass: the reference's where that pass is differentiated or transformed."""
    if torch.is_grad_enabled() or torch._C._are_functorch_transforms_active():
        return getattr(reference.KERNELS, name)
    for t in upstream:
        if batched(t):
            return kernel(backend, name, traced=True)
    return kernel(backend, name)
