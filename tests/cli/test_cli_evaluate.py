"""`evaluate`: its measures against what they are known to be, its table and its JSON."""

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

import vae_fast as vf
from vae_fast.cli import measures
from vae_fast.cli.checkpoint import load_checkpoint
from vae_fast.cli.main import main
from vae_fast.cli.tensors import unpack_model

FAST = ["--n-samples", "50", "--elbo-samples", "5", "--gap-steps", "20", "--threads", "1"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two small runs: one with test data, one without."""
    root = tmp_path_factory.mktemp("runs")
    x = np.random.default_rng(0).random((60, 9)) ** 3
    np.savez(root / "data.npz", x=x)
    np.savez(root / "other.npz", x=x[:30] ** 2)
    np.savez(root / "copy.npz", x=x)
    for name, size in (("held", 20), ("all", 0)):
        call = ["--hidden", "8", "--latent", "3", "--epochs", "2", "--test-size", str(size), "--no-plots"]
        data = f"npz:{root / 'data.npz'}"
        assert main(["train", "--data", data, "--out", str(root / name), "--threads", "1", *call]) == 0
    return root


def evaluated(path, *args):
    """By the run's own data, unless args name others."""
    data = ["--data", f"npz:{path.parent / 'data.npz'}"]
    assert main(["evaluate", str(path), *FAST, *data, *map(str, args)]) == 0
    return json.loads((path / "evaluation.json").read_text())


def test_everything_is_there(runs, capsys):
    result = evaluated(runs / "held")
    printed = capsys.readouterr().out
    assert result["n_data"] == 20 and not result["training_data"] and result["n_samples"] == 50
    for name in ("ELBO", "log p(x)", "amortisation gap", "active units", "KL per latent dim", "test data of"):
        assert name in printed
    elbo, log_likelihood, kl = (result[name]["mean"] for name in ("elbo", "log_likelihood", "kl"))
    assert elbo == pytest.approx(log_likelihood - kl, rel=1e-6)
    assert sum(result["kl_per_dim"]) == pytest.approx(kl, rel=1e-5) and len(result["kl_per_dim"]) == 3
    assert result["active_units"] == sum(v > 0.01 for v in result["posterior_mean_variance"])
    gap = result["amortisation_gap"]["mean"]
    assert gap == pytest.approx(result["local_elbo"]["mean"] - elbo, abs=1e-9)
    assert result["log_marginal"]["mean"] > elbo


def test_it_is_a_function_of_the_seed(runs):
    def bytes_of(*args):
        evaluated(runs / "held", *args)
        return (runs / "held" / "evaluation.json").read_bytes()

    assert bytes_of() == bytes_of() != bytes_of("--seed", 1)


def test_training_data_are_called_so(runs, capsys):
    result = evaluated(runs / "all")
    assert result["training_data"] and result["n_data"] == 60
    assert "note: the run held no test data back: these figures are of its TRAINING data" in capsys.readouterr().out


def test_other_data(runs):
    result = evaluated(runs / "held", "--data", f"npz:{runs / 'other.npz'}", "--limit", 7)
    assert result["n_data"] == 7 and result["data"].startswith("all of") and not result["training_data"]
    copy = evaluated(runs / "held", "--data", f"npz:{runs / 'copy.npz'}")
    assert copy["n_data"] == 20 and copy["elbo"] == evaluated(runs / "held")["elbo"]
    assert evaluated(runs / "all", "--data", f"npz:{runs / 'copy.npz'}")["training_data"]


def test_options(runs):
    data = ["--data", f"npz:{runs / 'data.npz'}"]
    assert main(["evaluate", str(runs / "held" / "checkpoint.json"), *FAST, *data]) == 0
    result = evaluated(runs / "held", "--gap-steps", 0, "--limit", 1)
    assert "amortisation_gap" not in result and result["n_data"] == 1
    assert result["elbo"]["stderr"] is None and math.isfinite(result["elbo"]["mean"])


def test_a_mean_through_a_sigmoid_is_restored(runs):
    """Judged by the decoder it was trained with: its ELBO is that of the weights and a sigmoid."""
    data, out = f"npz:{runs / 'data.npz'}", runs / "sigmoid"
    call = ["--likelihood", "gaussian", "--mean-activation", "sigmoid", "--test-size", "0", "--hidden", "8"]
    call += ["--latent", "3", "--epochs", "2", "--threads", "1", "--no-plots"]
    assert main(["train", "--data", data, "--out", str(out), *call]) == 0
    result = evaluated(out)
    assert result["checkpoint"]["config"]["mean_activation"] == "sigmoid"
    vae = vf.VAE(vf.GaussianMLP(9, 3, 8), vf.GaussianMLP(3, 9, 8, mean_activation=nn.Sigmoid))
    unpack_model(load_checkpoint(out / "checkpoint.json").tensors, vae)
    x = torch.from_numpy(np.load(runs / "data.npz")["x"]).float()
    truth = measures.elbo_terms(vae, x, 5, 0)[0].mean().item()
    assert result["elbo"]["mean"] == pytest.approx(truth, rel=1e-6)
    vae.decoder.mean_activation = None
    assert abs(measures.elbo_terms(vae, x, 5, 0)[0].mean().item() - truth) > 1e-2


def test_a_run_trained_on_another_bound_is_judged_by_the_elbo(runs):
    data, out = f"npz:{runs / 'data.npz'}", runs / "iwae"
    call = ["--test-size", "0", "--hidden", "8", "--latent", "3", "--epochs", "2", "--threads", "1", "--no-plots"]
    call += ["--objective", "iwae", "--samples", "4"]
    assert main(["train", "--data", data, "--out", str(out), *call]) == 0
    result = evaluated(out)
    vae = vf.VAE(vf.GaussianMLP(9, 3, 8), vf.BernoulliMLP(3, 9, 8))
    unpack_model(load_checkpoint(out / "checkpoint.json").tensors, vae)
    x = torch.from_numpy(np.load(runs / "data.npz")["x"]).float()
    assert result["elbo"]["mean"] == pytest.approx(measures.elbo_terms(vae, x, 5, 0)[0].mean().item(), rel=1e-6)


class Linear(nn.Module):
    """q(z|x) = N(a·x, s²) for the exact posterior of x = z + noise of variance ½, or a worse one."""

    latent_shape = (1,)

    def __init__(self, scale, logvar):
        super().__init__()
        self.scale, self.logvar = nn.Parameter(torch.tensor(scale)), logvar

    def forward(self, x):
        return self.scale * x, torch.full_like(x, self.logvar)


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, z):
        return z * self.weight, math.log(0.5)


