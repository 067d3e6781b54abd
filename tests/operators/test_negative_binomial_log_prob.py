"""negative_binomial_log_prob and poisson_log_prob: values and gradients against the truth, limits, and errors."""

import math

import pytest
import torch
from torch.testing import assert_close

import vae_fast as vf
from helpers import accuracy, counts
from helpers.accuracy import error, units
from helpers.behaviour import check_derivatives, with_grads
from helpers.marks import each_backend

pytestmark = each_backend

DTYPES = (torch.float32, torch.float64)


def ours(*tensors, **options):
    mean, theta, x, *logits = tensors
    more = {"zero_logits": logits[0]} if logits else {}
    return vf.negative_binomial_log_prob(mean, theta, x, event_ndim=0, **more, **options)


def results(function, x, parameters, **options):
    """The value, and the gradients by all parameters; x is a constant."""
    return with_grads(lambda mean, theta, *more: function(mean, theta, x, *more, **options), *parameters)


def drawn(dtype, n, low=-30.0):
    """μ from 1e-30 to 1e10 and θ from 1e-8 to 1e8; most of ordinary size."""
    ordinary = 3 * n
    mean = torch.cat([counts.spread(n, low, 10, dtype), counts.spread(ordinary, -3, 4, dtype)])
    theta = torch.cat([counts.spread(n, -8, 8, dtype), counts.spread(ordinary, -2, 4, dtype)])
    return mean, theta, counts.counted(len(mean), dtype)


def assert_within(found, truth, bar, *inputs, dtype):
    for value, (exact, terms) in zip(found, truth, strict=True):
        # Below the normal numbers a unit is no share of the result.
        ordinary = terms > torch.finfo(dtype).tiny / torch.finfo(dtype).eps
        errors = error(value, exact, units(terms, dtype))[ordinary]
        accuracy.assert_within(bar, errors, *(t[torch.from_numpy(ordinary.astype(bool))] for t in inputs))


class TestAccuracy:
    @pytest.mark.parametrize("eps", [0.0, 1e-8])
    @pytest.mark.parametrize("inflated", [False, True], ids=["plain", "inflated"])
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_terms(self, dtype, inflated, eps):
        """≤ 4ε·Σ|terms|, for θ over sixteen decades and counts to 10⁶."""
        n = 300 if dtype == torch.float32 else 100
        mean, theta, x = drawn(dtype, n, low=-6 if eps else -30)
        logits = [(10 * torch.randn(len(x), dtype=torch.float64)).to(dtype)] if inflated else []
        found = results(ours, x, (mean, theta, *logits), eps=eps)
        truth = counts.exact(counts.negative_binomial, mean, theta, x, *logits, eps=eps)
        assert_within(found, truth, 4, mean, theta, x, *logits, dtype=dtype)

    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_of_logarithms(self, dtype):
        mean, theta, x = drawn(dtype, 100)
        log_mean, log_theta = torch.log(mean), torch.log(theta)
        found = results(ours, x, (log_mean, log_theta), param="log_mean", theta_param="log_theta")
        truth = counts.exact(counts.negative_binomial, log_mean, log_theta, x, log_mean=True, log_theta=True)
        # exp's own error besides, which θ·log(1 + μ/θ) and its like double.
        assert_within(found, truth, 6, log_mean, log_theta, x, dtype=dtype)

    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_slope_by_theta_where_it_does_not_cancel(self, dtype):
        """Relative 1e-5 in float32 wherever |exact| ≥ 0.1·Σ|terms|."""
        mean, theta, x = drawn(torch.float32, 300)
        _, _, dtheta = results(ours, x.to(dtype), (mean.to(dtype), theta.to(dtype)))
        truth = counts.exact(counts.negative_binomial, mean, theta, x)
        exact, terms = truth[2]
        clear = abs(exact) >= 0.1 * terms
        relative = error(dtheta, exact, abs(exact) + 1e-37)[clear]
        assert relative.max() <= (1e-5 if dtype == torch.float32 else 1e-13)

    def test_where_counts_are_many_times_theta(self):
        """There parts of the usual form are far larger than what they add up to: no worse than by log Γ and ψ."""
        n = 300
        theta = counts.spread(n, -3, 1, torch.float32)
        x = (theta * counts.spread(n, 0.95, 4, torch.float32)).floor().clamp(min=9, max=1e6)
        mean = x * counts.spread(n, -0.3, 0.3, torch.float32)
        value, _, dtheta = results(ours, x, (mean, theta))
        exact = counts.exact(counts.negative_binomial, mean, theta, x)

        def published(mean, theta):
            logits = torch.log(mean) - torch.log(theta)
            return torch.distributions.NegativeBinomial(theta, logits=logits, validate_args=False).log_prob(x)

        theirs, _, their_dtheta = with_grads(published, mean, theta)
        for got, other, (truth, _) in ((value, theirs, exact[0]), (dtheta, their_dtheta, exact[2])):
            ours_off, theirs_off = (error(t, truth, 1 + abs(truth)).max() for t in (got, other))
            # 1e-6 and 1.2e-6, where theirs were 3e-3 and 1.2e-6.
            assert ours_off <= max(theirs_off, 3e-6) and ours_off <= 5e-6

    @pytest.mark.parametrize("eps", [0.0, 1e-8])
    @pytest.mark.parametrize("param", ["rate", "log_rate"])
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_poisson(self, dtype, param, eps):
        rate, x = counts.spread(400, -6, 8, dtype), counts.counted(400, dtype)
        raw = torch.log(rate) if param == "log_rate" else rate
        found = with_grads(lambda r: vf.poisson_log_prob(r, x, event_ndim=0, param=param, eps=eps), raw)
        truth = counts.exact(counts.poisson, raw, x, log_rate=param == "log_rate", eps=eps)
        assert_within(found, truth, 4, raw, x, dtype=dtype)


