"""Where a sampler's ε comes from: a seed and its place in the seed's noise, or the caller's own tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vae_fast import seeds
from vae_fast.ops import arguments

# Streams of a seed, and samples of a stream.
_WORDS = 2**32


class Place(NamedTuple):
    """Which of a seed's normals: the first one's index, and the number of its sample within its stream."""

    offset: int = 0
    first_sample: int = 0
    stream: int = 0


class Drawn(NamedTuple):
    """The options of a draw, by name, and the tensors that autograd saves by itself."""

    options: dict[str, Any]
    seed_tensor: Tensor | None
    noise: Tensor | None


_START = Place()


def sample_word(place: Place, n_samples: int) -> int:
    """stream·2³² + first_sample, as the raw operators take it.

    Raises ValueError where samples of two streams would meet.
    """
    first, stream = seeds.whole("first_sample", place.first_sample), seeds.whole("stream", place.stream)
    if not 0 <= stream < _WORDS:
        raise ValueError(f"stream must be from 0 to 2**32 - 1, got {place.stream}")
    # To a compiler, which shows traced sizes as numbers, the comparison would be a bound of them.
    known = not torch.compiler.is_compiling() and type(first) is int and type(n_samples) is int
    if known and not 0 <= first <= first + n_samples <= _WORDS:
        raise ValueError(
            f"samples must have numbers from 0 to 2**32 - 1, got first_sample={place.first_sample} "
            f"and {n_samples} of them"
        )
    return seeds.wrap(stream * _WORDS) + first if stream else first


def source(
    seed: int | Tensor | None,
    generator: torch.Generator | None,
    noise: Tensor | None,
    place: Place,
    mu: Tensor,
    shapes: tuple[Sequence[int], Sequence[int]],
) -> Drawn:
    """What samples of ``shapes``, (sample_shape, shape), are drawn from.

    Raises TypeError or ValueError for what cannot be, and where ``noise`` comes with anything else.
    """
    if noise is not None:
        return Drawn({}, None, _given(noise, seed is None and generator is None and place == _START, mu, shapes))
    key, key_tensor = seeds.resolve(seed, generator, mu.device)
    options: dict[str, Any] = {"seed": key}
    if place != _START:
        n_samples = 1
        for n in shapes[0]:
            n_samples *= n
        options["offset"] = seeds.integer("offset", place.offset)
        options["first_sample"] = sample_word(place, n_samples)
    return Drawn(options, key_tensor, None)


def _given(noise: Any, alone: bool, mu: Tensor, shapes: tuple[Sequence[int], Sequence[int]]) -> Tensor:
    """The caller's ε, a constant."""
    if not alone:
        raise ValueError("pass noise, or what to draw it from (seed, generator, offset, first_sample, stream)")
    arguments.floating("noise", noise)
    samples, shape = shapes
    if tuple(noise.shape) != (*samples, *shape):
        raise ValueError(f"noise has shape {tuple(noise.shape)}, and the sample {(*samples, *shape)}")
    arguments.same_device("mu", mu, noise=noise)
    given: Tensor = noise.detach()
    return given
