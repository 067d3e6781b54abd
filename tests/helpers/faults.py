"""A backend of a test's own in the place of "native", and faults planted in a copy of the reference."""

import importlib
import types

import torch

from vae_fast import front, reference
from vae_fast.operators import COMMON

backends = importlib.import_module("vae_fast.backends")


def install(monkeypatch, kernels, ops=backends.OPS, devices=("cpu",)):
    """Makes a backend under the name "native" of raw operators by name, common calls by those of all."""
    # The compiled front has kernels of its own.
    monkeypatch.setattr(front.state, "on", False)
    monkeypatch.setitem(backends._TABLE, "native", backends.Backend("native", True, "", devices, tuple(ops)))
    found = types.SimpleNamespace(**kernels)
    for name, short in COMMON.items():
        setattr(found, name, short.lengthened(_later(found, short.long.name)))
    monkeypatch.setitem(backends._KERNELS, "native", found)
    monkeypatch.setattr(backends, "_AUTO", backends._automatic())


def _later(kernels, name):
    return lambda *args: getattr(kernels, name)(*args)


def plant(monkeypatch, **faults):
    """Makes "native" the reference with the raw operators ``faults`` names wrapped: name=f(original) → operator."""
    kernels = {name: _as_compiled(original) for name, original in vars(reference.KERNELS).items()}
    install(monkeypatch, kernels | {name: fault(kernels[name]) for name, fault in faults.items()})


def _as_compiled(original):
    """A gradient that was not asked for is a tensor of a compiled operator, where the reference gives None."""

    def kernel(*args):
        out = original(*args)
        return tuple(torch.empty(0) if v is None else v for v in out) if isinstance(out, tuple) else out

    return kernel


def on_result(k, change):
    """The operator with its k-th result changed."""

    def fault(original):
        def kernel(*args):
            out = original(*args)
            if not isinstance(out, tuple):
                return change(out)
            return tuple(change(v) if i == k and v is not None else v for i, v in enumerate(out))

        return kernel

    return fault


def on_argument(k, change):
    """The operator with its k-th argument changed."""

    def fault(original):
        return lambda *args: original(*args[:k], change(args[k]), *args[k + 1 :])

    return fault


def on_named(raw, name, change):
    """The raw operator with an argument changed, by its name."""
    names = [argument.name for argument in getattr(torch.ops.vae_fast, raw).default._schema.arguments]
    return {raw: on_argument(names.index(name), change)}


def without_tail(value):
    """The last element of rows whose length is no multiple of 8 left at 0."""
    if value.ndim and value.shape[-1] % 8 and value.shape[-1] > 8:
        value = value.clone()
        value[..., -1] = 0
    return value


def as_if_contiguous(tensor):
    """What a kernel reads that ignores strides: the memory from the tensor's first element on."""
    if tensor.is_contiguous() or tensor.untyped_storage().size() < tensor.numel() * tensor.element_size():
        return tensor
    return torch.as_strided(tensor, tensor.shape, torch.empty(tensor.shape).stride())
