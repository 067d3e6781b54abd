"""Launching a kernel: device, options, scratch memory, and the sums that a second kernel joins."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import triton.language as tl
from torch import Tensor

from vae_fast.triton_kernels.kernel import kernel
from vae_fast.triton_kernels.layout import JOIN_BLOCK, TILE_BYTES, ceil_div, power_of_two
from vae_fast.triton_kernels.tiles import narrow

# A tile has 8 elements for each thread.
WARPS = 4
# A thread's registers, all that there are: left to itself, the assembler for sm_80 spills some to have 128 at most.
ALL_REGISTERS = 255
# On Hopper the usual calls need so few, with which a multiprocessor holds 24 warps: an H200 takes up to 16 % less
# time.
FEW_REGISTERS = 80
# Gradients of half types beside eight normals a thread would spill with so few.
MORE_REGISTERS = 128

# What a tile of one operand holds; the tests make it small, so that small tensors have many.
tile_bytes = TILE_BYTES


def options(registers: int, hopper: bool) -> dict[str, Any]:
    """What a kernel is compiled with; ``registers``: a thread's, on Hopper.

    No contraction: a multiply-add is fused where a formula says so. No stages: nothing here is worth a copy in
    shared memory.
    """
    most = registers if hopper else ALL_REGISTERS
    return {"num_warps": WARPS, "num_stages": 1, "enable_fp_fusion": False, "maxnreg": most}


@functools.cache
def _is_hopper(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.get_device_capability(device)[0] == 9


def run(
    kernel: Any,
    programs: int,
    device: torch.device,
    args: Sequence[Any],
    constants: dict[str, Any],
    registers: int = ALL_REGISTERS,
) -> None:
    """Launches ``kernel`` on the device's current stream."""
    chosen = options(registers, _is_hopper(device))
    if device.type == "cuda" and device.index != torch.cuda.current_device():
        with torch.cuda.device(device):
            kernel[(programs,)](*args, **constants, **chosen)
    else:
        kernel[(programs,)](*args, **constants, **chosen)


# ---- tickets ---------------------------------------------------------------------------------------------


class _Fresh(threading.local):
    wanted = False


_fresh = _Fresh()
_tickets: dict[tuple[Any, ...], Tensor] = {}


@contextlib.contextmanager
def fresh_tickets() -> Iterator[None]:
    """For calls from a compiler's graph, whose memory may be another's before the next call."""
    before, _fresh.wanted = _fresh.wanted, True
    try:
        yield
    finally:
        _fresh.wanted = before


def ticket(device: torch.device) -> Tensor:
    """A counter that is 0 when a kernel begins: one a stream, whose kernels follow each other and leave it at 0.

    A captured graph gets one of its own, which every replay sets to 0: it may run beside other work of its stream.
    """
    if _fresh.wanted or (device.type == "cuda" and torch.cuda.is_current_stream_capturing()):
        return torch.zeros(1, dtype=torch.int32, device=device)
    if device.type == "cuda":
        key: tuple[Any, ...] = (device.index, torch.cuda.current_stream(device).cuda_stream)
    else:
        key = (device.type, threading.get_ident())
    found = _tickets.get(key)
    if found is None:
        found = _tickets[key] = torch.zeros(1, dtype=torch.int32, device=device)
    return found


# ---- joining partial sums --------------------------------------------------------------------------------


# Columns whose partial sums a program adds up.
JOIN_COLUMNS = 64


@kernel
def _join(
    partials,
    out,
    n: tl.int64,
    columns: tl.int64,
    factor: tl.float64,
    BLOCK_N: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
):
    """out[c] = factor·Σ partials[k, c] over k, in a fixed order."""
    column = tl.program_id(0).to(tl.int64) * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)[None, :]
    sum = tl.zeros((BLOCK_N, BLOCK_COLUMNS), tl.float64)
    for first in range(0, n, BLOCK_N):
        k = first + tl.arange(0, BLOCK_N)[:, None]
        sum += tl.load(partials + k * columns + column, mask=(k < n) & (column < columns), other=0.0)
    total = tl.sum(sum, 0)[None, :] * factor
    tl.store(out + column, narrow(total, out.dtype.element_ty), mask=column < columns)


def join(partials: Tensor, n: int, out: Tensor, factor: float = 1.0) -> None:
    """Sums ``partials`` [n, out.numel()] over n into the contiguous ``out``."""
    columns = out.numel()
    width = min(power_of_two(columns), JOIN_COLUMNS)
    constants = {"BLOCK_N": JOIN_BLOCK // width, "BLOCK_COLUMNS": width}
    run(_join, ceil_div(columns, width), out.device, (partials, out, n, columns, factor), constants)
