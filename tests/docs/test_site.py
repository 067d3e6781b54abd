"""What the site's pages are made to show: the lines that change in an example."""

import re
import sys

import pytest

from helpers import pages

if not (pages.ROOT / "tools").is_dir():
    pytest.skip("needs the source tree: tools is missing", allow_module_level=True)
sys.path.insert(0, str(pages.ROOT))

from tools.changed_lines import changed_lines

# Of pages that change no line: what to watch is new code, and the index has links.
NEW = {"index", "monitoring"}
LIBRARIES = [page for page in pages.PAGES if page.parent.name == "in_your_code" and page.stem not in NEW]


@pytest.mark.parametrize("page", LIBRARIES, ids=lambda page: page.stem)
def test_a_library_s_page_marks_what_changes(page):
    changed = [block.splitlines()[k - 1] for block in pages.blocks(page) for k in changed_lines(block)]
    assert any(re.search(r"\bvf\.|vae_fast|\.loss\b", line) for line in changed)


def test_changed_lines():
    code = """# torchrun --nproc-per-node=2 script.py
# a remark, and no code
x = 1
# y = g(x)
# y = h(y)
y = f(
    x
)
def loss():
    # return y
    # print(y)
    return x
"""
    assert changed_lines(code) == [6, 7, 8, 12]
