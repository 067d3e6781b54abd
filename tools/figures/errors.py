"""docs/numerics.md: errors against the argument, of what this package computes and of what is usually written.

Everything is computed in float32. The truth is mpmath's, to 50 digits, at the float32 argument.
"""

import math

import mpmath
import numpy as np
import torch
import torch.nn.functional as F
from torch.distributions import NegativeBinomial, Normal, kl_divergence

import vae_fast as vf

from .drawing import OTHER, OURS, THEIRS, canvas, save

# An interval of arguments has one point in a picture: the worst of this many.
_WITHIN, _INTERVALS = 12, 70
# What a result without an error is drawn at: below any that has one.
_LEAST = 1e-9


def spread(low, high, logarithmic=False):
    """Float32 arguments [intervals, within], the same every time, and the middle of each interval."""
    ends = (math.log10(low), math.log10(high)) if logarithmic else (low, high)
    edges = np.linspace(*ends, _INTERVALS + 1)
    step = np.random.default_rng(0).random((_INTERVALS, _WITHIN))
    found = edges[:-1, None] + step * (edges[1:] - edges[:-1])[:, None]
    middle = (edges[1:] + edges[:-1]) / 2
    if logarithmic:
        found, middle = 10**found, 10**middle
    return torch.from_numpy(found).float(), middle


def value_and_slope(function, argument):
    argument = argument.clone().requires_grad_()
    value = function(argument)
    (slope,) = torch.autograd.grad(value.sum(), argument)
    return value.detach(), slope


def exact(function, *arguments):
    """A function of mpmath's numbers at every argument."""
    rows = zip(*(argument.double().tolist() for argument in arguments), strict=True)
    with mpmath.workdps(50):
        return [[function(*map(mpmath.mpf, numbers)) for numbers in zip(*row, strict=True)] for row in rows]


def relative(found, truth, sizes=None):
    """The worst error of each interval over the truth's size there, or another one; NaN where a result is NaN."""
    errors = []
    for row, exact_row, size in zip(found.double().tolist(), truth, sizes or truth, strict=True):
        off = [float(abs(f - t) / s) if f == f else math.nan for f, t, s in zip(row, exact_row, size, strict=True)]
        errors.append(math.nan if any(map(math.isnan, off)) else max(*map(abs, off), _LEAST))
    return errors


def draw_errors(axis, middle, curves, limits, **settings):
    """Curves of errors against arguments; where a result is NaN its colour fills the interval."""
    for label, colour, errors in curves:
        axis.plot(middle, errors, label=label, color=colour)
        lost = middle[np.isnan(errors)]
        if len(lost):
            axis.axvspan(lost[0], lost[-1], color=colour, alpha=0.15, lw=0, label="its results are NaN")
    axis.set(yscale="log", ylim=limits, **settings)
    axis.minorticks_off()


# ---- KL(N(0, σ²) ‖ N(0, 1)) near σ = 1 -------------------------------------------------------------------------


def _usual_kl(logvar):
    return -0.5 * (1 + logvar - logvar.exp())


def _distributions_kl(logvar):
    zero = torch.zeros_like(logvar)
    return kl_divergence(Normal(zero, torch.exp(0.5 * logvar)), Normal(zero, torch.ones_like(logvar)))


def _our_kl(logvar):
    return vf.gaussian_kl(torch.zeros_like(logvar), logvar, event_ndim=0)


def kl(path):
    logvar, middle = spread(1e-6, 10, logarithmic=True)
    truths = exact(lambda v: (mpmath.expm1(v) - v) / 2, logvar), exact(lambda v: mpmath.expm1(v) / 2, logvar)
    ways = (
        ("−½(1 + logvar − e^logvar)", THEIRS, _usual_kl),
        ("torch.distributions", OTHER, _distributions_kl),
        ("vae_fast", OURS, _our_kl),
    )
    found = [(label, colour, value_and_slope(way, logvar)) for label, colour, way in ways]
    figure, axes = canvas(2, sharey=True)
    for k, (axis, title) in enumerate(zip(axes, ("value", "gradient by logvar"), strict=True)):
        curves = [(label, colour, relative(both[k], truths[k])) for label, colour, both in found]
        draw_errors(axis, middle, curves, (1e-8, 1e2), xscale="log", title=title, xlabel="logvar")
    axes[0].set_ylabel("relative error")
    axes[1].legend(loc="upper right")
    save(figure, path)


