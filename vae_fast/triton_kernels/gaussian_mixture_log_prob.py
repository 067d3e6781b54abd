"""A mixture's log-density of every datum, of all dims together and of each, and its gradients: the launches."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vae_fast.triton_kernels import launch, mixture, pairs
from vae_fast.triton_kernels.layout import ceil_div

# Values that are joined by a program.
_JOIN = 256


class _Call:
    """The operands of a call in C order, checked, and their sizes."""

    def __init__(self, *operands: Tensor) -> None:
        z, mu, rate, log_rate, log_weight = operands
        if z.ndim != 2 or z.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"z must be [data, dims] of float32 or float64, got {tuple(z.shape)} of {z.dtype}")
        if any(t.dtype != z.dtype or t.device != z.device for t in operands):
            raise ValueError("mu, rate, log_rate and log_weight must have the dtype and the device of z")
        rows, dims = z.shape
        n = mu.shape[-2] if mu.ndim > 1 else -1
        shapes = ((n, dims), (rows, n, dims))
        if mu.shape not in shapes or rate.shape != mu.shape or log_rate.shape != mu.shape:
            found = ", ".join(str(tuple(t.shape)) for t in (mu, rate, log_rate))
            raise ValueError(f"mu, rate and log_rate of shapes {found} do not fit z of shape {tuple(z.shape)}")
        self.own, self.own_weights = mu.ndim == 3, log_weight.ndim == 2
        if log_weight.shape not in ((n,), (rows, n)) or (self.own and not self.own_weights):
            raise ValueError(f"log_weight of shape {tuple(log_weight.shape)} does not fit {n} components")
        self.operands = tuple(t.contiguous() for t in operands)
        self.z, self.rows, self.components, self.dims = self.operands[0], rows, n, dims

    def by_data(self) -> pairs.Tiles:
        return pairs.tiles(self.rows, self.components, self.dims, self.z.dtype, self.own)

    def run(self, kernel: Any, tiles: pairs.Tiles, tensors: tuple[Any, ...], **constants: bool) -> None:
        if tiles.programs == 0:
            return
        args = (self.operands, *tensors, self.rows, self.components, self.dims, tiles.chunks, tiles.each)
        launch.run(kernel, tiles.programs, self.z.device, args, {**constants, **tiles.constants})


def _joined(tops: Tensor, sums: Tensor, out: Tensor, less: float) -> None:
    if out.numel():
        args = (tops, sums, out, len(tops), out.numel(), less)
        launch.run(mixture.join, ceil_div(out.numel(), _JOIN), out.device, args, {"BLOCK": _JOIN})


def gaussian_mixture_log_prob_fwd(
    z: Tensor, mu: Tensor, rate: Tensor, log_rate: Tensor, log_weight: Tensor, per_dim: bool
) -> tuple[Tensor, Tensor]:
    """(log p of all dims [data], of each [data, dims]); without ``per_dim`` the second is [0]."""
    call = _Call(z, mu, rate, log_rate, log_weight)
    tiles, rows, dims = call.by_data(), call.rows, call.dims
    joint = z.new_empty(rows)
    marginals = z.new_empty((rows, dims) if per_dim else 0)
    tops, sums = (pairs.partials((tiles.parts, rows), z) for _ in range(2))
    of_dims = [pairs.partials((tiles.parts, rows, dims), z) for _ in range(2)] if per_dim else []
    options = {"OWN": call.own, "OWN_WEIGHTS": call.own_weights, "PER_DIM": per_dim}
    call.run(mixture.forward, tiles, ((tops, sums, *(of_dims or (None, None))),), **options)
    half = mixture.HALF_LOG_2_PI.value
    _joined(tops, sums, joint, dims * half)
    if per_dim:
        tops, sums = of_dims
        _joined(tops, sums, marginals, half)
    return joint, marginals


def gaussian_mixture_log_prob_bwd(dlog_prob: Tensor | None, dmarginals: Tensor | None, *args: Any) -> Any:
    """The gradients by z, μ, 1/σ, −log σ and log w; those that are not wanted are [0]."""
    *operands, log_prob, marginals, need_z, need_mu, need_rate, need_log_rate, need_weight = args
    call = _Call(*operands)
    each = need_mu, need_rate, need_log_rate
    needs = need_z, *each, need_weight
    made = [torch.empty_like(t) if n else t.new_empty(0) for t, n in zip(call.operands, needs, strict=True)]
    dz, *of_components, dlog_weight = made
    results = _results(call, dlog_prob, dmarginals, log_prob, marginals)
    options = {"ALL": dlog_prob is not None, "PER_DIM": dmarginals is not None}
    weights = {"OWN_WEIGHTS": call.own_weights}
    of_each = [t if call.own and need else None for t, need in zip(of_components, each, strict=True)]
    tiles = call.by_data()
    if need_z or any(t is not None for t in of_each):
        sums = pairs.partials((tiles.parts, *dz.shape), dz) if need_z else None
        call.run(mixture.data, tiles, (results, (sums, *of_each)), OWN=call.own, **weights, **options)
        _add_up(sums, dz)
    if need_weight and call.own_weights:
        one = tiles._replace(chunks=1, programs=tiles.programs // tiles.chunks)
        call.run(mixture.weights, one, (results, dlog_weight), OWN=call.own, **options)
    wanted = (*each, need_weight and not call.own_weights)
    if any(wanted) and not call.own:
        tiles = pairs.tiles(call.components, call.rows, call.dims, call.z.dtype)
        shapes = ((tiles.parts, call.components, call.dims),) * 3 + ((tiles.parts * tiles.chunks, call.components),)
        tables = [pairs.partials(s, call.z) if n else None for s, n in zip(shapes, wanted, strict=True)]
        call.run(mixture.components, tiles, (results, tuple(tables)), **weights, **options)
        for table, out in zip(tables, (*of_components, dlog_weight), strict=True):
            _add_up(table, out)
    return tuple(made)


def _results(call: _Call, dlog_prob: Tensor | None, dmarginals: Tensor | None, *values: Tensor) -> tuple[Any, ...]:
    """log p of all dims and of each, and their upstream gradients; None of what has none."""
    shapes = (call.rows,), (call.rows, call.dims)
    found: list[Tensor | None] = []
    for value, upstream, shape in zip(values, (dlog_prob, dmarginals), shapes, strict=True):
        for name, t in (("a result", value), ("its gradient", upstream)):
            if upstream is not None and t is not None and (t.shape != shape or t.dtype != call.z.dtype):
                raise ValueError(f"{name} must be {shape} of {call.z.dtype}, got {tuple(t.shape)} of {t.dtype}")
        found += (value.contiguous(), upstream.contiguous()) if upstream is not None else (None, None)
    # As the kernels have them: values, then gradients.
    return *found[::2], *found[1::2]


def _add_up(table: Tensor | None, out: Tensor) -> None:
    if table is not None and out.numel():
        launch.join(table, len(table), out)
