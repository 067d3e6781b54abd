"""What was asked for: names checked, and the operators, devices, backends and cases that they leave."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import torch

from vae_fast.backends import _named, backends, choose
from vae_fast.checking.cases import (
    DTYPES,
    INPUTS,
    LAYOUTS,
    Case,
    parse_shape,
)
from vae_fast.checking.defaults import default_shape, default_variants
from vae_fast.checking.words import OPS, PAIRS, options_text, parse_options


@dataclasses.dataclass(frozen=True)
class Choice:
    """The caller's choice, by valid names; None where all are meant."""

    op: str | None = None
    backend: str | None = None
    device: str | None = None
    dtype: str | None = None
    shape: tuple[int, ...] | None = None
    layout: str | None = None
    inputs: str | None = None
    options: tuple[str, ...] | None = None
    seed: int = 0


def checked(seed: int, **words: Any) -> Choice:
    """The checked choice. Raises ValueError naming what there is, RuntimeError for a backend not available."""
    dtype, device, shape, options = words["dtype"], words["device"], words["shape"], words["options"]
    if isinstance(dtype, torch.dtype):
        dtype = next((name for name, known in DTYPES.items() if known == dtype), str(dtype))
    _known("op", words["op"], (*OPS, *PAIRS))
    _known("dtype", dtype, DTYPES)
    _known("layout", words["layout"], LAYOUTS)
    if not (isinstance(words["inputs"], str) and _bits(words["inputs"])):
        _known("inputs", words["inputs"], INPUTS)
    if words["backend"] is not None:
        _named(words["backend"], "backend")
    if device is not None:
        device = _device(device)
    if isinstance(shape, str):
        shape = parse_shape(shape)
    elif shape is not None:
        shape = (shape,) if isinstance(shape, int) else tuple(int(n) for n in shape)
        if any(n < 0 for n in shape):
            raise ValueError(f"shape has a negative size: {shape}")
    if options is not None:
        options = parse_options(options if isinstance(options, str) else options_text(tuple(options)))
    if not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise ValueError(f"seed must be an int from 0 to 2**63 - 1, got {seed!r}")
    valid = {"dtype": dtype, "device": device, "shape": shape, "options": options}
    return Choice(**words | valid, seed=seed)


def _known(what: str, name: Any, names: Any) -> None:
    if name is not None and (not isinstance(name, str) or name not in names):
        raise ValueError(f"unknown {what} {name!r}; there are {', '.join(names)}")


def _bits(inputs: str) -> bool:
    """Whether it is bits:START:STEP:OTHER (operands.py)."""
    kind, *numbers = inputs.split(":")
    try:
        start, step, _ = int(numbers[0], 0), int(numbers[1]), float(numbers[2])
    except (ValueError, IndexError):
        return False
    return kind == "bits" and len(numbers) == 3 and 0 <= start < 2**32 and 0 < step < 2**32


def _device(device: Any) -> str:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise ValueError(f"device {device!r} is not usable: {str(error).splitlines()[0]}") from None
    return str(torch.device(device))


def places(choice: Choice) -> Iterator[tuple[str, str, list[str]]]:
    """(operator, device, the backends that serve it there): all there are, or the ones asked for.

    Raises RuntimeError where the backend asked for does not serve the operator or the device asked for.
    """
    table = backends()
    devices = [choice.device] if choice.device else ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    some = False
    for op in [choice.op] if choice.op else (*OPS, *PAIRS):
        for device in devices:
            kind = torch.device(device).type
            if choice.backend == "auto":
                some = True
                yield op, device, [choose(op, torch.device(device), choice.backend)]
                continue
            serving = [
                name
                for name, b in table.items()
                if b.available and op in b.ops and ("*" in b.devices or kind in b.devices)
            ]
            names = [name for name in serving if choice.backend in (None, name)]
            if names:
                some = True
                yield op, device, names
    if not some:
        choose(choice.op or next(iter(OPS)), torch.device(devices[0]), choice.backend)  # raises, and says why


def variants(choice: Choice, op: str) -> list[Case]:
    """The operator's cases, without backend and dtype. A layout, inputs or options asked for stand alone."""
    given = (choice.layout, choice.inputs, choice.options)
    found = []
    for shape, layout, inputs, options in default_variants(op):
        mine = (layout, inputs, options)
        if all(a is None or a == b for a, b in zip(given, mine, strict=True)):
            found.append((shape, *mine))
    exact = choice.layout is not None and choice.inputs is not None and choice.options is not None
    if not found or exact:
        layout, inputs, options = choice.layout or "contiguous", choice.inputs or "ordinary", choice.options or ()
        found = [(default_shape(layout, inputs, options), layout, inputs, options)]
    cases = [
        Case(op, "", "cpu", "float32", choice.shape if choice.shape is not None else shape, layout, inputs, options,
             choice.seed)
        for shape, layout, inputs, options in found
    ]  # fmt: skip
    return list(dict.fromkeys(case for case in cases if case.exists))
