"""Launches without a GPU: Triton's own launcher, on top of a driver that writes down what reaches it (fake_cuda.c).

What would be compiled is a stand-in that says how many parameters a kernel has. All else is real: how Triton types
a call's arguments and finds a kernel by them, and how its launcher hands them to the driver. Tensors are the CPU's,
and devices are numbers.
"""

import contextlib
import ctypes
import gc
import json
import os
import struct
import subprocess
import threading
from pathlib import Path
from typing import NamedTuple

import torch
import triton.compiler
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.driver import CudaDriver
from triton.compiler import CompiledKernel
from triton.runtime import driver

from vae_fast.triton_kernels import early, kept, launch, sampling, standard_normal
from vae_fast.triton_kernels.density import density

CAPABILITY = (9, 0)
WARP = 32
SOURCE = Path(__file__).with_suffix(".c")
KERNELS = (
    *(density, sampling.forward, sampling.forward_of_more, sampling.backward, sampling.backward_of_more),
    *(launch._join, early._rescale, standard_normal._kernel),
)


class Launch(NamedTuple):
    """What reached the driver. ``function`` is the compiled kernel's."""

    device: int
    stream: int
    function: int
    grid: tuple[int, ...]
    threads: int
    values: tuple[int, ...]


class _Record(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_uint64) for name in ("count", "context", "stream", "function")),
        ("grid", ctypes.c_uint32 * 3),
        *((name, ctypes.c_uint32) for name in ("threads", "shared", "parameters")),
        ("values", ctypes.c_uint64 * 128),
    )


class FakeDriver(CudaDriver):
    """Triton's driver, of which the current device and streams are this thread's own."""

    def __init__(self, library):
        super().__init__()
        for name in ("device_capability", "current_device", "current_stream"):
            # PyTorch's functions, in the way of these.
            vars(self).pop(f"get_{name}", None)
        vars(self).pop("set_current_device", None)
        self.library, self.here = library, threading.local()
        library.fake_last_launch.restype = ctypes.POINTER(_Record)

    def get_current_device(self):
        return getattr(self.here, "device", 0)

    def set_current_device(self, device):
        self.here.device = device
        self.library.fake_set_device(device)

    def get_current_stream(self, device):
        return getattr(self.here, f"stream{device}", 0)

    def set_stream(self, device, stream):
        setattr(self.here, f"stream{device}", stream)

    def get_device_capability(self, device=None):
        return CAPABILITY

    def get_current_target(self):
        return GPUTarget("cuda", 10 * CAPABILITY[0] + CAPABILITY[1], WARP)

    def record(self, wanted):
        """Without a record a launch costs what it costs: that of the driver itself is not counted."""
        self.library.fake_record(int(wanted))

    @property
    def launches(self):
        """How many this thread has made."""
        return self.library.fake_last_launch().contents.count

    @property
    def last(self):
        """This thread's last one. Behind a kernel's own parameters come those of Triton's two scratch memories."""
        found = self.library.fake_last_launch().contents
        values = tuple(found.values[: found.parameters])
        return Launch(found.context - 1, found.stream, found.function, tuple(found.grid), found.threads, values)


def _parameters(signature):
    """How many parameters the machine code has, of the types of a call's arguments."""
    if isinstance(signature, tuple):
        return sum(map(_parameters, signature))
    return int(signature != "constexpr")


class _Compiler:
    """In the place of Triton's: files as it would write, by which it then makes its own object."""

    def __init__(self, folder):
        self.folder, self.compiled = folder, 0

    def __call__(self, source, target=None, options=None, **_more):
        options = triton.compiler.make_backend(target).parse_options(dict(options))
        self.compiled += 1
        scratch = {
            f"{kind}_scratch_{what}": n for kind in ("global", "profile") for what, n in (("size", 0), ("align", 1))
        }
        metadata = {
            **{"target": target, "name": source.name, "shared": 0, "tmem_size": 0, "warp_size": WARP},
            **{"tensordesc_meta": None, **scratch, **vars(options)},
        }
        files = {ext: self.folder / f"{self.compiled}.{ext}" for ext in ("json", "cubin")}
        files["json"].write_text(json.dumps(metadata, default=vars))
        scratches = 2
        files["cubin"].write_bytes(struct.pack("<i", _parameters(tuple(source.signature.values())) + scratches))
        return CompiledKernel(source, {file.name: str(file) for file in files.values()}, str(self.compiled))


def build(folder):
    """The driver's library in a folder of its own."""
    library = Path(folder) / "libcuda.so.1"
    flags = ("-O2", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1")
    subprocess.run((os.environ.get("CC", "cc"), *flags, "-o", library, SOURCE), check=True)
    return library


@contextlib.contextmanager
def fake_gpus(folder, patch):
    """The driver, while launches go to it; ``patch`` is pytest's monkeypatch, or one of its kind."""
    library = build(folder)
    patch.setenv("TRITON_LIBCUDA_PATH", str(library.parent))
    # What Triton builds for its launcher, of which a user's own is for the machine's driver.
    patch.setenv("TRITON_CACHE_DIR", str(folder / "triton"))
    fake = FakeDriver(ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL))

    @contextlib.contextmanager
    def on_device(device):
        before = fake.get_current_device()
        fake.set_current_device(device.index)
        try:
            yield
        finally:
            fake.set_current_device(before)

    patch.setattr(driver, "_active", fake)
    patch.setattr(triton.compiler, "compile", _Compiler(folder))
    patch.setattr(torch.cuda, "current_device", fake.get_current_device)
    patch.setattr(torch.cuda, "get_device_capability", fake.get_device_capability)
    patch.setattr(torch.cuda, "device", on_device)
    _forget()
    yield fake
    _forget()


def _forget():
    """Everything that was compiled, and kept, for what is no longer the driver."""
    kept.forget()
    launch._is_hopper.cache_clear()
    for kernel in KERNELS:
        kernel.device_caches.clear()
    # While there is a driver that unloads them.
    gc.collect()
