"""What takes long: derivatives against differences, every float32 through some formulas, random cases."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import vae_fast
from vae_fast.checking.cases import DTYPES, LAYOUTS, Case
from vae_fast.checking.choice import Choice
from vae_fast.checking.operands import draw
from vae_fast.checking.rows import Failure, Row
from vae_fast.checking.run import Outcome, measure, prepare, shrink
from vae_fast.checking.tally import Tally, on_each
from vae_fast.checking.words import NEEDS, OPS, parse_options

Place = tuple[str, str, list[str]]
Progress = Callable[[str], None]

# Numbers taken at once: what they make is some hundred megabytes.
_CHUNK = 1 << 20
_PATTERNS = 1 << 32
_LARGEST_DIM, _LARGEST = 40, 5000


def thorough_rows(
    choice: Choice, found: Sequence[Place], cases: int, every: int, progress: Progress
) -> Iterator[Row]:
    """The three checks, where the choice leaves them something to do; 0 for ``every`` or ``cases``: none of it."""
    if choice.dtype in (None, "float64"):
        yield from _derivatives(choice, found, progress)
    if every and choice.dtype in (None, "float32"):
        yield from _sweep(choice, found, every, progress)
    if cases:
        yield from _random(choice, found, cases, progress)


# ---- derivatives -------------------------------------------------------------------------------------------


def _derivatives(choice: Choice, found: Sequence[Place], progress: Progress) -> Iterator[Row]:
    """First and second derivatives in float64 against differences of values, for every variant of the options."""
    for op, device, names in found:
        if op == "standard_normal":
            continue
        words = [(), *map(parse_options, OPS[op].variants)] if choice.options is None else [choice.options]
        for name in names:
            progress(f"derivatives of {op}, {name} on {device}")
            tally = Tally(op, name, device, "float64", "derivatives")
            for options in words:
                shape = choice.shape or ((2, 1, 3) if "event2" in options else (2, 3))
                case = Case(op, name, device, "float64", shape, options=options, seed=choice.seed)
                # Differences of NaN are none, and those of a clamp are not the gradients that it passes, nor those
                # of log q the ones through z alone.
                if case.exists and not {"masked", "pass", "path"} & set(options):
                    tally.add(case, None, _differentiated(case))
            if tally.cases:
                yield tally.row(lambda _, failure: failure, errors=False)


def _differentiated(case: Case) -> Outcome:
    operands = draw(case)
    floats = {name: t for name, t in operands.tensors.items() if isinstance(t, Tensor) and t.requires_grad}

    def call(*tensors: Tensor) -> Any:
        given = operands.tensors | dict(zip(floats, tensors, strict=True))
        positional, keywords = case.arguments(given, operands.factors)
        return getattr(vae_fast, case.op)(*positional, **keywords)

    inputs = tuple(t.detach().clone().requires_grad_() for t in floats.values())
    try:
        # The backward pass of a backward pass is the reference's on every backend.
        gradcheck(call, inputs)
        gradgradcheck(call, inputs, fast_mode=True)
    except Exception as raised:
        message = " ".join(str(raised).split())
        command = f"{case.command} --thorough --every 0 --cases 0"
        failure = Failure(case, "gradients", (), {}, message, "differences of values", math.inf, 0.0, command)
        return Outcome(0.0, math.inf, failure)
    return Outcome(0.0, 0.0, None)


# ---- every float32 -----------------------------------------------------------------------------------------

# The formulas of one argument, by way of the operator they are part of: the other operand's value, the options, and
# how many patterns there are. Probabilities are those from 0 to 1.
_PROBABILITIES = 0x3F800001
_SWEPT = {
    "bernoulli_log_prob": (
        *((target, (), _PATTERNS) for target in (0, 1)),
        *((target, ("probs",), _PROBABILITIES) for target in (0, 1)),
    ),
    "gaussian_kl": ((0, (), _PATTERNS),),
    "rsample": ((0, (), _PATTERNS),),
}


def _sweep(choice: Choice, found: Sequence[Place], every: int, progress: Progress) -> Iterator[Row]:
    """Every (or each ``every``-th) float32 as logits or p for the targets 0 and 1, and as log σ² at μ = 0."""
    for op, device, names in found:
        if op not in _SWEPT or choice.options or choice.layout not in (None, "contiguous"):
            continue
        tallies = {name: Tally(op, name, device, "float32", "every float32") for name in names}
        for other, options, patterns in _SWEPT[op]:
            count = -(-patterns // every)
            for first in range(0, count, _CHUNK):
                progress(f"every float32 through {op} on {device}: {first / count:.1%}")
                n = min(_CHUNK, count - first)
                inputs = f"bits:{hex(first * every)}:{every}:{other}"
                case = Case(op, "", device, "float32", (n,), inputs=inputs, options=options, seed=choice.seed)
                on_each(tallies, case, prepare(case, compare=False), n)
        for tally in tallies.values():
            yield tally.row(_one_pattern)


def _one_pattern(case: Case, failure: Failure) -> Failure:
    """The failure of the one number that is furthest off, if it fails by itself."""
    if not failure.index:
        return failure
    _, start, step, other = case.inputs.split(":")
    pattern = int(start, 0) + failure.index[-1] * int(step)
    alone = dataclasses.replace(case, shape=(1,), inputs=f"bits:{hex(pattern)}:1:{other}")
    return measure(alone, prepare(alone, compare=False)).failure or failure


# ---- random cases ------------------------------------------------------------------------------------------


def _random(choice: Choice, found: Sequence[Place], cases: int, progress: Progress) -> Iterator[Row]:
    """Cases of random operators, shapes, layouts, options, dtypes and inputs; each on every backend."""
    tallies: dict[tuple[str, str, str, str], Tally] = {}
    for k in range(cases):
        if not k % 1000:
            progress(f"random cases: {k} of {cases}")
        rng = np.random.default_rng([choice.seed, k])
        op, device, names = found[int(rng.integers(len(found)))]
        case = _any_case(rng, choice, op, device, choice.seed + k)
        if case is None:
            continue
        keys = {name: (op, name, device, case.dtype) for name in names}
        for key in keys.values():
            if key not in tallies:
                tallies[key] = Tally(*key, "random cases")
        on_each({name: tallies[key] for name, key in keys.items()}, case, prepare(case))
    order = list(OPS)
    for key in sorted(tallies, key=lambda k: (order.index(k[0]), *k[1:])):
        yield tallies[key].row(shrink)


def _any_case(rng: np.random.Generator, choice: Choice, op: str, device: str, seed: int) -> Case | None:
    """A case within the choice; None where a hundred draws found none that exists."""
    for _ in range(100):
        ndim = int(rng.integers(0, 4))
        shape = tuple(int(n) for n in rng.integers(0 if rng.random() < 0.05 else 1, _LARGEST_DIM + 1, ndim))
        layout = str(rng.choice(list(LAYOUTS)))
        if layout == "channels_last":
            shape = tuple(int(n) for n in rng.integers(1, 9, 4))
        words = OPS[op].words
        options = tuple(
            str(w) for w in rng.choice(words, int(rng.integers(0, min(4, len(words) + 1))), replace=False)
        )
        needed = (NEEDS[word] for word in options if word in NEEDS)
        options = tuple(dict.fromkeys((*needed, *options)))
        inputs = "extreme" if rng.random() < 0.1 else "ordinary"
        case = Case(
            op,
            "",
            device,
            choice.dtype or str(rng.choice(list(DTYPES))),
            shape if choice.shape is None else choice.shape,
            choice.layout or layout,
            choice.inputs or inputs,
            options if choice.options is None else choice.options,
            seed,
        )
        if case.exists and (choice.shape is not None or math.prod(case.shape) <= _LARGEST):
            return case
    return None