# ---- log p of a Bernoulli in the tails -------------------------------------------------------------------------


def bernoulli(path):
    """Of a target of 0 the value, of a target of 1 the gradient: by symmetry the other two look alike."""
    y, middle = spread(-40, 40)
    figure, axes = canvas(2, sharey=True)
    cases = (
        (0.0, 0, "value, target 0", lambda v: -mpmath.log1p(mpmath.exp(v))),
        (1.0, 1, "gradient by the logit, target 1", lambda v: 1 / (1 + mpmath.exp(v))),
    )
    for axis, (target, which, title, truth) in zip(axes, cases, strict=True):
        t = torch.full_like(y, target)
        usual = value_and_slope(lambda v, t=t: -F.binary_cross_entropy_with_logits(v, t, reduction="none"), y)
        ours = value_and_slope(lambda v, t=t: vf.bernoulli_log_prob(v, t, event_ndim=0), y)
        exactly = exact(truth, y)
        curves = [
            ("binary_cross_entropy_with_logits", THEIRS, relative(usual[which], exactly)),
            ("vae_fast", OURS, relative(ours[which], exactly)),
        ]
        draw_errors(axis, middle, curves, (5e-10, 3), title=title, xlabel="logit")
    axes[0].set_ylabel("relative error")
    axes[1].legend(loc="upper left")
    save(figure, path)


# ---- σ by a softplus, and log p with it ------------------------------------------------------------------------


def softplus(path):
    """log N(x; x, σ²), which is −log σ − ½ log 2π, and the gradient by r of σ = log(1 + e^r)."""
    r, middle = spread(-150, 20)
    zero = torch.zeros_like(r)

    def sigma_of(v):
        return mpmath.log1p(mpmath.exp(v))

    truths = (
        exact(lambda v: -mpmath.log(sigma_of(v)) - mpmath.log(2 * mpmath.pi) / 2, r),
        exact(lambda v: -1 / (1 + mpmath.exp(-v)) / sigma_of(v), r),
    )
    usual = value_and_slope(lambda v: Normal(zero, F.softplus(v), validate_args=False).log_prob(zero), r)
    ours = value_and_slope(lambda v: vf.gaussian_log_prob(zero, v, zero, param="softplus", event_ndim=0), r)
    figure, axes = canvas(2, sharey=True)
    for k, (axis, title) in enumerate(zip(axes, ("value", "gradient by r"), strict=True)):
        curves = [
            ("Normal(x, F.softplus(r))", THEIRS, relative(usual[k], truths[k])),
            ("vae_fast", OURS, relative(ours[k], truths[k])),
        ]
        draw_errors(axis, middle, curves, (5e-10, 1), title=title, xlabel="r, σ = log(1 + e^r)")
    axes[0].set_ylabel("relative error")
    axes[0].legend(loc="upper left")
    save(figure, path)


# ---- KL(N(0, σ²) ‖ N(0, 1)) of σ in each form, near σ = 1 ------------------------------------------------------


