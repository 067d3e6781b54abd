"""The README's Python for other libraries: the blocks that begin with `# needs`, each by itself."""

import re
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"
BLOCKS = re.findall(r"```python\n(# needs (\S+)\n.*?)```", README.read_text(encoding="utf-8"), re.S)


@pytest.mark.parametrize(("block", "package"), BLOCKS, ids=[package for _, package in BLOCKS])
def test_block_runs(block, package, fused):
    if package == "scvi-tools" and sys.version_info < (3, 11):
        pytest.skip("scvi-tools needs Python 3.11")
    exec(compile(block, str(README), "exec"), {"__name__": "readme"})
