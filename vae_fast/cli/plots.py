"""The pictures of a run, as PNG bytes: ELBO, reconstructions, samples, the 2-D manifold, KL per dim."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

import vae_fast as vf
from vae_fast.cli.data import image_shape
from vae_fast.cli.errors import require
from vae_fast.cli.measures import posteriors
from vae_fast.cli.report import EpochMetrics, History
from vae_fast.cli.streams import derive_seed
from vae_fast.cli.targets import as_probability

_INK, _GREY, _BLUE, _ORANGE = "#22252a", "#9aa1ab", "#2f6fb0", "#d9772b"
_STYLE = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _GREY,
    "axes.labelcolor": _INK,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.grid": True,
    "grid.color": "#e6e8eb",
    "axes.axisbelow": True,
    "legend.frameon": False,
}
_MANIFOLD_SIDE = 20
_DPI = 150


@torch.no_grad()
def training_plots(
    vae: vf.VAE, x: Tensor, which: str, event_shape: tuple[int, ...], history: History, seed: int
) -> Iterator[tuple[str, bytes]]:
    """(file name, PNG bytes) of each picture of a run, without touching matplotlib's global state.

    x: targets [n, d] to reconstruct and encode, which are `which`, "training" or "test", data of `event_shape`.
    """
    matplotlib = require("matplotlib")
    device = next(vae.parameters()).device
    shape = image_shape(event_shape)
    vae.eval()
    with matplotlib.rc_context(_STYLE):
        yield "elbo.png", _elbo([EpochMetrics(*row) for row in history])  # type: ignore[arg-type]
        few = x[torch.arange(min(12, len(x))) * len(x) // min(12, len(x))]
        pairs = torch.stack([as_probability(few).cpu(), vae.reconstruct(few.to(device)).cpu()]).flatten(0, 1)
        yield "reconstructions.png", _pictures(pairs, shape, 2, f"{which} data and their reconstructions")
        draws = vae.sample(100, seed=derive_seed(seed, "samples")).cpu()
        yield "samples.png", _pictures(draws, shape, 10, "samples: mean of p(x|z), z ~ N(0, I)")
        if vae.latent_shape == (2,):
            z = manifold_grid(_MANIFOLD_SIDE).to(device)
            decoded = vae.decode(z)
            means = (torch.sigmoid(decoded) if isinstance(decoded, Tensor) else decoded[0]).cpu()
            yield (
                "manifold.png",
                _pictures(means, shape, _MANIFOLD_SIDE, "latent manifold, z = Φ⁻¹(unit square)", 0),
            )
        mu, logvar = posteriors(vae, x.to(device))
        yield "kl_per_dim.png", _kl(vf.kl_per_dim(mu, logvar).cpu(), vf.active_units(mu).mask.cpu(), which)


def manifold_grid(side: int) -> Tensor:
    """z = Φ⁻¹(u), u on a regular grid of the unit square, top row first: [side², 2].

    Kingma & Welling 2014, fig. 4: equal steps of u are equal shares of the prior's mass.
    """
    u = (torch.arange(side) + 0.5) / side
    v = torch.special.ndtri(u.double()).float()
    return torch.stack([v.repeat(side), v.flip(0).repeat_interleave(side)], 1)


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    # No software version in the file: the same figures give the same bytes.
    figure.savefig(buffer, format="png", dpi=_DPI, bbox_inches="tight", metadata={"Software": None})
    return buffer.getvalue()


def _figure(width: float, height: float) -> Any:
    return require("matplotlib.figure").Figure(figsize=(width, height), layout="constrained")


def _elbo(rows: list[EpochMetrics]) -> bytes:
    figure = _figure(6.4, 4)
    axes = figure.subplots()
    epochs = [row.epoch for row in rows]
    marker = "o" if len(rows) < 3 else None
    curves = [("train (running mean)", _BLUE, [row.elbo for row in rows])]
    tested = [row.test_elbo for row in rows if row.test_elbo is not None]
    if tested:
        curves.append(("test", _ORANGE, tested))
    for label, colour, values in curves:
        axes.plot(epochs, values, color=colour, lw=1.8, marker=marker, label=f"{label}: {values[-1]:.2f}")
    # The first epochs are far below the rest: scale to what comes after them.
    shown = [
        v for _, _, values in curves for v in (values[max(1, len(values) // 10) :] if len(values) > 4 else values)
    ]
    if len(rows) > 4:
        low, high = min(shown), max(v for _, _, values in curves for v in values)
        margin = 0.06 * (high - low) or 1.0
        axes.set_ylim(low - margin, high + margin)
    axes.set(xlabel="epoch", ylabel="nats per datum", title="evidence lower bound")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(loc="lower right")
    return _png(figure)


def _pictures(x: Tensor, shape: tuple[int, ...] | None, rows: int, title: str, gap: int = 1) -> bytes:
    """x [n, d] in `rows` rows; as pictures of `shape`, or as curves if that is None."""
    columns = len(x) // rows
    if shape is None:
        return _curves(x, rows, columns, title)
    pictures = x.reshape(-1, *shape).clamp(0, 1) if _is_unit(x) else _stretched(x).reshape(-1, *shape)
    pixels = pictures.numpy()
    if pixels.ndim == 4 and shape[-1] != 3:
        pixels = pixels.transpose(0, 2, 3, 1)
    height, width = pixels.shape[1:3]
    canvas = np.ones((rows * (height + gap) - gap, columns * (width + gap) - gap, *pixels.shape[3:]), np.float32)
    for i, picture in enumerate(pixels):
        top, left = (i // columns) * (height + gap), (i % columns) * (width + gap)
        canvas[top : top + height, left : left + width] = picture
    inches = min(8.0, 0.8 * columns)
    figure = _figure(inches, inches * canvas.shape[0] / canvas.shape[1] + 0.4)
    axes = figure.subplots()
    axes.imshow(canvas, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_axis_off()
    axes.set_title(title)
    return _png(figure)


def _is_unit(x: Tensor) -> bool:
    """Whether the values are grey levels, a little overshoot of a Gaussian mean included."""
    return bool(x.min() >= -0.5 and x.max() <= 1.5)


def _stretched(x: Tensor) -> Tensor:
    low, high = x.min(), x.max()
    return (x - low) / (high - low).clamp_min(1e-12)


def _curves(x: Tensor, rows: int, columns: int, title: str) -> bytes:
    """Each datum as a curve over its features, all on one scale, in a grid drawn on one pair of axes."""
    n, d = x.shape
    across = torch.linspace(0.08, 0.92, d) if d > 1 else torch.full((1,), 0.5)
    cell = torch.arange(n)
    horizontal = (cell % columns)[:, None] + across
    vertical = rows - 1 - (cell // columns)[:, None] + 0.1 + 0.8 * _stretched(x)
    figure = _figure(min(10.0, 1.1 * columns), min(10.0, 0.9 * rows) + 0.4)
    axes = figure.subplots()
    axes.plot(horizontal.T.numpy(), vertical.T.numpy(), color=_BLUE, lw=1, marker="." if d < 8 else None, ms=4)
    axes.set(xlim=(0, columns), ylim=(0, rows), title=title)
    axes.set_xticks(range(columns + 1), [""] * (columns + 1))
    axes.set_yticks(range(rows + 1), [""] * (rows + 1))
    axes.tick_params(length=0)
    return _png(figure)


def _kl(kl: Tensor, mask: Tensor, which: str) -> bytes:
    order = kl.argsort(descending=True)
    active = mask[order].tolist()
    figure = _figure(6.4, 3.6)
    axes = figure.subplots()
    bars = axes.bar(range(len(kl)), kl[order].tolist(), color=[_BLUE if a else _GREY for a in active], width=0.8)
    if len(kl) <= 40:
        axes.set_xticks(range(len(kl)), [str(i) for i in order.tolist()], fontsize=8)
    axes.grid(False, axis="x")
    axes.set(xlabel="latent dim, largest first", ylabel="nats")
    axes.set_title(f"KL(q(z|x), p(z)) per latent dim, {which} data: {kl.sum():.2f} nats")
    handles = {a: bar for a, bar in zip(active, bars, strict=True)}
    labels = {True: f"active: {sum(active)}", False: f"inactive: {len(active) - sum(active)}"}
    # Beside the bars: where they are of one height, it would lie on some.
    figure.legend([handles[a] for a in handles], [labels[a] for a in handles], loc="outside right upper")
    return _png(figure)
