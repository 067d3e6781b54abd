"""Raw operators refuse what does not go together before any kernel runs; `make sanitize` tries ten times more."""

import os

import pytest
import torch

import vae_fast as vf
from helpers.hostile_calls import OPS, Maker, random_calls
from vae_fast import schemas

COUNT = int(os.environ.get("VAE_FAST_HOSTILE_CALLS", "2000"))
needs_native = pytest.mark.skipif(
    not vf.backends()["native"].available, reason=f"native: {vf.backends()['native'].reason}"
)
pytestmark = pytest.mark.usefixtures("one_thread")


def reference(name):
    return schemas._body(name)


def native(name):
    return getattr(OPS, name).default


def refuse(call, operator):
    try:
        call(operator)
    except (TypeError, ValueError, RuntimeError) as error:
        assert str(error), call
        # Of a check, not of what an operation of PyTorch's ran into.
        assert "API call failed" not in str(error), (call, error)
        return
    pytest.fail(f"no error: {call}")


def assert_same(results, wanted, call):
    for got, want in zip(results, wanted, strict=True):
        assert (got.shape, got.dtype, got.stride()) == (want.shape, want.dtype, want.stride()), call
        # Ordinary numbers, and no test of accuracy: a wrong stride or an element left out shows.
        tolerance = 2e-2 if got.dtype in (torch.bfloat16, torch.float16) else 1e-4
        size = want.double().abs().nan_to_num(0.0, 0.0, 0.0).max() if want.numel() else 0.0
        torch.testing.assert_close(
            got, want, rtol=tolerance, atol=tolerance * float(size), equal_nan=True, msg=str(call)
        )


def test_reference():
    for call in random_calls(COUNT):
        if call.native_only:
            continue
        if call.fault:
            refuse(call, reference(call.name))
        else:
            call(reference(call.name))


@needs_native
def test_native():
    for call in random_calls(COUNT):
        if call.fault:
            refuse(call, native(call.name))
        else:
            assert_same(call(native(call.name)), call(reference(call.name)), call)


def test_faults_of_every_kind():
    """Each is tried, with every operator that it can be made with."""
    faults = {}
    for call in random_calls(2000):
        faults.setdefault(call.fault, set()).add(call.name)
    assert len(faults) == 1 + sum(name.startswith("fault_") for name in dir(Maker))
    for fault in ("", "dtype", "too_many_dims", "freed_memory"):
        assert len(faults[fault]) >= 10, fault
