"""The package as shipped: what an sdist and a wheel hold, and that the wheel runs on torch and numpy alone."""

import importlib.metadata
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import vae_fast as vf

ROOT = Path(__file__).parents[2]
# What an extra or a backend may bring, and a plain `pip install vae_fast` need not.
OPTIONAL = (
    "diffusers",
    "matplotlib",
    "mlxtend",
    "pandas",
    "pyro",
    "pythae",
    "safetensors",
    "scipy",
    "sklearn",
    "tensorboard",
    "tqdm",
    "triton",
)
BLOCK_OPTIONAL = f"import sys; sys.modules.update(dict.fromkeys({OPTIONAL!r}))\n"


def run(*command, **kwargs):
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, **kwargs)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    """A source distribution, built from a copy of the tree without a checkout around it."""
    if not (ROOT / "pyproject.toml").exists():
        pytest.skip("needs the source tree: pyproject.toml is missing")
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, source)
    for directory in ("vae_fast", "tests", "csrc"):
        ignored = shutil.ignore_patterns("__pycache__", "*.so", "_build.txt")
        shutil.copytree(ROOT / directory, source / directory, ignore=ignored)
    build_sdist = "import setuptools.build_meta as build, sys; build.build_sdist(sys.argv[1])"
    run(sys.executable, "-c", build_sdist, str(out), cwd=source)
    (sdist,) = out.glob("vae_fast-*.tar.gz")
    return sdist


def build_wheel(sdist, out, **environment):
    """pip's whole output, and the wheel it makes of the sdist (None where it fails)."""
    command = (*PIP, "wheel", "--verbose", "--no-build-isolation", "--no-deps", "--no-index")
    done = subprocess.run(
        (*command, "--wheel-dir", str(out), str(sdist)),
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, **environment},
    )
    return done.stdout + done.stderr, next(out.glob("vae_fast-*.whl"), None)


@pytest.fixture(scope="module")
def wheel(sdist, tmp_path_factory):
    """A wheel without the extension; one with it is built and tried by `make wheel`, which takes minutes."""
    said, path = build_wheel(sdist, tmp_path_factory.mktemp("wheel"), VAE_FAST_NATIVE="0")
    assert path is not None, said
    assert "WITHOUT its compiled kernels" in said and "VAE_FAST_NATIVE=0" in said
    return path


def test_sdist_holds_what_a_build_needs(sdist):
    held = {name.partition("/")[2] for name in tarfile.open(sdist).getnames()}
    sources = {
        p.relative_to(ROOT).as_posix() for p in (ROOT / "csrc").rglob("*") if p.suffix in (".h", ".cpp", ".cu")
    }
    assert sources and sources <= held
    assert {
        "setup.py",
        "setup_cuda.py",
        "setup_operators.py",
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "Makefile",
        "tests/helpers/calls.py",
    } <= held


def test_wheel_holds_the_package_and_nothing_else(wheel):
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    package = {path.relative_to(ROOT).as_posix() for path in (ROOT / "vae_fast").rglob("*.py")}
    assert held == package | {"vae_fast/py.typed", "vae_fast/_build.txt"}
    assert wheel.name.endswith("-py3-none-any.whl")


class TestWithoutWhatABuildNeeds:
    """A pure install that says so, and why; or, where the extension was asked for, none."""

    @pytest.fixture(params=["compiler", "torch"])
    def environment(self, request, tmp_path):
        if request.param == "compiler":
            return {"CXX": str(tmp_path / "no-compiler"), "CC": str(tmp_path / "no-compiler")}, "no-compiler"
        (tmp_path / "torch.py").write_text("raise ImportError('not in this build')")
        return {"PYTHONPATH": str(tmp_path)}, "--no-build-isolation"

    def test_auto(self, sdist, environment, tmp_path):
        variables, reason = environment
        said, path = build_wheel(sdist, tmp_path, **variables, VAE_FAST_NATIVE="auto")
        assert path is not None and path.name.endswith("-py3-none-any.whl"), said
        assert "*** vae_fast is installed WITHOUT its compiled kernels" in said and reason in said
        archive = zipfile.ZipFile(path)
        assert reason in archive.read("vae_fast/_build.txt").decode()
        assert not any(name.endswith(".so") for name in archive.namelist())

    def test_asked_for(self, sdist, environment, tmp_path):
        variables, reason = environment
        said, path = build_wheel(sdist, tmp_path, **variables, VAE_FAST_NATIVE="1")
        assert path is None and reason in said


@pytest.mark.parametrize(
    ("target", "sets"),
    [("linux-aarch64", "baseline"), ("linux-x86_64", "baseline v3 v4"), ("win-amd64", "baseline v3 v4")],
)
def test_kernels_are_for_the_target_s_instruction_sets(target, sets):
    """Whatever processor compiles them; the variable is what CPython's own cross builds set."""
    if not (ROOT / "setup.py").exists():
        pytest.skip("needs the source tree: setup.py is missing")
    code = "import runpy; print(*runpy.run_path('setup.py')['INSTRUCTION_SETS'])"
    environment = {**os.environ, "_PYTHON_HOST_PLATFORM": target}
    assert run(sys.executable, "-c", code, cwd=ROOT, env=environment) == f"{sets}\n"


def test_wheel_asks_for_torch_and_numpy_only(wheel):
    archive = zipfile.ZipFile(wheel)
    (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    lines = archive.read(name).decode().splitlines()
    required = [line for line in lines if line.startswith("Requires-Dist: ") and "extra ==" not in line]
    assert sorted(required) == ["Requires-Dist: numpy", "Requires-Dist: torch>=2.11"]
    assert f"Version: {vf.__version__}" in lines
    assert "Requires-Python: >=3.10" in lines
    assert "License-Expression: MIT" in lines


@pytest.mark.parametrize(
    "code",
    [
        "import torch; x = torch.ones(2, 3); print(vf.bernoulli_log_prob(vf.rsample(x, x, seed=0), x).shape)",
        "import runpy; sys.argv[1:] = ['info']; runpy.run_module('vae_fast', run_name='__main__', alter_sys=True)",
    ],
    ids=["import", "info"],
)
def test_installed_wheel_runs_on_torch_and_numpy_alone(wheel, tmp_path, code):
    zipfile.ZipFile(wheel).extractall(tmp_path)
    start = (
        f"sys.path.insert(0, {str(tmp_path)!r}); import vae_fast as vf; assert {str(tmp_path)!r} in vf.__file__\n"
    )
    run(sys.executable, "-W", "error", "-c", BLOCK_OPTIONAL + start + code, cwd=tmp_path)


def test_import_loads_nothing_optional():
    """Beyond what torch itself loads: an import of vae_fast costs no time on what it does not need."""
    code = "import sys, torch, numpy; before = set(sys.modules); import vae_fast; print(*set(sys.modules) - before)"
    loaded = {name.partition(".")[0] for name in run(sys.executable, "-c", code, cwd=ROOT).split()}
    assert loaded.isdisjoint(OPTIONAL)


def test_installed_version():
    try:
        installed = importlib.metadata.version("vae_fast")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("vae_fast is not installed here, only importable: `make test` installs it")
    assert installed == vf.__version__
