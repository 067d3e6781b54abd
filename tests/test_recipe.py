"""CONTRIBUTING's recipe, followed word for word in a copy of the package: a density that is there on every backend.

What it takes is in tests/recipe: new files at their places, and here the lines that go into files that are there.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import vae_fast as vf

ROOT = Path(__file__).parent.parent
RECIPE = Path(__file__).parent / "recipe"
OP = "laplace_log_prob"
# The most that a density may cost.
LINES, FILES = 170, 12

# By file: what goes in, and before what.
INSERTIONS = {
    "vae_fast/operators.py": (
        ")\n\nOPERATORS = {",
        """    Operator(
        "laplace_log_prob",
        operands=(Operand("mean", "loc"), Operand("log_b", "scale"), Operand("x", "value", DATA), _WEIGHT),
        options=_SUM,
        results=("log_prob",),
    ),
""",
    ),
    "vae_fast/__init__.py": (
        "from vae_fast.ops.rsample import",
        "from vae_fast.ops.laplace_log_prob import laplace_log_prob\n",
    ),
}


def new_files(*folders):
    return [path.relative_to(RECIPE) for folder in folders for path in sorted((RECIPE / folder).rglob("*.*"))]


def follow(copy, *folders):
    """Puts the recipe's new files of some folders, and its lines, into a copy of the package."""
    for path in new_files(*folders):
        shutil.copy(RECIPE / path, copy / path)
    for name, (before, lines) in INSERTIONS.items():
        if not name.startswith("csrc") or "csrc" in folders:
            text = (copy / name).read_text()
            assert text.count(before) == 1, name
            (copy / name).write_text(text.replace(before, lines + before))


def check(copy, *backends, **environment):
    command = (sys.executable, str(RECIPE / "check.py"), *backends)
    done = subprocess.run(
        command,
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy), **environment},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(line.split(": ") for line in done.stdout.splitlines())


@pytest.fixture
def copy(tmp_path):
    """The package as it is here, with its compiled library."""
    shutil.copytree(ROOT / "vae_fast", tmp_path / "vae_fast", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_one_backend_is_enough(copy):
    """An operator that only the reference has: named, the others refuse it, and "auto" goes on to the reference."""
    follow(copy, "vae_fast/reference", "vae_fast/ops")
    done = check(copy, "reference")
    refusing = {name for name, backend in vf.backends().items() if backend.available} - {"reference"}
    assert done == {"reference": "right", **dict.fromkeys(refusing, "refused")}


def test_a_backend_without_the_operator_imports(copy):
    pytest.importorskip("triton")
    follow(copy, "vae_fast/reference", "vae_fast/ops")
    assert check(copy, "reference", TRITON_INTERPRET="1")["triton"] == "refused"


def test_in_triton(copy):
    pytest.importorskip("triton")
    follow(copy, "vae_fast")
    assert check(copy, "reference", "triton", TRITON_INTERPRET="1")["triton"] == "right"


def test_what_it_costs():
    texts = [(RECIPE / path).read_text() for path in new_files("vae_fast")]
    texts += [lines for _, lines in INSERTIONS.values()]
    lines = sum(bool(line.strip()) for text in texts for line in text.splitlines())
    assert lines <= LINES and len(texts) <= FILES, (lines, len(texts))
