"""What sums, tickets and strides come to at sizes that calls of the other tests do not reach."""

import pytest
import torch
import triton
import triton.language as tl
from calls import BERNOULLI, GAUSSIAN, KL, RSAMPLE, RSAMPLE_KL
from torch.testing import assert_close

import vae_fast as vf
from vae_fast.triton_kernels import launch, layout, tiles

pytestmark = pytest.mark.usefixtures("small_tiles")


@triton.jit
def _total(partials, out, n, BLOCK: tl.constexpr):
    tl.store(out, tiles.total_of(partials, n, BLOCK))


class TestSums:
    @pytest.mark.parametrize(("n", "columns"), ((1, 1), (1023, 1), (2500, 1), (3, 70), (37, 70), (50, 130)))
    @pytest.mark.parametrize("dtype", (torch.float32, torch.float64, torch.float16, torch.bfloat16), ids=str)
    def test_joins(self, n, columns, dtype):
        """Of one block of partial sums, of two, and of more; of as many columns as a program takes, and of more."""
        partials = torch.randn(n, columns, dtype=torch.float64)
        out = torch.empty(columns, dtype=dtype)
        launch.join(partials, n, out, -0.5)
        want = -0.5 * partials.sum(0)
        assert_close(out.double(), want, rtol=torch.finfo(dtype).eps, atol=1e-13)

    @pytest.mark.parametrize("n", (1, 64, 65, 128, 129, 300))
    def test_total(self, n):
        partials, out = torch.randn(n + 1, dtype=torch.float64), torch.empty(1, dtype=torch.float64)
        _total[(1,)](partials, out, n, BLOCK=64)
        assert_close(out[0], partials[:n].sum())

    def test_gradients_by_a_feature_of_many_slabs(self, launched, monkeypatch):
        """Three programs a column tile, of which the last has fewer tiles."""
        monkeypatch.setattr(layout, "SLAB_TILES", 2)
        layout.layout.cache_clear()
        try:
            m, r = torch.randn(5, 70), torch.randn(70, requires_grad=True)
            got, want = (
                torch.autograd.grad(vf.gaussian_kl(m, r, reduction="mean", backend=b), r)[0]
                for b in ("triton", "reference")
            )
        finally:
            layout.layout.cache_clear()
        assert_close(got, want)
        assert any(layout.COLUMN in c["KINDS"] for name, _, c in launched if name == "density")
        assert any(name == "_join" for name, _, _ in launched)


class TestSumsOverSamples:
    def test_in_two_floats(self):
        """What cancels in float32 does not in z's gradient: the sum of samples is that of float64, rounded."""
        mu, logvar = torch.zeros(2, 8, requires_grad=True), torch.zeros(2, 8, requires_grad=True)
        (z,) = RSAMPLE(mu, logvar, sample_shape=(6,), backend="triton")
        eps = z.detach()
        for k, by_noise in ((0, False), (1, True)):
            dz = torch.randn(6, 2, 8)
            dz[0] = 3e8
            dz[4] = -dz[0] * eps[0] / eps[4] if by_noise else -dz[0]
            got = torch.autograd.grad(z, (mu, logvar), dz, retain_graph=True)[k].double()
            # A product is rounded before it is added.
            want = (0.5 * (dz * eps) if by_noise else dz).double().sum(0)
            assert_close(got, want, rtol=2**-22, atol=1e-5)

    @pytest.mark.parametrize("value", (torch.inf, -torch.inf, torch.nan))
    def test_not_finite(self, value):
        mu, logvar = torch.zeros(2, 8, requires_grad=True), torch.zeros(2, 8, requires_grad=True)
        dz = torch.randn(6, 2, 8)
        dz[3] = value
        got, want = (
            torch.autograd.grad(RSAMPLE(mu, logvar, sample_shape=(6,), backend=b)[0], (mu, logvar), dz)
            for b in ("triton", "reference")
        )
        for a, b in zip(got, want, strict=True):
            assert_close(a, b, equal_nan=True)


@pytest.mark.parametrize("dtype", (torch.float16, torch.bfloat16), ids=str)
@pytest.mark.parametrize("size", ((3, 1, 1), (1, 1, 4, 5), (2, 1, 4, 1), (5,)), ids=str)
def test_a_gradient_of_a_half_type_is_rounded_once(dtype, size, launched):
    """However it comes about: written in full and summed, or by rows, columns, or programs."""
    m, r = torch.rand(2, 3, 4, 5).to(dtype), torch.rand(size).to(dtype).requires_grad_()
    x = torch.rand(2, 3, 4, 5)
    for event_ndim in (0, 3):
        (got,) = torch.autograd.grad(GAUSSIAN(m, r, x, event_ndim=event_ndim, backend="triton")[0].sum(), r)
        wide = r.detach().double().requires_grad_()
        (out,) = GAUSSIAN(m.double(), wide, x.double(), event_ndim=event_ndim, backend="reference")
        (want,) = torch.autograd.grad(out.sum(), wide)
        assert_close(got.double(), want, rtol=0.505 * torch.finfo(dtype).eps, atol=2e-6)


