"""What the likelihood is asked to explain: the data as they are, thresholded, or redrawn each epoch."""

from __future__ import annotations

import torch
from torch import Tensor

from vae_fast.cli.errors import CommandError
from vae_fast.cli.streams import derived_generator

_CHUNK = 4096


def check_range(x: Tensor, what: str) -> None:
    """A Bernoulli target is in [0, 1]: bytes (value/255) and bools are, floats are looked at."""
    if x.is_floating_point():
        low, high = x.min().item(), x.max().item()
        if low < 0 or high > 1:
            raise CommandError(
                f"{what} has values from {low:g} to {high:g}; --likelihood bernoulli needs 0 to 1 "
                f"(scale the data, or use --likelihood gaussian)"
            )


def as_probability(x: Tensor) -> Tensor:
    """uint8, bool or float32 data as float32."""
    return x.float() / 255 if x.dtype == torch.uint8 else x.float()


def make_targets(x: Tensor, binarize: str, seed: int, *purpose: str | int) -> Tensor:
    """The targets of data x [n, d]: x itself, x > ½ or x ~ Bernoulli(x) (both bool).

    The Bernoulli draw is a pure function of (seed, purpose, position in x): pass the epoch to redraw.
    """
    if binarize == "none":
        return x
    out = torch.empty(x.shape, dtype=torch.bool)
    for chunk, start in enumerate(range(0, len(x), _CHUNK)):
        p = as_probability(x[start : start + _CHUNK])
        if binarize == "dynamic":
            generator = derived_generator(seed, "binarize", *purpose, chunk)
            out[start : start + _CHUNK] = torch.rand(p.shape, generator=generator) < p
        else:
            out[start : start + _CHUNK] = p > 0.5
    return out
