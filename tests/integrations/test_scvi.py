"""scvi-tools' models with patch: a training step both ways, their training, and what else they are asked for."""

import copy
import importlib
import inspect
import pickle
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

if sys.version_info < (3, 11):
    pytest.skip("scvi-tools needs Python 3.11", allow_module_level=True)

import anndata
import mudata
import numpy as np
import pandas as pd
import scvi
import torch
from scvi.model import AUTOZI, MULTIVI, PEAKVI, SCANVI, SCVI, TOTALVI, LinearSCVI
from scvi.module import VAE
from torch.testing import assert_close

import vae_fast as vf

NEGATIVE_BINOMIAL = {"negative_binomial_log_prob_fwd", "negative_binomial_log_prob_bwd"}
POISSON = {"poisson_log_prob_fwd", "poisson_log_prob_bwd"}
KERNELS = {"zinb": NEGATIVE_BINOMIAL, "nb": NEGATIVE_BINOMIAL, "poisson": POISSON}
CELLS, GENES = 60, 12
SMALL = {"n_hidden": 8, "n_latent": 3}

# Training of tiny models on a CPU warns of few workers, no logger, few batches.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def adata():
    """Counts, four of five of them zero, of two batches and three labels, one of them unknown."""
    rng = np.random.default_rng(0)
    x = rng.negative_binomial(0.3, 0.1, (CELLS, GENES)) * (rng.random((CELLS, GENES)) < 0.5)
    x[:, 0] += 1  # no cell without a count
    adata = anndata.AnnData(x.astype(np.float32))
    adata.obs["batch"] = pd.Categorical(np.array(["first", "second"])[np.arange(CELLS) % 2])
    adata.obs["label"] = pd.Categorical(np.array(["a", "b", "?"])[np.arange(CELLS) % 3])
    adata.obs["size"] = x.sum(1) / x.sum(1).mean()
    adata.obsm["protein"] = rng.poisson(3.0, (CELLS, 4))
    return adata


def model_of(kind, adata, setup=None, **options):
    """Always the same weights."""
    setup = {"batch_key": "batch", "labels_key": "label", **(setup or {})}
    setup = {key: value for key, value in setup.items() if value is not None}
    if kind is SCANVI:
        setup["unlabeled_category"] = "?"
    kind.setup_anndata(adata, **setup)
    torch.manual_seed(0)
    return kind(adata, **SMALL, **options)


@pytest.fixture
def in_float64(monkeypatch):
    """scvi makes float32 of one-hot vectors, beside which a float64 model would fail."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    yield
    torch.set_default_dtype(before)


@pytest.fixture
def same_noise(monkeypatch):
    """torch.distributions draws the noise that the patched model draws: both from PyTorch's generator."""

    def standard_normal(shape, dtype, device):
        return vf.standard_normal(shape, seed=torch.randint(2**63 - 1, ()), dtype=dtype)

    monkeypatch.setattr(torch.distributions.normal, "_standard_normal", standard_normal)


def batch_of(model, adata, dtype=torch.float64):
    tensors = next(iter(model._make_data_loader(adata=adata, batch_size=CELLS)))
    return {key: t.to(dtype) if t.is_floating_point() else t for key, t in tensors.items()}


def step(model, tensors, **loss_kwargs):
    """The losses of a training step, and the gradient of every parameter."""
    module = model.module.train()
    torch.manual_seed(1)
    _, _, out = module(tensors, loss_kwargs=loss_kwargs)
    module.zero_grad()
    out.loss.backward()
    losses = [out.loss, *out.reconstruction_loss.values(), *out.kl_local.values()]
    return [v.detach() for v in losses], {name: p.grad for name, p in module.named_parameters()}


