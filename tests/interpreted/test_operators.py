"""The operators that a compiler sees: schemas that are kept, shapes, dtypes and strides that are foretold, and
arguments that are refused.
"""

import math

import pytest
import torch
from torch.library import opcheck

from helpers.hostile_calls import Maker, random_calls
from helpers.raw_calls import assert_same, calls, reference, refuse
from vae_fast.triton_kernels import launch

# The last call of each: the one with most options.
CALLS = dict(calls(torch.float32))


def triton(name):
    return getattr(torch.ops.vae_fast_triton, name).default


@pytest.mark.parametrize("name", CALLS)
def test_opcheck(name):
    opcheck(triton(name), CALLS[name], test_utils=("test_schema", "test_faketensor"))


def test_what_does_not_go_together_is_refused(monkeypatch):
    """Before any kernel runs."""
    monkeypatch.setattr(launch, "run", lambda *args: pytest.fail("a kernel ran"))
    tried = set()
    for call in random_calls(1500):
        if call.fault and call.fault != "too_many_dims":
            refuse(call, triton(call.name))
            tried.add(call.fault)
    assert len(tried) == sum(name.startswith("fault_") for name in dir(Maker)) - 1


def test_random_calls():
    """Of few elements, so that they take few programs."""
    for call in random_calls(400, seed=1):
        tensors = [a for a in call.args.values() if isinstance(a, torch.Tensor) and a.device.type == "cpu"]
        if not call.fault and math.prod(max((t.shape for t in tensors), key=math.prod, default=())) <= 100:
            assert_same(call(triton(call.name)), call(reference(call.name)), call)
