"""``prior_param``, ``prior_param_eps``, ``prior_bounds``: a prior whose σ is given in another form."""

import pytest
import torch
from torch.distributions import Normal, kl_divergence
from torch.testing import assert_close

import vae_fast as vf
from helpers.behaviour import sigma_of, with_grads
from helpers.calls import KL_PRIOR, RSAMPLE_KL_PRIOR, same_bits
from helpers.cases import PARAMS
from helpers.marks import each_backend
from helpers.published import assert_published

pytestmark = each_backend

SHAPE = (6, 3)
each_to_a_prior = pytest.mark.parametrize("call", [KL_PRIOR, RSAMPLE_KL_PRIOR], ids=str)
PAIRS = [(p, q) for p in PARAMS for q in PARAMS]


def inputs(dtype=torch.float64, shape=SHAPE):
    """Arguments that every form takes."""
    mu, r, prior_mu, prior_r = (torch.randn(shape, dtype=torch.float64) for _ in range(4))
    return [t.to(dtype) for t in (mu, 0.3 + r.abs(), prior_mu, 0.3 + prior_r.abs())]


def clamped(r, bounds):
    return r if bounds is None else r.clamp(*bounds)


def published(own, prior):
    """The divergence of torch.distributions, element by element; a form is (param, eps, bounds)."""

    def kl(mu, r, prior_mu, prior_r):
        p, q = (
            Normal(m, sigma_of(param, eps)(clamped(raw, bounds)), validate_args=False)
            for m, raw, (param, eps, bounds) in ((mu, r, own), (prior_mu, prior_r, prior))
        )
        return kl_divergence(p, q)

    return kl


def options(own, prior):
    names = ("param", "param_eps", "bounds")
    return dict(zip(names, own, strict=True)) | {f"prior_{n}": v for n, v in zip(names, prior, strict=True)}


def kl_of(call, **given):
    """The divergence alone."""
    return lambda *t: call(*t, **given)[-1]


@each_to_a_prior
@pytest.mark.parametrize(("param", "prior"), PAIRS)
@pytest.mark.parametrize("kind", ["plain", "eps", "bounds", "both"])
def test_all_pairs(call, param, prior, kind):
    own = (param, 0.1 if kind in ("eps", "both") else 0.0, (0.5, 1.3) if kind in ("bounds", "both") else None)
    other = (prior, 0.2 if kind in ("eps", "both") else 0.0, (0.4, 1.1) if kind in ("bounds", "both") else None)
    formula = published(own, other)
    got = with_grads(kl_of(call, **options(own, other)), *inputs_of(kind))
    assert_close(got, with_grads(lambda *t: formula(*t).sum(-1), *inputs_of(kind)))


def inputs_of(kind):
    torch.manual_seed(len(kind))
    return inputs()


@each_to_a_prior
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("param", "prior"), [("logvar", "std"), ("softplus", "logvar"), ("std", "softplus")])
def test_other_dtypes(call, dtype, param, prior):
    own, other = (param, 0.0, None), (prior, 0.25, (0.375, 2.0))
    formula = published(own, other)
    compile = (dtype, param, call) == (torch.bfloat16, "logvar", KL_PRIOR)
    f = kl_of(call, **options(own, other))
    assert_published(f, lambda *t: formula(*t).sum(-1), *inputs(dtype), compile=compile)


