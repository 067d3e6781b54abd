"""All randomness of a run as pure functions of (seed, purpose, epoch): nothing to save, nothing to restore.

No global random state is read or changed, so a resumed run draws what the unbroken run would have drawn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def derive_seed(seed: int, *parts: str | int) -> int:
    """A 63-bit seed from the run's seed and the purpose it serves: the start of SHA-256 of their text."""
    text = "\0".join(["vae_fast", str(int(seed)), *map(str, parts)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def derived_generator(seed: int, *parts: str | int) -> torch.Generator:
    """A CPU generator of its own for one purpose; on the CPU whatever the device, so draws do not differ."""
    return torch.Generator().manual_seed(derive_seed(seed, *parts))


def epoch_order(seed: int, epoch: int, n: int) -> Tensor:
    """The permutation of n data that an epoch goes through. int64 [n], on the CPU."""
    return torch.randperm(n, generator=derived_generator(seed, "order", epoch))


@contextmanager
def seeded_initialisation(seed: int) -> Iterator[None]:
    """Within: torch's CPU default generator is seeded for weight initialisation; afterwards as it was."""
    saved = torch.default_generator.get_state()
    torch.default_generator.manual_seed(derive_seed(seed, "init"))
    try:
        yield
    finally:
        torch.default_generator.set_state(saved)
