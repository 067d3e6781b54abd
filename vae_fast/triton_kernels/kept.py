"""What is kept of calls: for as many as were met last, and compiled kernels only where they can be launched again.

A compiled kernel is launched as Triton's own call does it in the end. What that call works out before, from a type
for each argument to the kernel's place in a dictionary, is the same for all calls of a class, and takes most of its
time. Where somebody watches, and in versions of Triton that launch otherwise, launches go its way.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from triton import knobs
from triton.backends import backends
from triton.runtime.jit import JITFunction

from vae_fast.triton_kernels.interpreter import IS_PTX

# Classes of calls that are kept of an operator, the most. One takes some 6 KiB.
MOST = 1024

Kept = TypeVar("Kept")


_all: list[Recent[Any]] = []


def forget() -> None:
    """Forgets all that was kept: for who changes a constant that it was made with."""
    for recent in _all:
        recent.old, recent.young = {}, {}


class Recent(Generic[Kept]):
    """What was made of keys, the most recently used: between half of ``most`` and ``most``.

    Two dictionaries, of which the older one goes when the younger is half of all. So to find something takes one
    look-up, and no lock: threads that meet one class of calls at once make it twice, and one of both stays.
    """

    def __init__(self, most: int = MOST) -> None:
        _all.append(self)
        self.half = most // 2
        self.young: dict[Any, Kept] = {}
        self.old: dict[Any, Kept] = {}

    def find(self, key: Any) -> Kept | None:
        """What was kept, if it still is."""
        found = self.young.get(key)
        if found is None:
            found = self.old.get(key)
            if found is not None:
                self.keep(key, found)
        return found

    def keep(self, key: Any, made: Kept) -> Kept:
        """Keeps and returns it."""
        if len(self.young) >= self.half:
            self.old, self.young = self.young, {}
        self.young[key] = made
        return made

    def __len__(self) -> int:
        return len(self.young.keys() | self.old.keys())


# What Triton's call asks for on its way to a compiled kernel, in the versions whose launches are known, 3.6 to 3.9.
# One that asks for anything else may do something else.
_KNOWN = frozenset(
    """
    RuntimeError _do_compile _pack_args active add_stages_inspection_hook append callable compilation
    compute_cache_key debug device_caches driver fpsan_homomorphic_casts function get get_current_device
    get_current_stream hasattr instrumentation_mode items knobs launch_enter_hook launch_exit_hook launch_metadata
    len object packed_metadata pre_run_hooks result run runtime used_global_vals values
    """.split()
)
_LAUNCHER = ("self", "gridX", "gridY", "gridZ", "stream", "function")


def _are_known(call: Any, launcher: Any) -> bool:
    """Whether Triton's call, and the launcher that it comes to, are those of a known version, by their code."""
    asked, taken = getattr(call, "__code__", None), getattr(launcher, "__code__", None)
    if asked is None or taken is None or not _KNOWN.issuperset(asked.co_names):
        return False
    hooks = (knobs.runtime.launch_enter_hook, knobs.runtime.launch_exit_hook)
    return taken.co_varnames[: len(_LAUNCHER)] == _LAUNCHER and all(hasattr(hook, "calls") for hook in hooks)


def _can_keep() -> bool:
    if not IS_PTX or "nvidia" not in backends:
        return False
    from triton.backends.nvidia.driver import CudaLauncher

    return _are_known(JITFunction.run, CudaLauncher.__call__)


KEEPS = _can_keep()
"""Whether compiled kernels are kept: decided once, of the Triton that there is."""


def is_watched(kernel: Any) -> bool:
    """Whether a hook or a setting of Triton's, set in this process, wants launches or compilations to itself."""
    runtime = knobs.runtime
    return bool(
        getattr(runtime.launch_enter_hook, "calls", True)
        or getattr(runtime.launch_exit_hook, "calls", True)
        or runtime.debug
        or getattr(runtime, "add_stages_inspection_hook", None) is not None
        or vars(knobs.compilation)
        or kernel.pre_run_hooks
    )
