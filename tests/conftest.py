"""What holds for every test: threads, seeds, fresh memory that is NaN, reproducible hypothesis cases."""

import contextlib
import os
import random

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

import vae_fast as vf
from helpers import calls, marks
from vae_fast import front

# cuBLAS is deterministic only with a workspace of fixed size, which it reads at its first call.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

# Two: enough that work is split over threads, few enough that a busy machine is not flooded. One where there are
# several processes, whose threads would wait for each other: tests of threads set how many they have.
torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)

if os.environ.get("TRITON_INTERPRET") == "1":
    from helpers import interpreter

    interpreter.mend()
    # An interpreted program takes milliseconds, whatever its tile. Tests of tiles set sizes of their own.
    interpreter.launch.tile_bytes = 1 << 20

# Libraries that tests/integrations/run.sh installs; what make docs runs; what runs in Triton's interpreter only,
# where tests/backends/test_triton.py runs it.
collect_ignore = ["integrations", "docs"] + ([] if os.environ.get("TRITON_INTERPRET") == "1" else ["interpreted"])

settings.register_profile(
    "ci", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("ci")


def pytest_collection_modifyitems(config, items):
    """Hundreds of operations take a compiler a minute: the reference's, but of two operators, are for test-slow."""
    if os.environ.get("TRITON_INTERPRET") == "1":
        thin_out(config, items)
    share_out(config, items)
    for item in items:
        params, call = parameters_of(item)
        # A test of the parametrised backends of a list that is empty has none.
        backend = params.get("backend")
        on_reference = isinstance(backend, tuple) and backend[0] == "reference"
        if item.get_closest_marker("compiles") and on_reference and call not in (calls.BERNOULLI, calls.RSAMPLE_KL):
            item.add_marker(pytest.mark.slow)


def parameters_of(item):
    """What a test is parametrised by, and the operator's call among it."""
    params = item.callspec.params if hasattr(item, "callspec") else {}
    return params, getattr(params.get("case"), "call", params.get("call"))


def leave_out(config, items, part):
    """Of each test, every n-th case stays, from the first-th on: ``part`` gives (kind of case, n, first), or None.

    It is asked of what a test is parametrised by, and of the call; where it gives None, all stay.
    """
    counted, gone = {}, []
    for item in items:
        found = part(*parameters_of(item))
        if found is None:
            continue
        kind, n, first = found
        key = item.nodeid.partition("[")[0], kind
        counted[key] = counted.get(key, -1) + 1
        if (counted[key] + first) % n:
            gone.append(item)
    config.hook.pytest_deselected(items=gone)
    these = set(gone)
    items[:] = [item for item in items if item not in these]


def share_out(config, items):
    """Of the operators that are an Op and nothing else, each runs every third case: the three together all of them.

    Those are tests of the engine, which other operators meet whole. With VAE_FAST_TEST_SHARE=1, and where a test is
    named, each runs every case.
    """
    if os.environ.get("VAE_FAST_TEST_SHARE") == "1" or any("::" in arg for arg in config.args):
        return
    plain = calls.PLAIN
    leave_out(config, items, lambda _, call: (call.op, len(plain), plain.index(call)) if call in plain else None)


def thin_out(config, items):
    """In Triton's interpreter, of each operators' test and call, every eighth case: it takes seconds for one.

    tests/interpreted is made for it, and runs whole, but in make test, which runs every eighth case of its tests.
    """
    share, of_all = int(os.environ.get("VAE_FAST_TEST_SHARE", "8")), "VAE_FAST_TEST_SHARE" in os.environ

    def part(params, call):
        return (str(call), share, 0) if of_all or params.get("backend", ("",))[0] == "triton" else None

    leave_out(config, items, part)


@pytest.fixture
def native_calls():
    """Calls that the compiled front takes from the first one on: early gradients do not ask the environment."""
    with vf.use_backend("native"), vf.early_gradients(True):
        yield


@pytest.fixture
def python_functions():
    """For tests that watch what Python functions call: the compiled front calls nothing that they could watch."""
    with front.disabled():
        yield


@pytest.fixture
def one_thread():
    """For tests of many tiny calls, which on a busy machine would wait for a second thread to be given a core."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def same_start():
    """Every test starts from the same seeds, and reads NaN where it reads memory that nobody wrote.

    Deterministic mode is how PyTorch fills fresh memory (torch.utils.deterministic.fill_uninitialized_memory).
    """
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(params=marks.served(), ids="-".join)
def backend(request):
    """Every backend and device there is in turn, which serve all calls (marks.each_backend)."""
    name, device = request.param
    # A default device is a mode, which the compiled front leaves to the Python functions.
    with vf.use_backend(name), contextlib.nullcontext() if device == "cpu" else torch.device(device):
        yield name
