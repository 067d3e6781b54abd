"""The cases tried where nothing in particular is asked for."""

from __future__ import annotations

from collections.abc import Iterator

from vae_fast.checking.cases import LAYOUTS
from vae_fast.checking.words import FORMULAS, OPS, parse_options

# A single number, one row, rows of lengths that are no multiple of a vector's, more than one tile, and nothing.
_PLAIN_SHAPES = ((), (1,), (37,), (7, 19), (3, 1030), (5, 2, 7), (0, 5), (4, 0))
_SHAPE, _IMAGES, _DEEP = (7, 37), (3, 5, 4, 6), (4, 5, 19)
_EXTREMES = (4096,)


def default_shape(layout: str, inputs: str, options: tuple[str, ...]) -> tuple[int, ...]:
    """The shape a case has where none is asked for."""
    if layout == "channels_last":
        return _IMAGES
    if layout == "upstream_transposed" or "event2" in options:
        return _DEEP
    return _EXTREMES if inputs != "ordinary" and layout == "contiguous" and not options else _SHAPE


def default_variants(op: str) -> Iterator[tuple[tuple[int, ...], str, str, tuple[str, ...]]]:
    """(shape, layout, inputs, options) of an operator's cases.

    Each layout with plain options, each variant of the options contiguous, extreme inputs once, and the plain call
    in shapes of all kinds; layouts and extreme inputs again for a KL to a prior and for probabilities.
    """
    for shape in _PLAIN_SHAPES:
        yield shape, "contiguous", "ordinary", ()
    for layout in LAYOUTS:
        yield default_shape(layout, "ordinary", ()), layout, "ordinary", ()
    for word in set(FORMULAS) & set(OPS[op].words):
        for layout in LAYOUTS:
            yield default_shape(layout, "ordinary", ()), layout, "ordinary", (word,)
        yield _EXTREMES, "contiguous", "extreme", (word,)
    for text in OPS[op].variants:
        options = parse_options(text)
        yield default_shape("contiguous", "ordinary", options), "contiguous", "ordinary", options
    yield _EXTREMES, "contiguous", "extreme", ()
