"""`python -m benchmarks.report`: a run's JSON as tables and plots; two runs compared.

    python -m benchmarks.report RUN.json [--out benchmarks/results]
    python -m benchmarks.report --compare OLD NEW

A run is what `python -m benchmarks --benchmark-json RUN.json` writes, or, for --compare, a results.csv of this
command. Every ratio is one of medians of one run.
"""

import argparse
import csv
import json
import math
import sys
from pathlib import Path

import vae_fast as vf

from .measure import slug

# Backends of ours, whatever is available where a report is made.
OURS = tuple(vf.backends())
FIELDS = (
    "group", "provider", "op", "shape", "dtype", "pass", "model", "part", "elements", "median_us", "iqr_us",
    "rounds", "times_eager", "bytes", "gb_per_s", "of_copy", "peak_bytes", "launches",
)  # fmt: skip


# ---- rows ------------------------------------------------------------------------------------------------


def row(group, extra, median, iqr, rounds):
    """One provider's row of a group, from seconds; a graph's are of all its calls."""
    found = {field: extra.get(field, "") for field in FIELDS}
    to_us = 1e6 / extra.get("calls", 1)
    return found | {"group": group, "median_us": median * to_us, "iqr_us": iqr * to_us, "rounds": rounds}


def rows_of(rows, bandwidth):
    """The same rows with what follows from others: speed against eager, and against a copy."""
    eager = {r["group"]: r["median_us"] for r in rows if r["provider"] == "eager"}
    for r in rows:
        r["times_eager"] = eager[r["group"]] / r["median_us"] if r["group"] in eager else ""
        if r["bytes"] != "":
            r["gb_per_s"] = r["bytes"] / r["median_us"] / 1e3
            r["of_copy"] = r["gb_per_s"] * 1e9 / bandwidth
    return rows


def load(path):
    """(rows, run) of a run's JSON; (rows, None) of a results.csv. Raises ValueError for other files."""
    text = Path(path).read_text(encoding="utf-8")
    if Path(path).suffix == ".csv":
        rows = list(csv.DictReader(text.splitlines()))
        # Only runs on a GPU count launches.
        if not rows or set(FIELDS) - {"launches"} - set(rows[0]):
            raise ValueError(f"{path} is not a results.csv of this command")
        number = ("median_us", "iqr_us", "times_eager", "elements", "bytes", "gb_per_s", "of_copy", "peak_bytes")
        return [r | {k: float(r[k]) if r[k] else "" for k in number} for r in rows], None
    content = json.loads(text)
    if "vae_fast" not in content:
        raise ValueError(f"{path} is not a run of these benchmarks")
    run = content["vae_fast"]
    rows = [
        row(b["group"], b["extra_info"], b["stats"]["median"], b["stats"]["iqr"], b["stats"]["rounds"])
        for b in content["benchmarks"]
    ]
    return rows_of(rows, run["conditions"]["copy_bandwidth"]), run


def groups(rows):
    """Rows by group, in the order of the run."""
    found = {}
    for r in rows:
        found.setdefault(r["group"], []).append(r)
    return found


# ---- as text ---------------------------------------------------------------------------------------------


def _number(value, pattern):
    return "" if value == "" else format(value, pattern)


def _cells(r):
    mib = r["peak_bytes"] if r["peak_bytes"] == "" else r["peak_bytes"] / 2**20
    return (
        r["provider"],
        f"{r['median_us']:.1f}",
        f"{r['iqr_us'] / r['median_us']:.0%}",
        _number(r["times_eager"], ".2f"),
        _number(r["gb_per_s"], ".1f"),
        _number(r["of_copy"], ".0%"),
        _number(mib, ".1f"),
    )


HEAD = ("provider", "median µs", "iqr", "× eager", "GB/s", "of copy", "peak MiB")


def text(rows, run):
    """The lines that end a run on a terminal."""
    c = run["conditions"]
    yield f"{c['device']}, {c['threads']} threads, copy bandwidth {c['copy_bandwidth'] / 1e9:.1f} GB/s"
    yield f"{'case':46}" + "".join(f"{h:>13}" for h in HEAD)
    for group, members in groups(rows).items():
        for r in members:
            yield f"{group:46}" + "".join(f"{cell:>13}" for cell in _cells(r))
    yield from _wrong_lines(run)
    yield from share_lines(rows)


def _wrong_lines(run):
    for w in run["wrong"]:
        yield f"WRONG, not timed: {w['provider']} at {w['group']}: {w['why']}"


def shares(rows):
    """For each model and backend: (model, provider, share of eager's step that the bound's terms take, gain)."""
    median = {(r["model"], r["part"], r["provider"]): r["median_us"] for r in rows if r["model"]}
    for (model, part, provider), step in median.items():
        eager = median.get((model, part, "eager"))
        terms = median.get((model, "bound", "eager"))
        if part == "training step" and provider != "eager" and eager and terms:
            yield model, provider, terms / eager, eager / step


def share_lines(rows):
    for model, provider, share, gain in shares(rows):
        took = f"{model}: the ELBO's terms take {share:.1%} of eager's step"
        yield f"{took}; with {provider} the step is {gain:.2f}× as fast"


