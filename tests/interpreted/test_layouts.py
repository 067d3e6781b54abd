"""Layouts that no plain call makes: other orders of walking, operands copied first, rows cut into segments."""

import pytest
import torch
from calls import BERNOULLI, GAUSSIAN, KL, RSAMPLE, RSAMPLE_KL, same_bits
from torch.testing import assert_close

import vae_fast as vf
from vae_fast import noise
from vae_fast.triton_kernels import early, layout, operators

pytestmark = pytest.mark.usefixtures("small_tiles")


@pytest.fixture
def bounds(monkeypatch):
    """Sets bounds of layout.py, and forgets the layouts made under others."""

    def set_to(**values):
        for name, value in values.items():
            monkeypatch.setattr(layout, name, value)
        layout.layout.cache_clear()

    yield set_to
    layout.layout.cache_clear()


def agree(call, tensors, upstream=None, **options):
    """Results and gradients under one upstream gradient, those of the reference."""
    upstream = upstream or torch.ones_like
    got, want = (
        call.with_grads(*tensors, upstream=upstream, backend=b, **options) for b in ("triton", "reference")
    )
    for a, b in zip(got, want, strict=True):
        assert_close(a, b)
    return got


def cyclic(shape):
    """A dense tensor whose last dim is the outermost in memory: an order that is not its own inverse."""
    return torch.randn(shape[-1], *shape[:-1]).movedim(0, -1).requires_grad_()


class TestOrders:
    @pytest.mark.parametrize("event_ndim", (0, 3))
    @pytest.mark.parametrize("size", ((3, 4, 6), (1, 4, 1), (3, 1, 6)), ids=("each", "one dim", "two dims"))
    def test_three_dims(self, size, event_ndim):
        m, r = cyclic((3, 4, 6)), torch.randn(size).requires_grad_()
        got = agree(KL, (m, r), event_ndim=event_ndim)
        assert got[1].stride() == m.stride()
        agree(KL, (m, r), event_ndim=event_ndim, reduction="sum")

    def test_a_sampler(self):
        mu, logvar = cyclic((3, 4, 6)), torch.randn(3, 4, 6).requires_grad_()
        got = agree(RSAMPLE_KL, (mu, logvar), event_ndim=3)
        assert got[0].stride() == mu.stride()
        agree(RSAMPLE_KL, (mu, logvar), event_ndim=3, sample_shape=(2,))

    def test_an_operand_that_is_expanded_and_repeated(self):
        """Its gradient is a sum over the first dim and the last, and not over the one between."""
        m, r = torch.randn(2, 3, 4), torch.randn(1, 1).expand(3, 1).requires_grad_()
        agree(KL, (m, r), upstream=lambda out: torch.arange(1.0, 1 + out.numel()).view(out.shape), event_ndim=0)

    @pytest.mark.parametrize("strides", ((1, 2, 6), (1, 14, 3), (2, 4, 24)))
    def test_an_upstream_gradient_of_leading_dims_is_copied(self, strides):
        """One number a datum, of rows that the operands break too."""
        tensors = [torch.randn(2, 3, 4, 5).requires_grad_(), torch.randn(2, 1, 4, 5).requires_grad_()]
        upstream = torch.randn(100).as_strided((2, 3, 4), strides)
        agree(KL, tensors, upstream=lambda out: upstream)

    def test_samples_whose_data_are_copied(self):
        """A sample's data in another order, and a stride from sample to sample that is not their number."""
        tensors = RSAMPLE.draw((2, 8))
        upstream = torch.randn(200).as_strided((3, 2, 8), (40, 1, 2))
        agree(RSAMPLE, tensors, upstream=lambda out: upstream, sample_shape=(3,))


class TestGroupsOfSamples:
    @pytest.mark.parametrize("draws", (16, 17, 31))
    @pytest.mark.parametrize("call", (RSAMPLE, RSAMPLE_KL), ids=str)
    def test_of_rows_that_break(self, call, draws, launched):
        """As many groups as leave some with a sample more, of rows that are (sample, datum)."""
        mu, logvar = torch.randn(2, 3, 8).requires_grad_(), torch.randn(2, 1, 8)
        given = {out_ndim: torch.randn(shape) for out_ndim, shape in ((4, (draws, 2, 3, 8)), (2, (2, 3)))}
        agree(call, (mu, logvar), upstream=lambda out: given[out.ndim], sample_shape=(draws,))
        backward = [c for name, _, c in launched if name == "backward"]
        assert [(c["GROUPED"], c["SAMPLES"]) for c in backward] == [(True, True)]

    def test_a_gradient_lies_as_its_operand(self):
        mu, logvar = cyclic((3, 4, 6)), torch.randn(3, 4, 6).requires_grad_()
        got = agree(RSAMPLE, (mu, logvar), sample_shape=(16,))
        assert got[1].stride() == mu.stride()

    @pytest.mark.parametrize("size", ((8,), (2, 1, 8), (1,)), ids=str)
    def test_sums_that_are_not_made_in_groups(self, size, launched):
        """Of a gradient that is a sum over elements, one program adds up all samples."""
        mu, logvar = torch.randn(2, 3, 8).requires_grad_(), torch.randn(size).requires_grad_()
        agree(RSAMPLE, (mu, logvar), sample_shape=(16,))
        assert [c["GROUPED"] for name, _, c in launched if name == "backward"] == [False]


