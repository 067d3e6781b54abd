"""Plots of a run: time and peak memory against size, and what share of a training step is the ELBO's."""

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from . import report

# One colour a provider, in every plot.
COLOURS = {
    "eager": "#777777",
    "compile": "#d95f02",
    "distributions": "#a6761d",
    "functional": "#e6ab02",
    "reference": "#1b9e77",
    "native": "#7570b3",
    "triton": "#e7298a",
}


def draw(rows, run, folder):
    """speed.png, memory.png and steps.png in ``folder``; those there is nothing for are left out."""
    whole = {"standard_normal": "forward"}
    both = [r for r in rows if r["op"] and r["dtype"] == "float32" and r["pass"] == whole.get(r["op"], "both")]
    if both:
        _against_size(both, "median_us", "µs", folder / "speed.png", run["conditions"]["copy_bandwidth"])
        _against_size(both, "peak_bytes", "peak bytes", folder / "memory.png")
    steps = list(report.shares(rows))
    if steps:
        _steps(steps, folder / "steps.png")


def _against_size(rows, field, label, path, bandwidth=None):
    ops = list(dict.fromkeys(r["op"] for r in rows))
    figure, axes = plt.subplots(1, len(ops), figsize=(4.2 * len(ops), 3.8), squeeze=False, layout="constrained")
    for op, axis in zip(ops, axes[0], strict=True):
        mine = sorted((r for r in rows if r["op"] == op), key=lambda r: r["elements"])
        for provider in dict.fromkeys(r["provider"] for r in mine):
            points = [(r["elements"], r[field]) for r in mine if r["provider"] == provider and r[field] != ""]
            if points:
                axis.plot(*zip(*points, strict=True), marker="o", ms=4, label=provider, color=COLOURS[provider])
        if bandwidth:
            floor = sorted({(r["elements"], r["bytes"] / bandwidth * 1e6) for r in mine})
            axis.plot(*zip(*floor, strict=True), ls=":", color="black", label="copy bandwidth")
        axis.set(xscale="log", yscale="log", title=op, xlabel="elements", ylabel=label)
        axis.grid(alpha=0.3)
    axes[0][0].legend(fontsize="small")
    figure.savefig(path, dpi=120, metadata={"Software": None})
    plt.close(figure)


def _steps(steps, path):
    figure, axis = plt.subplots(figsize=(7, 3.6), layout="constrained")
    models = list(dict.fromkeys(model for model, *_ in steps))
    providers = list(dict.fromkeys(provider for _, provider, *_ in steps))
    axis.bar(range(len(models)), [next(s for m, _, s, _ in steps if m == model) for model in models], width=0.25,
             color=COLOURS["eager"], label="ELBO's share of eager's step")  # fmt: skip
    for k, provider in enumerate(providers):
        gain = {m: g for m, p, _, g in steps if p == provider}
        places = [i + 0.25 * (k + 1) for i, m in enumerate(models) if m in gain]
        saved = [1 - 1 / gain[m] for m in models if m in gain]
        axis.bar(places, saved, width=0.25, color=COLOURS[provider], label=f"time saved with {provider}")
    axis.axhline(0, color="black", lw=0.8)
    axis.set(xticks=range(len(models)), ylabel="share of eager's training step")
    axis.set_xticklabels(models)
    axis.legend(fontsize="small")
    figure.savefig(path, dpi=120, metadata={"Software": None})
    plt.close(figure)
