"""The command line's data sets: what each spec reads, and every way a file can be wrong."""

import gzip
import struct

import numpy as np
import pytest
import torch

from vae_fast.cli.data import image_shape, load_data
from vae_fast.cli.errors import CommandError
from vae_fast.cli.targets import make_targets


def idx_bytes(images):
    return b"\0\0\x08\x03" + struct.pack(">3I", *images.shape) + images.tobytes()


def some_images(n, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 5, 4), dtype=np.uint8)


def test_mnist5k_is_bytes():
    data = load_data("mnist5k", 0)
    assert data.train.shape == (5000, 784) and data.train.dtype == torch.uint8
    assert data.train.max() == 255 and data.test is None and data.event_shape == (28, 28)


def test_digits_are_in_the_unit_interval():
    data = load_data("digits")
    assert data.train.shape == (1438, 64) and data.test.shape == (359, 64)
    assert data.train.dtype == torch.float32 and data.train.min() == 0 and data.train.max() == 1


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx(tmp_path, suffix):
    train, test = some_images(7), some_images(3, 1)
    for name, images in (("train", train), ("t10k", test)):
        content = idx_bytes(images)
        path = tmp_path / f"{name}-images-idx3-ubyte{suffix}"
        path.write_bytes(gzip.compress(content) if suffix else content)
    data = load_data(f"idx:{tmp_path}")
    assert torch.equal(data.train, torch.from_numpy(train).reshape(7, 20)) and data.event_shape == (5, 4)
    assert torch.equal(data.test, torch.from_numpy(test).reshape(3, 20)) and data.own_split


def test_idx_without_test_images_holds_some_out(tmp_path):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx_bytes(some_images(10)))
    data = load_data(f"idx:{tmp_path}", 3)
    assert len(data.train) == 7 and len(data.test) == 3 and not data.own_split


GOOD = idx_bytes(some_images(3))
HUGE = b"\0\0\x08\x03" + struct.pack(">3I", 2**32 - 1, 2**32 - 1, 2**32 - 1)


@pytest.mark.parametrize(
    ("suffix", "content", "message"),
    [
        ("", b"", "truncated: 0 of 16"),
        ("", GOOD[:10], "truncated: 10 of 16"),
        ("", GOOD[:-1], "truncated: 59 of 60"),
        ("", GOOD + b"\0", "longer than its header"),
        ("", b"\0\0\x08\x01" + GOOD[4:], "not an idx3-ubyte"),
        ("", GOOD[:4] + struct.pack(">3I", 0, 5, 4), "holds no images"),
        ("", HUGE + b"12345", "truncated: 5 of"),
        (".gz", GOOD, "not a gzip file"),
        (".gz", gzip.compress(GOOD, mtime=0)[:-12], "truncated"),
        (".gz", gzip.compress(GOOD[:-1], mtime=0), "truncated: 59 of 60"),
    ],
)
def test_bad_idx(tmp_path, suffix, content, message):
    (tmp_path / f"train-images-idx3-ubyte{suffix}").write_bytes(content)
    with pytest.raises(CommandError, match=message):
        load_data(f"idx:{tmp_path}")


def test_idx_sizes_that_differ(tmp_path):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(GOOD)
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx_bytes(np.ones((2, 3, 3), np.uint8)))
    with pytest.raises(CommandError, match="images of"):
        load_data(f"idx:{tmp_path}")


def test_idx_directories(tmp_path):
    with pytest.raises(CommandError, match="neither"):
        load_data(f"idx:{tmp_path}")
    with pytest.raises(CommandError, match="no such directory"):
        load_data(f"idx:{tmp_path / 'nowhere'}")


