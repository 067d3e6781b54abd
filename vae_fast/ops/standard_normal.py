"""The noise ε by itself."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from vae_fast import seeds
from vae_fast.backends import choose, kernel
from vae_fast.checks import FLOATS, countable
from vae_fast.operators import OPERATORS
from vae_fast.ops import arguments
from vae_fast.ops.noise_source import sample_word
from vae_fast.ops.public import operator

_Options = OPERATORS["standard_normal"].Options


@operator
def standard_normal(
    shape: int | Sequence[int],
    *,
    seed: int | Tensor,
    offset: int = 0,
    sample: int = 0,
    stream: int = 0,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    backend: str | None = None,
) -> Tensor:
    """Standard normals ε that are a pure function of (seed, stream, sample, index), the same bits everywhere.

    These are the normals ``rsample`` multiplies by σ: ``rsample(mu, logvar, seed=s)`` is
    ``mu + σ * standard_normal(mu.shape, seed=s)``, and sample k of several has ``sample=first_sample + k``.

    Philox4x32-10 and Box and Muller's transform, √(−2·log u₁)·(cos, sin)(2π·u₂), within 3.5e-7·max(1, r) of the
    exact normal of radius r, and at most 6.7638 in size. A change of any bit is a major version.

    Args:
        shape: the result's shape, an int or a sequence of ints.
        seed: an int, taken modulo 2⁶⁴, or one int64 element on ``device``.
        offset: index of the first element; indices run in C order.
        sample: number of the sample, from 0 to 2³² − 1.
        stream: which of the seed's streams of noise, from 0 to 2³² − 1. No two have a normal in common.
        device: where the result is made. None: PyTorch's default device.
        dtype: float32, bfloat16, float16 or float64; float64 is the float32 normal widened, half types the float32
            normal rounded. None: PyTorch's default dtype.
        backend: "reference", "native", "triton" or "auto"; None is what ``use_backend`` says.

    Returns:
        ε of ``shape`` and ``dtype`` on ``device``, without a graph.

    Raises:
        TypeError: a dtype that is not float32, bfloat16, float16 or float64; a seed, offset, sample or stream that
            is not an integer.
        ValueError: a sample or stream out of its range, a negative size, a seed tensor of more elements than one or
            on another device.
        RuntimeError: a named backend that cannot serve the call.

    Example:
        >>> eps = vae_fast.standard_normal((4, 3), seed=0)
        >>> [round(e, 4) for e in eps[0].tolist()]
        [-1.2611, 0.4969, 0.2549]
        >>> torch.equal(eps[2:], vae_fast.standard_normal((2, 3), seed=0, offset=6))
        True

    Source: Philox4x32-10 (Salmon et al. 2011) and Box–Muller; ``vae_fast.noise`` is the definition.
    """
    dtype = torch.get_default_dtype() if dtype is None else dtype
    if dtype not in FLOATS:
        raise TypeError(f"dtype must be float32, bfloat16, float16 or float64, got {dtype}")
    device = torch.empty(0).device if device is None else torch.device(device)
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())
    if seed is None:
        raise TypeError("seed must be an int or an int64 tensor, got None")
    key, key_tensor = seeds.resolve(seed, None, device)
    sizes = arguments.sizes("shape", shape)
    countable(sizes, "the result")
    fwd = kernel(choose("standard_normal", device, backend, math.prod(sizes)), "standard_normal_fwd")
    options = _Options(
        sample_shape=(),
        shape=sizes,
        seed=key,
        seed_tensor=key_tensor,
        offset=seeds.integer("offset", offset),
        first_sample=sample_word((offset, sample, stream), ()),
        dtype=dtype,
        device=device,
    )
    return fwd(*options)
