"""The notebook with scvi-tools, from top to bottom: the same path with the kernels and without, as it asserts."""

import sys

import pytest

from helpers import notebooks

if sys.version_info < (3, 11):
    pytest.skip("scvi-tools needs Python 3.11", allow_module_level=True)


def test_counts(tmp_path, monkeypatch):
    outputs = notebooks.run("counts", tmp_path, monkeypatch)
    assert notebooks.pictures(outputs) == 2
    assert "s as published" in "".join(output.get("text", "") for output in outputs)
