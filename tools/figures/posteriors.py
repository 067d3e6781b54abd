"""docs/variational_parameters.md: posteriors of a small model in a plane, local and amortised, and what θ does.

Handwritten digits of 8×8 pixels, a latent plane, and an encoder too small for it, so that its gap can be seen. All
is float64 and seeded: the page's figures are the same on every machine.
"""

import copy
import functools
import math
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.patches import Ellipse
from sklearn.datasets import load_digits

import vae_fast as vf

from .drawing import OTHER, OURS, THEIRS, canvas, save

# After which epochs a model is kept.
KEPT = 1, 5, 40
# Data whose posteriors are drawn, and the one that all else is shown of.
SHOWN, ONE = 12, 10
# ε of a Gaussian's expectation: nodes and weights of Gauss and Hermite, [NODES²] of the plane.
NODES = 12


class Posterior(NamedTuple):
    """Of some data: μ and log σ² as the encoder predicts them and at each datum's best, and the ELBO at both."""

    amortised: tuple[torch.Tensor, torch.Tensor]
    local: tuple[torch.Tensor, torch.Tensor]
    elbo_amortised: torch.Tensor
    elbo_local: torch.Tensor


def digits():
    return torch.from_numpy(load_digits().data / 16)


@functools.cache
def trained():
    """The model after each of the epochs that are kept."""
    x, order = digits(), torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    vae = vf.VAE(vf.GaussianMLP(64, 2, (8,)), vf.BernoulliMLP(2, 64, (60,))).double()
    optimiser, kept, step = torch.optim.Adam(vae.parameters(), lr=5e-3), [], 0
    for epoch in range(1, KEPT[-1] + 1):
        for batch in x[torch.randperm(len(x), generator=order)].split(100):
            out = vae(batch, seed=step)
            optimiser.zero_grad()
            out.loss.backward()
            optimiser.step()
            step += 1
        if epoch in KEPT:
            kept.append(copy.deepcopy(vae))
    return kept


def elbo(vae, x, mu, logvar):
    """The bound of each datum, its expectation by quadrature."""
    node, weight = np.polynomial.hermite_e.hermegauss(NODES)
    eps = torch.from_numpy(np.stack(np.meshgrid(node, node), -1).reshape(-1, 1, 2))
    share = torch.from_numpy(np.outer(weight, weight).reshape(-1, 1) / weight.sum() ** 2)
    z = vf.rsample(mu, logvar, (NODES**2,), noise=eps.expand(-1, *mu.shape))
    return (share * vae.decoder.log_likelihood(z, x)).sum(0) - vf.gaussian_kl(mu, logvar)


def posterior(vae, x):
    """Both q's of some data; the local one by Adam from the encoder's on, with the decoder as it is."""
    amortised = tuple(t.detach() for t in vae.encode(x))
    local = tuple(t.clone().requires_grad_() for t in amortised)
    optimiser = torch.optim.Adam(local, lr=0.03)
    for _ in range(300):
        optimiser.zero_grad()
        (-elbo(vae, x, *local).sum()).backward()
        optimiser.step()
    local = tuple(t.detach() for t in local)
    with torch.no_grad():
        return Posterior(amortised, local, elbo(vae, x, *amortised), elbo(vae, x, *local))


def on_a_grid(vae, x, low=-4.5, high=4.5, points=181):
    """(points of a side, p(z|x), log p(x)) of one datum: its posterior without any q."""
    side = torch.linspace(low, high, points, dtype=torch.float64)
    z = torch.cartesian_prod(side, side)
    with torch.no_grad():
        log_joint = vae.decoder.log_likelihood(z, x) + vf.gaussian_log_prob(torch.zeros(2).double(), 0.0, z)
    log_px = log_joint.logsumexp(0) + 2 * math.log((high - low) / (points - 1))
    return side.numpy(), torch.exp(log_joint - log_px).reshape(points, points).T.numpy(), log_px.item()


@functools.cache
def numbers():
    """Both q's of the data shown, and what the page says of the one datum and, at the end, of all."""
    vae, x = trained()[-1], digits()[:SHOWN]
    found = posterior(vae, x)
    log_px = torch.tensor([on_a_grid(vae, one)[2] for one in x], dtype=torch.float64)
    return found, {
        "log p(x)": log_px[ONE].item(),
        "local": found.elbo_local[ONE].item(),
        "amortised": found.elbo_amortised[ONE].item(),
        "approximation gap": (log_px - found.elbo_local)[ONE].item(),
        "amortisation gap": (found.elbo_local - found.elbo_amortised)[ONE].item(),
        "mean amortisation gap": (found.elbo_local - found.elbo_amortised).mean().item(),
    }


