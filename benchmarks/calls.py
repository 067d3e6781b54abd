"""`python -m benchmarks calls`: what a user sees of a call's cost.

Small calls by eager's formulas, by vae_fast's Python functions and by vae_fast as it is, with its compiled front:
in a loop of their own, and within a training step. Then whole steps, beside one that has no loss terms.
"""

import argparse
import json
import os
import statistics
from pathlib import Path

import torch

from vae_fast import front

from . import measure, paired, small_calls, steps

HEAD = " ".join(
    (
        f"{'microseconds a call':46}",
        *(f"{place + ': p10':>10} {'median':>8} {'x eager':>8}" for place in ("hot", "cold")),
    )
)


def _tenth(values):
    return sorted(values)[len(values) // 10]


def call_rows(step, call, ways, rounds, wrong):
    """A row a way, of those that are right; the others are written down in ``wrong``."""
    name = call.name(step.operands(call))
    right = []
    for way in ways:
        why = small_calls.wrong(step, call, way)
        if why:
            wrong.append({"case": name, "way": way.name, "why": why})
        else:
            right.append(way)
    found = small_calls.timed(step, call, right, rounds)
    rows = []
    for way in right:
        row = {"case": name, "op": call.op, "pass": call.passing, "way": way.name}
        for place, seconds in found.items():
            tenth, eager = _tenth(seconds[way.name]), seconds.get("eager")
            row[f"{place}_p10_us"] = 1e6 * tenth
            row[f"{place}_median_us"] = 1e6 * statistics.median(seconds[way.name])
            # Of the 10th percentiles: other processes disturb medians more.
            row[f"{place}_times_eager"] = _tenth(eager) / tenth if eager else None
        rows.append(row)
    return rows


def step_rows(rounds, wrong):
    """A row a way of the MLP's steps, of those that are right."""
    model = steps.make("mlp")
    right = []
    for name in paired.WAYS:
        why = paired.wrong(model, name)
        if why:
            wrong.append({"case": f"training step of {model.name}", "way": name, "why": why})
        else:
            right.append(name)
    found = paired.timed(model, right, rounds)
    rows = []
    for name in right:
        row = {"model": model.name, "way": name, "median_us": 1e6 * statistics.median(found[name])}
        if "eager" in found:
            row |= zip(("percent", "low", "high"), paired.difference(found[name], found["eager"]), strict=True)
        rows.append(row)
    return rows


def _ratio(value):
    return f"{value:8.2f}" if value else f"{'-':>8}"


def call_line(row):
    cells = (
        f"{row[f'{p}_p10_us']:10.1f} {row[f'{p}_median_us']:8.1f} {_ratio(row[f'{p}_times_eager'])}"
        for p in ("hot", "cold")
    )
    return f"    {row['way']:42} " + " ".join(cells)


def step_line(row):
    interval = (
        f"{row['percent']:+9.2f} [{row['low']:+.2f}, {row['high']:+.2f}]" if "percent" in row else f"{'-':>9}"
    )
    return f"    {row['way']:42} {row['median_us']:9.0f} {interval}"


def wrong_lines(wrong):
    return [f"WRONG, not timed: {w['way']} at {w['case']}: {w['why']}" for w in wrong]


def _count(least):
    def count(text):
        number = int(text)
        if number < least:
            raise ValueError(text)
        return number

    count.__name__ = f"number of {least} or more"  # argparse says it of what is none
    return count


def parsed(arguments):
    parser = argparse.ArgumentParser(prog="python -m benchmarks calls", description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=_count(1), default=1, help="of PyTorch's (1)")
    parser.add_argument(
        "--rounds", type=_count(1), default=200, help="of each small call and way; a loop each (200)"
    )
    parser.add_argument(
        "--steps", type=_count(0), default=500, help="whole steps of each way; 0 leaves them out (500)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="the figures, and the conditions they are of")
    options = parser.parse_args(arguments)
    if options.json:
        try:
            options.json.open("a").close()  # before minutes of measuring
        except OSError as error:
            parser.error(f"--json: {error}")
    return options


def main(arguments):
    """Gives the exit status: 1 where vae_fast was wrong, 2 for bad options."""
    options = parsed(arguments)
    torch.set_num_threads(options.threads)
    load = os.getloadavg()[0]
    conditions = measure.conditions() | {"load": load, "rounds": options.rounds, "steps": options.steps}
    versions = conditions["versions"]
    print(f"{conditions['device']}, threads: {options.threads}, torch {versions['torch']}, load {load:.1f}")
    if front.REASON:
        print(f"no compiled front: {front.REASON}; vae_fast is its Python functions")
    if load + options.threads > conditions["cpus"]:
        print(f"BUSY: load {load:.1f} on {conditions['cpus']} CPUs; threads may wait, and the figures show it")
    step, ways, wrong, calls, whole = small_calls.Step(), small_calls.ways(), [], [], []
    print(f"hot: {options.rounds} loops of {small_calls.LOOP} calls; cold: {options.rounds} calls, each in a step")
    print("p10: the 10th percentile; x eager: eager's p10 over the row's")
    print(HEAD)
    for call in small_calls.CALLS:
        rows = call_rows(step, call, ways, options.rounds, wrong)
        print(call.name(step.operands(call)))
        for row in rows:
            print(call_line(row), flush=True)
        calls += rows
    if options.steps:
        whole = step_rows(options.steps, wrong)
        print(f"training step of {step.model.name}, {options.steps} of each way in turns")
        print(f"    {'':42} {'median us':>9} {'to eager, %, paired [95 %]':>9}")
        for row in whole:
            print(step_line(row))
    for line in wrong_lines(wrong):
        print(line)
    if options.json:
        content = {"conditions": conditions, "calls": calls, "steps": whole, "wrong": wrong}
        options.json.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return int(any(w["way"].startswith("vae_fast") for w in wrong))
