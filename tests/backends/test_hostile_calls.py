"""Raw operators refuse what does not go together before any kernel runs; `make sanitize` tries ten times more."""

import os

import pytest

from helpers.hostile_calls import OPS, Maker, random_calls
from helpers.marks import needs_native
from helpers.raw_calls import assert_same, reference, refuse

COUNT = int(os.environ.get("VAE_FAST_HOSTILE_CALLS", "2000"))
pytestmark = pytest.mark.usefixtures("one_thread")


def native(name):
    return getattr(OPS, name).default


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
        assert len(faults[fault]) >= 14, fault
