"""`check`: the table, JSON, exit statuses, and wrong calls."""

import json

import pytest
import torch

import vae_fast as vf
from vae_fast.cli.main import main

pytestmark = pytest.mark.usefixtures("one_thread")

AVAILABLE = [name for name, b in vf.backends().items() if b.available]


def test_the_default(capsys):
    """Every operator, backend, device and dtype: all rows pass."""
    assert main(["check"]) == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    devices = 1 + torch.cuda.is_available()
    served = 0
    for backend in (b for b in vf.backends().values() if b.available):
        served += len(set(backend.ops)) * (devices if "*" in backend.devices else 1)
    rows = [line for line in lines if line.endswith(" ok")]
    assert len(rows) == served * 4 and printed.err == ""
    assert lines[0].split()[:4] == ["operator", "backend", "device", "dtype"]
    assert "eps * sum|terms|" in printed.out and lines[-1].startswith("all as it should be: ")


def test_json(capsys):
    assert main(["check", "--op", "rsample", "--dtype", "float16", "--device", "cpu", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["ok"] and [r["backend"] for r in content["rows"]] == AVAILABLE
    for row in content["rows"]:
        assert (row["op"], row["dtype"], row["kind"], row["failure"]) == ("rsample", "float16", "cases", None)
        # float16 σ overflows where PyTorch computes it in float16; ours is computed in float32.
        assert row["forward"] < 1 and row["torch_forward"] == "inf"


def test_one_case(capsys):
    line = "check --op gaussian_kl --backend reference --device cpu --dtype float64 --shape 2x3x4 --layout packed"
    assert main([*line.split(), *"--inputs ordinary --options prior,sum --seed 5 --json".split()]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert row["cases"] == 1 and row["backend"] == "reference" and row["dtype"] == "float64"


def test_no_dims(capsys):
    assert main(["check", "--op", "rsample", "--dtype", "float32", "--shape", "scalar"]) == 0


def test_thorough_tells_how_far_it_is(capsys):
    line = "check --op gaussian_kl --shape 2x3 --options plain --layout contiguous --thorough"
    assert main([*line.split(), "--cases", "20", "--every", str(1 << 22)]) == 0
    printed = capsys.readouterr()
    assert printed.err.startswith("gaussian_kl, cpu, float32\n")
    for kind in ("cases", "derivatives", "every float32", "random cases"):
        assert kind in printed.out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ["--op", "kl"],
            "unknown op 'kl'; there are standard_normal, rsample, rsample_kl, rsample_log_prob, gaussian_kl",
        ),
        (["--backend", "cuda"], "--backend 'cuda' is not known: use auto, reference, native, triton"),
        (["--backend", "triton"], "--backend triton is not available here: "),
        (["--device", "tpu:0"], "--device 'tpu:0' cannot be used here"),
        (["--dtype", "int8"], "unknown dtype 'int8'; there are float32, float64, bfloat16, float16"),
        (["--layout", "nchw"], "unknown layout 'nchw'; there are contiguous, transposed, packed"),
        (["--inputs", "odd"], "unknown inputs 'odd'; there are ordinary, extreme"),
        (["--options", "prior,odd"], "unknown option 'odd'; there are plain, biased, bool"),
        (["--shape", "3,4"], "'3,4' is not a shape such as 8x20"),
        (["--shape", ""], "'' is not a shape such as 8x20"),
        (["--seed", "-1"], "'-1' is not a whole number"),
        (["--cases", "many"], "'many' is not a whole number"),
        (["--op", "rsample", "--options", "prior"], "there is no case of rsample with options prior"),
        (["--wat"], "unrecognized arguments: --wat"),
    ],
)
def test_wrong_calls(args, message, capsys):
    assert main(["check", *args]) == 2
    error = capsys.readouterr().err
    assert error.startswith("vae_fast: error: ") and error.count("\n") == 1 and message in error


def test_help(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["check", "--help"])
    assert stop.value.code == 0 and "--thorough" in capsys.readouterr().out
