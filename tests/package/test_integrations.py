"""vf.integrations: other libraries are imported where they are first named, and missed by their name."""

import subprocess
import sys

import pytest

import vae_fast as vf


def test_importing_the_package_imports_no_other_library():
    code = "import sys, vae_fast; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "vae_fast" in done.stdout.split()
    assert not set(done.stdout.split()) & {"accelerate", "diffusers", "lightning", "pyro", "pythae"}


def test_a_library_that_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "pythae", None)
    monkeypatch.delitem(sys.modules, "vae_fast.integrations.pythae", raising=False)
    with pytest.raises(ModuleNotFoundError, match="pythae"):
        _ = vf.integrations.pythae


def test_a_library_without_an_integration():
    with pytest.raises(AttributeError, match="has no attribute 'keras'"):
        _ = vf.integrations.keras
