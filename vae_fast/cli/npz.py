"""The arrays of an .npz file, read in pieces and checked before and while they are.

An .npz file is a zip archive of .npy files (numpy.lib.format): the magic bytes, a version, the length of a header,
the header, which is the text of a Python dict with dtype, order and shape, then the values. Nothing is evaluated or
unpickled.
"""

from __future__ import annotations

import math
import os
import re
import zipfile
from pathlib import Path
from typing import BinaryIO

import numpy as np

from vae_fast.cli.errors import CommandError
from vae_fast.cli.reading import check_ratio, open_regular

_CHUNK = 1 << 22
_MAGIC = b"\x93NUMPY"
_MOST_HEADER, _MOST_DIMS = 10_000, 32
# savez and savez_compressed. Of others, a few bytes unpack to any number at once.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 0x1
_ITEM = re.compile(
    r"\s*'(?:(descr)'\s*:\s*'([^']*)'|(fortran_order)'\s*:\s*(True|False)|(shape)'\s*:\s*\(([0-9,\s]*)\))\s*(?:,|$)"
)
_DTYPE = re.compile(r"[<>=|]?[A-Za-z?][0-9]{0,4}")


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays x_train and x_test, or x alone: each [n, ...], not empty; uint8, bool, or float32, finite.

    CommandError if the file is no .npz file, is damaged or encrypted, has none of these arrays, or one that is not
    what it should be.
    """
    with open_regular(path) as file:
        start = file.read(len(_MAGIC))
        if start == _MAGIC:
            raise CommandError(f"{path} is a single array, not an .npz file: save it with np.savez(FILE, x=array)")
        try:
            if not start.startswith(b"PK"):
                raise ValueError("it does not start like a zip archive")
            archive = zipfile.ZipFile(file)
        except Exception as error:  # zipfile's are of many kinds, and of others in other versions
            raise CommandError(f"{path} is truncated or not an .npz file: {_reason(error)}") from error
        with archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            names = ["x_train", "x_test"] if "x_train" in members else ["x"]
            if names[0] not in members:
                raise CommandError(f"{path} has neither x_train nor x, but {', '.join(members) or 'nothing'}")
            found = [name for name in names if name in members]
            size = os.fstat(file.fileno()).st_size
            return {name: _read_member(archive, members[name], size, f"{path}: {name}") for name in found}


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, size: int, what: str) -> np.ndarray:
    """size: of the archive."""
    if info.flag_bits & _ENCRYPTED:
        raise CommandError(f"{what} cannot be read: it is encrypted")
    if info.compress_type not in _METHODS:
        raise CommandError(f"{what} cannot be read: it is not packed as np.savez or np.savez_compressed do")
    # The archive says what it likes.
    check_ratio(what, min(info.compress_size, size), info.file_size, "save with np.savez")
    try:
        with archive.open(info) as member:
            return _read_npy(member, info.file_size, what)  # type: ignore[arg-type]
    except CommandError:
        raise
    except Exception as error:  # as above
        raise CommandError(f"{what} cannot be read: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def _read_npy(file: BinaryIO, size: int, what: str) -> np.ndarray:
    start = file.read(len(_MAGIC) + 2)
    version = tuple(start[len(_MAGIC) :])
    if not start.startswith(_MAGIC) or version not in ((1, 0), (2, 0)):
        raise ValueError("it is not an .npy file of version 1 or 2")
    digits = file.read(2 if version == (1, 0) else 4)
    length = int.from_bytes(digits, "little")
    if length > _MOST_HEADER:
        raise ValueError(f"its header has {length} bytes")
    dtype, fortran, shape = _read_header(file.read(length).decode("latin-1"), what)
    count = math.prod(shape)
    if len(start) + len(digits) + length + count * dtype.itemsize != size:
        raise ValueError(f"its size is not that of {dtype} {list(shape)}")
    values = _read_values(file, dtype, count, what)
    return np.ascontiguousarray(values.reshape(shape[::-1]).T) if fortran else values.reshape(shape)


def _read_header(text: str, what: str) -> tuple[np.dtype, bool, tuple[int, ...]]:
    text = text.strip()
    inner, position, items = text[1:-1].rstrip(), 0, {}
    while position < len(inner) and (item := _ITEM.match(inner, position)):
        key, value = (part for part in item.groups() if part is not None)
        if key in items:
            raise ValueError(f"its header has {key} twice")
        items[key] = value
        position = item.end()
    if text[:1] + text[-1:] != "{}" or position != len(inner) or len(items) != 3:
        raise ValueError("its header is not that of one plain array")
    sizes = [part.strip() for part in items["shape"].split(",")]
    if sizes[-1] == "":
        sizes.pop()
    shape = tuple(int(part) if len(part) <= 18 else 10**18 for part in sizes)
    dtype = _dtype(items["descr"], what)
    if not 2 <= len(shape) <= _MOST_DIMS or 0 in shape:
        raise CommandError(f"{what} has shape {list(shape)}; at least one datum, [n, ...], is needed")
    return dtype, items["fortran_order"] == "True", shape


def _dtype(text: str, what: str) -> np.dtype:
    if not _DTYPE.fullmatch(text):
        raise ValueError("its dtype is none")
    try:
        dtype = np.dtype(text)
    except (TypeError, ValueError) as error:
        raise ValueError(f"its dtype is none: {error}") from error
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    if dtype.kind != "f" and dtype not in (np.uint8, np.bool_):
        raise CommandError(f"{what} is {dtype}; use uint8 (taken as value/255), bool or float")
    return dtype


def _read_values(file: BinaryIO, dtype: np.dtype, count: int, what: str) -> np.ndarray:
    """All `count` values, floats as float32: in pieces, so that no second copy of them is ever there."""
    values = np.empty(count, np.float32 if dtype.kind == "f" else dtype)
    step = _CHUNK // dtype.itemsize
    for first in range(0, count, step):
        n = min(step, count - first)
        content = file.read(n * dtype.itemsize)
        if len(content) < n * dtype.itemsize:
            raise ValueError("it is truncated")
        piece = np.frombuffer(content, np.uint8 if dtype == np.bool_ else dtype)
        if dtype == np.bool_ and piece.max() > 1:
            raise ValueError("it is bool, and holds bytes above 1")
        with np.errstate(over="ignore", invalid="ignore"):
            values[first : first + n] = piece
        if dtype.kind == "f" and not np.isfinite(values[first : first + n]).all():
            raise CommandError(f"{what} holds NaN or infinite values")
    return values
