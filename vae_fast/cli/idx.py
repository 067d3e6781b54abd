"""The IDX format of the MNIST files: unsigned bytes, strictly checked.

Layout (Y. LeCun, "The MNIST database"): 0, 0, 0x08 (unsigned byte), the number of dims, then each dim as a
big-endian uint32, then the bytes, the last dim fastest. Nothing may follow.
"""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from vae_fast.cli.errors import CommandError, os_reason
from vae_fast.cli.reading import check_ratio, open_regular

_CHUNK = 1 << 22


def find_idx(directory: Path, name: str) -> Path | None:
    """`directory/name` or `directory/name.gz`, whichever is there (the plain one first)."""
    for path in (directory / name, directory / f"{name}.gz"):
        if os.path.exists(path):
            return path
    return None


def read_idx_images(path: Path) -> np.ndarray:
    """Read an idx3-ubyte file, gzip-compressed if its name ends in .gz: uint8 [n, height, width].

    Raises CommandError if the file cannot be read, is no idx3-ubyte file, is empty, too short or too long, or
    unpacks to a size out of proportion.
    """
    with open_regular(path) as file:
        try:
            if path.suffix != ".gz":
                return _read_images(file, path)
            with gzip.GzipFile(fileobj=file) as unpacked:
                return _read_images(unpacked, path, os.fstat(file.fileno()).st_size)  # type: ignore[arg-type]
        except (EOFError, zlib.error, gzip.BadGzipFile, struct.error) as error:
            raise CommandError(f"{path} is truncated or not a gzip file: {error}") from error
        except OSError as error:
            raise CommandError(f"cannot read {path}: {os_reason(error)}") from error


def _read_images(file: BinaryIO, path: Path, packed: int | None = None) -> np.ndarray:
    """packed: the size of the file that `file` is unpacked from."""
    header = file.read(16)
    if header[:4] != b"\x00\x00\x08\x03"[: len(header)]:
        raise CommandError(
            f"{path} is not an idx3-ubyte file: it starts with {header[:4].hex(' ')}, not 00 00 08 03"
        )
    if len(header) < 16:
        raise CommandError(f"{path} is truncated: {len(header)} of 16 header bytes")
    shape = struct.unpack(">3I", header[4:])
    size = math.prod(shape)
    if size == 0:
        raise CommandError(f"{path} holds no images: its header says {' x '.join(map(str, shape))}")
    content = bytearray()
    # In pieces: a header that promises terabytes must not make us allocate them.
    while len(content) < size:
        piece = file.read(min(_CHUNK, size - len(content)))
        if not piece:
            raise CommandError(f"{path} is truncated: {len(content)} of {size} bytes of {shape[0]} images")
        content += piece
        if packed is not None:
            check_ratio(str(path), packed, len(content), "unpack it with gunzip")
    if file.read(1):
        raise CommandError(f"{path} is longer than its header says: more than {size} bytes of {shape[0]} images")
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)
