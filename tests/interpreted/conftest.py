"""What these tests share: tiles so small that small tensors have many, and a record of what is launched."""

import pytest

from vae_fast.triton_kernels import launch


@pytest.fixture
def launched(monkeypatch):
    """The compile-time constants of every launch, by the kernel's name."""
    record, run = [], launch.run

    def recorded(kernel, programs, device, args, constants, *registers):
        record.append((kernel.__name__, programs, constants))
        return run(kernel, programs, device, args, constants, *registers)

    monkeypatch.setattr(launch, "run", recorded)
    return record


@pytest.fixture
def small_tiles(monkeypatch):
    monkeypatch.setattr(launch, "tile_bytes", 256)