def check_step(model, adata, fused, kernels, sampling=False, **loss_kwargs):
    """In float64, whose formulas differ by roundings."""
    model.module.double()
    tensors = batch_of(model, adata)
    published = SimpleNamespace(module=copy.deepcopy(model.module))  # a MuData is not deep-copied
    losses, grads = step(published, tensors, **loss_kwargs)
    assert set(fused) <= {"standard_normal_fwd"}
    fused.clear()
    assert vf.integrations.scvi.patch(model, sampling=sampling) is model
    ours, ours_grads = step(model, tensors, **loss_kwargs)
    assert set(fused) == kernels
    assert_close(ours, losses, rtol=1e-12, atol=1e-12)
    largest = max(g.abs().max().item() for g in grads.values() if g is not None)
    assert largest > 0
    for name, want in grads.items():
        if want is None:
            assert ours_grads[name] is None or not ours_grads[name].any(), name
        else:
            assert_close(ours_grads[name], want, rtol=0.0, atol=1e-12 * largest)


@pytest.mark.parametrize("dispersion", ["gene", "gene-batch", "gene-label", "gene-cell"])
@pytest.mark.parametrize("likelihood", ["zinb", "nb", "poisson"])
def test_a_training_step(likelihood, dispersion, adata, fused, in_float64):
    model = model_of(SCVI, adata, gene_likelihood=likelihood, dispersion=dispersion)
    check_step(model, adata, fused, KERNELS[likelihood], kl_weight=0.3)


@pytest.mark.parametrize(
    ("setup", "options"),
    [
        ({}, {"use_observed_lib_size": False}),
        ({}, {"latent_distribution": "ln", "n_layers": 2}),
        ({"size_factor_key": "size"}, {}),
        ({}, {"batch_representation": "embedding", "encode_covariates": True}),
        ({"continuous_covariate_keys": ["size"]}, {}),
    ],
    ids=["library", "ln", "size factor", "embedding", "covariates"],
)
def test_forms_of_the_model(setup, options, adata, fused, in_float64):
    check_step(model_of(SCVI, adata, setup, **options), adata, fused, NEGATIVE_BINOMIAL)


@pytest.mark.parametrize("likelihood", ["zinb", "nb", "poisson"])
def test_a_linear_decoder(likelihood, adata, fused, in_float64):
    model = model_of(LinearSCVI, adata, gene_likelihood=likelihood)
    check_step(model, adata, fused, KERNELS[likelihood])


@pytest.mark.parametrize("dispersion", ["gene", "gene-batch", "gene-cell"])
@pytest.mark.parametrize("likelihood", ["zinb", "nb", "poisson"])
def test_labels(likelihood, dispersion, adata, fused, in_float64):
    """SCANVI's loss, with the classification of labelled data in it; "gene-label" fails there, published too."""
    model = model_of(SCANVI, adata, gene_likelihood=likelihood, dispersion=dispersion)
    labelled = batch_of(model, adata[adata.obs["label"] != "?"].copy())
    check_step(model, adata, fused, KERNELS[likelihood], labelled_tensors=labelled, classification_ratio=50)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (SCVI, {}),
        (SCVI, {"use_observed_lib_size": False}),
        (SCVI, {"latent_distribution": "ln"}),
        (LinearSCVI, {}),
        (SCANVI, {}),
    ],
    ids=["SCVI", "library", "ln", "LinearSCVI", "SCANVI"],
)
def test_sampling(kind, options, adata, fused, in_float64, same_noise):
    """Given the same ε, with our noise in the step too."""
    kernels = NEGATIVE_BINOMIAL | {"rsample_fwd", "rsample_bwd"}
    check_step(model_of(kind, adata, **options), adata, fused, kernels, sampling=True)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (SCVI, {"gene_likelihood": "zinb"}),
        (SCVI, {"gene_likelihood": "nb", "dispersion": "gene-cell"}),
        (SCVI, {"gene_likelihood": "poisson"}),
        (LinearSCVI, {}),
        (SCANVI, {"dispersion": "gene-batch"}),
    ],
    ids=["zinb", "nb", "poisson", "LinearSCVI", "SCANVI"],
)
def test_training(kind, options, adata, fused, monkeypatch):
    """Five epochs in float32 from the same seed: histories differ by roundings, 2e-7 where this was written."""
    histories = []
    for patched in (False, True):
        model = model_of(kind, adata, **options)
        if patched:
            vf.integrations.scvi.patch(model)
        monkeypatch.setattr(scvi.settings, "seed", 2)  # the split of the data hangs on it
        model.train(
            max_epochs=5,
            accelerator="cpu",
            batch_size=16,
            train_size=0.8,
            check_val_every_n_epoch=1,
            enable_progress_bar=False,
        )
        assert bool(fused) == patched
        histories.append(model.history)
    published, ours = histories
    assert list(ours) == list(published)
    for name in ("elbo_train", "elbo_validation", "reconstruction_loss_train", "kl_local_train"):
        assert len(ours[name]) == 5
        want = published[name].to_numpy(np.float64)
        assert np.isfinite(want).all()
        np.testing.assert_allclose(ours[name].to_numpy(np.float64), want, rtol=1e-5)


