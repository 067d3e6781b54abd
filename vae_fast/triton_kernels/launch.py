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
from triton.compiler import CompiledKernel
from triton.runtime import driver

from vae_fast.triton_kernels import kept
from vae_fast.triton_kernels.kept import Recent
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
) -> Any:
    """Launches ``kernel`` on the device's current stream, as Triton does it, and returns what it compiled."""
    chosen = options(registers, _is_hopper(device))
    if device.type == "cuda" and device.index != torch.cuda.current_device():
        with torch.cuda.device(device):
            return kernel[(programs,)](*args, **constants, **chosen)
    return kernel[(programs,)](*args, **constants, **chosen)


# Pointers of a kernel, or tuples of them. Those that are not there are None.
Pointers = Sequence[Any]
# Which of a kernel's pointers are at a multiple of 16 bytes; 0 where all are.
Alignment = Any
# As many of these as a launch keeps kernels for.
MOST_ALIGNMENTS = 32
# Bytes by whose multiples Triton tells addresses apart: it compiles anew where one is no multiple.
ALIGNED = 16


class Launch:
    """A kernel's launch with all that is the same for a class of calls, and the kernels compiled for it.

    A kernel takes pointers first, then numbers, and what it is compiled for at the end. Which pointers there are,
    and of which dtypes, is the same for every call of a class; numbers are never specialised (kernel.py). So what
    is left to decide which compiled kernel a call has is how its pointers are aligned.
    """

    __slots__ = ("_blanks", "_compiled", "_index", "constants", "device", "kernel", "programs", "registers")

    def __init__(
        self,
        kernel: Any,
        programs: int,
        device: torch.device,
        constants: dict[str, Any],
        registers: int = ALL_REGISTERS,
    ) -> None:
        self.kernel, self.programs, self.device = kernel, programs, device
        self.constants, self.registers = constants, registers
        self._index = device.index or 0
        # In the places of what a kernel is compiled for, which its machine code does not take.
        self._blanks = (None,) * len(constants)
        self._compiled: dict[Alignment, tuple[CompiledKernel, Any, Any, Any]] = {}

    def __call__(self, pointers: Pointers, numbers: Sequence[Any]) -> None:
        """Launches on the device's current stream."""
        if not kept.KEEPS:
            run(self.kernel, self.programs, self.device, (*pointers, *numbers), self.constants, self.registers)
            return
        addresses, bits = _addresses(pointers)
        alignment = _alignment(addresses) if bits % ALIGNED else 0
        found = self._compiled.get(alignment)
        if found is None or kept.is_watched(self.kernel):
            self._run(pointers, numbers, alignment)
            return
        # In a forked child that has no GPU this is where PyTorch says so.
        if driver.active.get_current_device() != self._index:
            with torch.cuda.device(self.device):
                self(pointers, numbers)
            return
        _, launcher, function, metadata = found
        stream = driver.active.get_current_stream(self._index)
        no_hooks = (None, None, None)
        launcher(*(self.programs, 1, 1, stream, function, metadata, *no_hooks), *addresses, *numbers, *self._blanks)

    def _run(self, pointers: Pointers, numbers: Sequence[Any], alignment: Alignment) -> None:
        """As Triton does it. What it compiled is kept, unless somebody watched."""
        args = (*pointers, *numbers)
        compiled = run(self.kernel, self.programs, self.device, args, self.constants, self.registers)
        if (
            isinstance(compiled, CompiledKernel)
            and len(self._compiled) < MOST_ALIGNMENTS
            and not kept.is_watched(self.kernel)
        ):
            self._compiled[alignment] = compiled, compiled.run, compiled.function, compiled.packed_metadata


def _addresses(pointers: Pointers) -> tuple[list[Any], int]:
    """The tensors' addresses, in the same places, and all their bits together."""
    addresses: list[Any] = []
    bits = 0
    for p in pointers:
        if p is None:
            addresses.append(None)
        elif type(p) is tuple:
            inner, inner_bits = _addresses(p)
            addresses.append(tuple(inner))
            bits |= inner_bits
        else:
            address = p.data_ptr()
            bits |= address
            addresses.append(address)
    return addresses, bits


def _alignment(addresses: Sequence[Any]) -> Alignment:
    """Of each address, in the same places, whether it is aligned."""
    return tuple([_alignment(a) if type(a) is tuple else a is not None and a % ALIGNED == 0 for a in addresses])


# ---- tickets ---------------------------------------------------------------------------------------------


class _Fresh(threading.local):
    wanted = False


_fresh = _Fresh()
_tickets: dict[tuple[Any, ...], Tensor] = {}
# Of each GPU, tickets for calls that are captured: 512 KiB.
MOST_CAPTURED = 1 << 15
_captured: dict[int, Iterator[Tensor]] = {}


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

    A captured call gets one of its own, since its graph may be replayed beside other work of its stream: one that
    was 0 before, if there is one left; else one that every replay sets to 0.
    """
    captured = device.type == "cuda" and torch.cuda.is_current_stream_capturing()
    if captured and (own := next(_captured.get(device.index, iter(())), None)) is not None:
        return own
    if _fresh.wanted or captured:
        return torch.zeros(1, dtype=torch.int32, device=device)
    if device.type == "cuda":
        key: tuple[Any, ...] = (device.index, driver.active.get_current_stream(device.index))
        if device.index not in _captured:
            _captured[device.index] = _zeros_to_capture(device)
    else:
        key = (device.type, threading.get_ident())
    found = _tickets.get(key)
    if found is None:
        found = _tickets[key] = torch.zeros(1, dtype=torch.int32, device=device)
    return found


def _zeros_to_capture(device: torch.device) -> Iterator[Tensor]:
    """Tickets for later captures, aligned as any tensor's memory is, and 0 whichever stream they are used on."""
    made = torch.zeros(MOST_CAPTURED, ALIGNED // torch.int32.itemsize, dtype=torch.int32, device=device)
    torch.cuda.current_stream(device).synchronize()
    return map(made.__getitem__, range(MOST_CAPTURED))


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


_joins: Recent[Launch] = Recent()


def join(partials: Tensor, n: int, out: Tensor, factor: float = 1.0) -> None:
    """Sums ``partials`` [n, out.numel()] over n into the contiguous ``out``."""
    columns = out.numel()
    key = columns, partials.dtype, out.dtype, out.device
    found = _joins.find(key)
    if found is None:
        width = min(power_of_two(columns), JOIN_COLUMNS)
        constants = {"BLOCK_N": JOIN_BLOCK // width, "BLOCK_COLUMNS": width}
        found = _joins.keep(key, Launch(_join, ceil_div(columns, width), out.device, constants))
    found((partials, out), (n, columns, factor))
