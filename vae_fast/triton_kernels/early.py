"""Gradients that the forward pass made for an upstream gradient of 1, times the upstream gradient there is.

The factor is read on the device, without a synchronisation; where it is 1 nothing else is read or written.
"""

from __future__ import annotations

from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

from vae_fast.triton_kernels import launch
from vae_fast.triton_kernels.kept import Recent
from vae_fast.triton_kernels.kernel import kernel
from vae_fast.triton_kernels.launch import Launch
from vae_fast.triton_kernels.layout import ceil_div, tile_of
from vae_fast.triton_kernels.tiles import narrow

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
