"""gaussian_log_prob: against truth, against PyTorch, and all its options."""

import math

import pytest
import torch
from torch.distributions import Normal
from torch.testing import assert_close

import vae_fast as vf
from helpers import accuracy, behaviour
from helpers.accuracy import units
from helpers.behaviour import with_grads
from helpers.marks import each_backend
from vae_fast.checking import formulas

pytestmark = each_backend

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
PARAMS = ("logvar", "logstd", "std", "var", "softplus")


def ours(mean, logvar, x):
    return vf.gaussian_log_prob(mean, logvar, x, event_ndim=0)


def torchs(mean, logvar, x):
    return Normal(mean, torch.exp(0.5 * logvar), validate_args=False).log_prob(x)


def truth(mean, logvar, x):
    """((value, Σ|terms|), …) of the log density and of its derivatives by mean, logvar and x."""
    value, slopes = accuracy.truth(formulas.gaussian, formulas.Form(), mean, logvar, x)
    return value, *slopes.values()


class TestAccuracy:
    @pytest.mark.parametrize("spread", [1.0, 4.0, None], ids=["near", "ordinary", "wide"])
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_terms(self, dtype, spread):
        """≤ 3ε·Σ|terms|, gradients too; no worse than PyTorch. Wide: σ from 1e-37 to 1e37 (1e304).

        Of the reference ≤ 4: 1/σ² may be two factors 1/σ, each half a unit further off than correctly rounded.
        """
        n, slack = (1500, 1.25) if dtype == torch.float64 else (100_000, 1.05)
        if spread:
            args = [(spread * torch.randn(n, dtype=torch.float64)).to(dtype) for _ in range(3)]
        elif dtype == torch.float16:
            args = [accuracy.magnitudes(n, dtype, 1e-3, top) for top in (1e3, 20, 1e3)]
        else:
            (low, high), logs = ((1e-150, 1e150), 1400) if dtype == torch.float64 else ((1e-18, 1e18), 170)
            mean, x = (accuracy.magnitudes(n, dtype, low, high) for _ in range(2))
            args = [mean, accuracy.magnitudes(n, dtype, 1e-6, logs), x]
        args[0][::7] = args[2][::7]
        results, theirs = with_grads(ours, *args), with_grads(torchs, *args)
        for out, torch_out, (value, terms) in zip(results, theirs, truth(*args), strict=True):
            unit = units(terms, out.dtype)
            errors = accuracy.error(out, value, unit)
            accuracy.assert_within(accuracy.bar(3, 4), errors, *args)
            torch_errors = accuracy.error(torch_out, value, unit, out.dtype)
            accuracy.assert_no_worse(errors, torch_errors, out.dtype, *args, slack=slack)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
    def test_mean_equal_to_x(self, dtype):
        """x = m contributes 0 to the square whatever σ, and its gradients."""
        logvar = accuracy.everywhere(2000, dtype)
        logvar = torch.cat([logvar[logvar.abs() < torch.finfo(dtype).max / 4], torch.tensor([-800.0, 800, -3000])])
        x = torch.randn_like(logvar)
        log_prob, dmean, dlogvar, dx = with_grads(ours, x, logvar.to(dtype), x)
        assert_close(log_prob, -0.5 * (logvar.to(dtype) + math.log(2 * math.pi)))
        assert (dmean == 0).all() and (dx == 0).all() and (dlogvar == -0.5).all()

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
    def test_finite_results_stay_finite(self, dtype):
        """½t² up to the largest number, where t² is beyond it."""
        t = torch.tensor([1.3, -1.3], dtype=dtype) * torch.finfo(dtype).max ** 0.5
        zero = torch.zeros_like(t)
        log_prob, _, dlogvar, _ = with_grads(ours, zero, zero, t)
        assert log_prob.isfinite().all() and dlogvar.isfinite().all()
        assert_close(dlogvar, (0.5 * t) * t)

    def test_nan_and_infinity_stay_in_their_datum(self):
        mean, logvar, x = (torch.randn(4, 3) for _ in range(3))
        mean[1, 0], x[2, 1] = torch.nan, torch.inf
        results = with_grads(vf.gaussian_log_prob, mean, logvar, x)
        clean = with_grads(vf.gaussian_log_prob, mean[[0, 3]], logvar[[0, 3]], x[[0, 3]])
        for out, want in zip(results, clean, strict=True):
            assert torch.equal(out[[0, 3]], want)
        assert results[0][1].isnan() and results[0][2] == -torch.inf

    @pytest.mark.parametrize("shape", [(1, 10**7), (10**4, 100)], ids=str)
    def test_sums(self, shape):
        mean, x, logvar = torch.randn(shape), torch.randn(shape), torch.randn(shape[-1])
        terms = ours(mean, logvar, x).double()
        total = vf.gaussian_log_prob(mean, logvar, x).double()
        bound = accuracy.rows_bound(shape[-1]) * terms.abs().sum(-1)
        assert ((total - terms.sum(-1)).abs() <= bound).all()
        if len(terms) > 1:
            total = vf.gaussian_log_prob(mean, logvar, x, reduction="sum").double()
            assert (total - terms.sum()).abs() <= accuracy.rows_bound(x.numel()) * terms.abs().sum()


