"""Where a sampler's ε comes from: a seed and a place in its noise, or the caller's own tensor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vae_fast import seeds
from vae_fast.ops import arguments

# Streams of a seed, and samples of a stream.
_WORDS = 2**32


# Which of a seed's normals: the first one's index, its sample's number within a stream, and the stream.
Place = tuple[int, int, int]
START: Place = (0, 0, 0)


class Drawn(NamedTuple):
    """What a sampler draws, as options of its raw operator; autograd saves the tensors among them by itself."""

    seed: Any
    offset: int
    first_sample: int
    seed_tensor: Tensor | None
    noise: Tensor | None


def sample_word(place: Place, sample_shape: Sequence[int]) -> int:
    """stream·2³² + first_sample, as the raw operators take it.

    Raises ValueError where samples of two streams would meet.
    """
    _, first, stream = place
    if type(first) is int and type(stream) is int and first == stream == 0 and not sample_shape:
        return 0
    first, stream = seeds.whole("first_sample", first), seeds.whole("stream", stream)
    if not 0 <= stream < _WORDS:
        raise ValueError(f"stream must be from 0 to 2**32 - 1, got {stream}")
    # To a compiler, which shows traced sizes as numbers, the comparison would be a bound of them.
    if not torch.compiler.is_compiling():
        last = first + math.prod(sample_shape)
        if type(last) is int and not 0 <= first <= last <= _WORDS:
            raise ValueError(f"samples must have numbers from 0 to 2**32 - 1, got {first} to {last - 1}")
    return seeds.wrap(stream * _WORDS) + first if stream else first


def source(
    seed: int | Tensor | None,
    generator: torch.Generator | None,
    noise: Tensor | None,
    place: Place,
    mu: Tensor,
    sample_shape: Sequence[int],
    shape: Sequence[int],
) -> Drawn:
    """What samples of sample_shape + ``shape`` are drawn from.

    Raises TypeError or ValueError for what cannot be, and where ``noise`` comes with anything else.
    """
    if noise is not None:
        if seed is not None or generator is not None or place != START:
            raise ValueError("pass noise, or what it is drawn by: seed, generator, offset, first_sample, stream")
        return Drawn(0, 0, 0, None, _given(noise, mu, (*sample_shape, *shape)))
    first = sample_word(place, sample_shape)
    key, key_tensor = seeds.resolve(seed, generator, mu.device)
    return Drawn(key, seeds.integer("offset", place[0]), first, key_tensor, None)


def _given(noise: Any, mu: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The caller's ε, a constant."""
    arguments.floating("noise", noise)
    if tuple(noise.shape) != shape:
        raise ValueError(f"noise has shape {tuple(noise.shape)}, and the sample {shape}")
    arguments.same_device("mu", mu, noise=noise)
    given: Tensor = noise.detach()
    return given
