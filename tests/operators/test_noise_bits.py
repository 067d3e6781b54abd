"""The noise of every backend, against noise.py, bit by bit."""

import pytest
import torch

import vae_fast as vf
from helpers.marks import each_backend
from helpers.raw_calls import served
from vae_fast import noise

pytestmark = each_backend


def defined(shape, seed, offset=0, sample=0):
    """What noise.py says, wherever it runs."""
    return noise.normals((), shape, seed, None, offset, sample, torch.empty(0).device)


def same(z, want):
    return z.shape == want.shape and torch.equal(z.view(torch.int32), want.view(torch.int32))


def test_sixteen_million():
    """2²⁴ indices in a row, and each of several seeds and samples for fewer."""
    n = 1 << 24
    step = 1 << 21
    z = vf.standard_normal((n,), seed=11)
    for first in range(0, n, step):
        assert same(z[first : first + step], defined((step,), 11, first))
    for seed, sample in ((0, 0), (-1, 1), (2**63 - 1, 2**31), (-(2**63), 2**32 - 1)):
        assert same(vf.standard_normal((100_003,), seed=seed, sample=sample), defined((100_003,), seed, 0, sample))


@pytest.mark.parametrize("centre", [0, 2**31, 2**32, 2**34, 2**62, 2**63, -(2**63), -1], ids=str)
def test_around(centre):
    """Where a counter's low word, or the index itself, is full. Indices are modulo 2⁶⁴."""
    for start in range(centre - 9, centre + 2):
        offset = (start + 2**63) % 2**64 - 2**63
        for n in (1, 5, 21, 600):
            assert same(vf.standard_normal((n,), seed=5, offset=offset), defined((n,), 5, offset))


@pytest.mark.parametrize("offset", range(4))
@pytest.mark.parametrize("n", range(10))
def test_offsets_and_lengths(offset, n):
    assert same(vf.standard_normal((n,), seed=3, offset=offset), defined((n,), 3, offset))
    mu = torch.zeros(3, n)
    assert torch.equal(vf.rsample(mu, 0.0, seed=3, offset=offset), defined((3, n), 3, offset))


@pytest.mark.parametrize("n", [1, 3, 4, 31, 511, 512, 513, 8191, 8193, 20_000])
def test_samples(n):
    """Sample k of several, however they are drawn: at once, in chunks, alone."""
    mu = torch.zeros(n)
    z = vf.rsample(mu, 0.0, (7,), seed=9, offset=2, first_sample=2**32 - 7)
    for k in range(7):
        assert torch.equal(z[k], defined((n,), 9, 2, 2**32 - 7 + k))
    chunk = vf.rsample(mu, 0.0, (3,), seed=9, offset=2, first_sample=2**32 - 5)
    assert torch.equal(chunk, z[2:5])
    # The raw operator's numbers have 64 bits: streams and samples in one.
    place = {"sample_shape": (7,), "seed": 9, "offset": 2}
    far = served("rsample_fwd", mu, torch.zeros(()), **place, first_sample=2**32 - 3)
    for k in range(7):
        assert torch.equal(far[k], defined((n,), 9, 2, 2**32 - 3 + k))


def test_number_of_threads():
    before = torch.get_num_threads()
    try:
        drawn = []
        for n in (1, 2, 3, 8):
            torch.set_num_threads(n)
            drawn.append((vf.standard_normal((100_001,), seed=2), vf.rsample(torch.zeros(11), 0.0, 9001, seed=2)))
        assert all(same(a, b) for d in drawn for a, b in zip(d, drawn[0], strict=True))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_dtypes(dtype):
    assert torch.equal(vf.standard_normal((1003,), seed=4, dtype=dtype), defined((1003,), 4).to(dtype))


def test_backward_draws_the_same():
    """dlogvar = ½σε dz, with σ = 1: the ε of the forward pass, in any layout of μ."""
    mu = torch.zeros(6, 5, 7).permute(2, 0, 1)
    logvar = torch.zeros(7, 6, 5, requires_grad=True)
    z = vf.rsample(mu, logvar, (2,), seed=8, offset=1)
    (grad,) = torch.autograd.grad(z, logvar, 2 * torch.ones_like(z))
    torch.testing.assert_close(grad, z.detach().sum(0))
