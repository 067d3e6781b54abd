"""gaussian_kl: against truth, against PyTorch, and all its options."""

import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence
from torch.testing import assert_close

import vae_fast as vf
from helpers import accuracy, behaviour
from helpers.accuracy import float32_patterns, ulp, units
from helpers.behaviour import with_grads
from helpers.marks import each_backend
from vae_fast.checking import forms, formulas

pytestmark = each_backend

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
# Ranges of |logvar| over which the worst errors are compared with PyTorch's, for either sign.
RANGES = ((0.0, 1.0), (1.0, 16.0), (16.0, 80.0), (80.0, float("inf")))
PARAMS = ("logvar", "logstd", "std", "var", "softplus")


def ours(mu, logvar):
    return vf.gaussian_kl(mu, logvar, event_ndim=0)


def truth(*operands):
    return accuracy.truth(formulas.kl, forms.Form(), *operands)


def common(mu, logvar):
    """The form that VAEs are written with."""
    return -0.5 * (1 + logvar - mu * mu - torch.exp(logvar))


def distributions(mu, logvar, prior_mu=0.0, prior_logvar=0.0):
    p = Normal(*(v + torch.zeros_like(mu) for v in (prior_mu, torch.exp(0.5 * (prior_logvar + 0 * logvar)))))
    return kl_divergence(Normal(mu, torch.exp(0.5 * logvar), validate_args=False), p)


def logvars(dtype):
    if dtype == torch.float64:
        lv = torch.cat([accuracy.everywhere(1500, dtype), accuracy.magnitudes(1500, dtype, 1e-3, 750)])
    elif dtype == torch.float32:
        lv = torch.cat([float32_patterns(1 << 19), accuracy.magnitudes(1 << 17, dtype, 1e-3, 110)])
    else:
        lv = torch.arange(-(2**15), 2**15).to(torch.int16).view(dtype)
    return lv[torch.isfinite(lv)]


