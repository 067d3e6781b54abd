"""What the count densities' public functions make of their data, and check of it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vae_fast import native, tracing
from vae_fast.backends import choose
from vae_fast.ops import dispatch


def table(op: str, x: Any, backend: str | None, *others: Any) -> Any:
    """Counts without a gradient; a CSR matrix, PyTorch's or SciPy's, as it is where a kernel reads it, else dense.

    Kernels for a CPU do, outside transforms and traces.
    """
    if not isinstance(x, Tensor):
        if getattr(x, "format", None) != "csr":
            return x
        x = _of_scipy(x)
    elif x.requires_grad:
        x = x.detach()
    if not is_sparse(x):
        return x
    if x.ndim != 2:
        raise ValueError(f"x, a CSR matrix, must have 2 dims, got shape {tuple(x.shape)}")
    tensors = {str(k): t for k, t in enumerate((x, *others)) if isinstance(t, Tensor)}
    if tracing.traced() or dispatch.needs_composite(**tensors) or x.device.type != "cpu":
        return x.to_dense()
    reads = op in native.OF_SPARSE and choose(op, x.device, backend, x.numel()) == "native"
    return x if reads else x.to_dense()


def _of_scipy(x: Any) -> Tensor:
    """A matrix in SciPy's CSR format, in the same memory unless its columns are not in order."""
    if not x.has_canonical_format:
        x = x.copy()
        x.sum_duplicates()
    starts, columns, values = (torch.from_numpy(part) for part in (x.indptr, x.indices, x.data))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(starts, columns, values, size=x.shape, check_invariants=False)


def is_sparse(x: Tensor) -> bool:
    return x.layout is torch.sparse_csr


def of_shape(operands: Sequence[Any], shape: Sequence[int]) -> tuple[Any, ...]:
    """The operands, the first of their whole shape: as the kernels of a CSR matrix and of a softmax take it."""
    first, *others = operands
    return first.expand(shape), *others


def whole(x: Tensor) -> None:
    """Raises ValueError unless every x is a count."""
    values = (x.values() if is_sparse(x) else x).detach().double()
    if not bool(((values >= 0) & (values == values.floor()) & values.isfinite()).all()):
        raise ValueError("x has values that are no counts: negative, fractional, infinite or NaN")


def positive(name: str, values: Tensor) -> None:
    if not bool((values.detach() > 0).all()):
        raise ValueError(f"{name} has values that are not positive")
