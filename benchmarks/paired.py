"""Whole training steps of all ways in turns, on one network and with one optimiser: how each differs from eager."""

import torch

from . import formulas, measure, steps, truth
from .small_calls import EAGER, OURS

WAYS = {
    "eager": EAGER,
    "torch.distributions": formulas.DISTRIBUTIONS,
    "vae_fast": OURS,
    "no loss terms": steps.NO_TERMS,
}
# Before the steps that are timed, of each way.
WARM = 5
RESAMPLES = 2000


def wrong(model, name):
    """Why a way is not timed; an empty text where it is right. Without loss terms, all gradients must exist."""
    if WAYS[name] is not steps.NO_TERMS:
        found = (
            (op, truth.wrong(op, WAYS[name], tensors, truth.of(op, tensors)))
            for op, tensors in steps.operands(model)
        )
        return next((f"{op}: {why}" for op, why in found if why), "")
    steps.training_step(model, steps.NO_TERMS, steps.adam(model, lr=0.0))()
    grads = [p.grad for p in steps.parameters(model)]
    if all(grad is not None and grad.isfinite().all() and grad.any() for grad in grads):
        return ""
    return "parameters without a gradient"


def timed(model, names, rounds):
    """Seconds of each way's steps, by its name; the k-th of all ways were neighbours.

    One network, so that no placement in memory tells the ways apart. Adam's rate is 0: it works as always, and the
    weights stay what they are.
    """
    optimiser = steps.adam(model, lr=0.0)
    calls = {name: steps.training_step(model, WAYS[name], optimiser) for name in names}
    for call in list(calls.values()) * WARM:
        call()
    return measure.timed(calls, rounds)


def difference(seconds, base):
    """The median of paired differences and its 95 % interval by the bootstrap, in per cent of the base's median."""
    seconds, base = torch.tensor(seconds).double(), torch.tensor(base).double()
    percent = 100 * (seconds - base) / base.median()
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(len(percent), (RESAMPLES, len(percent)), generator=generator)
    medians = percent[drawn].median(dim=1).values
    return tuple(float(v) for v in (percent.median(), medians.quantile(0.025), medians.quantile(0.975)))
