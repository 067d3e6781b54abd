"""The processes of a training run: one, or the ranks that torchrun started, each with its share of every batch."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from vae_fast.cli.errors import CommandError
from vae_fast.cli.streams import derive_seed


@dataclass(frozen=True)
class Ranks:
    """This process's place among `world` ones. The methods that say so must be called by all of them."""

    rank: int = 0
    world: int = 1
    local: int = 0

    @property
    def first(self) -> bool:
        """Whether this is the process that prints and writes."""
        return self.rank == 0

    def share(self, start: int, stop: int) -> range:
        """This rank's part of the places start..stop: contiguous, in the order of the ranks, empty where short."""
        n = stop - start
        return range(start + n * self.rank // self.world, start + n * (self.rank + 1) // self.world)

    def place(self, device: torch.device) -> torch.device:
        """The device of this rank: of GPUs the one with its number on the machine."""
        if self.world == 1 or device.type != "cuda":
            return device
        if device.index is not None:
            raise CommandError(
                f"--device {device}: of several ranks each takes a GPU of its own: use --device cuda"
            )
        if self.local >= torch.cuda.device_count():
            raise CommandError(
                f"rank {self.rank} has no GPU of its own: there are {torch.cuda.device_count()} here"
            )
        torch.cuda.set_device(self.local)
        return torch.device("cuda", self.local)

    def parallel(self, module: nn.Module) -> nn.Module:
        """The module with gradients averaged over the ranks, and with the first one's weights. By all ranks."""
        if self.world == 1:
            return module
        device = next(module.parameters()).device
        return DistributedDataParallel(module, device_ids=[device] if device.type == "cuda" else None)

    def total(self, sums: Tensor) -> Tensor:
        """`sums` added up over the ranks: the same bits for all. By all ranks."""
        if self.world == 1:
            return sums
        sums = sums.clone()
        dist.all_reduce(sums)
        return sums

    def agree(self, *facts: Any) -> None:
        """CommandError unless all ranks were given the same facts. By all ranks."""
        if self.world == 1:
            return
        digest = derive_seed(0, json.dumps(facts))
        ends = torch.tensor([digest, -digest])
        dist.all_reduce(ends, dist.ReduceOp.MAX)
        if ends[0] != -ends[1]:
            raise CommandError(
                "the ranks do not see the same run: options, data and --out must be the same for all"
            )


def launched() -> Ranks:
    """What torchrun's environment says of this process."""
    if not dist.is_available() or not dist.is_torchelastic_launched():
        return Ranks()
    return Ranks(*(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))


@contextmanager
def connected() -> Iterator[Ranks]:
    """Within: the ranks can reach each other. Where one ends early, the others end too, with a CommandError."""
    ranks = launched()
    if ranks.world == 1:
        yield ranks
        return
    nccl = torch.cuda.is_available() and dist.is_nccl_available()
    try:
        dist.init_process_group("cpu:gloo,cuda:nccl" if nccl else "gloo")
        yield ranks
        # A rank that has nothing left to do waits for the first one, which writes: gone, it would be missed.
        dist.barrier()
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or "gloo" in str(error):
            why = str(error).partition(". ")[0]
            raise CommandError(f"another rank ended, and this one with it ({why})", status=1) from error
        raise
    dist.destroy_process_group()


def leave(status: int) -> NoReturn:
    """Ends the process; one of several ranks at once, without the interpreter's own end.

    DistributedDataParallel keeps gloo's threads past destroy_process_group. One that frees a Python object while
    the interpreter ends aborts the process.
    """
    if launched().world == 1:
        sys.exit(status)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(status)