def test_compiled_training(adata, fused, monkeypatch):
    """By the training plan, which compiles the module and would fail where it cannot."""
    histories = []
    for compiled in (False, True):
        model = vf.integrations.scvi.patch(model_of(SCVI, adata))
        monkeypatch.setattr(scvi.settings, "seed", 2)
        plan = {"compile": compiled, "compile_kwargs": {"backend": "aot_eager"} if compiled else None}
        model.train(max_epochs=2, accelerator="cpu", train_size=1.0, enable_progress_bar=False, plan_kwargs=plan)
        histories.append(model.history["elbo_train"].to_numpy(np.float64))
    np.testing.assert_allclose(histories[1], histories[0], rtol=1e-5)


def asked(model, adata):
    """Whatever a model is asked for after its training, drawn from the same seed."""

    def call(function, **options):
        torch.manual_seed(3)
        np.random.seed(3)
        return function(**options)

    return {
        "elbo": call(model.get_elbo),
        "reconstruction": call(model.get_reconstruction_error)["reconstruction_loss"],
        "marginal": call(model.get_marginal_ll, n_mc_samples=6, n_mc_samples_per_pass=3),
        "latent": call(model.get_latent_representation, give_mean=False),
        "normalized": call(
            model.get_normalized_expression, n_samples=2, transform_batch=["first", "second"], return_numpy=True
        ),
        "rates": call(model.get_normalized_expression, library_size="latent", return_numpy=True),
        "sampled": call(model.posterior_predictive_sample, n_samples=2).todense(),
        "denoised": call(model.posterior_predictive_sample, batch_size=32).todense(),
        "parameters": call(model.get_likelihood_parameters),
    }


@pytest.mark.parametrize("likelihood", ["zinb", "nb"])
def test_what_a_model_is_asked(likelihood, adata, fused):
    """What has no likelihood in it is the same to the bit; the others are float32 sums of 12 terms."""
    model = model_of(SCVI, adata, gene_likelihood=likelihood)
    model.is_trained_ = True
    want = asked(model, adata)
    assert not fused
    got = asked(vf.integrations.scvi.patch(model), adata)
    assert list(got) == list(want)
    for name in ("elbo", "reconstruction", "marginal"):
        np.testing.assert_allclose(float(got.pop(name)), float(want.pop(name)), rtol=1e-6)
    parameters, parameters_want = got.pop("parameters"), want.pop("parameters")
    assert list(parameters) == list(parameters_want)
    for name, value in parameters.items():
        np.testing.assert_array_equal(value, parameters_want[name])
    for name, value in got.items():
        np.testing.assert_array_equal(value, want[name])


def test_differential_expression(adata, fused):
    model = model_of(SCVI, adata)
    model.is_trained_ = True
    tables = []
    for _ in range(2):
        torch.manual_seed(4)
        np.random.seed(4)
        tables.append(model.differential_expression(groupby="batch", silent=True))
        vf.integrations.scvi.patch(model)
    pd.testing.assert_frame_equal(*tables)
    step(model, batch_of(model, adata, torch.float32))


