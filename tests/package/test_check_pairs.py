"""vf.check of the operators on pairs: passes on every backend; fails where a fault is planted, with its case."""

import json
import shlex

import pytest
import torch

import vae_fast as vf
from helpers.faults import on_argument, on_result, plant
from vae_fast.checking import choice, pairs
from vae_fast.checking.words import PAIRS
from vae_fast.cli.main import main

pytestmark = pytest.mark.usefixtures("one_thread")

each_op = pytest.mark.parametrize("op", PAIRS)


@each_op
def test_passes(op):
    rows = vf.check(op, device="cpu")
    serving = [name for name, b in vf.backends().items() if b.available and b.serves(op, "cpu")]
    assert [row.backend for row in rows] == serving * 4
    for row in rows:
        assert row.ok, row.failure
        assert row.kind == "cases" and row.cases >= 20
        # PyTorch's own errors are no smaller; and of what is allowed a quarter is used.
        assert row.forward < 3 and row.gradient < 5 and row.torch_gradient < 5


@each_op
def test_every_word_layout_and_inputs_are_tried(op):
    found = pairs.cases(op, choice.Choice())
    assert len(found) == len(set(found)) and all(case.exists for case in found)
    assert {word for case in found for word in case.options} == set(PAIRS[op])
    assert {case.layout for case in found} == set(pairs.LAYOUTS)
    assert {case.inputs for case in found} == set(pairs.INPUTS)


FAULTS = {
    "gaussian_mixture_log_prob": (
        ("gaussian_mixture_log_prob_fwd", on_result(0, lambda v: v * (1 + 1e-4)), "log_prob"),
        ("gaussian_mixture_log_prob_fwd", on_result(1, lambda v: v + 1e-3), "marginals"),
        ("gaussian_mixture_log_prob_fwd", on_argument(2, lambda rate: rate * (1 + 1e-4)), "log_prob"),
        *(
            ("gaussian_mixture_log_prob_bwd", on_result(k, lambda v: v * 1.001), name)
            for k, name in ((0, "dz"), (1, "dmu"), (4, "dlog_weight"))
        ),
        ("gaussian_mixture_log_prob_bwd", on_result(2, lambda v: v * 1.001), "dlogvar"),
        ("gaussian_mixture_log_prob_bwd", on_result(3, lambda v: v * 1.001), "dlogvar"),
    ),
    "mmd": (
        ("mmd_fwd", on_result(0, lambda v: v + 1e-4), "mmd"),
        ("mmd_fwd", on_result(1, lambda v: v * 1.001), "dx"),
        ("mmd_fwd", on_result(2, lambda v: v * 1.001), "dy"),
    ),
    "logistic_mixture_log_prob": (
        ("logistic_mixture_log_prob_fwd", on_result(0, lambda v: v * (1 + 1e-4)), "log_prob"),
        ("logistic_mixture_log_prob_fwd", on_argument(2, lambda s: s + 1e-4), "log_prob"),
        *(
            ("logistic_mixture_log_prob_fwd", on_result(k, lambda v: v * 1.001), name)
            for k, name in ((1, "dlogits"), (2, "dmean"), (3, "dlog_scale"), (4, "dcoefficients"))
        ),
    ),
}


@pytest.mark.parametrize(("op", "k"), [(op, k) for op, faults in FAULTS.items() for k in range(len(faults))])
def test_a_fault_is_found_and_its_command_runs_it(monkeypatch, capsys, op, k):
    name, fault, result = FAULTS[op][k]
    plant(monkeypatch, **{name: fault})
    (row,) = vf.check(op, "native", "cpu", "float32")
    assert not row.ok and row.failure.result == result and row.failure.error > row.failure.bar
    words = shlex.split(row.failure.command)
    capsys.readouterr()
    assert main([*words[3:], "--json"]) == 1
    (again,) = json.loads(capsys.readouterr().out)["rows"]
    assert not again["ok"] and again["cases"] == 1


@each_op
def test_what_raises_fails(monkeypatch, op):
    def raising(original):
        def kernel(*args):
            raise RuntimeError("no kernel")

        return kernel

    plant(monkeypatch, **{f"{op}_fwd": raising})
    (row,) = vf.check(op, "native", "cpu", "float32")
    assert row.failure.got == "RuntimeError: no kernel" and row.failure.case.shape != (0, 0, 0)


def test_choices():
    rows = vf.check("mmd", "reference", "cpu", torch.float64, shape=(4, 5, 2), options="rbf,biased")
    assert [(row.op, row.dtype, row.cases) for row in rows] == [("mmd", "float64", 3)]
    with pytest.raises(ValueError, match="there is no case"):
        vf.check("mmd", layout="channels_last")
    with pytest.raises(ValueError, match="there is no case"):
        vf.check("gaussian_mixture_log_prob", shape=(4, 5))
    plain = {"layout": "contiguous", "inputs": "ordinary", "options": "plain"}
    rows = vf.check(None, "reference", "cpu", "float32", shape=(4, 5), **plain)
    assert rows and not [row for row in rows if row.op in PAIRS]