def test_npz(tmp_path):
    path = tmp_path / "a.npz"
    x = np.random.default_rng(0).random((6, 2, 3))
    np.savez(path, x_train=x, x_test=x[:2])
    data = load_data(f"npz:{path}")
    assert data.train.dtype == torch.float32 and data.train.shape == (6, 6) and len(data.test) == 2
    np.savez(path, x=x > 0.5)
    data = load_data(f"npz:{path}", 0)
    assert data.train.dtype == torch.bool and data.test is None


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"y": np.ones((3, 2))}, "neither x_train nor x"),
        ({"x": np.ones((3, 2), np.int64)}, "int64"),
        ({"x": np.array([["a"]])}, "<U1"),
        ({"x": np.array([[{}]], dtype=object)}, "cannot be read"),
        ({"x": np.ones(3)}, "shape"),
        ({"x": np.ones((0, 3))}, "shape"),
        ({"x": np.array([[1.0, np.nan]])}, "NaN"),
        ({"x": np.array([[1, 0]], np.uint8)}, "save as bool"),
        ({"x_train": np.ones((3, 2)), "x_test": np.ones((3, 3))}, "x_test is"),
        ({"x_train": np.ones((3, 2)), "x_test": np.ones((3, 2), bool)}, "x_test is"),
    ],
)
def test_bad_npz(tmp_path, arrays, message):
    path = tmp_path / "a.npz"
    np.savez(path, **arrays)
    with pytest.raises(CommandError, match=message):
        load_data(f"npz:{path}")


def test_npz_files_that_are_none(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x=np.random.default_rng(0).random((50, 20)))
    content = path.read_bytes()
    for bad in (b"", b"hello", content[:100], content[:-30]):
        path.write_bytes(bad)
        with pytest.raises(CommandError, match="truncated or not an .npz|cannot be read"):
            load_data(f"npz:{path}")
    with pytest.raises(CommandError, match="No such file"):
        load_data(f"npz:{tmp_path / 'b.npz'}")
    np.save(tmp_path / "c.npy", np.ones((2, 2)))
    with pytest.raises(CommandError, match="single array"):
        load_data(f"npz:{tmp_path / 'c.npy'}")


def test_npz_content_that_does_not_match_its_checksum(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x=np.zeros((50, 20)))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(CommandError, match="cannot be read"):
        load_data(f"npz:{path}")


@pytest.mark.parametrize("spec", ["mnist", "", "idx", "idx:", "npz:", "csv:a"])
def test_unknown_specs(spec):
    with pytest.raises(CommandError, match="--data"):
        load_data(spec)


def test_the_split_is_a_partition_and_does_not_move():
    a, b = load_data("digits", 100), load_data("digits", 100)
    assert torch.equal(a.test, b.test) and a.sha256 == b.sha256 == load_data("digits", 0).sha256
    everything = load_data("digits", 0).train
    assert torch.equal(torch.cat([a.train, a.test]).sort(0).values, everything.sort(0).values)
    with pytest.raises(CommandError, match="nothing to train on"):
        load_data("digits", 1797)


def test_targets():
    x = torch.tensor([[0, 127, 128, 255]], dtype=torch.uint8)
    assert make_targets(x, "none", 0) is x
    assert make_targets(x, "threshold", 0).tolist() == [[False, False, True, True]]
    assert make_targets(torch.tensor([[0.5, 0.51]]), "threshold", 0).tolist() == [[False, True]]
    x = torch.full((5000, 20), 0.3)
    one, again, other = (make_targets(x, "dynamic", 1, "train", epoch) for epoch in (1, 1, 2))
    assert torch.equal(one, again) and not torch.equal(one, other) and one.dtype == torch.bool
    # 5 standard deviations of the mean of 1e5 draws: fails once in 2e6 seeds; the seed is fixed.
    assert abs(one.double().mean() - 0.3) < 5 * (0.3 * 0.7 / 1e5) ** 0.5
    assert not make_targets(torch.zeros(10, 3), "dynamic", 0).any()
    assert make_targets(torch.ones(10, 3), "dynamic", 0).all()


def test_image_shapes():
    assert image_shape((784,)) == (28, 28) and image_shape((6,)) is None and image_shape((3, 2)) == (3, 2)
    assert image_shape((1, 4, 5)) == image_shape((4, 5, 1)) == (4, 5)
    assert image_shape((3, 4, 5)) == (3, 4, 5) and image_shape((2, 4, 5)) is None
