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


def swapped(text, one, other):
    """With two of its lines, the first of them 1, in each other's place."""
    lines = text.split("\n")
    lines[one], lines[other] = lines[other], lines[one]
    return "\n".join(lines)


@pytest.fixture
def late(scripts, read):
    """Which registers the loads of a turn go to that are late."""
    budget, _ = scripts

    def late(text, **wanted):
        kernel = read(text)
        return [i.args.partition(",")[0] for i in budget.late(kernel, kernel.turn(**wanted or {"LDG_E_128": 2}))]

    return late


ONE_CHUNK = LOOP.replace("+0x10", "").replace("DADD R6, R6, R4", "DADD R6, R6, R8")
LATE = swapped(ONE_CHUNK, 3, 4).replace("FFMA R4, R4, R8, R8", "FFMA R12, R4, R0, R0")


def between_loads(instruction):
    """One chunk's turn with an instruction after its first load."""
    return ONE_CHUNK.replace(" LDG.E.128 R8", f" {instruction}\n LDG.E.128 R8").replace("0x90", "0xa0")


# The second load would wait for the first: by an addition, by a half type's widening, by a store.
USES = ("FADD R12, R7, R7", "IMAD.U32 R12, R5, 0x10000, RZ", "PRMT R12, R4, 0x7632, R6", "STG.E [R2.64+0x4], R6")


@pytest.mark.parametrize("use", USES)
def test_a_load_after_a_use_of_its_chunk_is_late(late, use):
    assert late(ONE_CHUNK) == []
    assert late(between_loads(use)) == ["R8"]


# Beside the chunk: noise from the counter, the same registers before they are loaded, an address.
OTHERS = ("FFMA R12, R13, R14, R0", "MUFU.RSQ R4, R0", "IADD3 R2, R2, 0x10, RZ", "STG.E.128 [R2.64], R16")


@pytest.mark.parametrize("other", OTHERS)
def test_a_load_after_what_needs_no_load_is_not_late(late, other):
    assert late(between_loads(other)) == []


def test_each_chunk_of_a_turn_has_its_own_loads(late):
    assert late(LATE) == ["R8"]
    # At another offset it is of another chunk, whose turn it may be later.
    assert late(LATE.replace("R8, desc[UR4][R2.64]", "R8, desc[UR4][R2.64+0x800]")) == []


def test_loads_of_the_next_turn_are_of_one_chunk(late):
    # Both after the arithmetic, for what the next turn begins with.
    ahead = """
 FFMA R12, R4, R0, R0
 FFMA R12, R8, R12, R0
 LDG.E.128 R4, desc[UR4][R2.64]
 LDG.E.128 R8, desc[UR4][R2.64]
 @P1 BRA 0x0
 EXIT
"""
    assert late(ahead) == []
    # The one's use, its next load, the other's use, its next load: each load is waited for by itself.
    assert late(swapped(swapped(ahead, 1, 2), 2, 3)) in (["R4"], ["R8"])


def test_an_inner_loop_has_chunks_of_its_own(late):
    nested = """
 LDG.E.128 R4, desc[UR4][R2.64]
 FADD R12, R4, R4
 LDG.E.128 R8, desc[UR4][R2.64]
 FADD R12, R12, R8
 @P0 BRA 0x20
 @P1 BRA 0x0
 EXIT
"""
    assert late(nested) == []
    assert late(nested.replace("@P0 BRA 0x20", "NOP")) == ["R8"]


def test_half_a_chunk_is_loaded_too_and_what_waits_for_others_is_none(late):
    halves = LATE.replace(".128", ".64")
    assert late(halves, LDG_E_64=2) == ["R8"]
    assert late(halves.replace("LDG.E.64 R8", "LDG.E.64.STRONG.GPU R8"), LDG_E_64=2) == []


def test_a_way_without_what_is_not_wanted(read):
    kernel = read(LOOP)
    assert len(kernel.turn(r"E\.128 .*\+0x20\]", LDG_E_128=2)) == 7
    assert kernel.turn(r"E\.128 .*\+0x10\]", LDG_E_128=2) is None


def test_what_is_over_its_ceiling_is_said(scripts, tmp_path, monkeypatch):
    budget, machine_code = scripts
    rows = [budget.Row("native", "rsample", "forward", "float32", 50.0)]
    monkeypatch.setattr(budget, "CEILINGS", tmp_path / "ceilings.csv")
    budget.write(rows)
    ceilings = budget.read()
    assert [*ceilings.values()] == [52.5] and budget.over(rows, ceilings) == []
    load = machine_code.Instruction(0x1B0, "", "LDG.E.128", "R8, desc[UR4][R2.64]")
    (more,) = budget.over([budget.Row("native", "rsample", "forward", "float32", 52.6)], ceilings)
    (late,) = budget.over([budget.Row("native", "rsample", "forward", "float32", 50.0, (load,))], ceilings)
    assert "52.6 issue slots" in more and "LDG.E.128 R8, desc[UR4][R2.64] at 0x1b0 comes after a use" in late
    other = budget.Row("triton", "rsample", "forward", "float32", 50.0)
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
