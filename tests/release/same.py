"""Whether two folders hold the same files to the byte; where not, which members of an archive differ.

Prints the SHA-256 of each file. Arguments: the two folders.
"""

import hashlib
import sys
import tarfile
import zipfile
from pathlib import Path


def sums(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def members(path: Path) -> dict[str, object]:
    """What an archive says of each file, and its content's SHA-256; in the archive's order."""
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as archive:
            return {
                info.filename: (info.date_time, info.external_attr, hashlib.sha256(archive.read(info)).hexdigest())
                for info in archive.infolist()
            }
    with tarfile.open(path) as archive:
        return {
            info.name: (info.get_info(), hashlib.sha256(archive.extractfile(info).read()).hexdigest())
            for info in archive
            if info.isfile()
        }


def differences(first: Path, second: Path) -> list[str]:
    """A line for each file that is in one only or differs, with the members that do."""
    these, those, said = sums(first), sums(second), []
    for name in sorted({*these, *those}):
        if name not in these or name not in those:
            said.append(f"{name}: in one of the two only")
        elif these[name] != those[name]:
            a, b = members(first / name), members(second / name)
            differ = sorted(member for member in {*a, *b} if a.get(member) != b.get(member))
            what = ", ".join(differ) or ("the order of its files" if [*a] != [*b] else "how it is packed")
            said.append(f"{name}: {what}")
    return said


if __name__ == "__main__":
    one, other = map(Path, sys.argv[1:])
    for file, digest in sums(one).items():
        print(f"{digest}  {file}")
    found = differences(one, other)
    print("\n".join(found) or "built twice, the same bytes", file=sys.stderr if found else sys.stdout)
    sys.exit(bool(found))
