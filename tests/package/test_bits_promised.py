"""docs/bits.md names tests that there are, and CONTRIBUTING's table of constants what its files have."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
while not (ROOT / "pyproject.toml").is_file():
    ROOT = ROOT.parent
PROMISED, CONTRIBUTING = ROOT / "docs" / "bits.md", ROOT / "CONTRIBUTING.md"
pytestmark = pytest.mark.skipif(
    not (PROMISED.is_file() and CONTRIBUTING.is_file()), reason="needs the source tree: docs/bits.md is missing"
)


def rows(path, after="# "):
    lines = path.read_text("utf-8").split(after, 1)[1].splitlines()
    return [[c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines if line.startswith("|")]


def test_tests_are_there():
    table = rows(PROMISED)
    promises = table[: next(k for k, row in enumerate(table) if len(row) == 2)]
    assert len(promises) > 10
    for *_, held_by in promises[2:]:
        named = re.findall(r"`(test_\w+\.py)((?:::\w+)*)`", held_by)
        assert named
        for file, path in named:
            (source,) = (ROOT / "tests").rglob(file)
            scope = ast.parse(source.read_text("utf-8")).body
            for name in path.split("::")[1:]:
                (found,) = (n for n in scope if getattr(n, "name", "") == name)
                scope = found.body


def test_targets_are_there():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for target in re.findall(r"`make ([\w-]+)`", PROMISED.read_text("utf-8")):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_constants_are_there():
    table = rows(CONTRIBUTING, "## Bits, and the constants that they hang on")
    table = [row for row in table if len(row) == 3][2:]
    assert len(table) > 15
    for names, files, _ in table:
        text = ""
        for file in files.split(", "):
            place = ROOT / ("vae_fast/" + file if file.startswith("triton_kernels") else file)
            sources = sorted(place.iterdir()) if place.is_dir() else [place]
            text += "".join(p.read_text("utf-8") for p in sources)
        for name in re.findall(r"`([\w:]+)`", names):
            assert re.search(rf"\b{name}\b", text), (name, files)
