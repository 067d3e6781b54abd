"""Which implementation serves a call: one table of backends, and the choice among them."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NoReturn

import torch

from vae_fast import front, native, reference, tracing, triton_kernels
from vae_fast.operators import OPERATORS, PAIRWISE

OPS = (*OPERATORS, *PAIRWISE)


@dataclass(frozen=True)
class Backend:
    """One implementation of the operators, an entry of ``backends()``.

    Args:
        name: "reference", "native" or "triton".
        available: whether it can serve here.
        reason: why not; empty where it can.
        devices: the device types that it serves, "*" for all.
        ops: the operators that it has, by name.
        lacking: which of them it has not on all of its devices, as (operator, device type).
        front: of "native", whether its common calls are made by the compiled front: "compiled", or why there is
            none.
    """

    name: str
    available: bool
    reason: str
    devices: tuple[str, ...]
    ops: tuple[str, ...]
    lacking: tuple[tuple[str, str], ...] = ()
    front: str = ""

    def serves(self, op: str, device: str) -> bool:
        """Whether it has the operator ``op`` for a device type, ``device``, such as "cpu"."""
        on_device = "*" in self.devices or device in self.devices
        return on_device and op in self.ops and (op, device) not in self.lacking


def _written_in_python(kernels: Any) -> tuple[str, ...]:
    return tuple(op for op in OPS if hasattr(kernels, f"{op}_fwd"))


def _native() -> Backend:
    ops = tuple(op for op in OPS if any(op in served for served in native.OPS.values()))
    lacking = tuple((op, device) for op in ops for device, served in native.OPS.items() if op not in served)
    calls = front.REASON or "compiled"
    if not native.CUDA_REASON:
        calls += f"; on CUDA: {front.CUDA_REASON or 'compiled'}"
    return Backend("native", not native.REASON, native.REASON, native.DEVICES, ops, lacking, calls)


def _triton() -> Backend:
    reason = triton_kernels.REASON
    devices = () if reason else triton_kernels.DEVICES
    return Backend("triton", not reason, reason, devices, _written_in_python(triton_kernels.KERNELS))


_TABLE = {
    "reference": Backend("reference", True, "", ("*",), _written_in_python(reference.KERNELS)),
    "native": _native(),
    "triton": _triton(),
}
# Where an available backend's <op>_fwd and <op>_bwd are found, and where a compiler's trace finds them.
_KERNELS: dict[str, Any] = {
    "reference": reference.KERNELS,
    "native": native.KERNELS,
    "triton": triton_kernels.KERNELS,
}
_TRACED: dict[str, Any] = {"triton": triton_kernels.TRACED}
_GRAPH: dict[str, Any] = {"native": native.GRAPH, "triton": triton_kernels.GRAPH}

# The backends "auto" tries in turn, by device type.
_PREFERENCE = {"cpu": ("native",), "cuda": ("native", "triton")}
# From how many elements on "auto" takes triton on a GPU. At 4096×3072 on an H200, forward and backward, triton's
# kernels take 10 µs less than native's for a density and 30 to 60 µs less for a sample, but its calls 180 to 400 µs
# more of the host (benchmarks/results/nvidia-h200-9-0-16-threads). This is where that evens out, for kernels that
# take time in proportion to their size.
_TRITON_FROM = {name: 1 << (28 if operator.density else 27) for name, operator in OPERATORS.items()}


def _automatic() -> dict[tuple[str, str], str]:
    """What "auto" is for an operator and a device type; the reference for those not in it."""
    return {
        (op, device): name
        for device, names in _PREFERENCE.items()
        for name in reversed(names)
        for op in OPS
        if _TABLE[name].serves(op, device)
    }


_AUTO = _automatic()

ENVIRONMENT_VARIABLE = "VAE_FAST_BACKEND"


def backends() -> dict[str, Backend]:
    """The backends by name: whether each is available here and, if not, why.

    Returns:
        A dict with one ``Backend`` a name, a copy each time.

    Example:
        >>> vae_fast.backends()["reference"].available
        True
    """
    return dict(_TABLE)


def _named(name: str, source: str) -> str:
    """``name``, if it is a backend that can serve here or "auto"."""
    if name == "auto":
        return name
    if not isinstance(name, str) or name not in _TABLE:
        raise ValueError(f"{source}: unknown backend {name!r}; there are {', '.join(_TABLE)} and auto")
    if not _TABLE[name].available:
        raise RuntimeError(f"{source}: the backend {name!r} is not available: {_TABLE[name].reason}")
    return name


# The environment's value is checked at the first call, so that importing never fails.
_current = os.environ.get(ENVIRONMENT_VARIABLE) or "auto"
_current_source = ENVIRONMENT_VARIABLE
# What the compiled front serves where a call names no backend.
_FRONTS = {"native": front.Chosen.NATIVE, "auto": front.Chosen.AUTO}
front.state.backend = _FRONTS.get(_current, front.Chosen.OTHER)


def _set(name: str, source: str) -> None:
    global _current, _current_source
    _current, _current_source = name, source
    front.state.backend = _FRONTS.get(name, front.Chosen.OTHER)


class use_backend:
    """Chooses the backend of every later call, or of the calls in a ``with`` block.

    The setting is the process's, as torch.backends' flags are; the environment variable VAE_FAST_BACKEND sets its
    start value, and a call's own ``backend=`` goes before it. A backend named in any of these ways never falls back
    to another: what it cannot serve raises.

    Args:
        name: "reference", "native", "triton" or "auto", the fastest one available for the operator and device, the
            reference at last.

    Returns:
        A context manager, which at the end of its ``with`` block makes the setting what it was before. Without a
        block it stays.

    Raises:
        ValueError: an unknown name.
        RuntimeError: a backend that is not available here, with the reason.

    Example:
        >>> with vae_fast.use_backend("reference"):
        ...     kl = vae_fast.gaussian_kl(torch.ones(3, 20), 0.0)
        >>> kl
        tensor([10., 10., 10.])
    """

    def __init__(self, name: str) -> None:
        name = _named(name, "use_backend")
        self.name, self.previous = name, (_current, _current_source)
        _set(name, "use_backend")

    def __enter__(self) -> use_backend:
        _set(self.name, "use_backend")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        _set(*self.previous)


def choose(op: str, device: torch.device, backend: str | None, numel: int = 0) -> str:
    """The name of the backend that serves ``op`` on ``device``; ``backend`` is the caller's argument.

    ``numel`` is how many elements there are. A graph, which may be for any number, does not ask.
    """
    name = _current if backend is None else backend
    if name == "auto":
        kind = device.type
        name = _AUTO.get((op, kind), "reference")
        if kind != "cuda" or tracing.traced() or numel < _TRITON_FROM.get(op, math.inf):
            return name
        return "triton" if _TABLE["triton"].serves(op, kind) else name
    source = _current_source if backend is None else "backend"
    found = _TABLE[_named(name, source)]
    if not found.serves(op, device.type):
        _refuse(op, device.type, found, source)
    return name


def _refuse(op: str, device: str, backend: Backend, source: str) -> NoReturn:
    """Raises RuntimeError: why a backend does not serve an operator, and which ones do."""
    refusal = f"{source}: the backend {backend.name!r} does not serve"
    if "*" not in backend.devices and device not in backend.devices:
        why = f": {native.CUDA_REASON}" if (backend.name, device) == ("native", "cuda") else ""
        raise RuntimeError(f"{refusal} {device} tensors{why}")
    where = f" on {device} tensors" if op in backend.ops else ""
    others = ", ".join(name for name, other in _TABLE.items() if other.serves(op, device))
    raise RuntimeError(f"{refusal} {op}{where}, which {others or 'none'} does here")


def native_below(op: str) -> int:
    """From how many elements on "auto" takes another backend on a GPU than the native one; −1: it never does."""
    return _TRITON_FROM[op] if _TABLE["triton"].serves(op, "cuda") else -1


def kernel(backend: str, name: str, traced: bool = False) -> Any:
    """The function of the raw operator ``name`` (<op>_fwd or <op>_bwd) on ``backend``.

    With ``traced``, and where a compiler or a dispatch mode is at work, one that PyTorch dispatches; in a graph
    that has to carry its gradients, one that has them.
    """
    if traced or tracing.traced():
        if tracing.to_onnx():
            backend = "reference"
        elif backend in _GRAPH and tracing.graph():
            return getattr(_GRAPH[backend], name)
        return getattr(_TRACED.get(backend, _KERNELS[backend]), name)
    return getattr(_KERNELS[backend], name)
