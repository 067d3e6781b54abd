"""pythae's models with patch: a training step both ways on the same noise, and what its trainers do."""

import copy
import pickle

import pytest
import torch
from pythae import models, trainers
from pythae.data.datasets import BaseDataset, DatasetOutput
from pythae.models import IWAE, VAE, VAEGAN, AutoModel, BetaVAE, BetaVAEConfig, VAEConfig
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from torch.testing import assert_close

import vae_fast as vf

KERNELS = {"rsample_kl_fwd", "rsample_kl_bwd"}
BERNOULLI = {"bernoulli_log_prob_fwd", "bernoulli_log_prob_bwd"}
KL = {"gaussian_kl_fwd", "gaussian_kl_bwd"}
NOISE = {"standard_normal_fwd"}

# (class, its options, what the trainer passes to forward)
CASES = [
    ("IWAE", {"number_samples": 4}, {}),
    ("IWAE", {"number_samples": 1}, {}),
    ("MIWAE", {"number_gradient_estimates": 2, "number_samples": 3}, {}),
    ("MIWAE", {"number_gradient_estimates": 3, "number_samples": 1}, {}),
    ("MIWAE", {"number_gradient_estimates": 1, "number_samples": 4}, {}),
    ("PIWAE", {"number_gradient_estimates": 2, "number_samples": 3}, {}),
    ("PIWAE", {"number_gradient_estimates": 1, "number_samples": 4}, {}),
    ("CIWAE", {"number_samples": 4, "beta": 0.3}, {}),
    ("CIWAE", {"number_samples": 3, "beta": 0.0}, {}),
    ("CIWAE", {"number_samples": 3, "beta": 1.0}, {}),
    ("VAMP", {"number_components": 7}, {}),
    ("VAMP", {"number_components": 7, "linear_scheduling_steps": 10}, {"epoch": 3}),
    ("BetaTCVAE", {"use_mss": True, "alpha": 1.5, "beta": 6.0, "gamma": 0.5}, {"dataset_size": 40}),
    ("BetaTCVAE", {"use_mss": False, "alpha": 1.5, "beta": 6.0, "gamma": 0.5}, {"dataset_size": 40}),
    ("BetaTCVAE", {}, {}),
    ("DisentangledBetaVAE", {"beta": 4.0, "C": 5.0, "warmup_epoch": 10}, {"epoch": 3}),
    ("DisentangledBetaVAE", {"beta": 4.0, "C": 0.01, "warmup_epoch": 0}, {"epoch": 3}),
    ("DisentangledBetaVAE", {}, {}),
    ("INFOVAE_MMD", {}, {}),
    ("INFOVAE_MMD", {"kernel_choice": "rbf", "alpha": 0.4, "lbd": 2.0, "kernel_bandwidth": 0.7}, {}),
    ("INFOVAE_MMD", {"kernel_choice": "imq", "alpha": -1.5, "lbd": 0.2, "scales": None}, {}),
    ("VAEGAN", {}, {}),
    ("VAEGAN", {"adversarial_loss_scale": 0.2, "reconstruction_layer": 1, "equilibrium": 0.3, "margin": 0.1}, {}),
    ("WAE_MMD", {}, {}),
    ("WAE_MMD", {"kernel_choice": "rbf", "reg_weight": 2.0, "reconstruction_loss_scale": 0.3}, {}),
]
MIXTURE = {"gaussian_mixture_log_prob_fwd", "gaussian_mixture_log_prob_bwd"}
# The kernels of a model beside those that most have.
OTHERS = {
    "VAMP": MIXTURE,
    "BetaTCVAE": MIXTURE | {"gaussian_log_prob_fwd", "gaussian_log_prob_bwd"},
    "INFOVAE_MMD": {"mmd_fwd"},
    "WAE_MMD": {"mmd_fwd"},
}
WITHOUT_KL = {"IWAE", "MIWAE", "PIWAE", "CIWAE", "VAMP", "BetaTCVAE", "WAE_MMD"}
WITHOUT_BERNOULLI = {"VAEGAN", "WAE_MMD"}
# Those that pythae trains by several optimizers, each from a loss of its own.
TRAINERS = {"PIWAE": "CoupledOptimizer", "VAEGAN": "CoupledOptimizerAdversarial"}


def model_of(kind, reconstruction_loss="mse"):
    """Always the same weights."""
    torch.manual_seed(0)
    options = {"input_dim": (1, 6, 6), "latent_dim": 3, "reconstruction_loss": reconstruction_loss}
    return BetaVAE(BetaVAEConfig(beta=4.0, **options)) if kind == "BetaVAE" else VAE(VAEConfig(**options))


