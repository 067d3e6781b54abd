"""Whether this checkout is a release: one version everywhere, a dated CHANGELOG, nothing that is not committed.

Prints what is missing, a line each; the exit status is 1 if something is. Argument: the folder of the checkout.
"""

import re
import subprocess
import sys
from pathlib import Path


def missing(root: Path) -> list[str]:
    text = {name: (root / name).read_text(encoding="utf-8") for name in ("CHANGELOG.md", "CITATION.cff")}
    version = re.search('"(.*)"', (root / "vae_fast/_version.py").read_text().partition("__version__")[2]).group(1)
    said = []
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        said.append(f"vae_fast/_version.py: {version} is no version of a release")
    if f"version: {version}\n" not in text["CITATION.cff"]:
        said.append(f"CITATION.cff: it has another version than {version}")
    heading = re.search(rf"^## \[{re.escape(version)}\] - (\d{{4}}-\d\d-\d\d)$", text["CHANGELOG.md"], re.M)
    if not heading:
        said.append(f"CHANGELOG.md: no heading '## [{version}] - YEAR-MONTH-DAY'")
    elif f"date-released: {heading.group(1)}\n" not in text["CITATION.cff"]:
        said.append(f"CITATION.cff: no 'date-released: {heading.group(1)}', which is CHANGELOG.md's date")
    if git(root, "status", "--porcelain"):
        said.append("git: there is what is not committed")
    if f"v{version}" not in git(root, "tag", "--points-at", "HEAD").split():
        said.append(f"git: this commit has no tag v{version}")
    return said


def git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", "-C", root, *arguments], capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    lines = missing(Path(sys.argv[1]))
    print("\n".join(lines) or "this is a release", file=sys.stderr if lines else sys.stdout)
    sys.exit(bool(lines))
