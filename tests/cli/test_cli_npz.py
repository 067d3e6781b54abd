"""The reader of data: odd .npz files of every kind, what unpacks out of proportion, files that are none."""

import gzip
import json
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
from odd_files import (
    EVALUATE,
    MAGIC,
    a_device,
    a_directory,
    a_pipe,
    header_of,
    npy,
    patched,
    zipped,
)

from vae_fast.cli import npz as npz_module
from vae_fast.cli import reading
from vae_fast.cli.data import read_data
from vae_fast.cli.errors import CommandError
from vae_fast.cli.main import main


def encrypted(content):
    return patched(patched(content, b"PK\1\2", 8, b"\1"), b"PK\3\4", 6, b"\1")


NINE = np.arange(6, dtype="<f4").tobytes()
PLAIN = zipped({"x.npy": npy(header_of(), NINE)})
ODD_NPZ = [
    (zipped({"x.npy": npy(header_of(shape="(1125899906842624, 1024)"), NINE)}), "its size is not"),
    (zipped({"x.npy": npy(header_of(shape="(" + "9" * 4000 + ", 2)"), NINE)}), "its size is not"),
    (zipped({"x.npy": npy(header_of(shape="(2, 4)"), NINE)}), "its size is not"),
    (zipped({"x.npy": npy(header_of(shape="(2, 2)"), NINE)}), "its size is not"),
    (zipped({"x.npy": npy(header_of(shape="(-2, -3)"), NINE)}), "header"),
    (zipped({"x.npy": npy(header_of(shape="(2.0, 3)"), NINE)}), "header"),
    (zipped({"x.npy": npy(header_of(shape="(True, 6)"), NINE)}), "header"),
    (zipped({"x.npy": npy(header_of(shape="(" + "1, " * 40 + "6)"), NINE)}), "shape"),
    (zipped({"x.npy": npy(header_of(shape="(6,)"), NINE)}), "shape"),
    (zipped({"x.npy": npy(header_of(shape="()"), NINE[:4])}), "shape"),
    (zipped({"x.npy": npy(header_of(shape="(,)"), NINE)}), "cannot be read"),
    (zipped({"x.npy": npy(header_of(shape="(2, , 3)"), NINE)}), "cannot be read"),
    (zipped({"x.npy": npy(header_of(shape="(" * 5000), NINE)}), "header"),
    (zipped({"x.npy": npy("{" + "'a': {" * 900 + "}" * 901)}), "header"),
    (zipped({"x.npy": npy(header_of() + "'shape': (2, 3)")}), "header"),
    (zipped({"x.npy": npy("{'shape': (2, 3), " + header_of()[1:], NINE)}), "shape twice"),
    (zipped({"x.npy": npy("{'shape': (2, 3)}", NINE)}), "header"),
    (zipped({"x.npy": npy("", NINE)}), "header"),
    (zipped({"x.npy": npy("\xff" * 50, NINE)}), "header"),
    (zipped({"x.npy": npy(header_of() + " " * 20_000, NINE)}), "header has 20"),
    (zipped({"x.npy": npy(header_of("'|O'"), NINE)}), "Python objects"),
    (zipped({"x.npy": npy(header_of("[('a', '<f4')]"), NINE)}), "header"),
    (zipped({"x.npy": npy(header_of("'(1000000000,)<f4'"), NINE)}), "dtype"),
    (zipped({"x.npy": npy(header_of("'<f4, <f4'"), NINE)}), "dtype"),
    (zipped({"x.npy": npy(header_of("'<f3'"), NINE)}), "dtype"),
    (zipped({"x.npy": npy(header_of("'<c8'"), NINE + NINE)}), "complex64"),
    (zipped({"x.npy": npy(header_of("'<M8'"), NINE + NINE)}), "datetime64"),
    (zipped({"x.npy": npy(header_of("'|V0'"), b"")}), "V0|void"),
    (zipped({"x.npy": npy(header_of("'|b1'"), b"\0\1\2\1\0\1")}), "above 1"),
    (zipped({"x.npy": npy(header_of("'<f8'"), np.full(6, 1e300).tobytes())}), "infinite"),
    (zipped({"x.npy": npy(header_of(order="1"), NINE)}), "header"),
    (zipped({"x.npy": MAGIC[:6] + b"\x03\x00" + npy(header_of(), NINE)[8:]}), "version"),
    (zipped({"x.npy": b"\x93NUMPY\x02\x00\xff\xff\xff\xff"}), "header has 4294967295"),
    (zipped({"x.npy": b"\x93NUMPY"}), "version"),
    (zipped({"x.npy": b""}), "version"),
    (zipped({"x.npy": b"hello"}), "version"),
    (zipped({"x.npy": npy(header_of(), NINE)}, zipfile.ZIP_BZIP2), "np.savez"),
    (zipped({"x.npy": npy(header_of(), NINE)}, zipfile.ZIP_LZMA), "np.savez"),
    (encrypted(PLAIN), "encrypted"),
    (patched(PLAIN, b"PK\1\2", 10, b"\x63"), "np.savez"),
    (patched(zipped({"x.npy": npy(header_of(), NINE)}, zipfile.ZIP_DEFLATED), b"PK\3\4", 40, b"\xff" * 9), "read"),
    (patched(PLAIN, b"PK\1\2", 16, b"\0\0\0\0"), "CRC"),
    (patched(PLAIN, b"PK\1\2", 42, b"\xff\xff\xff\x7f"), "cannot be read|truncated"),
    (patched(PLAIN, b"PK\1\2", 24, b"\xff\xff\xff\x7f"), "would unpack"),
    (patched(PLAIN, b"PK\1\2", 20, b"\xff\xff\xff\x7f\xff\xff\xff\x7f"), "would unpack"),
    (patched(PLAIN, b"PK\5\6", 12, b"\xff\xff\xff\x7f"), "not an .npz file"),
    (zipped({}), "nothing"),
    (zipped({"\x1b[2J\n\u202e.npy": b""}), r"\\x1b\[2J \\u202e"),
    (zipped({"y" * 1000 + str(k): b"" for k in range(100)}), r"yyy \.\.$"),
]


