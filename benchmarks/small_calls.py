"""What a small call costs beside its arithmetic: in a loop of its own, and where a training step makes it.

In a loop, code and data stay in the nearest caches. In a step an optimiser and matrix products come between two
calls, and the caches hold theirs.
"""

import contextlib
import time
from dataclasses import dataclass
from types import SimpleNamespace

import torch

import vae_fast as vf
from vae_fast import front

from . import formulas, measure, steps, truth

# Of one way in a loop of its own, a round.
LOOP, BEFORE_LOOP = 20, 3
NORMALS = (8, 16)


def _summed(rsample_kl):
    def function(mu, logvar):
        z, kl = rsample_kl(mu, logvar)
        return z, kl.sum()

    return function


def _eager_each(mu, logvar):
    """With a KL for every datum."""
    return formulas.rsample(mu, logvar), -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp(), 1)


# As the README has them. standard_normal is a function of a seed, and draws none.
OURS = SimpleNamespace(
    standard_normal=lambda like: vf.standard_normal(like.shape, seed=0),
    rsample=vf.rsample,
    rsample_kl=_summed(vf.rsample_kl),
    rsample_kl_each=vf.rsample_kl,
    gaussian_kl=lambda mu, logvar: vf.gaussian_kl(mu, logvar, reduction="sum"),
    bernoulli_log_prob=lambda logits, x: vf.bernoulli_log_prob(logits, x, reduction="sum"),
)
EAGER = SimpleNamespace(
    **vars(formulas.EAGER)
    | {"standard_normal": lambda like: torch.randn(like.shape), "rsample_kl_each": _eager_each}
)


@dataclass(frozen=True)
class Way:
    """Functions, and the context in which they are called."""

    name: str
    functions: SimpleNamespace
    context: object = contextlib.nullcontext


def ways():
    """Eager first. Without a compiled front, vae_fast is its Python functions."""
    python = [] if front.REASON else [Way("vae_fast, Python functions", OURS, front.disabled)]
    return [Way("eager", EAGER), *python, Way("vae_fast", OURS)]


@dataclass(frozen=True)
class Call:
    """An operator on what the MLP gives, forward, or forward and backward."""

    op: str
    both: bool = False
    each: bool = False  # a number for every datum, and not their sum

    @property
    def of_data(self):
        return self.op == "bernoulli_log_prob"

    @property
    def passing(self):
        return "both" if self.both else "forward"

    def of(self, functions):
        return getattr(functions, f"{self.op}_each" if self.each else self.op)

    def name(self, operands):
        passes = "forward and backward" if self.both else "forward"
        return f"{self.op} {'x'.join(map(str, operands[0].shape))} {passes}{', a KL a datum' if self.each else ''}"


CALLS = (
    Call("rsample_kl"),
    Call("rsample_kl", both=True),
    Call("rsample_kl", both=True, each=True),
    Call("rsample"),
    Call("rsample", both=True),
    Call("gaussian_kl"),
    Call("gaussian_kl", both=True),
    Call("bernoulli_log_prob", both=True),
    Call("standard_normal"),
)


def _leaf(tensor):
    return tensor.detach().contiguous().requires_grad_()


class Step:
    """A training step of the MLP, around a call.

    Adam's rate is 0: it works as always, and all steps are the same.
    """

    def __init__(self):
        self.model = steps.make("mlp")
        self.optimiser = steps.adam(self.model, lr=0.0)
        moments = self._encoded()
        self.dz = torch.randn(moments[0].shape)
        self.z, self.dmoments = torch.randn_like(self.dz), [torch.randn(m.shape) for m in moments]
        out = self._decoded()
        self.dout = torch.randn(out.shape)
        out.backward(self.dout)
        torch.autograd.backward(moments, self.dmoments)

    def _encoded(self):
        return self.model.moments(self.model.x)

    def _decoded(self):
        return self.model.decoder(_leaf(self.z))

    def operands(self, call, moments=None, out=None):
        """Leaves of what the networks gave, just now or anew."""
        if call.op == "standard_normal":
            return [torch.empty(NORMALS)]
        if call.of_data:
            return [_leaf(self._decoded() if out is None else out), self.model.x]
        return [_leaf(m) for m in moments or self._encoded()]

    def upstream(self, call):
        """Gradients of the call's results: z's come of the decoder, a density's is 1."""
        dkl = torch.ones(len(self.dz)) if call.each else None
        return {"rsample": self.dz, "rsample_kl": (self.dz, dkl)}.get(call.op)

    def hot(self, call, functions):
        """Seconds a call, of a loop."""
        function, operands, upstream = call.of(functions), self.operands(call), self.upstream(call)

        def one():
            results = function(*operands)
            if call.both:
                torch.autograd.backward(results, upstream)
                for operand in operands:
                    operand.grad = None

        for _ in range(BEFORE_LOOP):
            one()
        start = time.perf_counter()
        for _ in range(LOOP):
            one()
        return (time.perf_counter() - start) / LOOP

    def cold(self, call, functions):
        """Seconds of a call where a step makes it.

        Of a likelihood the backward pass follows at once; of all else, after the decoder's passes.
        """
        function, upstream = call.of(functions), self.upstream(call)
        self.optimiser.step()
        self.optimiser.zero_grad()
        moments = self._encoded()
        out = self._decoded() if call.of_data else None
        operands = self.operands(call, moments, out)
        start = time.perf_counter()
        results = function(*operands)
        seconds = time.perf_counter() - start
        if out is None:
            self._decoded().backward(self.dout)
        if call.both:
            start = time.perf_counter()
            torch.autograd.backward(results, upstream)
            seconds += time.perf_counter() - start
        if out is not None:
            out.backward(self.dout)
        torch.autograd.backward(moments, self.dmoments)
        return seconds


def wrong(step, call, way):
    """Why a way is not timed; an empty text where it is right."""
    operands, functions = step.operands(call), way.functions
    if call.each:
        functions = SimpleNamespace(rsample_kl=_summed(call.of(functions)))
    with way.context():
        return truth.wrong(call.op, functions, operands, truth.of(call.op, operands))


def timed(step, call, chosen, rounds):
    """Seconds by place, hot and cold, and way: one of each a round, the ways in a new order every time."""
    found = {place: {way.name: [] for way in chosen} for place in ("hot", "cold")}
    for way in measure.in_turns(chosen, rounds):
        with way.context():
            found["cold"][way.name].append(step.cold(call, way.functions))
            found["hot"][way.name].append(step.hot(call, way.functions))
    return found
