"""The reader of checkpoints: odd files of every kind, and what is not opened because a checkpoint names it."""

import os
import sys

import numpy as np
import pytest
import torch
from odd_files import (
    EVALUATE,
    TRAIN,
    a_device,
    a_directory,
    a_link,
    a_link_to_nowhere,
    a_pipe,
    changed,
    put_record,
    put_tensors,
    record_of,
    too_long,
)
from safetensors.torch import save

from vae_fast.cli import reading
from vae_fast.cli.checkpoint import load_checkpoint, save_checkpoint, tensors_to_bytes
from vae_fast.cli.errors import CommandError
from vae_fast.cli.main import main
from vae_fast.cli.record import Record

_opened = None


def _watch(event, args):
    if _opened is not None and event == "open" and isinstance(args[0], (str, bytes, os.PathLike)):
        _opened.append(os.fsdecode(args[0]))


sys.addaudithook(_watch)


# Where in the record, what, and a word of the message.
WRONG_VALUES = [
    (("epoch",), True, "epoch"),
    (("epoch",), 2.0, "epoch"),
    (("epoch",), -1, "epoch"),
    (("epoch",), 10**25, "epoch"),
    (("epoch",), 10**400, "401 digits"),
    (("epoch",), None, "epoch"),
    (("sha256",), "0" * 63, "SHA-256"),
    (("sha256",), ["0" * 64], "SHA-256"),
    (("sha256",), "0" * 64, "other tensors"),
    (("tensors",), "checkpoint-000002-0000000000000000.safetensors", "other tensors"),
    (("tensors",), "../run/checkpoint.json", "other tensors"),
    (("tensors",), "\ud800", "other tensors"),
    (("tensors",), {}, "other tensors"),
    (("config",), [], "config"),
    (("config", "data"), 7, "data"),
    (("config", "data"), "x" * 10**4, "data"),
    (("config", "likelihood"), "laplace", "likelihood"),
    (("config", "likelihood"), [], "likelihood"),
    (("config", "likelihood"), "gaussian", "another model"),
    (("config", "binarize"), "both", "binarize"),
    (("config", "hidden"), 4, "hidden"),
    (("config", "hidden"), ["4"], "hidden"),
    (("config", "hidden"), [True], "hidden"),
    (("config", "hidden"), [4.0], "hidden"),
    (("config", "hidden"), [0], "hidden"),
    (("config", "hidden"), [-4], "hidden"),
    (("config", "hidden"), [2**31], "hidden"),
    (("config", "hidden"), [4] * 1001, "hidden"),
    (("config", "hidden"), [2**31 - 1] * 2, "another model"),
    (("config", "hidden"), [2**20] * 1000, "another model"),
    (("config", "hidden"), [], "another model"),
    (("config", "latent"), True, "latent"),
    (("config", "latent"), 0, "latent"),
    (("config", "latent"), 2**31, "latent"),
    (("config", "latent"), 2**31 - 1, "another model"),
    (("config", "activation"), "step", "activation"),
    (("config", "mean_activation"), "tanh", "mean_activation"),
    (("config", "mean_activation"), None, "mean_activation"),
    (("config", "mean_activation"), "sigmoid", "--likelihood gaussian"),
    (("config", "optimizer"), "sgd", "optimizer"),
    (("config", "optimizer"), "adagrad", "another model"),
    (("config", "lr"), "1", "lr"),
    (("config", "lr"), True, "lr"),
    (("config", "lr"), 0, "lr"),
    (("config", "lr"), -0.1, "lr"),
    (("config", "lr"), 10**29, None),  # a number, if a large one
    (("config", "epochs"), 0, "epochs"),
    (("config", "epochs"), 1, "epoch"),
    (("config", "epochs"), 10**7, "epochs"),
    (("config", "batch_size"), 0, "batch_size"),
    (("config", "batch_size"), 2**63, "batch_size"),
    (("config", "beta"), -1, "beta"),
    (("config", "beta"), None, "beta"),
    (("config", "warmup"), -1, "warmup"),
    (("config", "warmup"), 0.5, "warmup"),
    (("config", "objective"), "vimco", "objective"),
    (("config", "objective"), "miwae", "takes a pair"),
    (("config", "samples"), 0, "samples"),
    (("config", "samples"), [1, 2, 3], "samples"),
    (("config", "samples"), [2, 3], "takes one number"),
    (("config", "samples"), "4", "samples"),
    (("config", "seed"), -1, "seed"),
    (("config", "seed"), 2**64, "seed"),
    (("config", "test_size"), False, "test_size"),
    (("config", "test_size"), -1, "test_size"),
    (("config", "wat"), 1, "config"),
    (("settings",), None, "settings"),
    (("settings", "device"), 0, "device"),
    (("settings", "device"), "cuda:\n", "device"),
    (("settings", "backend"), 1, "backend"),
    (("settings", "backend"), "x" * 100, "backend"),
    (("settings", "threads"), True, "threads"),
    (("settings", "threads"), 0, "threads"),
    (("settings", "threads"), 100_000, "threads"),
    (("settings", "threads"), 1.5, "threads"),
    (("settings", "wat"), 1, "settings"),
    (("data",), [], "data"),
    (("data", "d"), "6", "number"),
    (("data", "d"), 7, "shape"),
    (("data", "d"), True, "number"),
    (("data", "event_shape"), 6, "shape"),
    (("data", "event_shape"), [], "shape"),
    (("data", "event_shape"), [2, 3.0], "number"),
    (("data", "event_shape"), [-2, -3], "number"),
    (("data", "event_shape"), [2**48] * 32, "size"),
    (("data", "event_shape"), [1] * 1000, "shape"),
    (("data", "sha256"), None, "SHA-256"),
    (("history",), {}, "history"),
    (("history",), [[], []], "history"),
    (("history",), None, "history"),
    (("history", 0), "12345678", "history"),
    (("history", 0, 0), 2, "epoch"),
    (("history", 0, 0), True, "epoch"),
    (("history", 0, 1), -1, "number"),
    (("history", 1, 2), "1", "figure"),
    (("history", 1, 2), None, "figure"),
    (("history", 1, 3), True, "figure"),
    (("history", 1, 4), [1], "figure"),
    (("history", 1, 5), None, "test data"),
    (("history", 1, 7), "1", "figure"),
    (("wat",), 1, "wat"),
]