def test_copies_stay_patched(adata, fused):
    model = vf.integrations.scvi.patch(model_of(SCVI, adata), sampling=True)
    tensors = batch_of(model, adata, torch.float32)
    expected = step(model, tensors)
    for module in (copy.deepcopy(model.module), pickle.loads(pickle.dumps(model.module))):
        fused.clear()
        model.module = module
        assert_close(step(model, tensors), expected)
        assert set(fused) == NEGATIVE_BINOMIAL | {"rsample_fwd", "rsample_bwd"}
        assert module.loss.module is module and module.z_encoder.forward.encoder is module.z_encoder
    again = copy.deepcopy(model)
    assert again.module is not model.module and again.module.loss.module is again.module


def test_another_model_is_left_alone(adata):
    """Attributes of one module, not of its class; and nothing is added to what is saved."""
    model, other = model_of(SCVI, adata), model_of(SCVI, adata)
    before = list(model.module.state_dict())
    signature = inspect.signature(model.module.loss)
    vf.integrations.scvi.patch(model)
    assert list(model.module.state_dict()) == before and list(model.module.modules())
    assert inspect.signature(model.module.loss) == signature
    assert other.module.loss.__func__ is VAE.loss


def test_save_and_load(adata, fused, tmp_path):
    """What is loaded has the weights, and is to be patched again."""
    model = vf.integrations.scvi.patch(model_of(SCVI, adata))
    model.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False)
    model.save(tmp_path / "model")
    loaded = SCVI.load(tmp_path / "model", adata, accelerator="cpu")
    tensors = batch_of(model, adata, torch.float32)
    fused.clear()
    published = step(loaded, tensors)
    assert not fused
    assert_close(step(vf.integrations.scvi.patch(loaded), tensors), step(model, tensors), rtol=0.0, atol=0.0)
    assert_close(step(model, tensors)[0], published[0], rtol=1e-6, atol=0.0)


def test_labels_from_a_patched_model(adata, fused):
    """from_scvi_model makes another module, which is to be patched itself."""
    trained = vf.integrations.scvi.patch(model_of(SCVI, adata))
    trained.is_trained_ = True
    model = SCANVI.from_scvi_model(trained, labels_key="label", unlabeled_category="?")
    vf.integrations.scvi.patch(model).train(max_epochs=1, accelerator="cpu", enable_progress_bar=False)
    assert set(fused) == NEGATIVE_BINOMIAL
    assert len(model.predict()) == CELLS


def test_what_is_no_count(adata, fused, in_float64, monkeypatch):
    """The negative binomials go on by log Γ, as scvi's, but do not warn; Poisson's refuses, as scvi's.

    Unless distributions validate nothing by default, as after torch.compile.
    """
    monkeypatch.setattr(torch.distributions.Distribution, "_validate_args", True)
    model = model_of(SCVI, adata)
    model.module.double()
    tensors = batch_of(model, adata)
    tensors["X"] = torch.where(tensors["X"] > 0, tensors["X"] + 0.25, 0.0)
    want = step(copy.deepcopy(model), tensors)
    assert_close(step(vf.integrations.scvi.patch(model), tensors)[0], want[0], rtol=1e-12, atol=1e-12)
    poisson = vf.integrations.scvi.patch(model_of(SCVI, adata, gene_likelihood="poisson"))
    poisson.module.double()
    with pytest.raises(ValueError, match="within the support"):
        step(poisson, tensors)


def test_what_inherits_the_loss(adata, fused, in_float64):
    """A distribution that another ``generative`` makes is taken as it is."""

    class Module(VAE):
        def generative(self, *args, **kwargs):
            made = super().generative(*args, **kwargs)
            made["px"].theta = made["px"].theta + 0.5
            return made

    class Mine(SCVI):
        _module_cls = Module

    check_step(model_of(Mine, adata), adata, fused, NEGATIVE_BINOMIAL)


def beside_proteins(adata, **options):
    setup = {"protein_expression_obsm_key": "protein", "labels_key": None}
    return model_of(TOTALVI, adata, setup, empirical_protein_background_prior=False, **options)


def beside_peaks(adata, kind=MULTIVI, **options):
    genes_and_peaks = mudata.MuData({"rna": adata[:, :-4].copy(), "atac": adata[:, -4:].copy()})
    kind.setup_mudata(genes_and_peaks, modalities={"rna_layer": "rna", "atac_layer": "atac"})
    torch.manual_seed(0)
    return kind(genes_and_peaks, **SMALL, **options)


