"""The check as a whole: the rows that the cases asked for make."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from vae_fast.checking import pairs
from vae_fast.checking.cases import DTYPES, Case, shape_text
from vae_fast.checking.choice import Choice, places, variants
from vae_fast.checking.rows import Row
from vae_fast.checking.run import prepare, shrink
from vae_fast.checking.tally import Tally, on_each
from vae_fast.checking.thorough import Progress, thorough_rows
from vae_fast.checking.words import PAIRS, options_text


def run_check(choice: Choice, thorough: bool, cases: int, every: int, progress: Progress | None) -> tuple[Row, ...]:
    """The rows of the check. Raises ValueError where nothing of what was asked for exists."""
    rows: list[Row] = []
    everywhere = list(places(choice))
    found = [place for place in everywhere if place[0] not in PAIRS]
    for op, device, names in found:
        tried = variants(choice, op)
        for dtype in [choice.dtype] if choice.dtype else DTYPES:
            if tried:
                if progress:
                    progress(f"{op}, {device}, {dtype}")
                rows += _rows(op, device, dtype, names, tried)
    for op, device, names in everywhere:
        # A shape of the others' is none of pairs.
        if op in PAIRS and (choice.op or choice.shape is None):
            if progress:
                progress(f"{op}, {device}")
            rows += pairs.rows(op, device, names, choice)
    if not rows:
        shape = "" if choice.shape is None else f" of shape {shape_text(choice.shape)}"
        options = "" if choice.options is None else f" with options {options_text(choice.options)}"
        raise ValueError(
            f"there is no case of {choice.op or 'any operator'}{shape}{options}, layout {choice.layout or 'any'}, "
            f"inputs {choice.inputs or 'any'} on the backend {choice.backend or 'of any kind'}"
        )
    if thorough:
        rows += thorough_rows(choice, found, cases, every, progress or (lambda line: None))
    return tuple(rows)


def _rows(op: str, device: str, dtype: str, names: list[str], tried: list[Case]) -> Iterator[Row]:
    tallies = {name: Tally(op, name, device, dtype, "cases") for name in names}
    for base in tried:
        case = dataclasses.replace(base, device=device, dtype=dtype)
        on_each(tallies, case, prepare(case))
    for tally in tallies.values():
        yield tally.row(shrink)