def test_measures_of_a_model_that_is_known():
    """z ~ N(0, 1), x ~ N(z, ½): p(x) = N(0, 3/2), p(z|x) = N(2x/3, 1/3)."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 1, generator=generator) * math.sqrt(1.5)
    truth = torch.distributions.Normal(0.0, math.sqrt(1.5)).log_prob(x)[:, 0].double()
    exact = vf.VAE(Linear(2 / 3, math.log(1 / 3)), Decoder())
    # Constant importance weights: the estimate is exact up to float32 rounding.
    assert (measures.log_marginals(exact, x, 20, 0) - truth).abs().max() < 1e-5
    mu, logvar = measures.posteriors(exact, x)
    assert vf.active_units(mu).number == 1
    closed = 0.5 * (mu**2 + 1 / 3 - 1 - math.log(1 / 3)).double().mean()
    assert vf.kl_per_dim(mu, logvar).item() == pytest.approx(closed.item(), rel=1e-5)

    poor = vf.VAE(Linear(0.3, 0.0), Decoder())
    # KL(q || p(z|x)) is what the encoder loses: ½((0.3x − 2x/3)²·3 + 3 − 1 − ln 3).
    gap = 0.5 * (3 * ((0.3 - 2 / 3) * x[:, 0]) ** 2 + 3 - 1 - math.log(3)).double()
    before = measures.elbo_terms(poor, x, 100, 0)[0]
    after = measures.local_elbo(poor, x, 300, 100, 0)
    # 100 draws for each of 40 data, of a term whose deviation is about 2.2: 5 deviations of the mean are 0.18.
    assert (before.mean() - (truth - gap).mean()).abs() < 0.18
    # Optimised, the noise is smaller, and what Adam leaves separates the ELBO from log p(x).
    assert (after.mean() - truth.mean()).abs() < 0.1 and ((after - before).mean() - gap.mean()).abs() < 0.2
    assert all(p.requires_grad for p in poor.parameters())
    assert measures.local_elbo(exact, x, 50, 10, 0).mean() == pytest.approx(truth.mean().item(), abs=0.05)


def test_values_do_not_depend_on_how_the_data_are_cut(monkeypatch):
    vae = vf.VAE(vf.GaussianMLP(5, 2, 4), vf.BernoulliMLP(2, 5, 4))
    x = torch.rand(23, 5)
    whole = measures.elbo_terms(vae, x, 3, 0)
    monkeypatch.setattr(measures, "_BATCH", 7)
    # The noise is the same; matmuls of other sizes may round differently.
    assert torch.allclose(measures.elbo_terms(vae, x, 3, 0), whole, rtol=1e-5, atol=1e-5)