class TestLimits:
    def test_an_infinite_theta_is_poisson(self):
        x = torch.tensor([0.0, 1, 2, 8, 9, 40, 1000])
        rate = torch.tensor([0.3, 1e-20, 2.0, 7.0, 30.0, 1.0, 900.0])
        theta = torch.full_like(x, math.inf)
        value, dmean, dtheta = results(ours, x, (rate, theta))
        want = with_grads(lambda r: vf.poisson_log_prob(r, x, event_ndim=0), rate)
        assert_close((value, dmean), want, rtol=5e-7, atol=0)
        assert (dtheta == 0).all()

    def test_no_mean(self):
        """μ = 0 is certain of 0."""
        x, mean = torch.tensor([0.0, 3.0]), torch.zeros(2)
        value, dmean, _ = results(ours, x, (mean, torch.ones(2)))
        assert value.tolist() == [0.0, -math.inf] and dmean.tolist() == [-1.0, math.inf]

    def test_fractions_go_on_by_the_gamma_function(self):
        x = torch.tensor([0.25, 1.5, 7.75, 8.5, 20.5], dtype=torch.float64)
        mean, theta = torch.full_like(x, 2.0), torch.full_like(x, 1.7)
        want = torch.lgamma(x + theta) - torch.lgamma(theta) - torch.lgamma(x + 1)
        want = want + theta * torch.log(theta / (theta + mean)) + x * torch.log(mean / (theta + mean))
        assert_close(ours(mean, theta, x), want)
        want = torch.xlogy(x, mean) - mean - torch.lgamma(x + 1)
        assert_close(vf.poisson_log_prob(mean, x, event_ndim=0), want)

    def test_published_in_float32_is_wrong_where_ours_is_not(self):
        """Zero inflation that hardly is: the published formula says 0."""
        value = ours(torch.tensor([1e-6]), torch.tensor([1.0]), torch.zeros(1), torch.tensor([-20.0]))
        assert_close(value, torch.tensor([-1e-6]), rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.int16, torch.int32, torch.int64, torch.uint8, torch.bool], ids=str)
