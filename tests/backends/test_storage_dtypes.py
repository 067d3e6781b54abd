"""What the native backend reads and writes of each dtype: every bit pattern, at strides and lengths of every kind.

A raw rsample_bwd hands dz on as dμ: from dz's dtype to μ's, by way of the dtype computed in.
"""

import numpy as np
import pytest
import torch

from helpers.marks import needs_native
from helpers.raw_calls import SUM, arguments

pytestmark = needs_native

HALF = (torch.bfloat16, torch.float16)
each_half = pytest.mark.parametrize("half", HALF, ids=str)
INF = float("inf")


def through(dz, dtype, wide=False):
    """dz as the gradient of a mean of ``dtype``; computed in float64 beside a float64 scale."""
    mu = torch.zeros(dz.shape, dtype=dtype)
    scale = torch.zeros(dz.shape[-1:], dtype=torch.float64) if wide else torch.tensor(0.0)
    args = arguments("rsample_bwd", dz, mu, scale, needs=(True, False))
    return torch.ops.vae_fast.rsample_bwd(*args)[0]


def layouts(value):
    yield value
    yield torch.stack([value, torch.full_like(value, 7)], -1)[..., 0]
    yield value.flip(0).contiguous().flip(0)
    yield value.view(4, -1).t().contiguous().t()


def assert_same(got, want):
    """Bit by bit, any NaN for any other."""
    same = (got == want) & (got.signbit() == want.signbit()) | (got.isnan() & want.isnan())
    assert bool(same.all()), (got[~same][:5], want[~same][:5])


def patterns():
    """float32 numbers of all kinds: each upper half of the bits, beside lower halves that round each way."""
    upper = torch.arange(1 << 16, dtype=torch.int64) << 16
    lower = torch.tensor([0, 1, 0x0FFF, 0x1000, 0x1001, 0x3000, 0x7FFF, 0x8000, 0x8001, 0xEFFF, 0xFFFF])
    bits = (upper[:, None] + lower).reshape(-1)
    return torch.where(bits >= 1 << 31, bits - (1 << 32), bits).to(torch.int32).view(torch.float32)


@each_half
def test_every_half_is_read(half):
    value = torch.arange(-(1 << 15), 1 << 15).to(torch.int16).view(half)
    for dz in layouts(value):
        assert_same(through(dz, torch.float32), dz.float())
        assert_same(through(dz, torch.float64, wide=True), dz.double())
        assert_same(through(dz, half), dz)


@each_half
def test_every_kind_of_float32_is_rounded(half):
    value = patterns()
    for dz in layouts(value):
        assert_same(through(dz, half), dz.to(half))
    for n in (1, 7, 9, 17, 33):
        assert_same(through(value[-n:], half), value[-n:].to(half))


def rounded_once(value, half):
    """float64 to a half type, to nearest, ties to even."""
    if half == torch.float16:
        with np.errstate(over="ignore"):
            return torch.from_numpy(value.numpy().astype(np.float16))
    # By numpy's rounding of an integer number of spacings; bfloat16 has float32's exponents.
    _, exponent = np.frexp(value.numpy())
    spacing = np.ldexp(1.0, np.maximum(exponent, -125) - 8)
    return torch.from_numpy(np.rint(value.numpy() / spacing) * spacing).to(torch.bfloat16)


@each_half
def test_float64_is_rounded_once(half):
    """Also beside the middle of two halves, where float32 would fall on it."""
    value = patterns()
    value = value[value.isfinite()].double()
    dz = torch.cat([value, torch.nextafter(value, value * 2), torch.nextafter(value, value * 0)])
    dz = dz[: dz.numel() // 4 * 4]
    assert_same(through(dz, half, wide=True), rounded_once(dz, half))
    far = torch.tensor([1e300, -1e300, 1e-300, -1e-300, INF, -INF, torch.nan, 0.0, -0.0], dtype=torch.float64)
    assert_same(through(far, half, wide=True), far.to(half))


def test_float64_to_float32():
    dz = torch.randn(1001, dtype=torch.float64) * 1e3
    assert_same(through(dz, torch.float32, wide=True), dz.float())


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bool], ids=str)
def test_every_byte_is_read(dtype):
    x = torch.arange(256, dtype=torch.uint8).view(dtype)
    want = torch.arange(256.0) if dtype == torch.uint8 else torch.arange(256).clamp(max=1).float()
    for value, expected in zip(layouts(x), layouts(want), strict=True):
        # The gradient by the mean is x − 0 at σ = 1.
        mean = torch.zeros(value.shape, requires_grad=True)
        given = (torch.ones(()), mean.detach(), torch.tensor(0.0), value)
        args = arguments("gaussian_log_prob_bwd", *given, event_ndim=0, reduction=SUM, needs=(True, *(False,) * 3))
        grad, *_ = torch.ops.vae_fast.gaussian_log_prob_bwd(*args)
        assert_same(grad, expected)


def counts_of(dtype):
    """Every number of 16 bits and less; of wider integers those around powers of two, and the ends."""
    if dtype in (torch.uint8, torch.bool):
        return torch.arange(256, dtype=torch.uint8).view(dtype)
    if dtype == torch.int16:
        return torch.arange(-(1 << 15), 1 << 15).to(dtype)
    bits = torch.iinfo(dtype).bits - 1
    around = [sign * (1 << k) + step for k in range(bits) for step in (-1, 0, 1, 2) for sign in (1, -1)]
    ends = [torch.iinfo(dtype).min, torch.iinfo(dtype).max]
    odd = torch.randint(*ends, (510 - len(around) % 4,), dtype=dtype)
    return torch.cat([torch.tensor(around + ends, dtype=dtype), odd])


@pytest.mark.parametrize("wide", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.bool, torch.int16, torch.int32, torch.int64], ids=str)
def test_every_count_is_read(dtype, wide):
    x = counts_of(dtype)
    want = x.view(torch.uint8).clamp(max=1).to(wide) if dtype == torch.bool else x.to(wide)
    for value, expected in zip(layouts(x), layouts(want), strict=True):
        # The gradient by log λ is x − λ, of a λ that is 0.
        rate = torch.full(value.shape, -1000.0, dtype=wide)
        args = (torch.ones((), dtype=wide), rate, value)
        options = {"event_ndim": 0, "reduction": SUM, "param": 1}
        args = arguments("poisson_log_prob_bwd", *args, **options, needs=(True, False))
        (grad, *_) = torch.ops.vae_fast.poisson_log_prob_bwd(*args)
        assert torch.equal(grad, expected)
