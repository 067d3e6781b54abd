"""gaussian_entropy: against PyTorch's, in every parametrisation."""

import pytest
import torch
from torch.distributions import Normal
from torch.testing import assert_close

import vae_fast as vf
from helpers.behaviour import with_grads

# σ by each parameter, eps added where it is said to be.
SIGMAS = {
    "logvar": lambda r, eps: torch.exp(0.5 * r) + eps,
    "logstd": lambda r, eps: torch.exp(r) + eps,
    "std": lambda r, eps: r + eps,
    "var": lambda r, eps: torch.sqrt(r + eps),
    "softplus": lambda r, eps: torch.nn.functional.softplus(r) + eps,
}


@pytest.mark.parametrize("eps", [0.0, 0.1])
@pytest.mark.parametrize("param", SIGMAS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_like_torch(dtype, param, eps):
    raw = (torch.rand(5, 2, 3, dtype=torch.float64) + 0.2).to(dtype)

    def theirs(raw):
        sigma = SIGMAS[param](raw.to(torch.promote_types(dtype, torch.float32)), eps)
        return Normal(0.0, sigma).entropy().sum(-1)

    got = with_grads(lambda raw: vf.gaussian_entropy(raw, param=param, param_eps=eps), raw)
    for ours, want in zip(got, with_grads(theirs, raw), strict=True):
        assert_close(ours, want)


def test_options():
    raw = torch.randn(4, 3, 2, dtype=torch.float64)
    each = vf.gaussian_entropy(raw, event_ndim=0)
    assert each.shape == raw.shape
    assert_close(vf.gaussian_entropy(raw, event_ndim=2), each.sum((1, 2)))
    assert_close(vf.gaussian_entropy(raw, reduction="mean", scale=-2.0), -2 * each.sum(-1).mean())
    bounded, grad = with_grads(lambda t: vf.gaussian_entropy(t, bounds=(-0.5, 0.5), reduction="sum"), raw)
    inside = raw.abs() <= 0.5
    assert_close(bounded, vf.gaussian_entropy(raw.clamp(-0.5, 0.5), reduction="sum"))
    assert_close(grad, 0.5 * inside.double())
    _, passed = with_grads(
        lambda t: vf.gaussian_entropy(t, bounds=(-0.5, 0.5), bounds_grad="pass", reduction="sum"), raw
    )
    assert_close(passed, torch.full_like(raw, 0.5))


def test_it_is_what_a_sample_s_density_is_on_average():
    """H = −E[log q]: the KL to N(0, I) is cross-entropy less entropy."""
    mu, logvar = torch.randn(2, 6, 3, dtype=torch.float64)
    cross = 0.5 * (mu**2 + logvar.exp() + torch.log(2 * torch.tensor(torch.pi, dtype=torch.float64))).sum(-1)
    assert_close(cross - vf.gaussian_entropy(logvar), vf.gaussian_kl(mu, logvar))


def test_under_transforms_and_twice():
    raw = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda t: vf.gaussian_entropy(t, param="softplus"), raw)
    assert_close(torch.func.vmap(vf.gaussian_entropy)(raw[:, None])[:, 0], vf.gaussian_entropy(raw))


@pytest.mark.parametrize(
    ("error", "raw", "options"),
    [
        (TypeError, torch.zeros(3, dtype=torch.int64), {}),
        (TypeError, 1.0, {}),
        (ValueError, torch.zeros(3), {"event_ndim": 2}),
        (ValueError, torch.zeros(3), {"param": "scale"}),
        (ValueError, torch.zeros(3), {"reduction": "max"}),
        (ValueError, torch.zeros(3), {"bounds": (1, 0)}),
    ],
)
def test_what_is_wrong(error, raw, options):
    with pytest.raises(error):
        vf.gaussian_entropy(raw, **options)