# ---- pictures --------------------------------------------------------------------------------------------------


def ellipses(axis, mu, logvar, colour, style="-", label=None):
    """Where a q is one and two σ from its mean."""
    sigma = torch.exp(logvar / 2)
    for k in (1, 2):
        size = (2 * k * sigma).tolist()
        axis.add_patch(
            Ellipse(mu.tolist(), *size, fill=False, ec=colour, ls=style, label=label if k == 1 else None)
        )
    axis.autoscale_view()


def shade(axis, side, density):
    """A density in grey, by shares of its largest value."""
    axis.contourf(
        side[::2],
        side[::2],
        density[::2, ::2],
        levels=density.max() * np.array([0.05, 0.2, 0.4, 0.6, 0.8, 1]),
        cmap="Greys",
    )


def plane(axis, **settings):
    axis.set(aspect="equal", xlabel="z₁", **settings)


def local_and_amortised(path):
    found, _ = numbers()
    figure, axis = canvas(1, width=5.2, height=4.2)
    for k in range(SHOWN):
        labels = ("by the encoder: μ(x; φ), σ²(x; φ)", "local: μᵢ, σᵢ²") if k == 0 else (None, None)
        ellipses(axis, *(t[k] for t in found.amortised), THEIRS, "--", labels[0])
        ellipses(axis, *(t[k] for t in found.local), OURS, "-", labels[1])
        axis.plot(*zip(found.amortised[0][k], found.local[0][k], strict=True), color="#777777", lw=0.7)
    plane(axis, ylabel="z₂")
    figure.legend(loc="outside lower center", ncols=2)
    save(figure, path)


def gap(path):
    found, said = numbers()
    side, density, _ = on_a_grid(trained()[-1], digits()[ONE])
    figure, (axis, of_bounds) = canvas(2, height=3.2, gridspec_kw={"width_ratios": (1.3, 1)})
    shade(axis, side, density)
    ellipses(axis, *(t[ONE] for t in found.amortised), THEIRS, "--", "q by the encoder")
    ellipses(axis, *(t[ONE] for t in found.local), OURS, "-", "q at its best")
    near = found.local[0][ONE].tolist()
    plane(axis, ylabel="z₂", title="p(z|x) in grey, and two q", xlim=(near[0] - 1.2, near[0] + 1.2),
          ylim=(near[1] - 1, near[1] + 1.4))  # fmt: skip
    axis.legend(loc="upper left")
    bars = {"log p(x)": "#777777", "ELBO, local": OURS, "ELBO, amortised": THEIRS}
    values = [said[name] for name in ("log p(x)", "local", "amortised")]
    drawn = of_bounds.bar(range(3), [v - min(values) + 0.2 for v in values], color=list(bars.values()), width=0.6)
    of_bounds.bar_label(drawn, labels=[f"{v:.2f}".replace("-", "−") for v in values])
    of_bounds.set(xticks=range(3), yticks=[], title="nats, from the last one up")
    of_bounds.set_xticklabels(["log p(x)", "ELBO,\nlocal", "ELBO,\namortised"])
    save(figure, path)


def theta(path):
    """The posterior of one datum under three decoders."""
    figure, axes = canvas(3, height=2.9, sharex=True, sharey=True)
    x = digits()[ONE]
    for axis, vae, epoch in zip(axes, trained(), KEPT, strict=True):
        side, density, log_px = on_a_grid(vae, x)
        shade(axis, side, density)
        with torch.no_grad():
            ellipses(axis, *(t[0] for t in vae.encode(x[None])), OTHER, "-", "the encoder's q then")
        which = "epoch" if epoch == 1 else "epochs"
        plane(axis, title=f"θ after {epoch} {which}\nlog p(x) = {log_px:.1f}".replace("-", "−"))
    axes[0].set(ylabel="z₂", xlim=(-2.6, 2.4), ylim=(-2.4, 2.6))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center")
    save(figure, path)


FIGURES = {"local_and_amortised": local_and_amortised, "amortisation_gap": gap, "posterior_by_theta": theta}
