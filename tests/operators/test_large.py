"""More elements than 32 bits count: `make test-large`, with 24 GiB."""

import pytest
import torch

import vae_fast as vf
from helpers.marks import each_backend

pytestmark = [each_backend, pytest.mark.large, pytest.mark.timeout(3000)]
N = 2**31 + 4099


def memory():
    with open("/proc/meminfo") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) * 1024


@pytest.fixture(autouse=True)
def room(backend):
    if backend == "reference":
        pytest.skip("reference: its temporaries take many times the input")
    if memory() < 21e9:
        pytest.skip("needs 21 GB of free memory")
    torch.use_deterministic_algorithms(False)


def test_bernoulli_of_bytes():
    """bfloat16 logits and byte targets: value and gradient of the elements at both ends and around 2³¹."""
    block = 1 << 20
    logits = torch.randn(block).to(torch.bfloat16).repeat(N // block + 1)[:N]
    logits.requires_grad_()
    x = torch.randint(0, 256, (block,), dtype=torch.uint8).repeat(N // block + 1)[:N]
    log_prob = vf.bernoulli_log_prob(logits, x, x_scale=1 / 255)
    (grad,) = torch.autograd.grad(log_prob, logits)
    part = vf.bernoulli_log_prob(logits.detach()[:block], x[:block], x_scale=1 / 255).double()
    rest = vf.bernoulli_log_prob(logits.detach()[: N % block], x[: N % block], x_scale=1 / 255).double()
    torch.testing.assert_close(log_prob.double(), part * (N // block) + rest, rtol=1e-6, atol=0.0)
    for start in (0, 2**31 - 512, N - 1024):
        piece = logits.detach()[start : start + 1024].clone().requires_grad_()
        out = vf.bernoulli_log_prob(piece, x[start : start + 1024], x_scale=1 / 255)
        assert torch.equal(grad[start : start + 1024], torch.autograd.grad(out, piece)[0])


def test_noise():
    """Samples of one latent more than 2³¹ indices away, drawn in place of a sample of that size."""
    z = vf.rsample(torch.zeros(1, dtype=torch.bfloat16).expand(N), 0.0, seed=1)
    for start in (0, 2**31 - 512, N - 1024):
        want = vf.standard_normal((1024,), seed=1, offset=start, dtype=torch.bfloat16)
        assert torch.equal(z[start : start + 1024], want)