def forms(path):
    """Truths are of the argument as it is in float32: what is lost is lost in computing σ and the KL of it."""
    away, middle = spread(1e-6, 1, logarithmic=True)

    def of_sigma(sigma):
        return (sigma * sigma - 1) / 2 - mpmath.log(sigma)

    ways = {
        "logvar": (away, lambda v: mpmath.exp(v / 2), lambda v: torch.exp(0.5 * v)),
        "std": (1 + away, lambda v: v, lambda v: v),
        "softplus": (math.log(math.e - 1) + away, lambda v: mpmath.log1p(mpmath.exp(v)), F.softplus),
    }
    figure, axes = canvas(2, sharey=True)
    curves = [], []
    for (param, (argument, exactly, sigma)), colour in zip(ways.items(), (OURS, THEIRS, OTHER), strict=True):
        truth = exact(lambda v, exactly=exactly: of_sigma(exactly(v)), argument)
        usual = (sigma(argument).square() - 1) / 2 - sigma(argument).log()
        ours = vf.gaussian_kl(torch.zeros_like(argument), argument, param=param, event_ndim=0)
        curves[0].append((param, colour, relative(usual, truth)))
        curves[1].append((param, colour, relative(ours, truth)))
    for axis, drawn, title in zip(axes, curves, ("½(σ² − 1) − log σ", "vae_fast, param="), strict=True):
        draw_errors(axis, middle, drawn, (1e-8, 2), xscale="log", title=title, xlabel="argument − that of σ = 1")
    axes[0].set_ylabel("relative error")
    axes[1].legend(loc="upper right")
    save(figure, path)


# ---- ∂/∂θ of a negative binomial -------------------------------------------------------------------------------


def published_negative_binomial(mean, theta, x, eps=1e-8):
    """log p of counts as scvi-tools writes it."""
    log_sum = torch.log(theta + mean + eps)
    by_theta, by_mean = torch.log(theta + eps) - log_sum, torch.log(mean + eps) - log_sum
    return theta * by_theta + x * by_mean + torch.lgamma(x + theta) - torch.lgamma(theta) - torch.lgamma(x + 1)


def _exact_slope(mean, theta, x):
    by_gamma = mpmath.digamma(x + theta) - mpmath.digamma(theta)
    return by_gamma + mpmath.log(theta / (theta + mean)) + (mean - x) / (theta + mean)


def _by_torch(mean, theta, x):
    return NegativeBinomial(theta, logits=torch.log(mean) - torch.log(theta), validate_args=False).log_prob(x)


def _ours(mean, theta, x):
    return vf.negative_binomial_log_prob(mean, theta, x, event_ndim=0)


def negative_binomial(path):
    """Errors over the derivative's root mean square in the interval: near (x − μ)² = x it is 0 itself."""
    theta, middle = spread(1e-2, 1e8, logarithmic=True)
    ways = (("scvi-tools' formula", THEIRS, published_negative_binomial), ("torch.distributions", OTHER, _by_torch),
            ("vae_fast", OURS, _ours))  # fmt: skip
    figure, axes = canvas(2, sharey=True)
    for axis, mu in zip(axes, (2.0, 50.0), strict=True):
        mean = torch.full_like(theta, mu)
        x = torch.from_numpy(np.random.default_rng(1).poisson(mu, theta.shape)).float()
        truth = exact(lambda t, c, mu=mu: _exact_slope(mu, t, c), theta, x)
        sizes = [[mpmath.sqrt(sum(t * t for t in row) / len(row))] * len(row) for row in truth]
        curves = []
        for label, colour, way in ways:
            _, slope = value_and_slope(lambda t, way=way, mean=mean, x=x: way(mean, t, x), theta)
            curves.append((label, colour, relative(slope, truth, sizes)))
        title = f"∂ log p/∂θ, counts near μ = {mu:.0f}"
        draw_errors(axis, middle, curves, (1e-8, 1e4), xscale="log", title=title, xlabel="θ")
        axis.axhline(1, color="black", lw=0.6, ls=":")
    axes[0].set_ylabel("error, of the typical derivative")
    axes[0].legend(loc="upper left")
    save(figure, path)


FIGURES = {
    "error_of_kl": kl,
    "error_of_bernoulli": bernoulli,
    "error_of_softplus": softplus,
    "error_of_forms": forms,
    "error_of_negative_binomial": negative_binomial,
}
