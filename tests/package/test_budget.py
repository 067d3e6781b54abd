"""What `make cuda-build` counts, on machine code of a few lines: the way of ordinary numbers, what is over."""

import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "cuda_build"


@pytest.fixture(scope="module", autouse=True)
def scripts():
    sys.path.insert(0, str(FOLDER))
    import budget
    import machine_code

    sys.path.remove(str(FOLDER))
    return budget, machine_code


LOOP = """
 S2R R0, SR_TID.X
 LDG.E.128 R4, desc[UR4][R2.64]
 LDG.E.128 R8, desc[UR4][R2.64+0x10]
 FFMA R4, R4, R8, R8
 @P0 BRA 0x90
 DADD R6, R6, R4
 @!P2 STG.E.128 desc[UR4][R2.64], R4
 @P1 BRA 0x10
 EXIT
 MUFU.EX2 R4, R4
 FMUL R4, R4, R4
 BRA 0x50
"""


@pytest.fixture
def read(scripts, monkeypatch):
    """The kernel of a text, by way of what cuobjdump prints."""
    _, machine_code = scripts

    def read(text):
        lines = [
            f"        /*{16 * n:04x}*/  {line.strip()} ;  /* 0x0 */"
            for n, line in enumerate(text.split("\n")[1:-1])
        ]
        printed = "\n".join(["\t\tFunction : _Z1fv", *lines])
        monkeypatch.setattr(machine_code, "cuobjdump", lambda: "cuobjdump")
        done = machine_code.subprocess.CompletedProcess((), 0, printed, "")
        monkeypatch.setattr(machine_code.subprocess, "run", lambda *args, **options: done)
        (kernel,) = machine_code.kernels("any", "sm_90").values()
        return kernel

    return read


def test_a_turn_leaves_out_what_is_rare(read):
    turn = read(LOOP).turn(LDG_E_128=2, STG_E_128=1)
    assert [i.base for i in turn] == ["LDG", "LDG", "FFMA", "BRA", "DADD", "STG", "BRA"]
    assert turn[5].predicate == "!P2", "what is predicated off takes a slot"


def test_a_turn_has_what_is_asked_for(read):
    kernel = read(LOOP)
    assert len(kernel.turn(LDG_E_128=2, MUFU_EX2=1)) == 10
    assert kernel.turn(LDG_E_128=3) is None and kernel.turn(LDG_E_128=1) is None


def test_a_loop_that_only_a_call_goes_round(read):
    assert len(read(LOOP.replace("FFMA R4, R4, R8, R8", "CALL.REL.NOINC 0x80")).turn(LDG_E_128=2)) == 7


def test_without_a_loop_the_kernel_is_gone_through_once(read):
    kernel = read(LOOP.replace("@P1 BRA 0x10", "NOP"))
    assert kernel.turn(LDG_E_128=2) is None and len(kernel.once(LDG_E_128=2)) == 9


def test_loads_that_come_late(scripts, read):
    budget, _ = scripts
    early = read(LOOP).turn(LDG_E_128=2)
    lines = LOOP.split("\n")
    lines[3], lines[4] = lines[4], lines[3]
    late = read("\n".join(lines)).turn(LDG_E_128=2)
    assert budget.loads_first(early) and not budget.loads_first(late)


def test_what_is_over_its_ceiling_is_said(scripts, tmp_path, monkeypatch):
    budget, _ = scripts
    rows = [budget.Row("native", "rsample", "forward", "float32", 50.0, True)]
    monkeypatch.setattr(budget, "CEILINGS", tmp_path / "ceilings.csv")
    budget.write(rows)
    ceilings = budget.read()
    assert [*ceilings.values()] == [(52.5, True)] and budget.over(rows, ceilings) == []
    (more,) = budget.over([budget.Row("native", "rsample", "forward", "float32", 52.6, True)], ceilings)
    (late,) = budget.over([budget.Row("native", "rsample", "forward", "float32", 50.0, False)], ceilings)
    assert "52.6 issue slots" in more and "a load" in late
    other = budget.Row("triton", "rsample", "forward", "float32", 50.0, True)
    none, gone = budget.over([other], ceilings)
    assert none.startswith("triton") and "not counted" in gone


def test_every_pass_has_a_ceiling_in_both_dtypes(scripts):
    budget, _ = scripts
    ceilings = budget.read()
    passes = {(operator, of, dtype) for operator, of, dtype, *_ in budget.passes()}
    of_pairs = {(operator, of, "float32") for operator, of, *_ in budget.PAIRS}
    of_pixels = {("logistic_mixture_log_prob", of, "float32") for of, *_ in budget.LOGISTICS}
    assert {key[1:] for key in ceilings if key[0] == "native"} == passes | of_pairs | of_pixels
    assert {key[1:] for key in ceilings if key[0] == "triton"} == passes