def advice(rows):
    """One plain sentence an operator and dtype: which backend to use there and what it gains."""
    best = {}
    for r in rows:
        if r["pass"] == "both":
            best.setdefault((r["op"], r["shape"], r["dtype"]), {})[r["provider"]] = r["median_us"]
    for (op, shape, dtype), median in best.items():
        ours = {p: m for p, m in median.items() if p in OURS}
        others = {p: m for p, m in median.items() if p not in OURS}
        if not ours or not others:
            continue
        mine, other = min(ours, key=ours.get), min(others, key=others.get)
        gain = others[other] / ours[mine]
        where = f"vf.{op} at {shape} {dtype}, forward and backward"
        if gain > 1:
            yield f'{where}: use backend="{mine}", {gain:.2f} times as fast as {other}, the fastest of the others.'
        else:
            yield f'{where}: {other} is {1 / gain:.2f} times as fast as "{mine}", the fastest of ours.'


# ---- as files --------------------------------------------------------------------------------------------


def markdown(rows, run, command):
    """The tables of results.md, under the conditions they were measured in."""
    c = run["conditions"]
    versions = ", ".join(f"{name} {version}" for name, version in c["versions"].items() if version)
    lines = [
        f"# {c['device']}, {c['threads']} threads",
        "",
        f"`{command}`, {c['date']}, commit {c['commit'] or 'unknown'}: {versions}; instruction set "
        f"{c['instruction_set'] or 'none'}; CPU flags {' '.join(c['cpu_flags'])}; OMP_WAIT_POLICY "
        f"{c['OMP_WAIT_POLICY'] or 'not set'}; copy bandwidth {c['copy_bandwidth'] / 1e9:.1f} GB/s.",
        "",
        "Medians; the interquartile range as a share of the median; × eager is eager's median of the same group "
        "over the row's; GB/s counts what has to move once; peak MiB is what the allocator holds at most beside "
        "the operands. Every row was right before it was timed.",
        "",
    ]
    for w in _wrong_lines(run):
        lines += [w, ""]
    found = [f"- {line}" for line in share_lines(rows)]
    lines += [*found, ""] if found else []
    lines += ["| case | " + " | ".join(HEAD) + " |", "|---|---|" + "--:|" * (len(HEAD) - 1)]
    for group, members in groups(rows).items():
        for k, r in enumerate(members):
            lines.append(f"| {'' if k else group} | " + " | ".join(_cells(r)) + " |")
    return "\n".join(lines) + "\n"


def write(rows, run, out, command):
    """results.csv, results.md, conditions.json and the plots, in the folder of the run's device under ``out``."""
    from . import plots

    folder = Path(out) / slug(run["conditions"])
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "results.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        for r in rows:
            writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in r.items()})
    (folder / "results.md").write_text(markdown(rows, run, command), encoding="utf-8")
    content = {"command": command, **run}
    (folder / "conditions.json").write_text(
        json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    plots.draw(rows, run, folder)
    return folder


# ---- two runs --------------------------------------------------------------------------------------------


def compare(old, new):
    """Lines of ratios new/old with their spread, and how many of ours regressed beyond it.

    A row's time is taken over eager's of its own run where both have it: machines and their load differ. The spread
    of a ratio is that of the medians in it, their interquartile ranges added in quadrature, 5 % at least.
    """
    (before, after), lines, regressed = (_relative(rows) for rows in (old, new)), [], 0
    for key in after:
        if key not in before:
            continue
        (a, spread_a), (b, spread_b) = before[key], after[key]
        ratio, spread = b / a, max(0.05, math.hypot(spread_a, spread_b))
        verdict = "slower" if ratio > 1 + spread else "faster" if ratio < 1 / (1 + spread) else "same"
        regressed += verdict == "slower" and key[1] in OURS
        lines.append(f"{key[0]:46} {key[1]:14} {ratio:6.2f} ± {spread:.2f}  {verdict}")
    return lines, regressed


def _relative(rows):
    found = {}
    for group, members in groups(rows).items():
        eager = next((r for r in members if r["provider"] == "eager"), None)
        for r in members:
            time, spread = r["median_us"], r["iqr_us"] / r["median_us"]
            if eager and r is not eager:
                time, spread = time / eager["median_us"], math.hypot(spread, eager["iqr_us"] / eager["median_us"])
            if r is not eager:
                found[group, r["provider"]] = time, spread
    return found


def main(arguments=None):
    """Gives the exit status: 1 for a regression or where a backend of ours was wrong, 2 for bad files."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__.splitlines()[0])
    parser.add_argument("run", nargs="?", help="JSON of a run")
    parser.add_argument("--out", default=str(Path(__file__).parent / "results"), help="where device folders are")
    parser.add_argument("--command", default="make benchmark", help="the command of the run, for the tables")
    parser.add_argument("--compare", nargs=2, metavar=("OLD", "NEW"), help="two runs, JSON or results.csv")
    options = parser.parse_args(arguments)
    if bool(options.run) == bool(options.compare):
        parser.error("give one run, or --compare OLD NEW")
    try:
        if options.compare:
            lines, regressed = compare(*(load(path)[0] for path in options.compare))
            print("\n".join(lines) or "the two runs have no case in common")
            print(
                f"{regressed} of ours slower beyond the spread"
                if regressed
                else "none of ours slower beyond the spread"
            )
            return 1 if regressed or not lines else 0
        rows, run = load(options.run)
        if run is None:
            parser.error("a results.csv is for --compare: tables are made of a run's JSON")
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(write(rows, run, options.out, options.command))
    return 1 if any(w["provider"] in OURS for w in run["wrong"]) else 0


if __name__ == "__main__":
    sys.exit(main())
