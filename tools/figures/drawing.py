"""What all pictures share: how they look, and that one version of matplotlib gives the same bytes every time."""

import io
import re

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

# Ours, and what it is compared with, in every picture.
OURS, THEIRS, OTHER, TRUTH = "#7570b3", "#d95f02", "#1b9e77", "#555555"

_LOOK = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.2,
    # Letters as letters: a tenth of the bytes of their outlines.
    "svg.fonttype": "none",
    # Names of clipped areas are made of this, not of random numbers.
    "svg.hashsalt": "vae_fast",
    "path.simplify": True,
    "path.simplify_threshold": 0.5,
}


def look():
    """The context that a picture is made in."""
    return matplotlib.rc_context(_LOOK)


def canvas(columns, *, rows=1, width=7.6, height=2.9, **options):
    """(figure, axes): panels side by side."""
    return plt.subplots(rows, columns, figsize=(width, height), layout="constrained", **options)


def save(figure, path):
    """With coordinates to a hundredth of a point, which is half the bytes."""
    found = io.StringIO()
    figure.savefig(found, format="svg", metadata={"Date": None, "Creator": None})
    plt.close(figure)
    path.write_text(re.sub(r"(\d\.\d\d)\d+", r"\1", found.getvalue()), encoding="utf-8")
