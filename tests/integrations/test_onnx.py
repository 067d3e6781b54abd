"""ONNX: a sampling encoder exported and run; its noise is the exported model's own."""

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

import vae_fast as vf

# torch's exporter uses what torch and Python deprecate.
pytestmark = pytest.mark.filterwarnings(
    "ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning"
)

SAMPLERS = {
    "rsample": lambda mu, logvar, **options: vf.rsample(mu, logvar, **options),
    "rsample_kl": lambda mu, logvar, **options: vf.rsample_kl(mu, logvar, (2,), **options)[0],
    "DiagonalGaussian": lambda mu, logvar, **options: vf.DiagonalGaussian(torch.cat([mu, logvar], 1)).sample(
        **options
    ),
}


class Encoder(nn.Module):
    def __init__(self, function, **options):
        super().__init__()
        self.linear, self.function, self.options = nn.Linear(6, 8), function, options

    def forward(self, x):
        return self.function(*self.linear(x).chunk(2, 1), **self.options)


def exported(model):
    """The model's operators, and a function that runs it."""
    batch = torch.export.Dim("batch")
    program = torch.onnx.export(
        model, (torch.randn(5, 6),), dynamo=True, dynamic_shapes=({0: batch},), verbose=False
    )
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    (name,) = [i.name for i in session.get_inputs()]
    return [node.op_type for node in program.model.graph], lambda x: session.run(None, {name: x.numpy()})


@pytest.fixture(params=["native", "reference"], autouse=True)
def backend(request):
    with vf.use_backend(request.param):
        yield


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_noise(sampler):
    """Standard normal, drawn anew at each run, for any batch: 6 standard errors of the mean and of the variance."""
    model = Encoder(SAMPLERS[sampler])
    operators, run = exported(model)
    assert operators.count("RandomNormalLike") == 1
    x = torch.randn(2000, 6)
    z, again = run(x)[0], run(x)[0]
    assert not np.array_equal(z, again)
    mu, logvar = (t.detach().numpy() for t in model.linear(x).chunk(2, 1))
    eps = ((z - mu) / np.exp(logvar / 2)).astype(np.float64)
    n = eps.size
    assert abs(eps.mean()) < 6 / np.sqrt(n) and abs(eps.var() - 1) < 6 * np.sqrt(2 / n)


def test_densities():
    """The reference's formulas, whatever backend is named; a sample of hardly any noise is its mean."""

    def every(mu, logvar):
        return (
            vf.rsample(mu, -200.0),
            vf.gaussian_kl(mu, logvar, 0.5, -1.0),
            vf.bernoulli_log_prob(mu, torch.sigmoid(logvar), reduction="sum"),
            vf.gaussian_log_prob(mu, logvar, logvar, reduction="mean"),
        )

    model = Encoder(every)
    _, run = exported(model)
    x = torch.randn(7, 6)
    for ours, theirs in zip(run(x), model(x), strict=True):
        np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("seed", [3, torch.tensor([3])], ids=["int", "tensor"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_seed_is_refused(sampler, seed):
    with pytest.raises(Exception, match="ONNX has no form of seeded noise: leave seed= out"):
        exported(Encoder(SAMPLERS[sampler], seed=seed))
