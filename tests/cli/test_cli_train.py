"""Training from the command line: what it leaves, that it learns, and that every option does its part."""

import csv
import json
import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from vae_fast.cli.checkpoint import load_checkpoint
from vae_fast.cli.main import main
from vae_fast.cli.model import build_vae
from vae_fast.cli.plots import manifold_grid
from vae_fast.cli.report import COLUMNS
from vae_fast.cli.streams import derive_seed, epoch_order
from vae_fast.cli.tensors import unpack_model

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def train(tmp_path, capsys):
    """Trains on 60 tiny data in tmp_path/name, 3 epochs of small networks unless told; returns the directory."""
    path = tmp_path / "data.npz"
    np.savez(path, x=np.random.default_rng(0).random((75, 4, 4)) ** 3)

    def run(name, *args, plots=False):
        out = tmp_path / name
        call = ["train", "--out", out, "--data", f"npz:{path}", "--hidden", 8, "--latent", 2, "--epochs", 3]
        call += ["--batch-size", 16, "--threads", 1, *args] + ([] if plots else ["--no-plots"])
        assert main([str(a) for a in call]) == 0
        return out

    return run


def rows(out):
    with open(out / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def tensors(out):
    (path,) = out.glob("*.safetensors")
    return load_file(path)


def test_what_a_run_leaves(train, capsys):
    out = train("run", plots=True)
    printed = capsys.readouterr().out
    names = {path.name for path in out.iterdir()}
    pictures = {"elbo.png", "reconstructions.png", "samples.png", "manifold.png", "kl_per_dim.png"}
    assert pictures | {"checkpoint.json", "config.toml", "metrics.csv", "summary.json"} < names and len(names) == 10
    for picture in pictures:
        content = (out / picture).read_bytes()
        assert content.startswith(PNG) and len(content) > 3000
    table = rows(out)
    assert list(table[0]) == list(COLUMNS) and [row["epoch"] for row in table] == ["1", "2", "3"]
    for row in table:
        for prefix in ("", "test_"):
            elbo, log_likelihood, kl = (float(row[prefix + name]) for name in ("elbo", "log_likelihood", "kl"))
            # Each is a mean of float32 numbers, rounded before they were summed.
            assert elbo == pytest.approx(log_likelihood - kl, rel=1e-6) and kl >= 0
    summary = json.loads((out / "summary.json").read_text())
    assert summary["train_elbo"] == float(table[-1]["elbo"])
    assert f"train ELBO  {summary['train_elbo']:.3f}" in printed
    assert summary["n_train"] == 60 and summary["n_test"] == 15 and summary["event_shape"] == [4, 4]
    assert summary["n_parameters"] == sum(t.numel() for n, t in tensors(out).items() if n.startswith("model/"))


def test_pictures_of_data_that_are_no_images(train, tmp_path):
    path = tmp_path / "curves.npz"
    np.savez(path, x=np.random.default_rng(0).normal(size=(20, 6)))
    out = train("run", "--data", f"npz:{path}", "--likelihood", "gaussian", plots=True)
    assert all(
        (out / n).read_bytes().startswith(PNG) for n in ("samples.png", "reconstructions.png", "manifold.png")
    )


def test_pictures_of_colour_images_and_other_latents(train, tmp_path):
    path = tmp_path / "colour.npz"
    np.savez(path, x=np.random.default_rng(0).integers(0, 256, (20, 3, 4, 5), dtype=np.uint8))
    out = train("run", "--data", f"npz:{path}", "--latent", 3, "--test-size", 0, plots=True)
    assert (out / "samples.png").read_bytes().startswith(PNG) and not (out / "manifold.png").exists()


def test_it_learns(train):
    table = rows(train("run", "--epochs", 30, "--lr", 0.01))
    assert float(table[-1]["elbo"]) > float(table[0]["elbo"]) + 1
    assert float(table[-1]["test_elbo"]) > float(table[0]["test_elbo"]) + 1


def test_the_same_call_gives_the_same_bytes(train):
    a, b = train("a", plots=True), train("b", plots=True)
    assert {p.name: p.read_bytes() for p in a.iterdir()} == {p.name: p.read_bytes() for p in b.iterdir()}


def test_global_random_state_has_no_part(train):
    a = train("a")
    torch.manual_seed(123)
    before = torch.get_rng_state()
    b = train("b")
    assert torch.equal(torch.get_rng_state(), before)
    assert (a / "metrics.csv").read_bytes() == (b / "metrics.csv").read_bytes()
    assert (a / "metrics.csv").read_bytes() != (train("c", "--seed", 1) / "metrics.csv").read_bytes()


def test_the_first_epoch_is_what_its_words_say(train):
    """One epoch redone here from the building blocks: order, noise, Adam."""
    out = train("run", "--epochs", 1, "--test-size", 0)
    checkpoint = load_checkpoint(out / "checkpoint.json")
    x = torch.from_numpy(np.load(out.parent / "data.npz")["x"]).float().reshape(75, 16)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    vae = build_vae(checkpoint.record.config, 16)
    optimizer = torch.optim.Adam(vae.parameters(), lr=1e-3, fused=True)
    elbos = []
    for step, index in enumerate(epoch_order(0, 1, 75).split(16)):
        result = vae(x[index], seed=derive_seed(0, "noise", 1), offset=step * 16 * 2)
        optimizer.zero_grad()
        result.loss.backward()
        optimizer.step()
        elbos.append(result.elbo.detach())
    torch.set_num_threads(threads)
    assert float(rows(out)[0]["elbo"]) == pytest.approx(torch.cat(elbos).double().mean().item(), rel=1e-12)
    saved = tensors(out)
    for name, value in vae.state_dict().items():
        assert torch.equal(saved[f"model/{name}"], value)


def test_warmup(train):
    table = rows(train("run", "--warmup", 4, "--epochs", 6, "--beta", 2))
    assert [float(row["beta"]) for row in table] == [0.5, 1.0, 1.5, 2.0, 2.0, 2.0]
    assert rows(train("other", "--epochs", 6, "--beta", 2))[-1] != table[-1]


def test_beta_presses_on_the_kl(train):
    def last_kl(name, beta):
        return float(rows(train(name, "--beta", beta, "--epochs", 20, "--lr", 0.02))[-1]["kl"])

    assert last_kl("none", 0) > last_kl("one", 1) + 0.1


@pytest.mark.parametrize("optimizer", ["adam", "adagrad"])
def test_optimizer_state_is_saved_by_name(train, optimizer):
    saved = tensors(train("run", "--optimizer", optimizer))
    keys = {"adam": {"step", "exp_avg", "exp_avg_sq"}, "adagrad": {"step", "sum"}}[optimizer]
    parameters = [name.removeprefix("model/") for name in saved if name.startswith("model/")]
    for name in parameters:
        assert {key for key in keys if f"optimizer/{name}/{key}" in saved} == keys
        assert saved[f"optimizer/{name}/step"] == 3 * math.ceil(60 / 16)
    assert len(saved) == len(parameters) * (1 + len(keys))


@pytest.mark.parametrize(
    "options",
    [
        ["--optimizer", "adagrad", "--lr", 0.1],
        ["--likelihood", "gaussian"],
        ["--likelihood", "gaussian", "--mean-activation", "sigmoid"],
        ["--binarize", "dynamic"],
        ["--binarize", "threshold", "--activation", "relu", "--hidden", "8,6"],
        ["--hidden", "none"],
        ["--warmup", 4, "--test-size", 0],
        ["--objective", "dreg", "--samples", 5],
        ["--objective", "miwae", "--samples", "2x3"],
    ],
)
def test_resumed_is_unbroken(train, options):
    whole = train("whole", *options, "--epochs", 4)
    train("broken", *options, "--epochs", 2)
    assert len(rows(whole.parent / "broken")) == 2
    broken = train("broken", *options, "--resume", "--epochs", 4)
    assert {p.name: p.read_bytes() for p in whole.iterdir()} == {p.name: p.read_bytes() for p in broken.iterdir()}


def test_a_mean_through_a_sigmoid(train, capsys):
    """The decoder has it, the record says so, and what is drawn of the mean lies in (0, 1)."""
    gaussian = ["--likelihood", "gaussian"]
    plain, out = train("plain", *gaussian), train("run", *gaussian, "--mean-activation", "sigmoid")
    assert "gaussian likelihood with sigmoid mean" in capsys.readouterr().out
    records = [load_checkpoint(run / "checkpoint.json").record for run in (plain, out)]
    assert [record.config.mean_activation for record in records] == ["none", "sigmoid"]
    assert json.loads((out / "summary.json").read_text())["config"]["mean_activation"] == "sigmoid"
    vae = build_vae(records[1].config, 16)
    unpack_model(load_checkpoint(out / "checkpoint.json").tensors, vae)
    means = vae.decode(10 * torch.randn(200, 2))[0]
    assert ((means > 0) & (means < 1)).all()
    assert vae.encoder.mean_activation is None and build_vae(records[0].config, 16).decoder.mean_activation is None
    assert rows(out)[-1]["elbo"] != rows(plain)[-1]["elbo"]


def test_a_bound_of_several_samples(train, capsys):
    """It is what is trained and said; the same nets reach a better one than the ELBO is."""
    plain, out = train("plain", "--epochs", 3), train("run", "--epochs", 3, "--objective", "iwae", "--samples", 50)
    said = capsys.readouterr().out
    assert "bound  iwae, 50 samples of each datum" in said and "train IWAE bound " in said
    config = load_checkpoint(out / "checkpoint.json").record.config
    assert (config.objective, config.samples) == ("iwae", 50)
    vae = build_vae(config, 16)
    assert (vae.objective, vae.n_samples) == ("iwae", 50)
    assert float(rows(out)[-1]["elbo"]) > float(rows(plain)[-1]["elbo"])


def test_a_run_from_before_there_was_a_mean_activation(train):
    """Its record lacks the option: it is resumed as it was trained."""
    whole = train("whole", "--likelihood", "gaussian", "--epochs", 4)
    old = train("old", "--likelihood", "gaussian", "--epochs", 2)
    record = json.loads((old / "checkpoint.json").read_text())
    del record["config"]["mean_activation"]
    (old / "checkpoint.json").write_text(json.dumps(record))
    assert load_checkpoint(old / "checkpoint.json").record.config.mean_activation == "none"
    train("old", "--likelihood", "gaussian", "--epochs", 4, "--resume")
    assert {p.name: p.read_bytes() for p in whole.iterdir()} == {p.name: p.read_bytes() for p in old.iterdir()}


def test_resume_rewrites_the_metrics_from_the_checkpoint(train):
    out = train("run")
    before = (out / "metrics.csv").read_bytes()
    for damaged in (before + b"4,1.0,-1\n", before[:-20], b""):
        (out / "metrics.csv").write_bytes(damaged)
        train("run", "--resume")
        assert (out / "metrics.csv").read_bytes() == before
    (out / "metrics.csv").unlink()
    train("run", "--resume")
    assert (out / "metrics.csv").read_bytes() == before


def test_resume_needs_no_other_option_than_what_is_a_file(train):
    whole = train("whole", "--latent", 3, "--epochs", 4)
    broken = train("broken", "--latent", 3, "--epochs", 2)
    data = f"npz:{broken.parent / 'data.npz'}"
    assert main(["train", "--resume", "--out", str(broken), "--data", data, "--epochs", "4", "--no-plots"]) == 0
    assert {p.name: p.read_bytes() for p in whole.iterdir()} == {p.name: p.read_bytes() for p in broken.iterdir()}


def test_resume_where_nothing_is_yet_starts(train):
    out = train("run", "--resume")
    assert (out / "metrics.csv").read_bytes() == (train("other") / "metrics.csv").read_bytes()


def test_dynamic_binarisation_is_redrawn(train):
    none, threshold, dynamic = (
        rows(train(b, "--binarize", b, "--lr", 1e-30, "--beta", 0, "--test-size", 0))
        for b in ("none", "threshold", "dynamic")
    )
    # The weights stand still, so the KL changes only if the encoder's input does.
    spread = [np.ptp([float(row["kl"]) for row in table]) for table in (none, threshold, dynamic)]
    assert none[0] != threshold[0] and max(spread[:2]) < 1e-6 and spread[2] > 1e-4


def test_bytes_and_floats_of_the_same_images_train_alike(train, tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (50, 16), dtype=np.uint8)
    np.savez(tmp_path / "bytes.npz", x=x)
    np.savez(tmp_path / "floats.npz", x=x / np.float32(255))
    a, b = (rows(train(name, "--data", f"npz:{tmp_path / name}.npz")) for name in ("bytes", "floats"))
    # float32 rounding of the targets, through a few steps of Adam.
    assert float(a[-1]["elbo"]) == pytest.approx(float(b[-1]["elbo"]), rel=1e-4)


def test_the_manifold_grid():
    z = manifold_grid(20)
    assert z.shape == (400, 2) and torch.isfinite(z).all()
    u = torch.special.ndtr(z.double()).reshape(20, 20, 2)
    assert torch.allclose(u[0, :, 0], (torch.arange(20) + 0.5).double() / 20, atol=1e-6)
    assert (u[:, 0, 1].diff() < 0).all() and torch.equal(u[..., 0], u[:1, :, 0].expand(20, 20))


def test_backend_argument_does_not_outlive_the_command(train):
    import vae_fast as vf

    train("run", "--backend", "reference")
    with vf.use_backend("auto") as now:
        assert now.previous[0] == "auto"