class TestAccuracy:
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_logvar_alone(self, dtype):
        """½(e^lv − 1 − lv) ≤ 3 ULP, never negative; ½(e^lv − 1) ≤ 3 ULP; no worse than PyTorch in any range.

        The reference's too: a unit of its e^lv − 1 is at most two of the value, and the difference is rounded once.
        """
        lv = logvars(dtype)
        mu = torch.zeros_like(lv)
        (value, _), slopes = truth(mu, lv)
        slope, _ = slopes["logvar"]
        kl, dmu, dlv = with_grads(ours, mu, lv)
        assert (kl >= 0).all() and (dmu == 0).all()
        errors, slope_errors = ulp(kl, value), ulp(dlv, slope)
        accuracy.assert_within(accuracy.bar(3, 3, of=(lv,)), errors, lv)
        accuracy.assert_within(accuracy.bar(3, 3, dtype), slope_errors, lv)
        size = lv.double().cpu().numpy()
        for form in (common, distributions):
            torch_value, _, torch_slope = with_grads(form, mu, lv)
            theirs, slope_theirs = ulp(torch_value, value, kl.dtype), ulp(torch_slope, slope)
            for low, high in RANGES:
                for here in ((size >= low) & (size < high), (-size >= low) & (-size < high)):
                    there = lv[torch.from_numpy(here)]
                    accuracy.assert_no_worse(errors[here], theirs[here], kl.dtype, there)
                    accuracy.assert_no_worse(slope_errors[here], slope_theirs[here], dtype, there)

    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_mu_and_logvar(self, dtype):
        """≤ 3 ULP; of the reference, to which ½μ² adds its rounding and the sum's, ≤ 3.5."""
        lv = logvars(dtype)
        mu = accuracy.everywhere(len(lv), dtype)[: len(lv)]
        mu = mu[torch.randperm(len(mu))]
        (value, _), _ = truth(mu, lv)
        kl, dmu, _ = with_grads(ours, mu, lv)
        assert (kl >= 0).all()
        accuracy.assert_within(accuracy.bar(3, 3.5, of=(lv,)), ulp(kl, value), mu, lv)
        assert torch.equal(dmu, mu)
        torch_value, _, _ = with_grads(common, mu, lv)
        accuracy.assert_no_worse(ulp(kl, value), ulp(torch_value, value, kl.dtype), kl.dtype, mu, lv)

    @pytest.mark.parametrize("spread", [3.0, None], ids=["ordinary", "wide"])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
    def test_prior(self, dtype, spread):
        """≤ 3ε·Σ|terms|, gradients too; no worse than PyTorch. Wide: σ and σp from 1e-37 to 1e37 (1e304).

        Of the reference ≤ 4: 1/σp² may be two factors 1/σp, each half a unit further off than correctly rounded.
        """
        n, slack = (100_000, 1.05) if dtype == torch.float32 else (1500, 1.25)
        if spread:
            mu, lv, prior_mu, prior_lv = (spread * torch.randn(n, dtype=dtype) for _ in range(4))
        else:
            means, logs = ((1e-18, 1e18), 170) if dtype == torch.float32 else ((1e-150, 1e150), 1400)
            mu, prior_mu = (accuracy.magnitudes(n, dtype, *means) for _ in range(2))
            lv, prior_lv = (accuracy.magnitudes(n, dtype, 1e-6, logs) for _ in range(2))
        prior_lv[::5] = torch.nextafter(lv[::5], prior_lv[::5])
        prior_mu[::7], prior_lv[::11] = mu[::7], lv[::11]
        args = (mu, lv, prior_mu, prior_lv)
        value, slopes = truth(*args)
        results = with_grads(lambda *a: vf.gaussian_kl(*a, event_ndim=0), *args)
        assert (results[0] >= 0).all()
        theirs = with_grads(distributions, *args)
        for ours_, theirs_, (exact, terms) in zip(results, theirs, (value, *slopes.values()), strict=True):
            errors = accuracy.error(ours_, exact, units(terms, dtype))
            accuracy.assert_within(accuracy.bar(3, 4), errors, *args)
            theirs_ = accuracy.error(theirs_, exact, units(terms, dtype))
            accuracy.assert_no_worse(errors, theirs_, dtype, *args, slack=slack)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
    @pytest.mark.parametrize("param", ["std", "var", "softplus", "logstd"])
    def test_param(self, dtype, param):
        """≤ 3ε·Σ|terms|: of logstd the value itself, of the others ½σ², ½ and ½|log σ²|, since σ is rounded before
        σ² − 1 − log σ² is small.

        Of the reference half a unit more for each of PyTorch's functions in σ, which is squared: 4, a softplus 5.
        """
        n, largest = (50_000, 1e18) if dtype == torch.float32 else (1000, 1e150)
        r = accuracy.magnitudes(n, dtype, 1 / largest, largest).abs()
        r = torch.cat([r, 0.01 + 3 * torch.rand(n, dtype=dtype)])
        if param == "logstd":
            r = torch.cat([torch.log(r), accuracy.magnitudes(n, dtype, 1e-9, 1)])
        if param == "softplus":
            r = torch.cat([r, -accuracy.magnitudes(n, dtype, 1e-3, 40).abs()])
        mu = torch.zeros_like(r)
        (value, terms), _ = accuracy.truth(formulas.kl, forms.Form(param), mu, r)
        kl, _ = with_grads(lambda r: vf.gaussian_kl(mu, r, param=param, event_ndim=0), r)
        errors = accuracy.error(kl, value, units(terms, dtype))
        accuracy.assert_within(accuracy.bar(3, 5 if param == "softplus" else 4), errors, r)

    def test_common_form_goes_negative(self):
        lv = torch.cat([torch.tensor([1e-3]), torch.logspace(-7, -3, 1000), -torch.logspace(-7, -3, 1000)])
        mu = torch.zeros_like(lv)
        (value, _), _ = truth(mu, lv)
        for lost in (common(mu, lv), 0.5 * (torch.exp(lv) + mu * mu - 1 - lv)):
            assert abs(float(lost[0]) / value[0] - 1) > 0.01
        assert (lost < 0).any()
        accuracy.assert_within(3, ulp(ours(mu, lv), value), lv)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
    def test_finite_results_stay_finite(self, dtype):
        """Up to the largest: (½μ)μ, ½e^lv, and their gradients; beyond, infinity and not NaN."""
        largest = torch.finfo(dtype).max
        edge = float(np.log(np.longdouble(2) * np.longdouble(largest))) * (1 - 1e-6)
        mu = torch.tensor([0.0, 1.999 * largest**0.5 / 2**0.5, 0.0, 0.0], dtype=dtype)
        lv = torch.tensor([edge, 0.0, 1.01 * edge, -largest / 2], dtype=dtype)
        kl, _, dlv = with_grads(ours, mu, lv)
        assert kl.isfinite().tolist() == [True, True, False, True] and kl[2] == torch.inf
        assert dlv.isfinite().tolist() == [True, True, False, True] and dlv[2] == torch.inf

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
    def test_overflow_with_a_prior_is_infinite(self, dtype):
        big = 100.0 if dtype == torch.float32 else 1000.0
        rows = ([0.0, 0, 1], [big, big / 2, 0], [0.0, 0, 0], [0.0, -big / 2, -big])
        args = [torch.tensor(row, dtype=dtype) for row in rows]
        kl, dmu, dlv, _, dprior = with_grads(lambda *a: vf.gaussian_kl(*a, event_ndim=0), *args)
        assert kl.tolist() == [torch.inf] * 3
        assert dlv.tolist() == [torch.inf] * 3 and dprior.tolist() == [-torch.inf] * 3

    def test_sum_of_a_shared_gradient(self):
        """d/dlogvar of one number for 10⁷ elements: its own rounding, and the sum of as many."""
        n = 10**7
        lv = torch.randn(1, 1)
        dlv = with_grads(lambda v: vf.gaussian_kl(torch.zeros(n // 100, 100), v), lv)[1].double()
        want = n * torch.expm1(lv.double()) / 2
        assert (dlv - want).abs() <= (accuracy.rows_bound(n) + 3 * torch.finfo(torch.float32).eps) * want.abs()


# What a prior may be beside tensors.
PRIORS = {
    "numbers": (2, lambda mu, lv: vf.gaussian_kl(mu, lv, 0.3, -0.7)),
    "number_mean": (2, lambda mu, lv: vf.gaussian_kl(mu, lv, 0.3)),
    "mean_only": (3, lambda mu, lv, pm: vf.gaussian_kl(mu, lv, pm)),
    "logvar_only": (3, lambda mu, lv, pv: vf.gaussian_kl(mu, lv, None, pv)),
}


@pytest.mark.parametrize(("count", "f"), PRIORS.values(), ids=PRIORS)
class TestDerivativesBesideNumbers:
    def test_numerical(self, count, f):
        behaviour.check_derivatives(f, *(torch.randn(1, 2, 3, dtype=torch.float64) for _ in range(count)))

    def test_transforms(self, count, f):
        behaviour.check_transforms(f, *(torch.randn(3, 2, 3, dtype=torch.float64) for _ in range(count)))


def test_derivatives_where_branches_meet():
    lv = torch.tensor([-1.0, 0.0, 1.0, 1e-3, -40.0, 40.0, 300.0], dtype=torch.float64)
    mu = torch.zeros_like(lv, requires_grad=True)
    lv.requires_grad_()
    (first,) = torch.autograd.grad(ours(mu, lv).sum(), lv, create_graph=True)
    assert_close(first, torch.expm1(lv) / 2)
    (second,) = torch.autograd.grad(first.sum(), lv, create_graph=True)
    assert_close(second, torch.exp(lv) / 2)
    (third,) = torch.autograd.grad(second.sum(), lv)
    assert_close(third, torch.exp(lv) / 2)


def test_free_bits():
    """max(KL, λ) of every element; at equality the gradient is 0."""
    mu = torch.tensor([[0.0, 1.0, 2.0, 0.5]], requires_grad=True)
    lv = torch.zeros(1, 4, requires_grad=True)
    kl = vf.gaussian_kl(mu, lv, free_bits=0.5)
    assert kl.tolist() == [0.5 + 0.5 + 2.0 + 0.5]
    dmu, dlv = torch.autograd.grad(kl.sum(), (mu, lv))
    assert dmu.tolist() == [[0.0, 0.0, 2.0, 0.0]]
    lv = torch.tensor([[3.0, 3.0, 0.1, -2.0]])
    each = ours(torch.zeros(1, 4), lv)
    assert_close(vf.gaussian_kl(torch.zeros(1, 4), lv, free_bits=0.5), each.clamp(min=0.5).sum(-1))
    (grad,) = with_grads(lambda lv: vf.gaussian_kl(torch.zeros(1, 4), lv, free_bits=0.5), lv)[1:]
    assert_close(grad, torch.where(each > 0.5, torch.expm1(lv) / 2, 0.0))
    assert vf.gaussian_kl(torch.full((1, 4), torch.nan), lv, free_bits=0.5).isnan().all()


def test_numbers_and_none_are_what_they_say():
    mu, lv = (torch.randn(4, 2, 3, dtype=torch.float64) for _ in range(2))
    full = torch.full_like(mu, 0.4)
    assert_close(vf.gaussian_kl(mu, 0.4), vf.gaussian_kl(mu, full))
    assert_close(vf.gaussian_kl(mu, lv, 0.4, 0.4), vf.gaussian_kl(mu, lv, full, full))
    assert_close(vf.gaussian_kl(mu, lv), vf.gaussian_kl(mu, lv, 0, 0))
    assert_close(vf.gaussian_kl(mu, lv, None, 0.4), vf.gaussian_kl(mu, lv, torch.zeros_like(mu), full))
    # None is σp = 1 whatever the param; a number is what the param says.
    assert_close(vf.gaussian_kl(mu, lv, param="logstd"), vf.gaussian_kl(mu, 2 * lv))
    assert_close(vf.gaussian_kl(mu, lv.exp(), 0.0, 2.0, param="std"), vf.gaussian_kl(mu, 2 * lv, 0, np.log(4)))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_neither_numbers_nor_0d_tensors_promote(dtype):
    mu = torch.randn(4, 3).to(dtype)
    assert vf.gaussian_kl(mu, 0.5, torch.tensor(0.1, dtype=torch.float64)).dtype == vf.gaussian_kl(mu, mu).dtype
