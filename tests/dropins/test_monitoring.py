"""The KL of each latent and the active units, against their formulas in float64."""

import pytest
import torch

import vae_fast as vf
from helpers.marks import each_backend

pytestmark = each_backend

PARAMS = {
    "logvar": lambda r: torch.exp(r),
    "std": lambda r: r**2,
    "softplus": lambda r: torch.log1p(torch.exp(r)) ** 2,
}
# A mean of positive terms that are each within 3 ULP, summed in float32 in a tree: 1e-7·(1 + log₂ n) for n = 1000.
CLOSE = {"rtol": 1.2e-6, "atol": 0.0}


def draw(*shape):
    return torch.randn(shape), torch.randn(shape)


class TestKLPerDim:
    @pytest.mark.parametrize("param", PARAMS)
    def test_formula(self, param):
        mu, raw = torch.randn(1000, 7), torch.rand(1000, 7) + 0.1
        variance = PARAMS[param](raw.double())
        truth = 0.5 * (mu.double() ** 2 + variance - 1 - variance.log()).mean(0)
        torch.testing.assert_close(vf.kl_per_dim(mu, raw, param=param), truth.float(), **CLOSE)

    def test_prior(self):
        mu, logvar = draw(1000, 7)
        prior_mu, prior_logvar = draw(7)
        q = torch.distributions.Normal(mu.double(), (logvar.double() / 2).exp())
        p = torch.distributions.Normal(prior_mu.double(), (prior_logvar.double() / 2).exp())
        truth = torch.distributions.kl_divergence(q, p).mean(0).float()
        ours = vf.kl_per_dim(mu, logvar, prior_mu=prior_mu, prior_logvar=prior_logvar)
        torch.testing.assert_close(ours, truth, **CLOSE)

    def test_latents_and_data_of_any_number_of_dims(self):
        mu, logvar = draw(4, 5, 3, 2)
        for event_ndim in range(5):
            each = vf.gaussian_kl(mu, logvar, event_ndim=0)
            expected = each.double().mean(tuple(range(4 - event_ndim))).float() if event_ndim < 4 else each
            ours = vf.kl_per_dim(mu, logvar, event_ndim=event_ndim)
            assert ours.shape == mu.shape[4 - event_ndim :]
            torch.testing.assert_close(ours, expected, **CLOSE)

    def test_they_add_up_to_the_kl(self):
        mu, logvar = draw(1000, 20)
        torch.testing.assert_close(vf.kl_per_dim(mu, logvar).sum(), vf.gaussian_kl(mu, logvar).mean(), **CLOSE)

    def test_broadcast(self):
        mu, logvar = draw(1000, 3)
        torch.testing.assert_close(vf.kl_per_dim(mu, -1.0), vf.kl_per_dim(mu, torch.full_like(mu, -1.0)))
        torch.testing.assert_close(vf.kl_per_dim(mu, logvar[0]), vf.kl_per_dim(mu, logvar[0].expand_as(mu)))

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
    def test_dtypes_and_no_graph(self, dtype):
        mu, logvar = (t.to(dtype).requires_grad_() for t in draw(1000, 3))
        ours = vf.kl_per_dim(mu, logvar)
        assert ours.dtype == (dtype if dtype == torch.float64 else torch.float32) and not ours.requires_grad
        torch.testing.assert_close(ours, vf.kl_per_dim(mu.double(), logvar.double()).to(ours.dtype), **CLOSE)

    def test_event_ndim_too_large(self):
        with pytest.raises(ValueError, match="event_ndim=3"):
            vf.kl_per_dim(*draw(4, 3), event_ndim=3)


class TestActiveUnits:
    def test_variance(self):
        """A mean far from 0 does not cost the variance its digits."""
        mu = torch.randn(1000, 5) * torch.tensor([0.0, 0.05, 0.3, 1.0, 10.0]) + 1000.0
        number, mask, variance = vf.active_units(mu)
        # Two passes, or Welford's: the rounding of x − mean, relative to the spread, is what is left.
        torch.testing.assert_close(variance.double(), mu.double().var(0), rtol=1e-5, atol=1e-12)
        assert mask.tolist() == [False, False, True, True, True] and number == 3

    def test_threshold(self):
        mu = torch.tensor([[0.0, 0.0], [0.2, 0.1]])  # variances 0.02 and 0.005
        assert vf.active_units(mu).mask.tolist() == [True, False]
        assert vf.active_units(mu, threshold=0.004).number == 2 and vf.active_units(mu, threshold=0.03).number == 0

    def test_latents_and_data_of_any_number_of_dims(self):
        mu = torch.randn(4, 5, 3, 2)
        torch.testing.assert_close(vf.active_units(mu, event_ndim=2).variance, mu.flatten(0, 1).var(0))
        torch.testing.assert_close(vf.active_units(mu, event_ndim=3).variance, mu.var(0))
        assert vf.active_units(mu[0, 0, 0], event_ndim=0).number.shape == ()

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
    def test_dtypes_and_no_graph(self, dtype):
        mu = torch.randn(100, 3).to(dtype).requires_grad_()
        variance = vf.active_units(mu).variance
        assert variance.dtype == (dtype if dtype == torch.float64 else torch.float32)
        assert not variance.requires_grad
        torch.testing.assert_close(variance, mu.detach().double().var(0).to(variance.dtype))

    def test_few_data(self):
        number, mask, variance = vf.active_units(torch.randn(1, 3))
        assert number == 0 and not mask.any() and not variance.any()
        with pytest.raises(ValueError, match="holds no data"):
            vf.active_units(torch.randn(0, 3))
        with pytest.raises(TypeError, match="floating"):
            vf.active_units(torch.zeros(4, 3, dtype=torch.int64))
        with pytest.raises(ValueError, match="event_ndim=3"):
            vf.active_units(torch.randn(4, 3), event_ndim=3)
