"""`python -m benchmarks iwae`: a row a way, of right bounds only."""

import pytest
import torch

import vae_fast as vf

pytest.importorskip("benchmarks", reason="needs the source tree: benchmarks/ is missing")
from benchmarks import iwae

SMALL = ["--samples", "3", "--batch", "4", "--steps", "1"]


@pytest.fixture(autouse=True)
def uncompiled(monkeypatch):
    """A compiler takes a quarter of a minute for it."""
    monkeypatch.setattr(torch, "compile", lambda module: module)


def test_a_row_a_way(capsys):
    assert iwae.main(SMALL) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines[3:]]
    assert [row[0] for row in rows] == ["eager", "torch.compile", *iwae.OBJECTIVES]
    assert all(float(value) > 0 for row in rows for value in row[1:5]) and rows[0][2] == "1.00"


def test_a_wrong_bound_is_not_timed(monkeypatch, capsys):
    right = vf.VAE.forward

    def wrong(self, *args, **options):
        out = right(self, *args, **options)
        return out._replace(elbo=out.elbo * 1.001)

    monkeypatch.setattr(vf.VAE, "forward", wrong)
    with pytest.raises(SystemExit, match="the bound of iwae is wrong"):
        iwae.main(SMALL)
    assert capsys.readouterr().out == ""
