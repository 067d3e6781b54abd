"""The notebooks of docs/notebooks: one runs here, the one that needs scvi-tools in tests/integrations."""

import re

import pytest

from helpers import notebooks, pages

NAMES = sorted(path.stem for path in notebooks.FOLDER.glob("*.ipynb"))


@pytest.mark.parametrize("name", NAMES)
def test_holds_no_outputs(name):
    """Neither pictures nor counts of a run, and nothing of the machine it was written on."""
    notebook = notebooks.read(name)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code and not any(cell.outputs or cell.execution_count for cell in code)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert (notebooks.FOLDER / f"{name}.ipynb").stat().st_size < 20_000


def test_the_page_has_them_all():
    text = pages.text(pages.page("notebooks/index"))
    assert sorted(re.findall(r"\]\((\w+)\.ipynb\)", text)) == NAMES == ["counts", "mnist"]


def test_digits(tmp_path, monkeypatch):
    """What is asserted in it holds; data, curves, reconstructions, samples and the plane (twice) are drawn."""
    outputs = notebooks.run("mnist", tmp_path, monkeypatch)
    assert notebooks.pictures(outputs) == 6
    printed = "".join(output.get("text", "") for output in outputs)
    assert "active units: 2" in printed
