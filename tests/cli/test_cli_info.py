"""`info`, --help, and that importing vae_fast stays light."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
import torch

import vae_fast as vf
from helpers import pages
from vae_fast.cli.main import main


def test_info(capsys):
    assert main(["info"]) == 0
    printed = capsys.readouterr().out
    for text in (f"vae_fast   {vf.__version__}", torch.__version__, np.__version__, "triton", "cpu:", "threads"):
        assert text in printed
    for name, backend in vf.backends().items():
        assert f"{name}: " + ("available" if backend.available else f"no, {backend.reason}") in printed


def test_info_as_json(capsys, monkeypatch):
    monkeypatch.setenv("VAE_FAST_BACKEND", "reference")
    assert main(["info", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["versions"]["torch"] == torch.__version__ and content["devices"][0]["device"] == "cpu"
    assert content["backends"]["reference"] == {"available": True, "reason": None}
    assert content["threads"]["torch"] == torch.get_num_threads() and content["VAE_FAST_BACKEND"] == "reference"
    triton = content["versions"]["triton"]
    assert (triton["version"] is None) != (triton["reason"] is None)


def test_the_json_is_what_the_docs_say(capsys):
    """Every key, and no other: programs read them."""
    assert main(["info", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert {*content["threads"]} == {"torch", "cpus", "OMP_NUM_THREADS"}
    assert {*content["versions"]} == {"vae_fast", "python", "torch", "numpy", "triton", "cuda", "platform"}
    assert all({"device", "name", "capability"} <= {*device} for device in content["devices"])
    assert all({*backend} == {"available", "reason"} for backend in content["backends"].values())
    assert {*content["backends"]} == {*vf.backends()}
    packages = {"safetensors", "tqdm", "matplotlib", "mlxtend", "scikit-learn"}
    assert packages <= {*content["train_extra"]} <= packages | {"tomli"}
    table = pages.text(pages.page("training")).partition("info --json` has")[2]
    rows = [line.split("|")[1:3] for line in table.splitlines() if line.startswith("| `")]
    assert {key for named, _ in rows for key in re.findall("`(\\w+)`", named)} == {*content}
    said = {key for _, held in rows for key in re.findall("`(\\w+)`", held)}
    assert {*content["versions"], *content["threads"], "device", "name", "capability", "reason"} <= said


@pytest.mark.parametrize("command", [[], ["info"], ["train"], ["evaluate"]])
def test_help(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*command, "--help"])
    assert stop.value.code == 0 and "usage: vae_fast" in capsys.readouterr().out


def test_import_is_light():
    code = (
        "import sys, vae_fast; extra = {'matplotlib', 'mlxtend', 'sklearn', 'safetensors', 'scipy'} "
        "& set(sys.modules); cli = [m for m in sys.modules if m.startswith('vae_fast.cli')]; print(extra, cli)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set() []"
