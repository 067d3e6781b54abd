"""The site's Python for other libraries: the blocks that begin with `# needs`, each by itself."""

import re
import sys

import pytest

from helpers import pages

BLOCKS = [
    (block, package)
    for page in pages.PAGES
    for block in pages.blocks(page)
    for package in re.findall(r"\A# needs (\S+)\n", block)
]


@pytest.mark.parametrize(("block", "package"), BLOCKS, ids=[package for _, package in BLOCKS])
def test_block_runs(block, package, fused):
    if package == "scvi-tools" and sys.version_info < (3, 11):
        pytest.skip("scvi-tools needs Python 3.11")
    exec(compile(block, "a page", "exec"), {"__name__": "page"})
