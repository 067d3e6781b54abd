"""Files to give the command line: a run that is there, archives by hand, and ways to spoil any of them."""

import hashlib
import io
import json
import os
import struct
import zipfile

import numpy as np

from vae_fast.cli.main import main

TRAIN = ["--hidden", "4", "--latent", "2", "--epochs", "2", "--threads", "1", "--no-plots"]
MAGIC = b"\x93NUMPY\x01\x00"
EVALUATE = ["--n-samples", "1", "--elbo-samples", "1", "--gap-steps", "0", "--threads", "1"]


def train_in(root):
    """A small run in root/run, of root/data.npz."""
    np.savez(root / "data.npz", x=np.random.default_rng(0).random((20, 6)))
    assert main(["train", "--data", f"npz:{root / 'data.npz'}", "--out", str(root / "run"), *TRAIN]) == 0
    return root


def copy_of(run, to):
    """The files of a run in another directory."""
    to.mkdir()
    for path in run.iterdir():
        (to / path.name).write_bytes(path.read_bytes())
    return to


def one_line(capsys, *args):
    """Runs a command line that must end with one line and status 2: returns the line."""
    capsys.readouterr()
    assert main([str(a) for a in args]) == 2
    error = capsys.readouterr().err
    assert error.startswith("vae_fast: error: ") and error.count("\n") == 1 and error[:-1].isprintable()
    return error


def record_of(run):
    return json.loads((run / "checkpoint.json").read_text())


def put_record(run, record):
    (run / "checkpoint.json").write_text(json.dumps(record))


def put_tensors(run, content):
    """A checkpoint whose tensors have this content, with all that says so."""
    record = record_of(run)
    digest = hashlib.sha256(content).hexdigest()
    name = f"checkpoint-{record['epoch']:06d}-{digest[:16]}.safetensors"
    (run / name).write_bytes(content)
    put_record(run, record | {"sha256": digest, "tensors": name})


def changed(record, where, value):
    record = json.loads(json.dumps(record))
    at = record
    for key in where[:-1]:
        at = at[key]
    at[where[-1]] = value
    return record


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def a_link(path, tmp_path):
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")


def a_link_to_nowhere(path, tmp_path):
    path.unlink()
    path.symlink_to(tmp_path / "nowhere")


def a_pipe(path, tmp_path):
    path.unlink()
    os.mkfifo(path)


def a_directory(path, tmp_path):
    path.unlink()
    path.mkdir()


def a_device(path, tmp_path):
    path.unlink()
    path.symlink_to("/dev/zero")


def too_long(path, tmp_path):
    """Four tebibytes, of which none is on the disk."""
    os.truncate(path, 1 << 42)


def npy(header, content=b""):
    return MAGIC + struct.pack("<H", len(header)) + header.encode("latin-1") + content


def header_of(descr="'<f4'", shape="(2, 3)", order="False"):
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n"


def zipped(members, method=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def patched(content, signature, offset, value):
    """The zip entry that `signature` begins, with some of its bytes replaced."""
    at = content.rindex(signature) + offset
    return content[:at] + value + content[at + len(value) :]


def mutated(content, chance):
    """Some bytes changed, cut out, doubled or made extreme; or the end cut off."""
    content = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 5))):
        at, n = chance.randrange(len(content) + 1), chance.choice((1, 1, 2, 4, 8, 40))
        kind = chance.randrange(6)
        if kind == 0 and at < len(content):
            content[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            content[at : at + n] = chance.randbytes(min(n, len(content) - at))
        elif kind == 2:
            content[at : at + n] = chance.choice((b"\0", b"\xff", b"\x80", b"9", b"'")) * min(n, len(content) - at)
        elif kind == 3:
            del content[at : at + n]
        elif kind == 4:
            content[at:at] = content[at : at + n]
        elif chance.random() < 0.3:
            del content[at:]
    return bytes(content)


VALUES = [None, True, False, -1, 0, 1, 2, 7, 10**12, 2**63, 10**40, 0.5, -0.0, 1e308, "", "x"]
VALUES += ["\ud800", "\0", "../a", "npz:/dev/zero", "cuda", "meta", "triton"]
VALUES += [[], {}, [[]], [0], [1, 2], {"": 0}, [4] * 999, [10**6] * 9]


def spoilt(value, chance):
    """A JSON value with one node of it replaced, removed or doubled."""
    if not isinstance(value, (dict, list)) or not value or chance.random() < 0.1:
        return chance.choice(VALUES)
    value = value.copy()
    key = chance.choice([*value] if isinstance(value, dict) else range(len(value)))
    kind = chance.randrange(10)
    if kind == 0:
        value.pop(key)
    elif kind == 1 and isinstance(value, list):
        value.append(value[key])
    elif kind == 1:
        value[key + "x"] = value[key]
    else:
        value[key] = spoilt(value[key], chance)
    return value