@pytest.fixture(params=["VAE", "BetaVAE"])
def kind(request):
    return request.param


@pytest.fixture
def same_noise(monkeypatch):
    """pythae draws the noise that the patched model draws: both from PyTorch's generator."""

    def randn_like(t, device=None):
        return vf.standard_normal(t.shape, seed=torch.randint(2**63 - 1, ()), dtype=t.dtype)

    monkeypatch.setattr(torch, "randn_like", randn_like)


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request):
    """PyTorch's default, of which pythae makes constants as well as weights."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(request.param)
    yield request.param
    torch.set_default_dtype(before)


def step(model, x):
    """The outputs of a training step, and the gradient of every parameter."""
    torch.manual_seed(1)
    out = model(DatasetOutput(data=x))
    model.zero_grad()
    out.loss.backward()
    values = [getattr(out, name).detach() for name in ("loss", "recon_loss", "reg_loss", "recon_x", "z")]
    return values, [p.grad for p in model.parameters()]


@pytest.mark.parametrize("reconstruction_loss", ["mse", "bce"])
def test_a_training_step(kind, reconstruction_loss, fused, same_noise):
    """In float64, whose formulas differ by roundings."""
    model, x = model_of(kind, reconstruction_loss).double(), torch.rand(5, 1, 6, 6, dtype=torch.float64)
    values, grads = step(copy.deepcopy(model), x)
    assert set(fused) == {"standard_normal_fwd"}
    fused.clear()
    patched = vf.integrations.pythae.patch(model)
    assert patched is model
    ours, ours_grads = step(model, x)
    assert set(fused) == KERNELS | (BERNOULLI if reconstruction_loss == "bce" else set())
    assert values[0].ndim == values[1].ndim == values[2].ndim == 0
    assert_close(ours, values, rtol=1e-12, atol=1e-12)
    for got, want in zip(ours_grads, grads, strict=True):
        assert_close(got, want, rtol=0.0, atol=1e-12 * want.abs().max().item())


def test_the_sample_and_its_noise(fused):
    """_sample_gauss returns both, as pythae's does."""
    model = vf.integrations.pythae.patch(model_of("VAE"))
    mu, std = torch.randn(4, 3, dtype=torch.float64), torch.rand(4, 3, dtype=torch.float64)
    z, eps = model._sample_gauss(mu, std)
    assert_close(z, mu + std * eps, rtol=1e-15, atol=1e-15)
    assert not torch.equal(eps, model._sample_gauss(mu, std)[1])
    torch.manual_seed(3)
    first = model._sample_gauss(mu, std)[0]
    torch.manual_seed(3)
    assert torch.equal(model._sample_gauss(mu, std)[0], first)


def test_beta_may_change(fused, same_noise):
    """A β that is warmed up is the model's own, also that of a copy."""
    model, x = vf.integrations.pythae.patch(model_of("BetaVAE")), torch.rand(5, 1, 6, 6)
    copied = copy.deepcopy(model)
    loss, reconstruction, kl = step(model, x)[0][:3]
    assert_close(loss, reconstruction + 4.0 * kl)
    copied.beta = 0.5
    loss, reconstruction, kl = step(copied, x)[0][:3]
    assert_close(loss, reconstruction + 0.5 * kl)
    assert_close(step(model, x)[0][0], reconstruction + 4.0 * kl)


def test_copies_stay_patched(kind, fused):
    model, x = vf.integrations.pythae.patch(model_of(kind)), torch.rand(5, 1, 6, 6)
    expected = step(model, x)
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        fused.clear()
        assert_close(step(again, x), expected)
        assert set(fused) >= KERNELS
        assert again.loss_function.model is again and again.forward.model is again


def test_nothing_is_added_to_the_state(kind):
    model = model_of(kind)
    before = list(model.state_dict())
    vf.integrations.pythae.patch(model)
    assert list(model.state_dict()) == before and list(model.modules())


