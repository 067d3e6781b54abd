"""pythae's VAE and BetaVAE with patch: a training step both ways on the same noise, and what its trainer does."""

import copy
import pickle

import pytest
import torch
from pythae.data.datasets import BaseDataset, DatasetOutput
from pythae.models import IWAE, VAE, AutoModel, BetaVAE, BetaVAEConfig, DisentangledBetaVAE, IWAEConfig, VAEConfig
from pythae.models.disentangled_beta_vae import DisentangledBetaVAEConfig
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from torch.testing import assert_close

import vae_fast as vf

KERNELS = {"rsample_kl_fwd", "rsample_kl_bwd"}


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

    def randn_like(t):
        return vf.standard_normal(t.shape, seed=torch.randint(2**63 - 1, ()), dtype=t.dtype)

    monkeypatch.setattr(torch, "randn_like", randn_like)


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
    bernoulli = {"bernoulli_log_prob_fwd", "bernoulli_log_prob_bwd"} if reconstruction_loss == "bce" else set()
    assert set(fused) == KERNELS | bernoulli
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
    kernels = {f"{op}_{way}" for op in ("rsample", "gaussian_kl") for way in ("fwd", "bwd")}
    assert set(fused) == kernels | {"standard_normal_fwd"}


def test_other_losses_are_refused():
    for cls, config in ((IWAE, IWAEConfig), (DisentangledBetaVAE, DisentangledBetaVAEConfig)):
        model = cls(config(input_dim=(1, 6, 6), latent_dim=3))
        with pytest.raises(TypeError, match=f"{cls.__name__} has a loss of its own"):
            vf.integrations.pythae.patch(model)
        assert "loss_function" not in vars(model)
    with pytest.raises(TypeError, match="Linear has a loss of its own"):
        vf.integrations.pythae.patch(torch.nn.Linear(2, 2))
