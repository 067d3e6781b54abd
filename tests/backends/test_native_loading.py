"""The compiled extension where it is missing, broken or built for something else: never an error at import."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import vae_fast as vf
from vae_fast import native
from vae_fast.operators import OPERATORS, PAIRWISE

PACKAGE = Path(vf.__file__).parent
WITH_LIBRARY = pytest.mark.skipif(bool(native.REASON), reason=f"native: {native.REASON}")
SCRIPT = """
import torch
import vae_fast as vf
native = vf.backends()["native"]
print(native.available, native.devices, len(native.ops))
print(native.reason)
mu = torch.zeros(2, 3)
print(vf.gaussian_kl(mu, mu).tolist())
try:
    vf.gaussian_kl(mu, mu, backend="native")
    print("served")
except RuntimeError as error:
    print(error)
"""


def in_a_copy(tmp_path, change, environment=None):
    """What the script prints with a copy of the package that ``change`` has changed."""
    copy = tmp_path / "vae_fast"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    change(copy)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path), **(environment or {})},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def without(copy):
    for path in copy.glob("*.so"):
        path.unlink()


def record(text):
    def change(copy):
        without(copy)
        (copy / "_build.txt").write_text(text)

    return change


def library(content):
    def change(copy):
        without(copy)
        (copy / native.LIBRARY.name).write_bytes(content() if callable(content) else content)

    return change


def undefined_symbol(tmp_path):
    """A library that asks for a symbol that nothing has, as one built for another torch does."""
    compiler = shutil.which("cc") or pytest.skip("needs a C compiler")
    source = tmp_path / "source.c"
    source.write_text("extern int of_another_torch(void); int call(void) { return of_another_torch(); }")
    out = tmp_path / "library.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-Wl,-z,now", "-o", out, source], check=True)
    return out.read_bytes()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (record(""), "was not built: there is no _cpu.abi3.so"),
        (record("no C++ compiler was found\n"), r"was not built: no C\+\+ compiler was found"),
        (library(b""), "does not load"),
        (library(b"not a library"), "does not load"),
        (library(lambda: native.LIBRARY.read_bytes()[:100_000]), "is not whole"),
        ("undefined", "does not load.*of_another_torch"),
    ],
    ids=["missing", "recorded", "empty", "text", "truncated", "undefined"],
)
def test_a_library_that_cannot_load(tmp_path, change, reason):
    if reason == "is not whole" and native.REASON:
        pytest.skip(f"native: {native.REASON}")
    if change == "undefined":
        change = library(undefined_symbol(tmp_path))
    state, said, served, refused = in_a_copy(tmp_path, change)
    assert state == "False () 0" and served == "[0.0, 0.0]"
    assert re.search(reason, said), said
    assert "'native' is not available" in refused and said in refused


@WITH_LIBRARY
def test_the_library_loads_from_anywhere(tmp_path):
    state, said, served, refused = in_a_copy(tmp_path, lambda copy: None)
    assert state == f"True ('cpu',) {len(OPERATORS | PAIRWISE)}" and said == "" and refused == "served"


def test_an_older_torch(monkeypatch):
    monkeypatch.setattr(torch, "__version__", "2.10.0+cpu")
    said = native._load(Path(__file__), "the compiled extension")
    assert said == "the compiled extension needs torch 2.11, this is 2.10.0+cpu"


@pytest.mark.parametrize("version", ["2.11.0", "2.13.0+cpu", "2.14.1", "2.15.0a0+git1234", "3.0.0.dev2027"])
def test_versions(version):
    assert native._version(version) >= native.TORCH_MINIMUM


@WITH_LIBRARY
class TestInstructionSets:
    def run(self, limit):
        code = "from vae_fast import native; print(native.instruction_set())"
        environment = {**os.environ, "VAE_FAST_CPU_ISA": limit, "PYTHONPATH": str(PACKAGE.parent)}
        return subprocess.check_output([sys.executable, "-c", code], env=environment, text=True).strip()

    def test_the_best_by_default(self):
        assert native.instruction_set() in ("baseline", "v3", "v4")

    def test_the_environment_lowers_it(self):
        order = ["baseline", "v3", "v4"]
        best = order.index(self.run(""))
        for k, name in enumerate(order):
            assert self.run(name) == order[min(k, best)]

    def test_an_unknown_name_is_an_error(self):
        """At the first call, also of "auto", which must not pass it over; importing works."""
        code = """if True:
            import torch, vae_fast as vf
            from vae_fast import native
            for ask in (native.instruction_set, lambda: vf.rsample(torch.zeros(3), 0.0, seed=1)):
                try:
                    ask()
                except (ValueError, RuntimeError) as error:
                    print(error)
        """
        environment = {**os.environ, "VAE_FAST_CPU_ISA": "something", "PYTHONPATH": str(PACKAGE.parent)}
        said = subprocess.check_output([sys.executable, "-c", code], env=environment, text=True)
        assert said.count("unknown instruction set 'something'; there are baseline, v3 and v4") == 2
