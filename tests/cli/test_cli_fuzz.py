"""Thousands of odd files by chance, the same ones each time: each is read, or refused in one line."""

import gzip
import io
import json
import random
import struct
import zipfile

import numpy as np
from odd_files import (
    EVALUATE,
    contents,
    mutated,
    put_record,
    put_tensors,
    record_of,
    spoilt,
    zipped,
)
from test_cli_data import GOOD as IDX

from vae_fast.cli.checkpoint import load_checkpoint
from vae_fast.cli.data import read_data
from vae_fast.cli.errors import CommandError
from vae_fast.cli.main import main
from vae_fast.cli.record import read_record


def outcome(call):
    """1 if it is read, 0 if it is refused in one line. Whatever else is raised fails the test."""
    try:
        call()
    except CommandError as error:
        assert error.status == 2 and str(error).isprintable()
        return 0
    return 1


def test_fuzz_npz(tmp_path):
    """Archives with some bytes changed; and whole archives of arrays with some bytes changed."""
    chance, path, read, n = random.Random(0), tmp_path / "a.npz", 0, 4000
    x = np.random.default_rng(0).random((4, 3))
    arrays = []
    for value in (x, x > 0.5, np.asarray((x * 255).astype(np.uint8), order="F")):
        buffer = io.BytesIO()
        np.save(buffer, value)
        arrays.append(buffer.getvalue())
    members = {"x_train.npy": arrays[0], "x_test.npy": arrays[0]}
    whole = [zipped(members, method) for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)]

    def load():
        source = read_data(f"npz:{path}")
        assert source.train.ndim >= 2 and source.train.size and np.isfinite(source.train).all()

    for case in range(n):
        if case % 2:
            content = zipped({"x.npy": mutated(chance.choice(arrays), chance)})
        else:
            content = mutated(chance.choice(whole), chance)
        path.write_bytes(content)
        read += outcome(load)
    assert n / 20 < read < n / 2


def test_fuzz_idx(tmp_path):
    chance, read, n = random.Random(0), 0, 2000
    for name, content in (("train-images-idx3-ubyte.gz", gzip.compress(IDX)), ("train-images-idx3-ubyte", IDX)):
        for _ in range(n // 2):
            (tmp_path / name).write_bytes(mutated(content, chance))
            read += outcome(lambda: read_data(f"idx:{tmp_path}"))
    assert n / 20 < read < n / 2


def test_fuzz_records(trained):
    """checkpoint.json with some bytes or one value changed: refused, or a record that is written as it was read."""
    chance, read, n = random.Random(0), 0, 6000
    text = (trained / "run" / "checkpoint.json").read_bytes()
    for case in range(n):
        record = json.dumps(spoilt(json.loads(text), chance)).encode() if case % 2 else mutated(text, chance)
        try:
            found = read_record(record)
        except ValueError as error:
            assert not isinstance(error, RecursionError)
            continue
        assert read_record(found.to_bytes()) == found
        read += 1
    assert n / 50 < read < n / 2


def test_fuzz_tensors(run):
    """The file of tensors changed with its SHA-256: mostly in its header, of which a good third is spaces."""
    chance, read, n = random.Random(0), 0, 300
    (path,) = run.glob("*.safetensors")
    content = path.read_bytes()
    length = 8 + int.from_bytes(content[:8], "little")
    for case in range(n):
        if case % 2:
            header = json.dumps(spoilt(json.loads(content[8:length]), chance)).encode()
            odd = struct.pack("<Q", len(header)) + header + content[length:]
        else:
            odd = mutated(content[:length], chance) + mutated(content[length:], chance)
        put_tensors(run, odd)
        read += outcome(lambda: load_checkpoint(run / "checkpoint.json"))
        for stray in run.glob("*.safetensors"):
            stray.unlink()
    assert 0 < read < n / 2


def test_fuzz_commands(run, trained, capsys):
    """Whole commands over checkpoints with one value changed: status 0, or 2 with one line."""
    chance, statuses = random.Random(0), []
    record, data = record_of(run), f"npz:{trained / 'data.npz'}"
    files = contents(run)
    for case in range(60):
        for path in run.iterdir():
            path.unlink()
        for name, content in files.items():
            (run / name).write_bytes(content)
        odd = spoilt(record, chance)
        if case % 2 and isinstance(odd, dict) and isinstance(odd.get("config"), dict):
            odd["config"] = record["config"] | {k: odd["config"].get(k) for k in ("lr", "seed", "epochs")}
            odd["epoch"], odd["history"] = record["epoch"], record["history"]
        put_record(run, odd)
        resume = ["train", "--resume", "--out", str(run), "--data", data, "--epochs", "2", "--no-plots"]
        for command in (["evaluate", str(run), "--data", data, *EVALUATE], resume):
            capsys.readouterr()
            status = main(command)
            error = capsys.readouterr().err
            assert status == 0 and error == "" or status == 2 and error.count("\n") == 1, (odd, error)
            statuses.append(status)
    assert 5 < statuses.count(0) < 60