MASK = torch.tensor([0.0, 1.0, 2.5], dtype=torch.float64)
CASES = {
    "none": vf.gaussian_log_prob,
    "elementwise": ours,
    "two_event_dims": lambda m, v, x: vf.gaussian_log_prob(m, v, x, event_ndim=2, x_scale=0.5),
    "sum": lambda m, v, x: vf.gaussian_log_prob(m, v, x, reduction="sum", scale=-1.0),
    "mean": lambda m, v, x: vf.gaussian_log_prob(m, v, x, reduction="mean", scale=0.3, x_scale=2.0),
    "weight": lambda m, v, x: vf.gaussian_log_prob(m, v, x, weight=MASK.to(m)),
    "bounds": lambda m, v, x: vf.gaussian_log_prob(m, v, x, bounds=(-0.5, 0.7)),
    **{p: lambda m, r, x, p=p: vf.gaussian_log_prob(m, r, x, param=p) for p in PARAMS},
    **{p + "_eps": lambda m, r, x, p=p: vf.gaussian_log_prob(m, r, x, param=p, param_eps=0.2) for p in PARAMS},
}


def inputs(case, dtype=torch.float64, shape=(4, 2, 3)):
    mean, r, x = (torch.randn(shape, dtype=torch.float64) for _ in range(3))
    if case.startswith(("std", "var")):
        r = 0.3 + r.abs()
    return [t.to(dtype) for t in (mean, r, x)]


@pytest.mark.parametrize("case", CASES)
class TestDerivatives:
    def test_numerical(self, case):
        behaviour.check_derivatives(CASES[case], *inputs(case, shape=(1, 2, 3)))

    def test_transforms(self, case):
        behaviour.check_transforms(CASES[case], *inputs(case, shape=(3, 2, 3)))