class TestTiles:
    @pytest.mark.parametrize("offset", range(4))
    @pytest.mark.parametrize("columns", (28, 29, 30, 31, 32, 33))
    def test_noise_that_begins_before_a_tile_s_end(self, columns, offset):
        """Of rows as long as a tile (32 where they begin at any address), or up to four columns shorter."""
        for rows in (1, 3):
            mu = torch.zeros(rows, columns)
            got, want = (vf.rsample(mu, 0.0, seed=1, offset=offset, backend=b) for b in ("triton", "reference"))
            assert same_bits([got], [want])

    @pytest.mark.parametrize("offset", range(4))
    @pytest.mark.parametrize("columns", (60, 61, 62, 63, 64, 65))
    def test_several_samples_of_nothing_but_noise(self, columns, offset):
        want = noise.normals((3,), (columns,), 5, None, offset, 2**32 - 2, "cpu")
        raw = operators.KERNELS.standard_normal_fwd
        got = raw((3,), (columns,), 5, None, offset, 2**32 - 2, torch.float32, torch.device("cpu"))
        assert same_bits([got], [want])

    def test_rows_cut_into_segments_of_several_tiles(self, bounds, launched):
        """Five tiles a row, for two segments: of three and of two."""
        bounds(BUSY=4)
        mean, logvar, x = (torch.randn(2, 300).requires_grad_() for _ in range(3))
        agree(GAUSSIAN, (mean, logvar, x))
        assert (4, layout.ROW) in [(n, c["VALUE"]) for name, n, c in launched if name == "density"]

    def test_no_more_segments_than_a_join_takes(self, bounds, launched):
        bounds(MOST_PARTIALS=2)
        logits, x = torch.randn(1, 300).requires_grad_(), torch.rand(1, 300)
        agree(BERNOULLI, (logits, x))
        assert (2, layout.ROW) in [(n, c["VALUE"]) for name, n, c in launched if name == "density"]

    def test_no_more_slabs_than_a_join_takes(self, bounds, launched):
        bounds(SLAB_TILES=1, MOST_SLABS=2)
        m, r = torch.randn(5, 70).requires_grad_(), torch.randn(70).requires_grad_()
        agree(KL, (m, r), reduction="mean")
        assert 2 in [n for name, n, c in launched if name == "density" and layout.COLUMN in c["KINDS"]]


@pytest.mark.parametrize("call", (BERNOULLI, GAUSSIAN, KL), ids=str)
def test_a_scale_of_one_value_an_element(call):
    agree(call, call.draw((3, 8)), event_ndim=0, scale=-0.5, upstream=lambda out: torch.full_like(out, 3.0))


@pytest.mark.parametrize("dtype", (torch.float16, torch.bfloat16), ids=str)
def test_a_sum_of_full_size_keeps_what_a_half_type_loses(dtype):
    """A gradient made element by element and then summed: 1 + ε/4 and −1 are ε/4 together, and not 0."""
    eps = torch.finfo(dtype).eps
    m, logvar = torch.ones(3, 1, 1, dtype=dtype).requires_grad_(), torch.zeros(2, 3, 4, 5, dtype=dtype)
    kl = vf.gaussian_kl(m, logvar, event_ndim=3, backend="triton")
    (got,) = torch.autograd.grad(kl, m, torch.tensor([1 + eps / 4, -1.0]))
    assert_close(got, torch.full_like(got, 5 * eps), rtol=0, atol=0)


@pytest.mark.parametrize("call", (RSAMPLE, RSAMPLE_KL), ids=str)
def test_the_gradient_of_what_nothing_was_drawn_from_is_0(call):
    """Of an operand that has elements where the batch has none; fresh memory is filled with NaN."""
    mu, logvar = torch.empty(0, 5).requires_grad_(), torch.zeros(5).requires_grad_()
    outs = call(mu, logvar, backend="triton")
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.utils.deterministic.fill_uninitialized_memory
        grads = torch.autograd.grad([out.sum() for out in outs], (mu, logvar))
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(grads[1], torch.zeros(5)) and grads[0].shape == (0, 5)


class TestEarlyGradients:
    def test_a_factor_of_0(self):
        grad = torch.randn(70)
        early.rescale([grad], torch.tensor(0.0))
        assert not grad.any()

    def test_nothing_to_rescale(self, launched):
        early.rescale([torch.empty(0), torch.empty(3, 0)], torch.tensor(2.0))
        assert not launched