@pytest.mark.parametrize("reduction", ("none", "sum"))
@pytest.mark.parametrize("size", ((4, 6), (3, 4, 1), (3, 4, 6)), ids=("columns", "rows", "each"))
def test_a_gradient_lies_as_its_operand(size, reduction):
    """Where that is not the order of the walk: by feature, by datum, by element."""
    m = torch.randn(3, 4, 6, requires_grad=True)
    r = torch.randn(*size[:-2], size[-1], size[-2]).transpose(-2, -1).requires_grad_()
    r = r if size[-1] > 1 else torch.randn(4, 3, 1).transpose(0, 1).requires_grad_()
    assert r.shape == size and not r.is_contiguous()
    got, want = (KL.with_grads(m, r, event_ndim=2, reduction=reduction, backend=b) for b in ("triton", "reference"))
    for a, b in zip(got, want, strict=True):
        assert_close(a, b)
    assert got[2].stride() == r.stride()


def agree(out, wanted, upstream, want):
    """Gradients under an upstream gradient as it lies, against the reference's under a plain copy of it."""
    plain = upstream.clone(memory_format=torch.contiguous_format).resolve_neg()
    got = torch.autograd.grad(out, wanted, upstream)
    for a, b in zip(got, torch.autograd.grad(want, wanted, plain), strict=True):
        assert_close(a, b)


def cut(shape, step, start=0, dtype=torch.float32):
    """A tensor of this shape whose outermost stride is ``step``."""
    n, inner = shape[0], torch.Size(shape[1:])
    memory = torch.randn(start + n * step + inner.numel()).to(dtype)
    strides = [step, *torch.empty(inner).stride()]
    return memory.as_strided(shape, strides, start)


class TestUpstream:
    @pytest.mark.parametrize("event_ndim", (0, 1))
    @pytest.mark.parametrize("call", (BERNOULLI, GAUSSIAN, KL), ids=str)
    def test_negative_bit(self, call, event_ndim):
        tensors = call.draw((3, 8))
        (out,), (want,) = (call(*tensors, event_ndim=event_ndim, backend=b) for b in ("triton", "reference"))
        upstream = torch._neg_view(torch.randn(out.shape))
        assert upstream.is_neg()
        agree(out, tensors, upstream, want)

    def test_negative_bit_of_samples(self):
        tensors = RSAMPLE_KL.draw((3, 8))
        for k in range(2):
            out, want = (RSAMPLE_KL(*tensors, sample_shape=(2,), backend=b)[k] for b in ("triton", "reference"))
            agree(out, tensors, torch._neg_view(torch.randn(out.shape)), want)

    def test_negative_bit_of_one_number(self):
        """Which early gradients are scaled by."""
        from vae_fast.triton_kernels import early

        grad = torch.ones(5)
        early.rescale([grad], torch._neg_view(torch.tensor(-3.0)))
        assert (grad == 3.0).all()

    @pytest.mark.parametrize("step", (16, 17, 18, 20, 24))
    @pytest.mark.parametrize("start", (0, 1))
    def test_samples_of_any_stride(self, step, start, launched):
        """From one sample to the next, a number of elements that 16 bytes divide or not."""
        tensors = RSAMPLE.draw((2, 8))
        out, want = (RSAMPLE(*tensors, sample_shape=(3,), backend=b)[0] for b in ("triton", "reference"))
        agree(out, tensors, cut((3, 2, 8), step, start), want)
        assert launched[-1][2]["VEC"] == (4 if step % 4 == 0 else 1)

    @pytest.mark.parametrize("steps", ((48, 16), (50, 16), (16, 48), (0, 16), (16, 0), (0, 0), (18, 36)))
    def test_two_sample_dims_of_any_strides(self, steps):
        tensors = RSAMPLE.draw((2, 8))
        out, want = (RSAMPLE(*tensors, sample_shape=(2, 3), backend=b)[0] for b in ("triton", "reference"))
        upstream = torch.randn(300).as_strided((2, 3, 2, 8), (*steps, 8, 1))
        agree(out, tensors, upstream, want)

    @pytest.mark.parametrize("strides", ((8, 2), (1, 2), (0, 1), (8, 0), (0, 0), (9, 1)))
    def test_an_upstream_gradient_a_datum_of_any_strides(self, strides):
        tensors = KL.draw((2, 3, 8))
        (out,), (want,) = (KL(*tensors, backend=b) for b in ("triton", "reference"))
        agree(out, tensors, torch.randn(40).as_strided((2, 3), strides), want)

    @pytest.mark.parametrize("strides", ((12, 4, 1), (1, 2, 6), (20, 5, 1), (0, 1, 3), (1, 0, 2)))
    def test_an_upstream_gradient_of_three_data_dims(self, strides):
        """Of which two may break: then it is copied."""
        tensors = KL.draw((2, 3, 4, 5))
        (out,), (want,) = (KL(*tensors, backend=b) for b in ("triton", "reference"))
        agree(out, tensors, torch.randn(40).as_strided((2, 3, 4), strides), want)

    @pytest.mark.parametrize("strides", ((24, 8, 1), (32, 8, 1), (25, 8, 1), (1, 2, 6), (0, 8, 1), (48, 16, 2)))
    def test_an_upstream_gradient_an_element_of_any_strides(self, strides):
        tensors = KL.draw((2, 3, 8))
        (out,), (want,) = (KL(*tensors, event_ndim=0, backend=b) for b in ("triton", "reference"))
        agree(out, tensors, torch.randn(100).as_strided((2, 3, 8), strides), want)