class TestOptions:
    @pytest.mark.parametrize("param", PARAMS)
    @pytest.mark.parametrize("eps", [0.0, 0.3])
    def test_param_is_what_it_says(self, param, eps):
        mean, r, x = inputs(param)
        sigma = behaviour.sigma_of(param, eps)
        got = with_grads(
            lambda *a: vf.gaussian_log_prob(*a, param=param, param_eps=eps, bounds=(0.4, 1.1), event_ndim=0),
            *(mean, r, x),
        )
        want = with_grads(lambda m, r, x: Normal(m, sigma(r.clamp(0.4, 1.1))).log_prob(x), mean, r, x)
        assert_close(got, want)

    def test_shapes_and_reductions(self):
        args = inputs("none", shape=(5, 2, 3))
        element = ours(*args)
        for event_ndim in range(4):
            out = vf.gaussian_log_prob(*args, event_ndim=event_ndim)
            assert_close(out, element.reshape(*(5, 2, 3)[: 3 - event_ndim], -1).sum(-1))
            total = vf.gaussian_log_prob(*args, event_ndim=event_ndim, reduction="sum", scale=-2.0)
            assert_close(total, -2 * element.sum())
            assert_close(vf.gaussian_log_prob(*args, event_ndim=event_ndim, reduction="mean"), out.mean())

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16], ids=str)
    @pytest.mark.parametrize("param", PARAMS)
    def test_weight_zero_hides_anything(self, dtype, param):
        tensors = [t.abs() + 0.1 for t in inputs(param, dtype, (6, 4))]
        w = torch.rand(6, 4) < 0.5

        def f(*a):
            return vf.gaussian_log_prob(*a, weight=w, param=param)

        clean = with_grads(f, *tensors)
        for bad in (torch.nan, torch.inf, -torch.inf, -1.0, 6e4):
            dirty = with_grads(f, *(torch.where(w, t, bad) for t in tensors))
            for out, want in zip(dirty, clean, strict=True):
                assert torch.equal(out, want)
            for grad in dirty[1:]:
                assert (grad[~w] == 0).all()

    def test_gradients_have_their_arguments_shape(self):
        full = (5, 2, 3)
        for logvar in ((3,), (5, 1, 1), (), (2, 1)):
            for mean in (full, (3,), (1, 1, 1)):
                behaviour.check_shape_of_gradient(vf.gaussian_log_prob, (mean, logvar, full), full)

    def test_number_for_logvar(self):
        mean, _, x = inputs("none")
        want = with_grads(lambda m, x: vf.gaussian_log_prob(m, torch.full_like(m, -0.4), x), mean, x)
        assert_close(with_grads(lambda m, x: vf.gaussian_log_prob(m, -0.4, x), mean, x), want)
        assert vf.gaussian_log_prob(mean.float(), -0.4, x.float()).dtype == torch.float32

    def test_samples_broadcast_over_x(self):
        mean, logvar, x = torch.randn(7, 5, 3), torch.randn(7, 5, 3), torch.randn(5, 3)
        want = torch.stack([vf.gaussian_log_prob(m, v, x) for m, v in zip(mean, logvar, strict=True)])
        assert_close(vf.gaussian_log_prob(mean, logvar, x), want)

    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_bytes_and_bools_count_as_their_values(self, dtype):
        mean, logvar = torch.randn(300, 5).to(dtype), torch.randn(5).to(dtype)
        pixels, mask = torch.randint(0, 256, (300, 5), dtype=torch.uint8), torch.rand(300, 5) < 0.5
        for x, x_scale in ((pixels, 1 / 255), (mask, 1.0), (mask.to(torch.uint8), 1.0)):
            as_float = x.to(torch.float64 if dtype == torch.float64 else torch.float32)

            def f(m, v, x, x_scale=x_scale):
                return vf.gaussian_log_prob(m, v, x, x_scale=x_scale)

            got, want = with_grads(f, mean, logvar, x), with_grads(f, mean, logvar, as_float)
            assert len(got) == 3
            for out, expected in zip(got, want[:3], strict=True):
                assert torch.equal(out, expected)

    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    @pytest.mark.parametrize("other", DTYPES, ids=str)
    def test_dtypes(self, dtype, other):
        """mean and logvar promote each other; x does not."""
        mean, logvar, x = torch.randn(3, 4).to(dtype), torch.randn(3, 4).to(other), torch.randn(3, 4).to(other)
        log_prob, dmean, dlogvar, dx = with_grads(vf.gaussian_log_prob, mean, mean, x)
        assert log_prob.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        assert (dmean.dtype, dx.dtype) == (dtype, other)
        promoted = torch.promote_types(dtype, other)
        got = vf.gaussian_log_prob(mean, logvar, x)
        want = vf.gaussian_log_prob(mean.to(promoted), logvar.to(promoted), x)
        assert got.dtype == want.dtype and torch.equal(got, want)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
    @pytest.mark.parametrize("case", ["none", "mean", "weight", "softplus", "std_eps"])
    def test_half(self, dtype, case):
        behaviour.check_half(CASES[case], dtype, *inputs(case, dtype))


class TestLayouts:
    @pytest.mark.parametrize("case", ["none", "elementwise", "sum", "weight"])
    def test_inputs(self, case):
        behaviour.check_layouts(CASES[case], *inputs(case, torch.float32, (4, 3, 5, 3)))

    @pytest.mark.parametrize("dim", [0, 1, 2])
    def test_expanded(self, dim):
        behaviour.check_expanded(CASES["two_event_dims"], *inputs("none", torch.float32), dim=dim)

    @pytest.mark.parametrize("case", ["none", "elementwise", "two_event_dims", "sum"])
    def test_upstreams(self, case):
        behaviour.check_upstreams(CASES[case], *inputs(case, torch.float32))


class TestCompiled:
    def test_compiled(self):
        behaviour.check_compiled(CASES["softplus_eps"], *inputs("none", torch.float32, (8, 4, 3)))

    def test_exported(self):
        behaviour.check_exported(CASES["mean"], *inputs("none", torch.float32))
