"""`python -m tools.figures [NAME ...]`: the pictures of docs/figures/; `make figures` makes them all.

Each is a function of the sources, of committed results and of seeds. On another processor PyTorch's own functions
round differently, and a curve of theirs may move by a pixel.
"""

import argparse
from pathlib import Path

import torch

from . import drawing, errors, posteriors, speed

FIGURES = errors.FIGURES | speed.FIGURES | posteriors.FIGURES
FOLDER = Path(__file__).parents[2] / "docs" / "figures"


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m tools.figures", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(FIGURES)}; by default all")
    parser.add_argument("--out", type=Path, default=FOLDER, help="the folder")
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - set(FIGURES):
        parser.error(f"there is no figure {', '.join(sorted(unknown))}")
    # One thread: sums of PyTorch's own have an order by their number.
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    with drawing.look():
        for name in options.names or FIGURES:
            FIGURES[name](options.out / f"{name}.svg")


if __name__ == "__main__":
    main()
