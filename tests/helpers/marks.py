"""Which backends and operators a test runs on."""

import pytest
import torch

import vae_fast as vf
from helpers.calls import CALLS, DENSITIES, SAMPLERS, WITH_EVENT, WITH_X


def served():
    """(backend, device) of every backend there is on every device that it serves."""
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    for name, backend in vf.backends().items():
        if backend.available:
            yield from ((name, d) for d in devices if "*" in backend.devices or d in backend.devices)


def _needs(name):
    backend = vf.backends()[name]
    return pytest.mark.skipif(not backend.available, reason=f"{name}: {backend.reason}")


# On each of these, by conftest.py's fixture.
each_backend = pytest.mark.usefixtures("backend")
needs_native = _needs("native")

each_call = pytest.mark.parametrize("call", CALLS, ids=str)
each_density = pytest.mark.parametrize("call", DENSITIES, ids=str)
each_sampler = pytest.mark.parametrize("call", SAMPLERS, ids=str)
each_tempered = pytest.mark.parametrize("call", [c for c in SAMPLERS if c.has("temperature")], ids=str)
each_with_event = pytest.mark.parametrize("call", WITH_EVENT, ids=str)
each_with_x = pytest.mark.parametrize("call", WITH_X, ids=str)


def each_operand(*calls, without=()):
    """Each operand, by its number ``i``, of each of the calls."""
    cases = [(c, i) for c in calls for i, name in enumerate(c.operands) if name not in without]
    return pytest.mark.parametrize(("call", "i"), cases, ids=str)