@pytest.mark.parametrize(("content", "message"), ODD_NPZ, ids=range(len(ODD_NPZ)))
def test_odd_npz(tmp_path, content, message):
    path = tmp_path / "a.npz"
    path.write_bytes(content)
    with pytest.raises(CommandError, match=message) as raised:
        read_data(f"npz:{path}")
    text = str(raised.value)
    assert str(path) in text and text.isprintable() and len(text) < 2100


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", ">f8", "<f2", "g", "|u1", "|b1"])
@pytest.mark.parametrize("order", "CF")
def test_npz_of_every_kind_is_what_numpy_reads(tmp_path, monkeypatch, method, dtype, order):
    monkeypatch.setattr(npz_module, "_CHUNK", 64)
    x = (np.random.default_rng(0).random((7, 3, 5)) * 255).astype(dtype)
    path = tmp_path / "a.npz"
    save = np.savez if method == zipfile.ZIP_STORED else np.savez_compressed
    save(path, x_train=np.asarray(x, order=order), x_test=np.asarray(x[:2], order=order), y=np.arange(3))
    source = read_data(f"npz:{path}")
    wanted = x.astype(np.float32) if x.dtype.kind == "f" else x
    assert source.train.dtype == wanted.dtype and np.array_equal(source.train, wanted)
    assert np.array_equal(source.test, wanted[:2]) and source.train.flags["C_CONTIGUOUS"]


def peak_of(call):
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_what_unpacks_out_of_proportion(tmp_path, monkeypatch):
    """32 MB of zeros in 32 kB, where 1 MB would have passed as it is: neither is unpacked beyond that."""
    monkeypatch.setattr(reading, "_LIKELY", 1 << 20)
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros((32, 1_000_000), np.uint8))
    zeros = b"\0\0\x08\x03" + struct.pack(">3I", 32, 1000, 1000) + bytes(32_000_000)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(zeros, 6))

    def refused(spec):
        with pytest.raises(CommandError, match="bytes would unpack to"):
            read_data(spec)

    assert peak_of(lambda: refused(f"npz:{tmp_path / 'a.npz'}")) < 4 << 20
    assert peak_of(lambda: refused(f"idx:{tmp_path}")) < 20 << 20
    np.savez(tmp_path / "b.npz", x=np.arange(256, dtype=np.uint8).repeat(20_000).reshape(2, -1))
    assert read_data(f"npz:{tmp_path / 'b.npz'}").train.size == 256 * 20_000


def test_data_are_in_memory_once(tmp_path):
    """float64 of 24 MB becomes float32 of 12: beside that, some pieces of 4 MiB."""
    np.savez(tmp_path / "a.npz", x=np.random.default_rng(0).random((3, 1_000_000)))
    assert peak_of(lambda: read_data(f"npz:{tmp_path / 'a.npz'}")) < 12_000_000 + 5 * (4 << 20)


def test_data_are_read_once(run, trained, monkeypatch):
    """Also by `evaluate` of other data, which turn out to be those of the run."""
    copy = run.parent / "copy.npz"
    copy.write_bytes((trained / "data.npz").read_bytes())
    real, reads = npz_module.read_npz, []
    monkeypatch.setattr("vae_fast.cli.data.read_npz", lambda path: reads.append(path) or real(path))
    assert main(["evaluate", str(run), "--data", f"npz:{copy}", *EVALUATE]) == 0
    assert reads == [copy] and json.loads((run / "evaluation.json").read_text())["n_data"] == 4


@pytest.mark.parametrize("spoil", [a_pipe, a_directory, a_device])
@pytest.mark.parametrize("spec", ["npz:{}/a.npz", "idx:{}"])
def test_data_files_that_are_none(tmp_path, fails, spoil, spec):
    for name in ("a.npz", "train-images-idx3-ubyte"):
        (tmp_path / name).write_bytes(b"")
        spoil(tmp_path / name, tmp_path)
    assert "regular file" in fails("train", "--data", spec.format(tmp_path), "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["x" * 5000, "é\udcff", "\0", "\ud800"])
def test_names_that_no_file_can_have(fails, tmp_path, name):
    for spec in (f"npz:{name}", f"idx:{name}"):
        fails("train", "--data", spec, "--out", tmp_path / "run")
    fails("evaluate", name)
    fails("train", "--out", name + "/" + "x" * 5000)
