"""The Python blocks of the README."""

import re
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"
# A block that starts with one of these needs more than vae_fast, and runs in a test of its own.
APART = ("# needs ", "# torchrun ")


def blocks(start=None):
    """Those that start with ``start``; without it, all that need nothing more."""
    found = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.S)
    return [block for block in found if block.startswith(APART if start is None else start) == (start is not None)]
