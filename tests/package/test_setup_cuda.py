"""What the build of the CUDA kernels finds and says, with toolkits that are scripts."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[2]
if not (ROOT / "setup_cuda.py").exists():
    pytest.skip("needs the source tree: setup_cuda.py is missing", allow_module_level=True)
sys.path.insert(0, str(ROOT))
import setup_cuda  # noqa: E402

NVCC = """#!/bin/sh
case "$*" in
  *--version*) echo "Cuda compilation tools, release {version}, V0" ;;
  *--dryrun*) echo "#$ TOP=$(dirname "$0")/.." >&2 ;;
  *--list-gpu-arch*) printf 'compute_80\\ncompute_86\\ncompute_90\\n' ;;
esac
"""


def script(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A toolkit, and a folder on the path with a script that calls its nvcc."""
    for name in ("CUDA_HOME", "CUDA_PATH", "TORCH_CUDA_ARCH_LIST"):
        monkeypatch.delenv(name, raising=False)
    home = tmp_path / "toolkit"
    real = script(home / "bin" / "nvcc", NVCC.format(version="12.4"))
    for part in ("include/cuda_runtime.h", "lib64/libcudart.so"):
        (home / part).parent.mkdir()
        (home / part).touch()
    script(tmp_path / "path" / "nvcc", f'#!/bin/sh\nexec {real} "$@"\n')
    monkeypatch.setenv("PATH", f"{tmp_path / 'path'}:/usr/bin:/bin")
    return home


def test_behind_a_script(folder):
    found = setup_cuda.toolkit()
    assert (found.home, found.version) == (folder, (12, 4))
    assert found.libraries == [str(folder / "lib64")]


def test_named_by_the_user(folder, monkeypatch, tmp_path):
    other = tmp_path / "other"
    folder.rename(other)
    script(other / "bin" / "nvcc", NVCC.format(version="13.0"))
    monkeypatch.setenv("CUDA_HOME", str(other))
    found = setup_cuda.toolkit()
    assert (found.home, found.version) == (other, (13, 0))


@pytest.mark.parametrize(
    ("remove", "said"),
    [
        ("../path/nvcc", "there is no nvcc"),
        ("include/cuda_runtime.h", "headers are not in"),
        ("lib64/libcudart.so", "there is no libcudart.so"),
        ("bin/nvcc", "fails"),
    ],
)
def test_what_is_missing(folder, remove, said):
    (folder / remove).unlink()
    with pytest.raises(setup_cuda.Missing, match=said):
        setup_cuda.toolkit()


def test_a_folder_that_is_no_toolkit(folder, monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    with pytest.raises(setup_cuda.Missing, match="CUDA_HOME is"):
        setup_cuda.toolkit()


@pytest.mark.parametrize(("cuda", "said"), [(None, "without CUDA"), ("13.0", "is for CUDA 13.0")])
def test_another_torch(folder, cuda, said):
    torch = SimpleNamespace(__version__="2.13.0", version=SimpleNamespace(cuda=cuda))
    with pytest.raises(setup_cuda.Missing, match=said):
        setup_cuda.check_torch(torch, setup_cuda.toolkit())


def test_the_torch_for_it(folder):
    torch = SimpleNamespace(__version__="2.13.0", version=SimpleNamespace(cuda="12.8"))
    setup_cuda.check_torch(torch, setup_cuda.toolkit())


class TestTargets:
    def test_those_the_toolkit_knows(self, folder):
        """And the last of them for GPUs to come."""
        names = (
            "compute_80,code=sm_80",
            "compute_86,code=sm_86",
            "compute_90,code=sm_90",
            "compute_90,code=compute_90",
        )
        assert setup_cuda.targets(setup_cuda.toolkit()) == [f"-gencode=arch={name}" for name in names]

    def test_asked_for(self, folder, monkeypatch):
        monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "8.6;12.0+PTX 9.0a")
        names = "120,code=sm_120", "120,code=compute_120", "90a,code=sm_90a"
        assert setup_cuda.targets(setup_cuda.toolkit())[1:] == [f"-gencode=arch=compute_{name}" for name in names]

    def test_no_target(self, folder, monkeypatch):
        monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "Hopper")
        with pytest.raises(setup_cuda.Missing, match="'Hopper'"):
            setup_cuda.targets(setup_cuda.toolkit())
