"""What the tests with other libraries share: the native backend, and a record of the kernels that ran.

tests/integrations/conftest.py holds here too: threads, seeds, fresh memory that is NaN.
"""

import importlib
import os
import types

import pytest

import vae_fast as vf
from vae_fast import front

# Models are made here, with random weights: nothing is to be fetched.
os.environ["HF_HUB_OFFLINE"] = "1"

backends = importlib.import_module("vae_fast.backends")


@pytest.fixture
def fused(monkeypatch):
    """The native kernels that ran, by name and in order. The backend is named, so nothing else may serve.

    A test that uses it fails where none did.
    """
    ran = []

    def recorded(name, kernel):
        def run(*args):
            ran.append(name.removesuffix("_common"))
            return kernel(*args)

        return run

    # The compiled front has kernels of its own, which nothing here could record.
    with vf.use_backend("native"), front.disabled():
        kernels = vars(backends._KERNELS["native"])
        wrapped = {name: recorded(name, kernel) for name, kernel in kernels.items()}
        monkeypatch.setitem(backends._KERNELS, "native", types.SimpleNamespace(**wrapped))
        yield ran
    assert ran, "no fused kernel ran"
