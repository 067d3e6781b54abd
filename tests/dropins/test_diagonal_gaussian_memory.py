"""DiagonalGaussian reads its moments in place, and makes their gradient in one buffer: by PyTorch's profiler."""

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

import vae_fast as vf

CALLS = {
    "sample": lambda q: q.sample(seed=1),
    "kl": lambda q: q.kl(),
    "rsample_kl": lambda q: q.rsample_kl(seed=1),
    "kl_to_another": lambda q: q.kl(vf.DiagonalGaussian(torch.zeros(q.parameters.shape))),
    "nll": lambda q: q.nll(torch.zeros(q.mean.shape)),
}
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
COPIES = {f"aten::{name}" for name in ("cat", "zeros", "zero_", "copy_", "clone", "contiguous", "add", "add_")}


@pytest.fixture(autouse=True)
def native():
    """The backend whose operators are called without any around them."""
    reason = vf.backends()["native"].reason
    if reason:
        pytest.skip(reason)
    # Memory filled with NaN (conftest.py) would be an operator more.
    torch.use_deterministic_algorithms(False)
    with vf.use_backend("native"):
        yield


def profiled(f):
    """The bytes that f allocates, and the operators it calls."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as run:
        f()
    events = run.events()
    return sum(max(e.self_cpu_memory_usage, 0) for e in events), {e.name for e in events}


@pytest.fixture(params=LAYOUTS)
def q(request):
    moments = torch.randn(4, 8, 32, 32).contiguous(memory_format=LAYOUTS[request.param])
    return vf.DiagonalGaussian(moments.requires_grad_())


@pytest.mark.parametrize("call", CALLS)
def test_backward(q, call):
    out = CALLS[call](q)
    out = out if isinstance(out, tuple) else (out,)
    upstream = [torch.ones_like(t) for t in out]
    size, called = profiled(lambda: torch.autograd.grad(out, q.parameters, upstream))
    assert size == q.parameters.numel() * q.parameters.element_size()
    assert not called & COPIES


def test_forward(q):
    size, called = profiled(lambda: q.rsample_kl(seed=1))
    # z, and four KLs that may take a block of their own.
    of_z = q.parameters.numel() // 2 * q.parameters.element_size()
    assert of_z + 16 <= size <= of_z + 64
    assert not called & COPIES
