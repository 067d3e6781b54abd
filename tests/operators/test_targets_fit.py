"""Targets against parameters: what may be broadcast, and what is a mistake that names the dim to add."""

import pytest
import torch

import vae_fast as vf


def bernoulli(shape, x_shape, **options):
    return vf.bernoulli_log_prob(torch.zeros(shape), torch.zeros(x_shape), **options)


def gaussian(shape, x_shape, **options):
    return vf.gaussian_log_prob(torch.zeros(shape), 0.0, torch.zeros(x_shape), **options)


DENSITIES = pytest.mark.parametrize("density", (bernoulli, gaussian))


@DENSITIES
class TestTargets:
    @pytest.mark.parametrize(
        ("shape", "x_shape", "wanted"),
        (
            ((64, 1), (64,), "give x the dims it lacks, as in .reshape(64, 1)"),
            ((64,), (64, 1), "the dims it lacks, as in .reshape(64, 1)"),
            ((5, 64, 1), (64,), "give x the dims it lacks, as in .reshape(64, 1)"),
            ((3, 1, 8), (5, 8), "give x the dims it lacks, as in .reshape(1, 5, 8)"),
        ),
    )
    def test_a_table_of_both_by_mistake(self, density, shape, x_shape, wanted):
        with pytest.raises(ValueError) as error:
            density(shape, x_shape)
        assert wanted in str(error.value)
        assert str(tuple(x_shape)) in str(error.value) and str(tuple(shape)) in str(error.value)

    @pytest.mark.parametrize(
        ("shape", "x_shape", "result"),
        (
            ((64, 8), (64, 8), (64,)),
            ((7, 64, 8), (64, 8), (7, 64)),  # samples of the parameters
            ((64, 8), (7, 64, 8), (7, 64)),  # samples of the data
            ((64, 8), (8,), (64,)),
            ((8,), (64, 8), (64,)),
            ((64, 1, 8), (1, 32, 8), (64, 32)),  # every datum under every component
            ((1, 64, 8), (64, 8), (1, 64)),
            ((64, 8), (), (64,)),
            ((0, 1), (64,), (0,)),
        ),
    )
    def test_what_may_be_broadcast(self, density, shape, x_shape, result):
        assert density(shape, x_shape).shape == result

    def test_parameters_may_make_the_table_themselves(self, density):
        value = vf.gaussian_log_prob(torch.zeros(64, 1), torch.zeros(64), torch.zeros(64, 64))
        assert value.shape == (64,)


@DENSITIES
def test_every_backend_raises(density, monkeypatch):
    for name, backend in vf.backends().items():
        if backend.available and ("cpu" in backend.devices or "*" in backend.devices):
            with vf.use_backend(name), pytest.raises(ValueError, match="larger than both"):
                density((64, 1), (64,))
