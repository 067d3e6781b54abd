"""The KL to a prior whose second argument is in a form of its own, on Triton: every pair of forms."""

import itertools

import pytest
import torch

import vae_fast as vf
from helpers.calls import same_bits
from helpers.named import compare
from vae_fast.triton_kernels import forms

pytestmark = pytest.mark.usefixtures("small_tiles")

PARAMS = ("logvar", "logstd", "std", "var", "softplus")
PAIRS = [*itertools.product(PARAMS, PARAMS)]
# Each form once on either side, two of which are other ones.
SOME = [(own, PARAMS[(k + step) % len(PARAMS)]) for k, own in enumerate(PARAMS) for step in (1, 2)]
# Of one tile, since formulas are what is tried; and of several.
SMALL, SHAPE = (2, 30), (2, 70)


def drawn(dtype=torch.float32, shape=SHAPE, prior=SHAPE):
    """Arguments that every form takes, on both sides of 0.5 to 1.5."""
    sizes = {"mu": shape, "logvar": shape, "prior_mu": prior, "prior_logvar": prior}
    tensors = {name: torch.randn(size, dtype=torch.float64) for name, size in sizes.items()}
    tensors |= {name: 0.2 + 1.6 * torch.rand_like(t) for name, t in tensors.items() if name.endswith("logvar")}
    return {name: t.to(dtype).requires_grad_() for name, t in tensors.items()}


class TestPairs:
    @pytest.mark.parametrize(("own", "prior"), PAIRS, ids=str)
    def test_with_eps(self, own, prior):
        options = {"param": own, "param_eps": 0.25, "prior_param": prior, "prior_param_eps": 0.125}
        compare(vf.gaussian_kl, drawn(shape=SMALL, prior=SMALL), **options)

    @pytest.mark.parametrize(("own", "prior"), PAIRS, ids=str)
    def test_without(self, own, prior):
        """In the dtypes that are not float32 too, whose numbers are the same once they are read."""
        dtype = (torch.float32, torch.bfloat16, torch.float64)[PAIRS.index((own, prior)) % 3]
        compare(vf.gaussian_kl, drawn(dtype, SMALL, SMALL), param=own, prior_param=prior)

    @pytest.mark.parametrize("bounds_grad", ("zero", "pass"))
    @pytest.mark.parametrize(("own", "prior"), SOME, ids=str)
    def test_with_bounds(self, own, prior, bounds_grad):
        bounds, prior_bounds = ((0.5, 1.5), (None, 1.0)) if bounds_grad == "zero" else ((0.75, None), (0.5, 1.5))
        options = {"param": own, "bounds": bounds, "prior_param": prior, "prior_bounds": prior_bounds}
        compare(vf.gaussian_kl, drawn(shape=SMALL, prior=SMALL), bounds_grad=bounds_grad, **options)

    @pytest.mark.parametrize(("own", "prior"), SOME, ids=str)
    def test_beside_a_sample(self, own, prior):
        compare(
            vf.rsample_kl,
            drawn(shape=SMALL, prior=SMALL),
            seed=3,
            param=own,
            prior_param=prior,
            prior_bounds=(0.5, 1.5),
        )


@pytest.mark.parametrize("size", ((70,), (2, 1), (), SHAPE), ids=str)
@pytest.mark.parametrize("reduction", ("none", "sum"))
def test_of_every_size(size, reduction):
    options = {"prior_param": "softplus", "prior_param_eps": 0.125, "reduction": reduction, "free_bits": 0.1}
    compare(vf.gaussian_kl, drawn(prior=size), **options)


def test_of_numbers():
    operands = drawn() | {"prior_mu": 0.25, "prior_logvar": 0.75}
    compare(vf.gaussian_kl, operands, prior_param="std")


def test_of_a_weight():
    weight = torch.randint(0, 3, SHAPE).float().requires_grad_()
    compare(vf.gaussian_kl, drawn() | {"weight": weight}, param="softplus", prior_param="logvar", free_bits=0.1)


def test_of_any_strides():
    operands = {
        name: torch.stack([t.detach().T, t.detach().T], -1)[..., 0].T.requires_grad_()
        for name, t in drawn().items()
    }
    compare(vf.gaussian_kl, operands, param="logstd", prior_param="logvar")


def test_the_posterior_s_form_said_again(launched):
    """Is the same call, of the same kernel."""
    options = {"param": "softplus", "param_eps": 0.125, "bounds": (0.5, 1.5)}
    again = {f"prior_{name}": value for name, value in options.items()}
    operands = {name: t.detach() for name, t in drawn().items()}
    calls = [vf.gaussian_kl(**operands, **options, **more, backend="triton") for more in ({}, again)]
    assert same_bits(calls[:1], calls[1:])
    found = [c["CONSTANTS"][-1] for name, _, c in launched if name == "density"]
    assert found == [forms.ALIKE] * 2


def test_other_bounds_alone_change_no_formula(launched):
    """Within both the bits are those of equal bounds."""
    operands = {name: t.detach() for name, t in drawn().items()}
    calls = [
        vf.gaussian_kl(**operands, bounds=(0.1, 2.0), prior_bounds=bounds, backend="triton")
        for bounds in ((0.1, 2.0), (0.0, 3.0))
    ]
    assert same_bits(calls[:1], calls[1:])
    found = [c["CONSTANTS"][-1][:1] for name, _, c in launched if name == "density"]
    assert found == [forms.ALIKE, (forms.SAME,)]
