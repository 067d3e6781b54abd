"""A call beside the formula that is published for it, restated in PyTorch's operations and evaluated in float64."""

import torch
from torch.testing import assert_close

import vae_fast as vf
from helpers.behaviour import as_tuple, with_grads

EPS = torch.finfo(torch.float32).eps


def compiled(f):
    torch._dynamo.reset()
    return torch.compile(f, fullgraph=True, backend="aot_eager")


def assert_published(f, formula, *tensors, compile=False):
    """Results and every gradient, eager and compiled, of operands of any floating dtype.

    Formulas of a few operations on numbers of size 1, at most some dozen of them summed: each result is off by some
    ε of what it is computed in, and is rounded once to its own dtype.
    """
    upstream = [torch.randn(o.shape, dtype=torch.float64).to(o.dtype) for o in as_tuple(f(*tensors))]
    wide = [t.double() if t.is_floating_point() else t for t in tensors]
    want = with_grads(formula, *wide, upstream=[g.double() for g in upstream])
    for call in (f, compiled(f)) if compile else (f,):
        for got, truth in zip(with_grads(call, *tensors, upstream=upstream), want, strict=True):
            own = torch.finfo(got.dtype).eps
            computed = own if got.dtype == torch.float64 else EPS
            assert_close(got.double(), truth, rtol=own + 16 * computed, atol=64 * computed)


def epsilon(shape, samples=(), **place):
    """The ε of these samples, in float64."""
    return vf.rsample(torch.zeros(shape, dtype=torch.float64), 0.0, samples, **place)


def passing_clamp(r, low, high):
    """A clamp whose gradient is the identity's."""
    return r + (r.clamp(low, high) - r).detach()