@each_to_a_prior
class TestDefaults:
    FORM = {"param": "softplus", "param_eps": 0.1, "bounds": (0.5, 1.0)}

    def results(self, call, **given):
        torch.manual_seed(0)
        return with_grads(kl_of(call, **self.FORM, **given), *inputs(torch.float32))

    def same(self, call, given, **meant):
        names = ("prior_param", "prior_param_eps", "prior_bounds")
        want = self.results(call, **dict(zip(names, meant["is_"], strict=True)))
        assert same_bits(self.results(call, **given), want)

    def test_as_the_posterior(self, call):
        self.same(call, {}, is_=("softplus", 0.1, (0.5, 1.0)))

    @pytest.mark.parametrize("param", PARAMS)
    def test_a_param_of_its_own(self, call, param):
        """Is without eps and bounds, also where it is the posterior's."""
        self.same(call, {"prior_param": param}, is_=(param, 0.0, (None, None)))

    def test_no_bounds(self, call):
        self.same(call, {"prior_bounds": (None, None)}, is_=("softplus", 0.1, (None, None)))

    def test_bounds_alone(self, call):
        self.same(call, {"prior_bounds": (None, 0.7)}, is_=("softplus", 0.1, (None, 0.7)))

    @pytest.mark.parametrize("eps", [0.0, 0.3])
    def test_eps_alone(self, call, eps):
        self.same(call, {"prior_param_eps": eps}, is_=("softplus", eps, (0.5, 1.0)))

    def test_are_not_all_one(self, call):
        forms = ({}, {"prior_param": "softplus"}, {"prior_bounds": (None, None)}, {"prior_param_eps": 0.3})
        values = [self.results(call, **given)[0] for given in forms]
        assert all(not torch.equal(a, b) for k, a in enumerate(values) for b in values[:k])

    def test_without_a_prior(self, call):
        """They say nothing of N(0, I)."""
        torch.manual_seed(0)
        mu, r, *_ = inputs()
        more = {} if call is KL_PRIOR else {"seed": 7}
        kl = [
            call.function(mu, r, **more, **given) for given in ({}, {"prior_param": "std", "prior_param_eps": 0.5})
        ]
        assert_close(*kl, rtol=0, atol=0)

    @pytest.mark.parametrize(
        ("given", "error", "message"),
        [
            ({"prior_param": "sigma"}, ValueError, "prior_param must be one of 'logvar'"),
            ({"prior_param_eps": "1"}, TypeError, "prior_param_eps must be a number"),
            ({"prior_bounds": (2.0, 1.0)}, ValueError, "bounds must have low <= high"),
            ({"prior_bounds": 2.0}, ValueError, "bounds must be None or a pair"),
        ],
    )
    def test_wrong(self, call, given, error, message):
        with pytest.raises(error, match=message):
            call(*inputs(), **given)


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("free_bits", [None, 0.4])
def test_weights_and_reductions(reduction, free_bits):
    own, other = ("logvar", 0.0, (-1.0, 1.0)), ("softplus", 0.1, None)
    formula, weight = published(own, other), torch.rand(SHAPE, dtype=torch.float64)
    weight[1] = 0.0

    def ours(*t):
        given = {"weight": t[-1], "reduction": reduction, "scale": -0.5, "free_bits": free_bits}
        return vf.gaussian_kl(*t[:-1], **given, **options(own, other))

    def theirs(*t):
        kl = formula(*t[:-1])
        kl = kl if free_bits is None else kl.clamp(min=free_bits)
        each = (t[-1] * kl).sum(-1)
        return -0.5 * {"none": each, "sum": each.sum(), "mean": each.mean()}[reduction]

    tensors = inputs()
    assert_close(with_grads(ours, *tensors, weight), with_grads(theirs, *tensors, weight))


@pytest.mark.parametrize("shape", [(3,), (6, 1), ()], ids=str)
def test_priors_of_smaller_shapes(shape):
    """A prior a feature, a datum, or one: its gradient has its shape."""
    own, other = ("std", 0.0, None), ("logvar", 0.0, (-0.5, 1.0))
    mu, r, prior_mu, prior_r = (t.double() for t in inputs())
    prior_mu, prior_r = prior_mu[0, 0].expand(shape).clone(), prior_r[0, 0].expand(shape).clone()
    formula = published(own, other)
    got = with_grads(kl_of(KL_PRIOR, **options(own, other)), mu, r, prior_mu, prior_r)
    assert_close(got, with_grads(lambda *t: formula(*t).sum(-1), mu, r, prior_mu, prior_r))
    number = vf.gaussian_kl(mu, r, 0.25, -0.5, **options(own, other))
    assert_close(number, formula(mu, r, torch.tensor(0.25), torch.tensor(-0.5, dtype=torch.float64)).sum(-1))