@pytest.mark.parametrize(("where", "value", "message"), WRONG_VALUES, ids=range(len(WRONG_VALUES)))
def test_wrong_values_in_a_checkpoint(run, where, value, message):
    put_record(run, changed(record_of(run), where, value))
    if message is None:
        load_checkpoint(run / "checkpoint.json")
        return
    with pytest.raises(CommandError, match=message) as raised:
        load_checkpoint(run / "checkpoint.json")
    assert raised.value.status == 2 and str(run) in str(raised.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace('"epoch": 2', '"epoch": 1, "epoch": 2', 1), "twice"),
        (lambda text: text.replace('"lr": 0.001', '"lr": NaN'), "NaN"),
        (lambda text: text.replace('"lr": 0.001', '"lr": -Infinity'), "Infinity"),
        (lambda text: text.replace('"lr": 0.001', '"lr": 1e999'), "lr"),
        (lambda text: text.replace("2", "2" * 10**6, 1), "1000000 digits"),
        (lambda text: "[" * 10**5 + "]" * 10**5, "deeply"),
        (lambda text: '{"a":' * 10**5 + "1" + "}" * 10**5, "deeply"),
        (lambda text: text.replace('"epoch": 2', '"epoch": ' + "[" * 10**5 + "]" * 10**5), "deeply"),
        (lambda text: text.encode("utf-16"), "corrupted"),
        (lambda text: "\ufeff" + text, "corrupted"),
        (lambda text: text.encode().replace(b"adam", b"ad\xffm"), "corrupted"),
        (lambda text: text + "{}", "corrupted"),
        (lambda text: "", "corrupted"),
        (lambda text: "\0" * 1000, "corrupted"),
        (lambda text: "null", "not a checkpoint"),
    ],
)
def test_text_that_is_no_checkpoint(run, fails, change, message):
    text = change((run / "checkpoint.json").read_text())
    (run / "checkpoint.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    assert message in fails("evaluate", run)
    assert message in fails("train", "--out", run, "--resume")


@pytest.mark.parametrize("spoil", [a_link, a_link_to_nowhere, a_pipe, a_directory, a_device, too_long])
@pytest.mark.parametrize("name", ["checkpoint.json", "checkpoint-*.safetensors"])
def test_files_of_a_checkpoint_that_are_none(run, fails, tmp_path, spoil, name):
    (path,) = run.glob(name)
    spoil(path, tmp_path)
    words = {a_link: "symbolic link", a_link_to_nowhere: "symbolic link", a_device: "symbolic link"}
    message = words.get(spoil, "bytes, a checkpoint like this one at most" if spoil is too_long else "regular file")
    assert message in fails("evaluate", run)
    assert message in fails("train", "--out", run, "--resume")


@pytest.mark.parametrize("spec", ["npz:{root}/secret.npz", "idx:{root}", "npz:/dev/zero", "npz:\0", "npz:\ud800"])
@pytest.mark.parametrize("command", [["evaluate", "{run}"], ["train", "--resume", "--out", "{run}"]])
def test_no_file_is_opened_because_a_checkpoint_names_it(run, fails, tmp_path, spec, command):
    """By the audit events of this process: nothing but the checkpoint's own two files is opened for it."""
    global _opened
    np.savez(tmp_path / "secret.npz", x=np.ones((9, 6)))
    put_record(run, changed(record_of(run), ("config", "data"), spec.format(root=tmp_path)))
    _opened = []
    try:
        message = fails(*(part.format(run=run) for part in command))
    finally:
        opened, _opened = _opened, None
    assert "no file is opened because a checkpoint names it" in message
    ours = {path for path in opened if path.startswith((str(tmp_path), "/dev/zero"))}
    assert ours <= {str(run), *map(str, run.iterdir())} and any(p.endswith(".safetensors") for p in ours)


def test_bundled_data_need_not_be_said(tmp_path):
    out = ["--out", str(tmp_path / "run")]
    assert main(["train", "--data", "digits", *out, *TRAIN]) == 0
    assert main(["train", "--resume", "--epochs", "3", "--no-plots", *out]) == 0
    assert main(["evaluate", str(tmp_path / "run"), "--limit", "5", *EVALUATE]) == 0


def odd_tensors():
    def without(name):
        return lambda t: t.pop(name)

    def put(name, value):
        return lambda t: t.update({name: value})

    weight, step = "model/encoder.mean.bias", "optimizer/encoder.mean.bias/step"
    moment = "optimizer/encoder.mean.bias/exp_avg"
    return [
        (without(weight), "missing"),
        (without(step), "missing"),
        (without(moment), "missing"),
        (put("model/wat", torch.ones(2)), "not known"),
        (put("wat", torch.ones(0)), "not known"),
        (put(weight, torch.ones(3)), r"float32 \[3\] there, float32 \[2\] here"),
        (put(weight, torch.ones(2, dtype=torch.float64)), "float64"),
        (put(weight, torch.ones(2, dtype=torch.int8)), "int8"),
        (put(weight, torch.tensor([1.0, torch.nan])), "NaN"),
        (put(weight, torch.tensor([1.0, -torch.inf])), "infinite"),
        (put(step, torch.ones(2)), r"\[2\]"),
        (put(step, torch.tensor(1)), "int64"),
        (put(moment, torch.ones(1)), r"\[1\]"),
    ]


@pytest.mark.parametrize(("change", "message"), odd_tensors())
def test_odd_tensors(run, change, message):
    tensors = dict(load_checkpoint(run / "checkpoint.json").tensors)
    change(tensors)
    put_tensors(run, save(tensors))
    with pytest.raises(CommandError, match=message):
        load_checkpoint(run / "checkpoint.json")


def test_an_infinite_moment_is_resumed(run, trained):
    """The square of a gradient of 1e20 is infinite in float32, and Adam's step then 0: that is no damage."""
    tensors = dict(load_checkpoint(run / "checkpoint.json").tensors)
    tensors["optimizer/encoder.mean.bias/exp_avg_sq"] = torch.full((2,), torch.inf)
    put_tensors(run, save(tensors))
    call = ["train", "--resume", "--out", str(run), "--epochs", "3", "--no-plots"]
    assert main([*call, "--data", f"npz:{trained / 'data.npz'}"]) == 0


def test_a_checkpoint_is_read_while_it_is_replaced(run, monkeypatch):
    """Between the JSON and the tensors it names, a training saves its next epoch, and removes them."""
    saved = load_checkpoint(run / "checkpoint.json")
    content, digest = tensors_to_bytes(saved.tensors | {"model/encoder.mean.bias": torch.ones(2)})
    later = Record(**(vars(saved.record) | {"sha256": digest}))
    real, readings = reading.read_beside, []

    def read(path, most):
        readings.append(path)
        if len(readings) == 2:
            save_checkpoint(run, later, content)
        return real(path, most)

    monkeypatch.setattr("vae_fast.cli.checkpoint.read_beside", read)
    loaded = load_checkpoint(run / "checkpoint.json")
    assert loaded.record == later and loaded.tensors["model/encoder.mean.bias"].tolist() == [1, 1]
