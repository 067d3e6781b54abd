"""The README and the pages of docs/, whose code and figures the tests run and compare."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]


def name(page):
    return str(page.relative_to(ROOT))


def text(page):
    return page.read_text(encoding="utf-8")


def blocks(page, language="python"):
    return re.findall(rf"```{language}\n(.*?)```", text(page), re.S)


def elsewhere(block):
    """Whether it needs what is not here: another library, or torchrun's processes."""
    return block.startswith(("# needs ", "# torchrun "))


def page(named):
    return ROOT / "docs" / f"{named}.md"
