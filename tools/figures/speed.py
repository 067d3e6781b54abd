"""docs/benchmarks.md: times and memory, of the results committed in benchmarks/results and of nothing else."""

import re
from pathlib import Path

from benchmarks import plots, report

from .drawing import OTHER, OURS, canvas, save

RESULTS = Path(report.__file__).parent / "results"
CPU, GPU = "amd-epyc-avx512-2-threads", "nvidia-h200-9-0-16-threads"
SMALL_CALLS, PAIRS, SCVI = "amd-epyc-avx512-1-threads", "amd-epyc-avx512-2-threads", "amd-epyc-avx512-2-threads"
OPERATORS = ("rsample_kl", "gaussian_kl", "bernoulli_log_prob", "gaussian_log_prob")
NAMES = {"compile": "torch.compile", "native": "vae_fast, native", "triton": "vae_fast, triton"}


def figure_of(machine, field, shapes, providers, suffix=""):
    """For each operator its case and, by provider, how many times eager's figure is the provider's."""
    rows, _ = report.load(RESULTS / machine / "results.csv")
    found = {(r["group"], r["provider"]): r[field] for r in rows}
    cases = []
    for op, shape in zip(OPERATORS, shapes, strict=True):
        group = f"{op} {shape} float32 both{suffix}"
        gains = [found[group, "eager"] / found[group, provider] for provider in providers]
        cases.append((f"{op}\n{shape.replace('x', '×')}", gains))
    return cases


def bars(axis, cases, providers, title):
    """Horizontal bars of gains over eager, which is the line at 1; each with its figure."""
    thick = 0.8 / len(providers)
    for k, provider in enumerate(providers):
        gains = [gain[k] for _, gain in cases]
        places = [i + (k - (len(providers) - 1) / 2) * thick for i in range(len(cases))]
        drawn = axis.barh(places, gains, height=thick, color=plots.COLOURS[provider], label=NAMES[provider])
        axis.bar_label(drawn, fmt="%.1f", padding=2, fontsize=7)
    axis.axvline(1, color="black", lw=0.8)
    axis.set(yticks=range(len(cases)), title=title, xlabel="speed, eager = 1")
    axis.set_yticklabels([case for case, _ in cases], fontsize=7)
    axis.invert_yaxis()
    axis.grid(False, axis="y")
    # Room for the figures.
    axis.set_xlim(0, 1.18 * max(max(gains) for _, gains in cases))


def _panels(path, panels, providers, xlabel=None):
    figure, axes = canvas(len(panels), height=3.1)
    for axis, (title, cases) in zip(axes, panels, strict=True):
        bars(axis, cases, providers, title)
        if xlabel:
            axis.set_xlabel(xlabel)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(providers))
    save(figure, path)


def cpu(path):
    providers = "compile", "native"
    panels = {
        "small": ("100x20", "100x20", "100x784", "100x560"),
        "middling": ("512x64", "512x64", "512x784", "512x784"),
        "large": ("4096x128", "4096x128", "4096x3072", "4096x3072"),
    }
    found = [(title, figure_of(CPU, "median_us", shapes, providers)) for title, shapes in panels.items()]
    _panels(path, found, providers)


def gpu(path):
    providers = "compile", "native", "triton"
    panels = {"small": ("100x20", "100x20", "100x784", "100x560"), "large": ("4096x3072",) * 4}
    found = [(title, figure_of(GPU, "median_us", shapes, providers, " graph")) for title, shapes in panels.items()]
    _panels(path, found, providers)


def memory(path):
    """Peaks beside the operands."""
    providers = "compile", "native"
    panels = {CPU: ("4096x128", "4096x128", "4096x3072", "4096x3072"), GPU: ("4096x3072",) * 4}
    names = {CPU: "two threads of an EPYC", GPU: "an H200"}
    found = [(names[m], figure_of(m, "peak_bytes", shapes, providers)) for m, shapes in panels.items()]
    _panels(path, found, providers, "eager's peak over this one")


# ---- commands beside the benchmarks ----------------------------------------------------------------------------