class TestSeveralModalities:
    """The genes' part of TOTALVI's loss and of MULTIVI's."""

    @pytest.mark.parametrize("dispersion", ["gene", "gene-batch"])  # "gene-label" fails there, published too
    @pytest.mark.parametrize("likelihood", ["zinb", "nb"])
    def test_beside_proteins(self, likelihood, dispersion, adata, fused, in_float64):
        model = beside_proteins(adata, gene_likelihood=likelihood, gene_dispersion=dispersion)
        check_step(model, adata, fused, NEGATIVE_BINOMIAL)

    @pytest.mark.parametrize("likelihood", ["zinb", "nb", "poisson"])
    def test_beside_peaks(self, likelihood, adata, fused, in_float64):
        model = beside_peaks(adata, gene_likelihood=likelihood)
        check_step(model, model.adata, fused, KERNELS[likelihood])

    @pytest.mark.parametrize("make", [beside_proteins, beside_peaks])
    def test_training(self, make, adata, fused, monkeypatch):
        """Five epochs in float32 from the same seed."""
        histories = []
        for patched in (False, True):
            model = make(adata)
            if patched:
                vf.integrations.scvi.patch(model)
            monkeypatch.setattr(scvi.settings, "seed", 2)
            scvi.settings.seed = 2
            options = {"accelerator": "cpu", "batch_size": 16, "train_size": 0.8, "check_val_every_n_epoch": 1}
            model.train(max_epochs=5, enable_progress_bar=False, **options)
            assert bool(fused) == patched
            histories.append(model.history)
        published, ours = histories
        for name in ("elbo_train", "elbo_validation", "reconstruction_loss_train"):
            want = published[name].to_numpy(np.float64)
            assert len(want) == 5 and np.isfinite(want).all()
            np.testing.assert_allclose(ours[name].to_numpy(np.float64), want, rtol=1e-4)

    @pytest.mark.parametrize("make", [beside_proteins, beside_peaks])
    def test_copies_stay_patched(self, make, adata):
        module = vf.integrations.scvi.patch(make(adata)).module
        names = [name for name in vars(module) if name.startswith("get_reconstruction_loss")]
        assert len(names) == 1
        for copied in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
            part = getattr(copied, names[0])
            assert part.module is copied
            assert inspect.signature(part) == inspect.signature(getattr(type(module), names[0]).__get__(module))

    @pytest.mark.parametrize("make", [beside_proteins, beside_peaks])
    def test_what_a_model_is_asked(self, make, adata, fused):
        published, patched = make(adata), vf.integrations.scvi.patch(make(adata))
        for model in (published, patched):
            model.is_trained_ = True
            model.module.eval()
        latent = [model.get_latent_representation(give_mean=True) for model in (published, patched)]
        np.testing.assert_array_equal(*latent)
        torch.manual_seed(1)
        want = published.get_reconstruction_error()
        torch.manual_seed(1)
        found = patched.get_reconstruction_error()
        assert fused
        for name, value in want.items():
            np.testing.assert_allclose(np.float64(found[name]), np.float64(value), rtol=1e-4)

    @pytest.mark.parametrize("make", [beside_proteins, beside_peaks])
    def test_save_and_load(self, make, adata, fused, tmp_path):
        """What is loaded has the weights, and is to be patched again."""
        model = vf.integrations.scvi.patch(make(adata))
        model.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False)
        model.save(tmp_path / "model")
        loaded = type(model).load(tmp_path / "model", model.adata, accelerator="cpu")
        tensors = batch_of(model, model.adata, torch.float32)
        fused.clear()
        published = step(loaded, tensors)
        assert not fused
        assert_close(step(vf.integrations.scvi.patch(loaded), tensors), step(model, tensors), rtol=0.0, atol=0.0)
        assert fused
        assert_close(step(model, tensors)[0], published[0], rtol=1e-6, atol=0.0)

    def test_proteins_not_measured_in_a_batch(self, adata, fused):
        """They are masked out of the loss by scvi's own part, in float32: it has no other dtype for them."""
        adata = adata.copy()
        adata.obsm["protein"] = np.where(adata.obs[["batch"]] == "first", [[0, 0, 1, 1]], 1) * adata.obsm["protein"]
        model = beside_proteins(adata)
        assert model.module.protein_batch_mask is not None
        tensors = batch_of(model, adata, torch.float32)
        losses, grads = step(SimpleNamespace(module=copy.deepcopy(model.module)), tensors)
        assert not fused
        ours, ours_grads = step(vf.integrations.scvi.patch(model), tensors)
        assert set(fused) == NEGATIVE_BINOMIAL
        assert_close(ours, losses, rtol=1e-5, atol=0.0)
        largest = max(g.abs().max().item() for g in grads.values() if g is not None)
        for name, want in grads.items():
            assert_close(ours_grads[name], want, rtol=0.0, atol=1e-4 * largest)

    def test_a_part_of_one_s_own(self, adata):
        class Module(MULTIVI._module_cls):
            def get_reconstruction_loss_expression(self, *args):
                return super().get_reconstruction_loss_expression(*args)

        class Mine(MULTIVI):
            _module_cls = Module

        with pytest.raises(TypeError, match="Mine has a loss of its own"):
            vf.integrations.scvi.patch(beside_peaks(adata, Mine))


