"""Gradients that the forward pass made for an upstream gradient of 1, times the upstream gradient there is.

The factor is read on the device, without a synchronisation; where it is 1 nothing else is read or written. Those of
bfloat16 are for the backward pass itself (density.py), which makes anew what it may not scale.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from vae_fast.triton_kernels import launch
from vae_fast.triton_kernels.kept import Recent
from vae_fast.triton_kernels.kernel import kernel
from vae_fast.triton_kernels.launch import Launch
from vae_fast.triton_kernels.layout import ceil_div, tile_of
from vae_fast.triton_kernels.tiles import NONE, narrow, place, row_start

# As many gradients as an operator has.
MOST = 4
# Few programs, for most do nothing but read the factor.
MOST_PROGRAMS = 1024


@triton.jit
def _scale(grad, numel, factor, BLOCK: tl.constexpr):
    if grad is not None:
        step = tl.num_programs(0).to(tl.int64) * BLOCK
        for start in range(tl.program_id(0).to(tl.int64) * BLOCK, numel, step):
            at = start + tl.arange(0, BLOCK)
            mask = at < numel
            value = tl.load(grad + at, mask=mask, other=0.0)
            if value.dtype == tl.float64 or factor.dtype == tl.float64:
                product = value.to(tl.float64) * factor.to(tl.float64)
            else:
                product = value.to(tl.float32) * factor.to(tl.float32)
            # What a weight of 0 left out stays out, whatever the factor.
            product = tl.where(value == 0.0, value.to(product.dtype), product)
            tl.store(grad + at, narrow(product, value.dtype), mask=mask)


@kernel
def _rescale(
    upstream,
    grad0,
    grad1,
    grad2,
    grad3,
    numel0: tl.int64,
    numel1: tl.int64,
    numel2: tl.int64,
    numel3: tl.int64,
    BLOCK: tl.constexpr,
):
    factor = tl.load(upstream)
    if factor != 1.0:
        _scale(grad0, numel0, factor, BLOCK)
        _scale(grad1, numel1, factor, BLOCK)
        _scale(grad2, numel2, factor, BLOCK)
        _scale(grad3, numel3, factor, BLOCK)


_launches: Recent[Launch] = Recent()


def rescale(grads: Sequence[Tensor], upstream: Tensor) -> None:
    """Multiplies gradients, dense in memory and each of its own dtype, by ``upstream``'s element, in place."""
    present = [grad for grad in grads if grad.numel()]
    if not present:
        return
    sizes = [grad.numel() for grad in present]
    key = (upstream.dtype, upstream.device, launch.tile_bytes, MOST_PROGRAMS, *sizes, *[g.dtype for g in present])
    found = _launches.find(key)
    if found is None:
        block = tile_of(launch.tile_bytes, max(g.element_size() for g in present))
        programs = min(ceil_div(max(sizes), block), MOST_PROGRAMS)
        found = _launches.keep(key, Launch(_rescale, programs, upstream.device, {"BLOCK": block}))
    missing = MOST - len(present)
    found((upstream.resolve_neg(), *present, *(None,) * missing), (*sizes, *(0,) * missing))


# ---- rounded gradients, for a backward pass --------------------------------------------------------------


@triton.jit
def _exponent(number):
    """That of a float32, as its bits have it."""
    return number.to(tl.int32, bitcast=True) >> 23 & 0xFF


@triton.jit
def _is_ordinary(number):
    """Whether a float32 has full precision; not the least exponent, to which less may have been rounded."""
    return (_exponent(number) >= 2) & (_exponent(number) <= 254)


@triton.jit
def anew(
    gradients, dstrides, upstream, program, space, factor,
    KINDS: tl.constexpr, WALK: tl.constexpr, SPACE: tl.constexpr, SAMPLES: tl.constexpr,
    BLOCK_ROWS: tl.constexpr, BLOCK_COLUMNS: tl.constexpr, VEC: tl.constexpr,
):  # fmt: skip
    """How many of a program's tiles are to be made anew: none, where its kept gradients serve, or all.

    They do as they are, if the upstream gradient is 1; and, if it is ±2ⁿ, times it, if that gives each of them
    another exponent and nothing else. ``factor`` is what the reduction multiplies it by.
    """
    tiles = space[4]
    by = tl.load(upstream).to(tl.float32)
    steps = tl.where(by == 1.0, 0, tiles)
    is_power = (by.to(tl.int32, bitcast=True) & 0x7FFFFF) == 0
    # And what both passes begin with is of full precision too.
    first = tl.full((), factor, tl.float64)
    is_power &= (_exponent(by) > 0) & (_exponent(by) < 255) & _is_ordinary(first.to(tl.float32))
    is_power &= _is_ordinary((by.to(tl.float64) * first).to(tl.float32))
    if (by != 1.0) & is_power:
        shift = _exponent(by) - 127
        least, most = 2 - tl.minimum(shift, 0), 254 - tl.maximum(shift, 0)
        wrong = tl.zeros((BLOCK_ROWS, BLOCK_COLUMNS), tl.int32)
        for step in range(tiles):
            tile = place(program, step, space, WALK, SPACE, SAMPLES, BLOCK_ROWS, BLOCK_COLUMNS, VEC)
            for k in tl.static_range(len(KINDS)):
                if KINDS[k] != NONE:
                    sample, datum = dstrides[k]
                    at = gradients[k] + row_start(sample * VEC, datum * VEC, tile, SAMPLES) + tile[4] + tile[5]
                    value = tl.load(at, mask=tile[6], other=0.0)
                    number = value.to(tl.float32)
                    # What is 0 stays 0; by a factor above 1 what was too small for its type may be so no more.
                    may = (_exponent(number) >= least) & (_exponent(number) <= most)
                    may |= (number == 0.0) & (shift <= 0)
                    wrong |= (~may & tile[6]).to(tl.int32)
                    tl.store(at, (number * by).to(value.dtype), mask=tile[6])
        steps = tl.where(tl.max(tl.max(wrong, 1), 0) > 0, tiles, 0)
        # Another thread may write what is made anew.
        tl.debug_barrier()
    return steps


class _Kept(threading.local):
    grads: Sequence[Tensor] | None = None


_kept = _Kept()


def with_kept(grads: Sequence[Tensor], bwd: Callable[..., Any], args: Sequence[Any]) -> Any:
    """A backward pass that may scale these gradients; they go beside its arguments, which its schema decides."""
    _kept.grads = grads
    try:
        return bwd(*args)
    finally:
        _kept.grads = None


def taken(operands: Sequence[Tensor | None], needs: Sequence[bool]) -> Sequence[Tensor] | None:
    """What was kept for a pass, once, if there is one like its operand for every gradient that it is to make."""
    grads, _kept.grads = _kept.grads, None
    if grads is None:
        return None
    for k, (operand, need) in enumerate(zip(operands, needs, strict=True)):
        if not need or operand is None:
            continue
        if k >= len(grads) or grads[k].shape != operand.shape or grads[k].dtype != operand.dtype:
            return None
    return grads