def test_integers_are_counts(dtype):
    x = torch.tensor([[0, 1, 1, 0], [1, 0, 0, 1]]).to(dtype)
    mean, theta = torch.rand(2, 4) + 0.5, torch.rand(4) + 0.5
    want = vf.negative_binomial_log_prob(mean, theta, x.float())
    assert_close(vf.negative_binomial_log_prob(mean, theta, x), want, rtol=0, atol=0)
    assert_close(vf.poisson_log_prob(mean, x), vf.poisson_log_prob(mean, x.float()), rtol=0, atol=0)


def test_large_integers_are_rounded_once():
    x = torch.tensor([[10**6, 2**24 + 1, 2**31 + 1, 0]])
    mean, theta = torch.full((1, 4), 1e6), torch.full((4,), 3.0)
    want = vf.negative_binomial_log_prob(mean, theta, x.float())
    assert torch.equal(vf.negative_binomial_log_prob(mean, theta, x), want)
    strided = torch.stack([x, x], -1)[..., 0]
    assert torch.equal(vf.negative_binomial_log_prob(mean, theta, strided), want)
    with pytest.raises(TypeError, match="x must be a dense tensor or a CSR matrix of .* uint8, int16"):
        vf.poisson_log_prob(mean, x.to(torch.int8))
    with pytest.raises(TypeError, match="x must be"):
        vf.bernoulli_log_prob(mean, x)


@pytest.mark.parametrize("bad", [-1.0, 0.5, math.nan, math.inf])
def test_validation(bad):
    ones = torch.ones(3)
    for f in (
        lambda x: vf.negative_binomial_log_prob(ones, ones, x, validate=True),
        lambda x: vf.poisson_log_prob(ones, x, validate=True),
    ):
        f(ones)
        with pytest.raises(ValueError, match="no counts"):
            f(torch.tensor([1.0, bad, 0.0]))
    with pytest.raises(ValueError, match="theta has values that are not positive"):
        vf.negative_binomial_log_prob(ones, 0 * ones, ones, validate=True)


def test_words():
    ones = torch.ones(3)
    with pytest.raises(ValueError, match="param must be one of 'mean', 'log_mean', 'softmax', got 'logits'"):
        vf.negative_binomial_log_prob(ones, ones, ones, param="logits")
    with pytest.raises(ValueError, match="theta_param must be one of"):
        vf.negative_binomial_log_prob(ones, ones, ones, theta_param="mean")


def published(mean, theta, x, logits=None, log_library=None, event_ndim=1, **options):
    """A mean by softmax, with the softmax and the mean as tensors."""
    rows = mean.shape[: mean.ndim - event_ndim]
    mu = torch.softmax(mean.reshape(*rows, -1), -1).reshape(mean.shape)
    if log_library is not None:
        mu = torch.exp(log_library) * mu
    more = {} if logits is None else {"zero_logits": logits}
    return vf.negative_binomial_log_prob(mu, theta, x, event_ndim=event_ndim, **more, **options)


def ours_of_shares(mean, theta, x, logits=None, log_library=None, **options):
    more = {} if logits is None else {"zero_logits": logits}
    more |= {} if log_library is None else {"log_library": log_library}
    return vf.negative_binomial_log_prob(mean, theta, x, param="softmax", **more, **options)


