"""Forward and backward of each operator against the eager formulas: `make benchmark`. One group a case.

A provider is compared with float64 before it is timed; a wrong one fails and is not timed.
"""

import eager
import pytest
import torch

import vae_fast as vf

PROVIDERS = ["eager", *(name for name, backend in vf.backends().items() if backend.available)]
CASES = {
    "rsample_kl": ((100, 20), (512, 64)),
    "bernoulli_log_prob": ((100, 784), (512, 784)),
    "gaussian_log_prob": ((100, 560), (512, 784)),
}


def ours(op, backend):
    """The vae_fast form of an eager formula: summed, and with the seed drawn as training code draws it."""
    if op == "rsample_kl":

        def sample(mu, logvar):
            z, kl = vf.rsample_kl(mu, logvar, backend=backend)
            return z, kl.sum()

        return sample
    return lambda *tensors: getattr(vf, op)(*tensors, reduction="sum", backend=backend)


def scalar(op, out):
    """What is differentiated: the density, or z and the KL together."""
    return out[0].sum() + out[1] if op == "rsample_kl" else out


def density(op, out):
    return out[1] if op == "rsample_kl" else out


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize(("op", "shape"), [(op, shape) for op, shapes in CASES.items() for shape in shapes])
def test_forward_backward(benchmark, op, shape, provider):
    benchmark.group = f"{op} {'x'.join(map(str, shape))} float32 forward + backward"
    function = getattr(eager, op) if provider == "eager" else ours(op, provider)
    torch.manual_seed(0)
    tensors = [torch.randn(shape, requires_grad=True) for _ in range(3 if op == "gaussian_log_prob" else 2)]
    if op != "rsample_kl":
        tensors[-1] = torch.rand(shape)
    truth = density(op, getattr(eager, op)(*(t.detach().double() for t in tensors)))
    torch.testing.assert_close(density(op, function(*tensors)).double(), truth, rtol=1e-5, atol=0)

    def step():
        scalar(op, function(*tensors)).backward()
        for t in tensors:
            t.grad = None

    benchmark(step)
