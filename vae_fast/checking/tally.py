"""The worst of many cases, on the way to a row."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from vae_fast.checking.cases import Case
from vae_fast.checking.rows import Failure, Row
from vae_fast.checking.run import Outcome, Prepared, measure


class Tally:
    """Collects the outcomes of cases of one operator, backend, device and dtype; keeps the first failure."""

    def __init__(self, op: str, backend: str, device: str, dtype: str, kind: str) -> None:
        self.place = (op, backend, device, dtype, kind)
        self.cases = 0
        self.errors: list[float | None] = [None] * 4
        self.failed: tuple[Case, Failure] | None = None

    def add(self, case: Case, prepared: Prepared | None, outcome: Outcome, count: int = 1) -> None:
        self.cases += count
        theirs = (None, None) if prepared is None else prepared[2:]
        gradient = outcome.gradient if case.op != "standard_normal" else None
        for k, new in enumerate((outcome.forward, gradient, *theirs)):
            old = self.errors[k]
            self.errors[k] = old if new is None else new if old is None else max(old, new)
        if self.failed is None and outcome.failure is not None:
            self.failed = (case, outcome.failure)

    def row(self, shrink: Callable[[Case, Failure], Failure], errors: bool = True) -> Row:
        """The row; ``shrink`` makes its failure smaller. Without ``errors`` none were measured."""
        failure = self.failed and shrink(*self.failed)
        forward, gradient, *theirs = self.errors if errors else [None] * 4
        return Row(*self.place, self.cases, forward, gradient, theirs[0], theirs[1], failure)


def on_each(tallies: Mapping[str, Tally], case: Case, prepared: Prepared, count: int = 1) -> None:
    """Runs a case on each backend, by name, and adds what comes out to its tally."""
    for name, tally in tallies.items():
        here = dataclasses.replace(case, backend=name)
        tally.add(here, prepared, measure(here, prepared), count)
