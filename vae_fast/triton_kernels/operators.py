"""The launchers by the raw operators' names, and the same as operators of torch's, for compilers.

An operator in Python costs a call several times what launching the kernel does; a compiler cannot do without.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch

from vae_fast import python_backend, schemas
from vae_fast.checks import check
from vae_fast.operators import DEFINITIONS, PAIRWISE, PAIRWISE_SCHEMAS
from vae_fast.triton_kernels import launch
from vae_fast.triton_kernels.early import rescale, with_kept

# Of every operator that has a file here.
_FOUND = python_backend.kernels(__package__)
for _pairwise in PAIRWISE:
    python_backend.add_pairwise(_FOUND, __package__, _pairwise)
_LAUNCHERS = vars(_FOUND)
KERNELS = SimpleNamespace(**_LAUNCHERS, rescale=rescale, with_kept=with_kept)


def _in_memory(tensor: torch.Tensor) -> bool:
    """Whether a tensor's memory is as large as its shape and strides say; it may have been freed since."""
    last = tensor.storage_offset() + sum(
        (n - 1) * stride for n, stride in zip(tensor.shape, tensor.stride(), strict=True)
    )
    return tensor.numel() == 0 or (last + 1) * tensor.element_size() <= tensor.untyped_storage().nbytes()


def _body(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def body(*args: Any) -> Any:
        # Those on pairs check their own.
        if name not in PAIRWISE_SCHEMAS:
            check(name, args)
        for arg in args:
            if isinstance(arg, torch.Tensor) and not _in_memory(arg):
                raise ValueError(f"{name}: a tensor of shape {tuple(arg.shape)} has less memory than that")
        with launch.fresh_tickets():
            return function(*args)

    return body


library = torch.library.Library("vae_fast_triton", "DEF")
for _definition in DEFINITIONS:
    if _definition.partition("(")[0].removesuffix(".autograd") in _LAUNCHERS:
        library.define(_definition, tags=(torch.Tag.pt2_compliant_tag,))
for _op, _qualified, _name in schemas.overloads("vae_fast_triton"):
    for _key in ("CPU", "CUDA"):
        library.impl(_qualified, schemas.unpacked(_op, _body(_name, _LAUNCHERS[_name])), _key)
    _fake = schemas.unpacked(_op, schemas.fake(_name))
    torch.library.register_fake(f"vae_fast_triton::{_qualified}", _fake, lib=library)
for _name in _LAUNCHERS.keys() & PAIRWISE_SCHEMAS.keys():
    for _key in ("CPU", "CUDA"):
        library.impl(_name, _body(_name, _LAUNCHERS[_name]), _key)
    torch.library.register_fake(f"vae_fast_triton::{_name}", schemas.FAKES_OF_PAIRS[_name], lib=library)
schemas.attach_gradients("vae_fast_triton", library)

TRACED = SimpleNamespace(**{name: getattr(torch.ops.vae_fast_triton, name).default for name in _LAUNCHERS})
if hasattr(TRACED, "standard_normal_fwd"):
    library.impl("standard_normal_fwd", schemas.by_device(TRACED.standard_normal_fwd), "BackendSelect")
GRAPH = schemas.in_graphs("vae_fast_triton")