class TestRefusals:
    def other(self, kind, adata):
        kind.setup_anndata(adata)
        return kind(adata)

    @pytest.mark.parametrize("kind", [PEAKVI, AUTOZI])
    def test_models_with_a_loss_of_their_own(self, kind, adata):
        model = self.other(kind, adata)
        before = dict(vars(model.module))
        with pytest.raises(TypeError, match=f"{kind.__name__} has a loss of its own.*SCVI, LinearSCVI, SCANVI"):
            vf.integrations.scvi.patch(model)
        assert list(vars(model.module)) == list(before)

    def test_a_loss_of_one_s_own(self, adata):
        class Module(VAE):
            def loss(self, *args, **kwargs):
                return super().loss(*args, **kwargs)

        class Mine(SCVI):
            _module_cls = Module

        with pytest.raises(TypeError, match="Mine has a loss of its own"):
            vf.integrations.scvi.patch(model_of(Mine, adata))

    def test_a_likelihood(self, adata):
        with pytest.raises(ValueError, match='gene_likelihood is "normal".*zinb, nb, poisson'):
            vf.integrations.scvi.patch(model_of(SCVI, adata, gene_likelihood="normal"))

    def test_a_model_without_a_module(self):
        with pytest.raises(ValueError, match="SCVI has no module yet"):
            vf.integrations.scvi.patch(SCVI())

    def test_what_is_no_model(self):
        with pytest.raises(TypeError, match="Linear has a loss of its own"):
            vf.integrations.scvi.patch(torch.nn.Linear(2, 2))


def test_the_benchmark(capsys, monkeypatch):
    """Its rows, of one short step, one call and one epoch: both models arrive at the same ELBO."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))
    benchmark, terms = (importlib.import_module(f"benchmarks.{name}") for name in ("scvi", "count_terms"))
    monkeypatch.setattr(benchmark, "TRAINED", (256, 40))
    monkeypatch.setattr(terms, "SHAPE", (64, 40))
    monkeypatch.setattr(scvi.settings, "seed", 0)  # the benchmark sets it
    arguments = "--genes 40 --likelihood zinb nb --steps 1 --terms 1 --epochs 1 --trainings 1"
    assert benchmark.main(arguments.split()) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if {"zinb", "nb"} & set(line.split())]
    of_models = [row for row in rows if any(word.endswith("%") for word in row)]
    of_terms = [row for row in rows if row not in of_models]
    assert len(of_models) == 4
    for row in of_models:
        assert float(row[-1]) < 0
        np.testing.assert_allclose(float(row[-1]), float(row[-2]), rtol=1e-4)
    assert [row[0] for row in of_terms] == ["zinb", "nb"]
    for row in of_terms:
        assert len(row) == 11
        assert min(map(float, row[1:])) > 0