class TestSoftmax:
    @pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
    @pytest.mark.parametrize("library", [None, (6, 1), (), (1, 9)], ids=str)
    @pytest.mark.parametrize("inflated", [False, True], ids=["plain", "inflated"])
    def test_is_the_mean_by_a_softmax(self, inflated, library, reduction):
        x = counts.counted(54, torch.float64).clamp(max=40).reshape(6, 9)
        mean, theta = 2 * torch.randn(6, 9, dtype=torch.float64), torch.rand(9, dtype=torch.float64) + 0.5
        logits = torch.randn(6, 9, dtype=torch.float64) if inflated else None
        size = None if library is None else 3 + torch.randn(library, dtype=torch.float64)
        given = [t for t in (mean, theta, logits, size) if t is not None]

        def of(function):
            def f(*tensors):
                rest = iter(tensors)
                mean, theta = next(rest), next(rest)
                pi = next(rest) if inflated else None
                return function(mean, theta, x, pi, next(rest, None), reduction=reduction, scale=-0.5)

            return with_grads(f, *given)

        for got, want in zip(of(ours_of_shares), of(published), strict=True):
            assert_close(got, want, rtol=1e-12, atol=1e-12)

    @pytest.mark.parametrize(("rows", "columns"), [(3, 1), (3, 7), (2, 1000), (1, 8200)])
    def test_rows_of_any_length(self, rows, columns):
        """In float32, against float64: errors are those of the logarithm of a share, about ε·log μ."""
        x = counts.counted(rows * columns, torch.float32).clamp(max=100).reshape(rows, columns)
        mean, theta = 3 * torch.randn(rows, columns), torch.rand(columns) + 0.5
        logits, library = torch.randn(rows, columns), torch.tensor([[7.0], [8.0], [9.0]][:rows])
        given = mean, theta, logits, library
        found = with_grads(lambda m, t, p, s: ours_of_shares(m, t, x, p, s), *given)
        wide = [t.double() for t in given]
        want = with_grads(lambda m, t, p, s: published(m, t, x.double(), p, s), *wide)
        for got, exact in zip(found, want, strict=True):
            scale = exact.abs().max().clamp(min=1.0)
            assert_close(got.double() / scale, exact / scale, rtol=2e-5, atol=2e-6)

    @pytest.mark.parametrize(
        "make",
        [
            lambda t: t.transpose(0, 1).contiguous().transpose(0, 1),
            lambda t: torch.stack([t, t], -1)[..., 0],
            lambda t: t[:1].expand_as(t),
            lambda t: t[:, :1].expand_as(t),
        ],
        ids=["transposed", "strided", "of one datum", "of one feature"],
    )
    def test_strides(self, make):
        x = counts.counted(40, torch.float32).clamp(max=20).reshape(4, 10)
        mean, theta = make(torch.randn(4, 10)), torch.rand(10) + 0.5
        got = with_grads(lambda m, t: ours_of_shares(m, t, x), mean, theta)
        want = with_grads(lambda m, t: ours_of_shares(m, t, x), mean.contiguous(), theta)
        assert_close(got, want, rtol=1e-6, atol=1e-6)

    def test_over_several_event_dims(self):
        x = counts.counted(24, torch.float64).clamp(max=20).reshape(2, 3, 4)
        mean, theta = torch.randn(2, 3, 4, dtype=torch.float64), torch.rand(3, 4, dtype=torch.float64) + 0.5
        got = with_grads(lambda m, t: ours_of_shares(m, t, x, event_ndim=2), mean, theta)
        want = with_grads(lambda m, t: published(m, t, x, event_ndim=2), mean, theta)
        assert got[0].shape == (2,)
        assert_close(got, want, rtol=1e-12, atol=1e-12)

    def test_logits_of_one_datum_for_all(self):
        x, theta = counts.counted(40, torch.float64).clamp(max=20).reshape(4, 10), torch.rand(10).double() + 0.5
        mean = torch.randn(10, dtype=torch.float64)
        got = with_grads(lambda m: ours_of_shares(m, theta, x), mean)
        want = with_grads(lambda m: published(m.expand(4, 10), theta, x), mean)
        assert_close(got, want, rtol=1e-12, atol=1e-12)

    def test_a_weight_of_0_leaves_the_shares_as_they_are(self):
        """It leaves out a term, not a feature of the softmax."""
        x = counts.counted(12, torch.float64).clamp(max=20).reshape(3, 4)
        mean, theta = torch.randn(3, 4, dtype=torch.float64), torch.rand(4, dtype=torch.float64) + 0.5
        weight = torch.tensor([[1.0, 0.0, 2.0, 1.0]], dtype=torch.float64)
        got = with_grads(lambda m, t, w: ours_of_shares(m, t, x, weight=w), mean, theta, weight)
        want = with_grads(lambda m, t, w: published(m, t, x, weight=w), mean, theta, weight)
        assert_close(got, want, rtol=1e-12, atol=1e-12)

    def test_features_that_cannot_be(self):
        """A logit of −∞: a share of 0."""
        mean = torch.tensor([[0.0, -math.inf, 1.0]])
        value, dmean = with_grads(lambda m: ours_of_shares(m, torch.ones(3), torch.zeros(1, 3)), mean)
        want, dwant = with_grads(lambda m: published(m, torch.ones(2), torch.zeros(1, 2)), mean[:, ::2])
        assert_close(value, want)
        assert_close(dmean[:, ::2], dwant)
        assert dmean[0, 1] == 0

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
    def test_dtypes(self, dtype):
        x = counts.counted(40, torch.float32).clamp(max=20).reshape(4, 10)
        mean, theta, library = torch.randn(4, 10).to(dtype), torch.rand(10) + 0.5, torch.tensor(2.0)
        got = with_grads(lambda m, t, s: ours_of_shares(m, t, x, log_library=s), mean, theta, library)
        want = with_grads(
            lambda m, t, s: published(m, t, x, log_library=s), mean.double(), theta.double(), library.double()
        )
        assert got[0].dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        assert [g.dtype for g in got[1:]] == [dtype, torch.float32, torch.float32]
        rough = 4 * torch.finfo(dtype).eps if dtype != torch.float64 else 1e-5
        for g, w in zip(got, want, strict=True):
            assert_close(g.double(), w, rtol=rough, atol=rough)

    def test_derivatives(self):
        x = torch.tensor([[0.0, 1, 3], [9, 0, 14]], dtype=torch.float64)
        mean, theta = torch.randn(2, 3, dtype=torch.float64), torch.rand(3, dtype=torch.float64) + 0.5
        logits, library = torch.randn(2, 3, dtype=torch.float64), torch.randn(2, 1, dtype=torch.float64)
        check_derivatives(lambda m, t, p, s: ours_of_shares(m, t, x, p, s), mean, theta, logits, library)

    def test_errors(self):
        ones = torch.ones(2, 3)
        with pytest.raises(ValueError, match="log_library is for param='softmax'"):
            vf.negative_binomial_log_prob(ones, ones, ones, log_library=ones)
        with pytest.raises(ValueError, match="of which event_ndim=0 has none"):
            vf.negative_binomial_log_prob(ones, ones, ones, param="softmax", event_ndim=0)