def blocks(machine, name):
    """The lines of each block of a text of results, by the line before them; what stands above is left out."""
    found, current = {}, None
    for line in (RESULTS / machine / name).read_text(encoding="utf-8").splitlines():
        if line.startswith(" ") and current is not None:
            found[current].append(line.strip())
        elif line.strip():
            current = line.strip()
            found[current] = []
    return found


def small_calls():
    """By case: what a call takes of eager's time in a loop of one call, and in a step, of 10th percentiles."""
    cases = []
    for case, lines in blocks(SMALL_CALLS, "calls.txt").items():
        times = {re.split(r"  +", line)[0]: re.findall(r"\d+\.\d+", line) for line in lines}
        if len(times.get("vae_fast", ())) == 6:
            eager, ours = times["eager"], times["vae_fast"]
            cases.append((case, [float(eager[k]) / float(ours[k]) for k in (0, 3)]))
    return cases


def calls(path):
    figure, axis = canvas(1, width=7.0, height=3.6)
    cases = small_calls()
    colours = {"in a loop of one call": OURS, "within a training step": OTHER}
    for k, (label, colour) in enumerate(colours.items()):
        drawn = axis.barh([i + 0.4 * (k - 0.5) for i in range(len(cases))], [gains[k] for _, gains in cases],
                          height=0.4, color=colour, label=label)  # fmt: skip
        axis.bar_label(drawn, fmt="%.1f", padding=2, fontsize=7)
    axis.axvline(1, color="black", lw=0.8)
    axis.set(yticks=range(len(cases)), xlabel="speed, eager = 1")
    axis.set_yticklabels([case for case, _ in cases], fontsize=7)
    axis.invert_yaxis()
    axis.grid(False, axis="y")
    axis.legend(loc="lower right")
    save(figure, path)


def of_pairs():
    """By case: milliseconds of each way."""
    cases = {}
    for case, lines in blocks(PAIRS, "pairs.txt").items():
        ways = {line.split()[0]: line.split()[1] for line in lines}
        if "vae_fast" in ways:
            cases[case] = [float(ways[way]) for way in ("eager", "torch.compile", "vae_fast")]
    return cases


def of_scvi():
    """By case: milliseconds of a step, as published and patched."""
    text = (RESULTS / SCVI / "scvi.txt").read_text(encoding="utf-8")
    rows = re.findall(r"^ *([\d,]+) +(\w+) +[\d.]+% +([\d.]+) +([\d.]+) ", text, re.M)
    return {f"{genes} genes, {likelihood}": [float(a), float(b)] for genes, likelihood, a, b in rows}


def other_families(path):
    figure, axes = canvas(2, height=3.2)
    ways = ("eager", "compile", "native"), ("eager", "native")
    labels = {"eager": "as usually written", "compile": "the same, compiled", "native": "vae_fast"}
    panels = ("between pairs", of_pairs()), ("a step of scVI, 128 cells", of_scvi())
    for axis, (title, cases), providers in zip(axes, panels, ways, strict=True):
        thick = 0.8 / len(providers)
        for k, provider in enumerate(providers):
            times = [case[k] for case in cases.values()]
            places = [i + (k - (len(providers) - 1) / 2) * thick for i in range(len(cases))]
            drawn = axis.barh(places, times, height=thick, color=plots.COLOURS[provider], label=labels[provider])
            axis.bar_label(drawn, fmt="%.0f", padding=2, fontsize=7)
        axis.set(yticks=range(len(cases)), title=title, xlabel="ms")
        axis.set_yticklabels([case.replace(", ", "\n", 1) for case in cases], fontsize=7)
        axis.invert_yaxis()
        axis.grid(False, axis="y")
        axis.set_xlim(0, 1.15 * max(max(case) for case in cases.values()))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    save(figure, path)


FIGURES = {
    "speed_cpu": cpu,
    "speed_gpu": gpu,
    "memory": memory,
    "speed_of_small_calls": calls,
    "speed_of_other_families": other_families,
}
