"""Packs an sdist anew without what differs from build to build: setuptools keeps times, owners and modes.

Argument: the sdist. SOURCE_DATE_EPOCH is the time that all of it gets.
"""

import gzip
import io
import os
import sys
import tarfile
from pathlib import Path


def evened(content: bytes, time: int) -> bytes:
    """The same files, in the order of their names, all of one time and of nobody."""
    packed = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(content)) as old,
        gzip.GzipFile(filename="", mode="wb", fileobj=packed, mtime=time) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.PAX_FORMAT) as new,
    ):
        for member in sorted(old.getmembers(), key=lambda member: member.name):
            if not (member.isfile() or member.isdir()):
                raise SystemExit(f"{member.name} is neither a file nor a folder")
            even = tarfile.TarInfo(member.name)
            even.type, even.size, even.mtime = member.type, member.size, time
            even.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            new.addfile(even, old.extractfile(member))
    return packed.getvalue()


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_bytes(evened(path.read_bytes(), int(os.environ["SOURCE_DATE_EPOCH"])))
