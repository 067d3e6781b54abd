"""The results of the raw operators before their values are there: shapes, dtypes and strides."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from vae_fast.operators import PARAMETER, SIGNATURES, Operator, Signature, Wanted
from vae_fast.reference.densities import NONE, broadcast_shape, compute_dtype, promoted_dtype


def shapes(operator: Operator, shape: Sequence[int], options: Any) -> Iterator[tuple[int, ...]]:
    """Of operands that are of ``shape`` together. Of a sampler the sample comes first; all else sums event dims."""
    if not operator.density:
        yield (*options.sample_shape, *shape)
    samples = options.sample_shape if operator.of_samples else ()
    for _ in operator.sums:
        whole = operator.density and options.reduction != NONE
        yield () if whole else (*samples, *tuple(shape)[: len(shape) - options.event_ndim])


def _sample(shape: tuple[int, ...], parameters: Sequence[Tensor]) -> Tensor:
    anchor, dtype = parameters[0], promoted_dtype(*parameters)
    # By length first: a comparison of sizes at unlike places would bind them in a trace.
    if anchor.ndim == len(shape) and tuple(anchor.shape) == shape:
        return torch.empty_like(anchor, dtype=dtype)
    return anchor.new_empty(shape, dtype=dtype)


def _sum(shape: tuple[int, ...], parameters: Sequence[Tensor]) -> Tensor:
    return parameters[0].new_empty(shape, dtype=compute_dtype(promoted_dtype(*parameters)))


def _values(operator: Operator, operands: Sequence[Tensor | None], options: Any) -> Iterator[Tensor]:
    if not operands:
        yield torch.empty((*options.sample_shape, *options.shape), dtype=options.dtype, device=options.device)
        return
    pairs = tuple(zip(operator.operands, operands, strict=True))
    parameters = [t for operand, t in pairs if operand.role == PARAMETER and t is not None]
    # Of the sample: a prior takes no part in it.
    moments = [t for operand, t in pairs if not operand.optional and t is not None]
    for name, shape in zip(operator.results, shapes(operator, broadcast_shape(*operands), options), strict=True):
        yield _sum(shape, parameters) if name in operator.sums else _sample(shape, moments)


def _gradients(signature: Signature, operands: Sequence[Tensor | None], wanted: Wanted) -> tuple[Tensor, ...]:
    """In the strides of empty_like of the operand; the first two as one where they are the halves of ``packed``."""
    named = {operand.name: t for operand, t in zip(signature.operator.operands, operands, strict=True)}
    likes = [named[name] if need else None for name, need in zip(signature.needs, wanted.needs, strict=True)]
    anchor = next(t for t in operands if t is not None)
    grads = tuple(anchor.new_empty(0) if like is None else torch.empty_like(like) for like in likes)
    if wanted.packed is None:
        return grads
    _, _, *others = grads
    return (torch.empty_like(wanted.packed), wanted.packed.new_empty(0), *others)


def _layout(signature: Signature) -> Callable[..., Any]:
    n_upstream = len(signature.upstream)

    def layout(*args: Any) -> Any:
        tensors, options, wanted = signature.split(args)
        operands = tensors[n_upstream:]
        made = () if n_upstream else tuple(_values(signature.operator, operands, options))
        if signature.needs:
            made += _gradients(signature, operands, wanted)
        return made if len(made) > 1 else made[0]

    return layout


# For every raw operator, a function of its arguments that makes its results.
LAYOUTS = {name: _layout(signature) for name, signature in SIGNATURES.items()}
