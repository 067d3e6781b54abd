"""`python -m benchmarks pairs`: a row a way and case, of right values and gradients only."""

import pytest
import torch

pytest.importorskip("benchmarks", reason="needs the source tree: benchmarks/ is missing")
from benchmarks import pairs


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """A few points; and nothing compiled, for which a compiler takes a minute."""
    monkeypatch.setattr(torch, "compile", lambda function: function)
    monkeypatch.setattr(
        pairs, "CASES", tuple((*case[:4], tuple((min(n, 20), d) for n, d in case[4])) for case in pairs.CASES)
    )


def test_a_row_a_way(capsys):
    assert pairs.main(["--rounds", "1"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    timed = [row for row in rows if row and row[0] in ("eager", "torch.compile", "vae_fast")]
    assert [row[0] for row in timed] == ["eager", "torch.compile", "vae_fast"] * len(pairs.CASES)
    assert all(len(row) == 4 and float(row[1]) > 0 for row in timed)
    assert all(row[2] == "1.0" for row in timed if row[0] == "eager")


@pytest.mark.parametrize("k", range(5))
def test_what_is_wrong_is_not_timed(monkeypatch, capsys, k):
    case = pairs.CASES[k]
    wrong = (*case[:3], lambda *operands: case[3](*operands) * 1.001, case[4])
    monkeypatch.setattr(pairs, "CASES", (wrong,))
    with pytest.raises(SystemExit, match=f"{case[0]}: .* off, and not timed"):
        pairs.main(["--rounds", "1"])
    assert "speed" not in capsys.readouterr().out