class _Scipy:
    """As much of SciPy's CSR matrix as is read."""

    format, ndim = "csr", 2

    def __init__(self, x):
        csr = x.to_sparse_csr()
        self.indptr, self.indices, self.data = (
            part.numpy() for part in (csr.crow_indices().int(), csr.col_indices().int(), csr.values())
        )
        self.shape, self.has_canonical_format = tuple(x.shape), True


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
class TestSparse:
    """A CSR matrix of counts, against the same as a dense table: bit for bit but for sums over data."""

    @pytest.mark.parametrize("made", [torch.Tensor.to_sparse_csr, _Scipy], ids=["torch", "scipy"])
    @pytest.mark.parametrize("event_ndim", [0, 1, 2])
    @pytest.mark.parametrize("inflated", [False, True], ids=["plain", "inflated"])
    @pytest.mark.parametrize(("rows", "columns"), [(5, 7), (3, 700), (2, 9000), (4, 0), (0, 4)])
    def test_agrees(self, rows, columns, inflated, event_ndim, made):
        x = counts.counted(rows * columns, torch.float32).clamp(max=100).reshape(rows, columns)
        x = torch.where(torch.rand(rows, columns) < 0.7, 0, x)
        x[rows // 2 :, columns // 2 :] = 0
        mean, theta = torch.rand(rows, columns) + 0.1, torch.rand(columns) + 0.5
        more = [torch.randn(rows, columns)] if inflated else []

        def f(x):
            def g(mean, theta, *logits):
                kwargs = {"zero_logits": logits[0]} if logits else {}
                return vf.negative_binomial_log_prob(mean, theta, x, event_ndim=event_ndim, **kwargs)

            return g

        got, want = with_grads(f(made(x)), mean, theta, *more), with_grads(f(x), mean, theta, *more)
        assert_close(got, want, rtol=0, atol=0)
        rate = mean.clone()
        got = with_grads(lambda r: vf.poisson_log_prob(r, made(x), event_ndim=event_ndim), rate)
        assert_close(
            got, with_grads(lambda r: vf.poisson_log_prob(r, x, event_ndim=event_ndim), rate), rtol=0, atol=0
        )

    @pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
    @pytest.mark.parametrize("dtype", [torch.float64, torch.int32, torch.int16, torch.uint8], ids=str)
    def test_options(self, dtype, reduction):
        x = counts.counted(60, torch.float32).clamp(max=100).reshape(6, 10).to(dtype)
        mean, theta, library = torch.randn(6, 10), torch.rand(10) + 0.5, torch.randn(6, 1)
        options = {"weight": torch.rand(6, 1), "reduction": reduction, "scale": -1.0, "param": "softmax"}

        def f(x):
            return lambda m, t, s: vf.negative_binomial_log_prob(m, t, x, log_library=s, **options)

        assert_close(with_grads(f(x.to_sparse_csr()), mean, theta, library), with_grads(f(x), mean, theta, library))

    def test_of_a_transposed_mean(self):
        """Which says in which order elements are walked, where x does not."""
        x, theta = counts.counted(60, torch.float32).clamp(max=100).reshape(6, 10), torch.rand(10) + 0.5
        mean = (torch.rand(10, 6) + 0.5).t()
        for event_ndim in (0, 1, 2):
            got = vf.negative_binomial_log_prob(mean, theta, x.to_sparse_csr(), event_ndim=event_ndim)
            assert_close(got, vf.negative_binomial_log_prob(mean, theta, x, event_ndim=event_ndim))

    def test_parameters_of_one_datum(self):
        x = counts.counted(60, torch.float32).clamp(max=100).reshape(6, 10)
        mean, theta = torch.rand(10) + 0.5, torch.rand(10) + 0.5
        got = with_grads(lambda m, t: vf.negative_binomial_log_prob(m, t, x.to_sparse_csr()), mean, theta)
        assert_close(got, with_grads(lambda m, t: vf.negative_binomial_log_prob(m, t, x), mean, theta))

    def test_columns_in_no_order(self):
        """SciPy's may be; a copy is sorted."""
        scipy = pytest.importorskip("scipy.sparse")
        x = scipy.csr_matrix(([2.0, 1.0], [3, 1], [0, 2]), shape=(1, 4))
        want = vf.poisson_log_prob(torch.ones(1, 4), torch.tensor([[0.0, 1, 0, 2]]))
        assert_close(vf.poisson_log_prob(torch.ones(1, 4), x), want)
        assert x.indices.tolist() == [3, 1]

    def test_derivatives(self):
        x = torch.tensor([[0.0, 1, 3], [9, 0, 0]], dtype=torch.float64).to_sparse_csr()
        mean, theta = torch.rand(2, 3, dtype=torch.float64) + 0.5, torch.rand(3, dtype=torch.float64) + 0.5
        check_derivatives(lambda m, t: vf.negative_binomial_log_prob(m, t, x), mean, theta)
        check_derivatives(lambda m: vf.poisson_log_prob(m, x), mean)

    def test_validation_and_errors(self):
        ones = torch.ones(2, 3)
        vf.poisson_log_prob(ones, ones.to_sparse_csr(), validate=True)
        with pytest.raises(ValueError, match="no counts"):
            vf.poisson_log_prob(ones, (-ones).to_sparse_csr(), validate=True)
        with pytest.raises(ValueError, match="do not broadcast"):
            vf.poisson_log_prob(torch.ones(2, 4), ones.to_sparse_csr())
        with pytest.raises(TypeError, match="x must be a dense tensor or a CSR matrix"):
            vf.poisson_log_prob(ones, ones.to_sparse_csc())