def test_trainer_and_save(kind, fused, tmp_path):
    """pythae's trainer trains, copies and saves a patched model; what is loaded is to be patched again."""
    torch.use_deterministic_algorithms(False)
    model = vf.integrations.pythae.patch(model_of(kind))
    data = BaseDataset(torch.rand(32, 1, 6, 6), torch.zeros(32))
    config = BaseTrainerConfig(
        output_dir=str(tmp_path), num_epochs=3, learning_rate=1e-2, per_device_train_batch_size=16, no_cuda=True
    )
    before = [p.detach().clone() for p in model.parameters()]
    trainer = BaseTrainer(model, data, training_config=config)
    trainer.train()
    assert fused.count("rsample_kl_bwd") == 6
    assert all(not torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
    (saved,) = tmp_path.glob("*_training_*/final_model")
    loaded = AutoModel.load_from_folder(str(saved))
    assert type(loaded) is type(model)
    fused.clear()
    x = torch.rand(5, 1, 6, 6)
    step(vf.integrations.pythae.patch(loaded), x)
    assert set(fused) >= KERNELS


def test_what_inherits_the_loss(fused):
    """A forward pass of its own is kept, and finds the model's loss and sampling patched."""

    class Mine(BetaVAE):
        def forward(self, inputs, **kwargs):
            self.called = True
            return super().forward(inputs, **kwargs)

    torch.manual_seed(0)
    mine = Mine(BetaVAEConfig(input_dim=(1, 6, 6), latent_dim=3, beta=4.0))
    x = torch.rand(5, 1, 6, 6)
    expected = step(vf.integrations.pythae.patch(model_of("BetaVAE")), x)
    fused.clear()
    assert_close(step(vf.integrations.pythae.patch(mine), x), expected)
    assert mine.called
    assert set(fused) == KL | NOISE


def test_a_sample_of_its_own_is_kept(fused):
    """Also where the model has pythae's forward pass, which a fused one would replace."""

    class Mine(VAE):
        def _sample_gauss(self, mu, std):
            return mu, torch.zeros_like(mu)

    torch.manual_seed(0)
    mine = Mine(VAEConfig(input_dim=(1, 6, 6), latent_dim=3))
    x = torch.rand(5, 1, 6, 6)
    expected = step(copy.deepcopy(mine), x)
    values, grads = step(vf.integrations.pythae.patch(mine), x)
    assert torch.equal(values[4], expected[0][4])
    assert_close((values, grads), expected)
    assert set(fused) == KL


def made(name, reconstruction_loss="mse", **options):
    """A model of any kind, always with the same weights. Its KL is far from 0."""
    torch.manual_seed(0)
    config = getattr(models, f"{name}_Config" if name.endswith("MMD") else f"{name}Config")
    if name != "WAE_MMD":
        options["reconstruction_loss"] = reconstruction_loss
    model = getattr(models, name)(config(input_dim=(1, 6, 6), latent_dim=3, **options))
    with torch.no_grad():
        for p in model.encoder.parameters():
            p.mul_(3.0)
    return model


def outputs(model, x, **kwargs):
    """All that forward returns, and the gradient of each loss by every parameter that has one."""
    torch.manual_seed(1)
    out = model(DatasetOutput(data=x), **kwargs)
    params = dict(model.named_parameters())
    grads = {}
    for name in out:
        if name.endswith("loss") and out[name].requires_grad:
            got = torch.autograd.grad(out[name].sum(), params.values(), retain_graph=True, allow_unused=True)
            grads |= {(name, p): grad for p, grad in zip(params, got, strict=True) if grad is not None}
    return dict(out), grads


def both_ways(model, x, fused, **kwargs):
    """Checks that every output of forward, and every gradient of every loss in it, stay what they are unpatched.

    To a few roundings of the largest, in float32 of pythae's own, whose KL cancels. Returns the kernels that ran.
    """
    values, grads = outputs(copy.deepcopy(model), x, **kwargs)
    assert set(fused) == NOISE
    fused.clear()
    state = list(model.state_dict())
    assert vf.integrations.pythae.patch(model) is model
    assert list(model.state_dict()) == state
    ours, ours_grads = outputs(model, x, **kwargs)
    tolerance = {torch.float32: 1e-5, torch.float64: 1e-12}[x.dtype]
    assert list(ours) == list(values) and {"loss", "recon_loss", "recon_x", "z"} <= set(ours)
    for field, want in values.items():
        if torch.is_tensor(want):
            assert_close(ours[field], want, rtol=0.0, atol=tolerance * want.abs().max().item())
        else:
            assert ours[field] is want
    assert list(ours_grads) == list(grads)
    for key, want in grads.items():
        largest = max(grad.abs().max().item() for (loss, _), grad in grads.items() if loss == key[0])
        assert_close(ours_grads[key], want, rtol=0.0, atol=tolerance * largest)
    return set(fused)


@pytest.mark.parametrize("reconstruction_loss", ["mse", "bce"])
@pytest.mark.parametrize("name, options, kwargs", CASES)
def test_the_same_model(name, options, kwargs, reconstruction_loss, dtype, fused, same_noise):
    model, x = made(name, reconstruction_loss, **options), torch.rand(5, 1, 6, 6)
    kl = set() if name in WITHOUT_KL else KL
    bernoulli = BERNOULLI if reconstruction_loss == "bce" and name not in WITHOUT_BERNOULLI else set()
    assert both_ways(model, x, fused, **kwargs) == NOISE | kl | bernoulli | OTHERS.get(name, set())


@pytest.mark.parametrize("reconstruction_loss", ["mse", "bce"])
def test_the_same_model_in_eval_mode(reconstruction_loss, dtype, fused, same_noise):
    """Where it differs from train mode: in VAMP's warm-up."""
    model, x = made("VAMP", reconstruction_loss, linear_scheduling_steps=10), torch.rand(5, 1, 6, 6)
    training = outputs(model.train(), x, epoch=3)[0]["loss"]
    assert abs(training - outputs(model.eval(), x, epoch=3)[0]["loss"]) > 0.1
    both_ways(model, x, fused, epoch=3)


@pytest.mark.parametrize("name", ["IWAE", "MIWAE", "PIWAE", "CIWAE"])
def test_x_is_not_repeated(name, fused, monkeypatch):
    """The kernel gets x itself, once, however many samples there are."""
    model, x = vf.integrations.pythae.patch(made(name, "bce")), torch.rand(5, 1, 6, 6)
    samples = (5, 10) if name in ("MIWAE", "PIWAE") else (10,)
    mu, log_var, z = torch.randn(3, 5, *samples, 3).unbind()
    recon_x, given = torch.rand(5, *samples, 36), []

    def bernoulli_log_prob(p, x, **options):
        given.append((p.data_ptr(), x.numel(), x.data_ptr()))
        return vf.bernoulli_log_prob(p, x, **options)

    monkeypatch.setattr(vf.integrations.pythae, "bernoulli_log_prob", bernoulli_log_prob)
    monkeypatch.setattr(torch.Tensor, "repeat", None)
    model.loss_function(recon_x, x, mu, log_var, z)
    assert given == [(recon_x.data_ptr(), x.numel(), x.data_ptr())]


@pytest.mark.parametrize("name", sorted({case[0] for case in CASES} - {"VAEGAN"}))
def test_compiled(name, same_noise):
    """A patched loss is one graph where pythae's own is; VAEGAN's asks for values."""
    model, x = vf.integrations.pythae.patch(made(name, "bce")), torch.rand(5, 1, 6, 6)
    given, loss_function = [], model.loss_function
    model.loss_function = lambda *args: given.extend(args) or loss_function(*args)
    with vf.use_backend("native"):
        with torch.no_grad():
            model(DatasetOutput(data=x))
        torch.compiler.reset()
        compiled = torch.compile(lambda *args: loss_function(*args), backend="eager", fullgraph=True)
        assert_close(compiled(*given), loss_function(*given))


@pytest.mark.parametrize("name", sorted({case[0] for case in CASES}))
def test_copies_of_any_kind_stay_patched(name, fused):
    model, x = vf.integrations.pythae.patch(made(name, "bce")), torch.rand(5, 1, 6, 6)

    def losses(model):
        torch.manual_seed(1)
        return {field: value for field, value in model(DatasetOutput(data=x)).items() if field.endswith("loss")}

    expected, kernels = losses(model), set(fused)
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        fused.clear()
        assert_close(losses(again), expected)
        assert again.loss_function.model is again and set(fused) == kernels


@pytest.mark.parametrize("name", ["WAE_MMD", "INFOVAE_MMD", "BetaTCVAE"])
def test_methods_of_its_own_for_its_terms_are_called(name, fused, same_noise):
    """A kernel of its own, or a density, is the one that its loss has."""
    own = "_compute_log_gauss_density" if name == "BetaTCVAE" else "imq_kernel"

    def method(self, *args):
        self.called = True
        return 2 * getattr(getattr(models, name), own)(self, *args)

    cls = type("Mine", (getattr(models, name),), {own: method})
    torch.manual_seed(0)
    config = getattr(models, f"{name}_Config" if name.endswith("MMD") else f"{name}Config")
    model, x = cls(config(input_dim=(1, 6, 6), latent_dim=3)), torch.rand(5, 1, 6, 6)
    expected = outputs(copy.deepcopy(model), x)[0]["loss"]
    patched = vf.integrations.pythae.patch(model)
    assert_close(outputs(patched, x)[0]["loss"], expected)
    assert patched.called and set(fused) == NOISE


@pytest.mark.parametrize("name", ["WAE_MMD", "INFOVAE_MMD"])
def test_one_datum_has_no_discrepancy(name):
    model, x = made(name), torch.rand(1, 1, 6, 6)
    assert outputs(vf.integrations.pythae.patch(model), x)[0]["mmd_loss"].isnan()


@pytest.mark.parametrize(
    "name", ["IWAE", "PIWAE", "VAMP", "BetaTCVAE", "DisentangledBetaVAE", "INFOVAE_MMD", "WAE_MMD", "VAEGAN"]
)
def test_trained_by_its_trainer(name, fused, same_noise, tmp_path):
    """A short training ends where pythae's own does, and is saved and loaded as pythae's is."""
    torch.use_deterministic_algorithms(False)
    kind = TRAINERS.get(name, "Base")
    roles = {"Base": [""], "CoupledOptimizer": ["encoder_", "decoder_"]}
    roles["CoupledOptimizerAdversarial"] = [*roles["CoupledOptimizer"], "discriminator_"]
    options = {f"{role}optimizer_cls": "SGD" for role in roles[kind]}
    options |= {f"{role}learning_rate": 1e-3 for role in roles[kind]}
    data, held_out = (BaseDataset(torch.rand(n, 1, 6, 6), torch.zeros(n)) for n in (32, 16))
    start, ends = made(name, "bce"), []
    for patch, folder in ((lambda model: model, "own"), (vf.integrations.pythae.patch, "patched")):
        model = patch(copy.deepcopy(start))
        config = getattr(trainers, f"{kind}TrainerConfig")(
            output_dir=str(tmp_path / folder),
            num_epochs=3,
            per_device_train_batch_size=16,
            per_device_eval_batch_size=16,
            no_cuda=True,
            **options,
        )
        fused.clear()
        getattr(trainers, f"{kind}Trainer")(model, data, held_out, training_config=config).train()
        (saved,) = (tmp_path / folder).glob("*_training_*/final_model")
        ends.append((model.state_dict(), AutoModel.load_from_folder(str(saved)), saved))
    assert set(fused) - NOISE, "the kernels of the loss, beside the noise, of the patched model"
    (own, _, own_saved), (patched, loaded, saved) = ends
    assert {p.name for p in saved.iterdir()} == {p.name for p in own_saved.iterdir()}
    assert any((own[key] - value).abs().max() > 1e-4 for key, value in start.state_dict().items())
    for key, want in own.items():
        assert_close(patched[key], want, rtol=1e-4, atol=1e-5)
    assert type(loaded) is type(start) and "loss_function" not in vars(loaded)
    x = torch.rand(5, 1, 6, 6)
    values = outputs(vf.integrations.pythae.patch(loaded), x)[0]
    assert values["loss"].isfinite()


def test_what_inherits_any_loss(fused):
    """It is told by the loss that it inherits; its own methods are called from it."""

    class Mine(VAEGAN):
        pass

    class Other(models.VAMP):
        def _log_p_z(self, z):
            self.called = True
            return super()._log_p_z(z)

    torch.manual_seed(0)
    x = torch.rand(5, 1, 6, 6)
    mine = vf.integrations.pythae.patch(Mine(models.VAEGANConfig(input_dim=(1, 6, 6), latent_dim=3)))
    outputs(mine, x)
    assert set(fused) == KL | NOISE
    fused.clear()
    config = models.VAMPConfig(input_dim=(1, 6, 6), latent_dim=3, reconstruction_loss="bce")
    other = vf.integrations.pythae.patch(Other(config))
    outputs(other, x)
    assert other.called and set(fused) == BERNOULLI | NOISE


SERVED = {"VAE", "BetaVAE"} | {case[0] for case in CASES}


@pytest.mark.parametrize(
    "name", sorted({n for n in models.__all__ if not n.endswith("onfig")} - SERVED - {"AutoModel", "BaseAE"})
)
def test_other_losses_are_refused(name):
    """Every other class of pythae's, by its name; nothing of it is touched."""
    cls = getattr(models, name)
    model = cls.__new__(cls)
    torch.nn.Module.__init__(model)
    before = dict(vars(model))
    with pytest.raises(TypeError, match=f"{name} has a loss of its own: patch is for pythae's VAE, .*VAEGAN"):
        vf.integrations.pythae.patch(model)
    assert vars(model) == before


def test_what_overrides_a_loss_is_refused():
    class Mine(IWAE):
        def loss_function(self, recon_x, x, mu, log_var, z):
            return super().loss_function(recon_x, x, mu, log_var, z)

    for model in (Mine(models.IWAEConfig(input_dim=(1, 6, 6), latent_dim=3)), torch.nn.Linear(2, 2)):
        with pytest.raises(TypeError, match=f"{type(model).__name__} has a loss of its own"):
            vf.integrations.pythae.patch(model)
        assert "loss_function" not in vars(model)
