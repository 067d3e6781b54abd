"""`check`: values and gradients of every operator and backend against float64, as a table."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import vae_fast as vf
from vae_fast.cli.errors import CommandError
from vae_fast.cli.model import check_backend, resolve_device

if TYPE_CHECKING:
    from vae_fast.checking.rows import Failure, Row

_SECONDS_BETWEEN_LINES = 5.0

_UNITS = (
    "Worst errors in units of eps * sum|terms|: eps of the result's dtype, terms what is added up to it.\n"
    "Allowed: 3 (z: 2), and 1 + log2 n more for a sum of n; twice that in float64, where the truth is no better;\n"
    "1/2 more for each factor that a gradient is multiplied by (upstream, weight, 1/n), and up to 7 more where\n"
    "sigma is a softplus or has param_eps added. Of counts 4, and 6 where a parameter is given by its logarithm.\n"
    "Between pairs, where shares are exponentials of sums, 6, and 12 of gradients.\n"
    "The noise is compared bit by bit.\n"
    "torch: the formulas users write in PyTorch, in the same dtype, extreme inputs too; where vae_fast's result\n"
    "for a half type is float32, in units of that."
)


def run(args: argparse.Namespace) -> int:
    """The `check` command: exit status 1 where a row fails."""
    if args.backend:
        check_backend(args.backend)
    device = resolve_device(args.device) if args.device else None
    start = time.perf_counter()
    try:
        rows = vf.check(
            args.op,
            args.backend,
            device,
            args.dtype,
            args.shape,
            args.layout,
            args.inputs,
            args.options,
            seed=args.seed,
            thorough=args.thorough,
            cases=args.cases,
            every=args.every,
            progress=_progress() if args.thorough else None,
        )
    except (ValueError, RuntimeError) as error:
        raise CommandError(str(error)) from error
    ok, seconds = all(row.ok for row in rows), time.perf_counter() - start
    if args.json:
        content = {"ok": ok, "seconds": round(seconds, 1), "rows": [row.as_dict() for row in rows]}
        print(json.dumps(content, indent=1))
    else:
        print("\n".join(_lines(rows, seconds)))
    return 0 if ok else 1


def _progress() -> Callable[[str], None]:
    """Prints to stderr, a line every few seconds at most."""
    last = -_SECONDS_BETWEEN_LINES

    def say(line: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _SECONDS_BETWEEN_LINES:
            last = now
            print(line, file=sys.stderr, flush=True)

    return say


def _lines(rows: tuple[Row, ...], seconds: float) -> list[str]:
    titles = (
        "operator",
        "backend",
        "device",
        "dtype",
        "run",
        "number",
        "value",
        "gradient",
        "torch",
        "gradient",
        "",
    )
    table = [titles, *(_cells(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    for cells in table:
        padded = (
            cell.ljust(width) if k < 5 or k == 10 else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        lines.append("  ".join(padded).rstrip())
    lines += ["", _UNITS]
    for row in rows:
        if row.failure is not None:
            lines += ["", *_failure(row, row.failure)]
    failed = sum(not row.ok for row in rows)
    verdict = f"{failed} of {len(rows)} rows fail" if failed else "all as it should be"
    return [*lines, "", f"{verdict}: {sum(row.cases for row in rows)} cases in {seconds:.0f} s"]


def _cells(row: Row) -> tuple[str, ...]:
    errors = (row.forward, row.gradient, row.torch_forward, row.torch_gradient)
    names = (row.op, row.backend, row.device, row.dtype, row.kind, str(row.cases))
    return (*names, *("-" if e is None else f"{e:.3g}" for e in errors), "ok" if row.ok else "FAIL")


def _failure(row: Row, failure: Failure) -> list[str]:
    at = f"[{', '.join(map(str, failure.index))}]" if failure.index else ""
    got, wanted = (v if isinstance(v, str) else f"{v:.9g}" for v in (failure.got, failure.wanted))
    lines = [
        f"FAIL {row.op}, {row.backend} on {row.device}, {row.dtype}: {failure.result}{at} is {got}, "
        f"should be {wanted}",
        f"     {failure.error:.3g} units off, {failure.bar:.3g} allowed",
    ]
    if failure.operands:
        lines.append("     at " + ", ".join(f"{name} = {value:.9g}" for name, value in failure.operands.items()))
    return [*lines, f"     {failure.command}"]
