"""vf.integrations: other libraries are imported where they are first named, and missed by their name."""

import subprocess
import sys

import pytest

import vae_fast as vf


def test_importing_the_package_imports_no_other_library():
    code = "import sys, vae_fast; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "vae_fast" in done.stdout.split()
    assert not set(done.stdout.split()) & {"accelerate", "diffusers", "lightning", "pyro", "pythae", "scvi"}


@pytest.mark.parametrize("library", ["pythae", "scvi"])
def test_a_library_that_is_missing(library, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.delitem(sys.modules, f"vae_fast.integrations.{library}", raising=False)
    with pytest.raises(ModuleNotFoundError, match=library):
        getattr(vf.integrations, library)


def test_a_library_without_an_integration():
    with pytest.raises(AttributeError, match="has no attribute 'keras'"):
        _ = vf.integrations.keras
