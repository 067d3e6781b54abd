"""The raw operators: all registered, checked by opcheck, and equal to the public functions that stand on them."""

import pytest
import torch
from torch.library import opcheck
from torch.testing import assert_close

import vae_fast as vf
from helpers.marks import each_backend
from helpers.raw_calls import LAYOUTS, MEAN, NOISE, OPS, PASS, PROBS, SOFTPLUS, SUM, arguments, calls
from vae_fast import operators
from vae_fast.backends import OPS as OPERATORS
from vae_fast.backends import choose, kernel
from vae_fast.operators import MEAN_PARAMS

pytestmark = each_backend


def test_every_schema_is_registered():
    for definition in operators.DEFINITIONS:
        schema = torch._C.parse_schema(f"vae_fast::{definition}")
        packet = getattr(OPS, schema.name.removeprefix("vae_fast::"))
        registered = getattr(packet, schema.overload_name or "default")
        assert torch.Tag.pt2_compliant_tag in registered.tags
        assert str(registered._schema) == str(schema)
    schemas = operators.SCHEMAS | operators.PAIRWISE_SCHEMAS
    assert {name.rsplit("_", 1)[0] for name in schemas} == set(OPERATORS)
    assert {name for name, _ in calls(torch.float32)} == set(operators.SCHEMAS)


def test_graphs_operators():
    """The overload with a gradient is the operator, whose gradients are its backward operator's."""
    for name, args in calls(torch.float32):
        if name not in operators.DIFFERENTIABLE:
            continue
        overload = getattr(OPS, name).autograd
        opcheck(overload, args, test_utils=["test_schema", "test_faketensor", "test_autograd_registration"])
        ours, theirs = overload(*args), getattr(OPS, name)(*args)
        assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)


def test_what_a_package_cannot_hold():
    """None is an empty shape, the largest number no bound."""
    mu, logvar = torch.zeros(3, 4), torch.full((3, 4), torch.inf)
    largest = torch.finfo(torch.float64).max
    for overload in (OPS.rsample_fwd.default, OPS.rsample_fwd.autograd):
        held = arguments("rsample_fwd", mu, logvar, sample_shape=None, **NOISE, low=-largest, high=largest)
        meant = arguments("rsample_fwd", mu, logvar, **NOISE)
        z = overload(*held)
        assert torch.equal(z, OPS.rsample_fwd(*meant)) and z.isinf().all()
    prior = (mu, torch.zeros(3, 4), mu, logvar)
    for overload in (OPS.gaussian_kl_fwd.default, OPS.gaussian_kl_fwd.autograd):
        bounds = {"prior_low": -largest, "prior_high": largest}
        kl, *_ = overload(*arguments("gaussian_kl_fwd", *prior, **bounds, needs=(False,) * 4))
        assert kl.isinf().all()
    place = {**NOISE, "dtype": torch.float32, "device": mu.device}
    held, meant = (arguments("standard_normal_fwd", sample_shape=s, shape=s, **place) for s in (None, ()))
    eps = OPS.standard_normal_fwd(*held)
    assert eps.shape == () and torch.equal(eps, OPS.standard_normal_fwd(*meant))
    *others, _, device = held
    assert torch.equal(eps, OPS.reference_normals(*others, device))


@pytest.mark.compiles
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_opcheck(dtype, layout):
    """Schemas are kept, fakes give the shapes, dtypes and strides of the real results, no input is returned."""
    traced = set()
    for name, args in calls(dtype, LAYOUTS[layout]):
        utils = ["test_schema", "test_faketensor"]
        if (dtype, layout) == (torch.float32, "channels_last") and (name, len(args)) not in traced:
            utils.append("test_aot_dispatch_dynamic")
            traced.add((name, len(args)))
        opcheck(getattr(OPS, name).default, args, test_utils=utils)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients_have_the_strides_of_empty_like(layout):
    for name, args in calls(torch.float32, LAYOUTS[layout]):
        if len(args) > 3 and isinstance(args[-2], torch.Tensor) and args[-1] == 1:
            both, none, *_ = getattr(OPS, name)(*args)
            assert both.shape == args[-2].shape and both.stride() == torch.empty_like(args[-2]).stride()
            assert none.shape == (0,)
        elif name == "gaussian_log_prob_bwd":
            _, mean, logvar, x, weight = args[:5]
            dmean, dlogvar, dx, dweight = getattr(OPS, name)(*args)
            assert dmean.stride() == torch.empty_like(mean).stride() and dmean.shape == mean.shape
            assert dlogvar.shape == logvar.shape
            assert dx.shape == (x.shape if args[-2] else (0,))
            assert dweight.shape == (weight.shape if args[-1] else (0,))
        elif name == "negative_binomial_log_prob_bwd":
            operands, needs, grads = (*args[1:5], args[6]), args[-5:], getattr(OPS, name)(*args)
            for operand, need, grad in zip(operands, needs, grads, strict=True):
                like = torch.empty_like(operand) if need else args[1].new_empty(0)
                assert (grad.shape, grad.dtype, grad.stride()) == (like.shape, like.dtype, like.stride())
        if name == "rsample_fwd":
            z = OPS.rsample_fwd(*arguments(name, *args[:2]))
            assert z.stride() == torch.empty_like(args[0]).stride()


def grads(out, wanted, upstream):
    return torch.autograd.grad(out, wanted, upstream)


class TestPublicFunctionsStandOnThem:
    """The public function and its gradients are the raw operator's results."""

    @pytest.fixture(autouse=True)
    def operands(self, backend):
        """On the backend's device."""
        self.a, self.b, self.c, self.d = (torch.randn(4, 3, 5, requires_grad=True) for _ in range(4))
        self.g = torch.randn(4, 3)

    def raw(self, name, *given, **options):
        """What the backend that serves registers, or, for the reference, what it would."""
        serving = choose(name.rsplit("_", 1)[0], self.a.device, None)
        with torch.no_grad():
            return kernel(serving, name)(*arguments(name, *given, **options))

    def test_standard_normal(self):
        z = vf.standard_normal((4, 3), seed=5, offset=3, sample=2)
        options = {"sample_shape": (), "shape": (4, 3), **NOISE, "dtype": torch.float32, "device": z.device}
        assert torch.equal(z, self.raw("standard_normal_fwd", **options))

    def test_rsample(self):
        z = vf.rsample(self.a, self.b, 2, **NOISE, temperature=0.5)
        options = {"sample_shape": (2,), **NOISE, "temperature": 0.5}
        assert torch.equal(z, self.raw("rsample_fwd", self.a, self.b, **options))
        dz = torch.randn_like(z)
        want = self.raw("rsample_bwd", dz, self.a, self.b, **options, needs=(True, True))
        assert_close(grads(z, (self.a, self.b), dz), want)

    def test_rsample_of_given_noise(self):
        """On the stream of a seed, whose word the raw operator takes; and ε itself."""
        stream = {"seed": 5, "stream": 2**31, "first_sample": 7}
        z = vf.rsample(self.a, self.b, 2, **stream)
        word = {"seed": 5, "first_sample": 7 - 2**63}
        assert torch.equal(z, self.raw("rsample_fwd", self.a, self.b, sample_shape=(2,), **word))
        noise = torch.randn(2, 4, 3, 5)
        z = vf.rsample(self.a, self.b, 2, noise=noise)
        assert torch.equal(z, self.raw("rsample_fwd", self.a, self.b, sample_shape=(2,), noise=noise))

    def test_rsample_kl(self):
        z, kl = vf.rsample_kl(self.a, self.b, 2, **NOISE, free_bits=0.2)
        options = {"sample_shape": (2,), **NOISE, "free_bits": 0.2}
        for out, want in zip((z, kl), self.raw("rsample_kl_fwd", self.a, self.b, **options), strict=True):
            assert torch.equal(out, want)
        dz = torch.randn_like(z)
        needs = (True, True, False, False)
        want = self.raw("rsample_kl_bwd", dz, self.g, self.a, self.b, **options, needs=needs)[:2]
        assert_close(grads((z, kl), (self.a, self.b), (dz, self.g)), want)

    def test_rsample_kl_to_a_prior(self):
        operands = (self.a, self.b, self.c, self.d)
        z, kl = vf.rsample_kl(*operands[:2], **NOISE, prior_mu=self.c, prior_logvar=self.d, prior_param="softplus")
        options = {**NOISE, "prior_param": SOFTPLUS}
        for out, want in zip((z, kl), self.raw("rsample_kl_fwd", *operands, **options), strict=True):
            assert torch.equal(out, want)
        dz = torch.randn_like(z)
        want = self.raw("rsample_kl_bwd", dz, self.g, *operands, **options, needs=(True,) * 4)
        assert_close(grads((z, kl), operands, (dz, self.g)), want)

    def test_gaussian_kl(self):
        operands = (self.a, self.b, self.c, self.d)
        weight = torch.tensor(2.0, dtype=torch.float64)
        raw = {"scale": -0.5, "param": SOFTPLUS, "prior_param": SOFTPLUS, "low": -0.5, "high": torch.inf}
        raw |= {"bounds_grad": PASS, "prior_low": -torch.inf, "prior_high": 1.0}
        public = {"scale": -0.5, "param": "softplus", "bounds": (-0.5, None), "bounds_grad": "pass"}
        public |= {"prior_bounds": (None, 1.0)}
        for options, same in (({"scale": -0.5}, {"scale": -0.5}), (public, raw)):
            kl = vf.gaussian_kl(*operands, weight=2.0, **options)
            forward = self.raw("gaussian_kl_fwd", *operands, weight, **same, needs=(True,) * 4)
            assert torch.equal(kl, forward[0])
            backward = (self.g, *operands, weight)
            want = self.raw("gaussian_kl_bwd", *backward, **same, needs=(*(True,) * 4, False))[:4]
            assert_close(grads(kl, operands, self.g), want)
            kl = vf.gaussian_kl(*operands, weight=2.0, **options)
            assert_close(grads(kl, operands, torch.ones_like(kl)), tuple(forward[1:]))

    @pytest.mark.parametrize("positive", [None, 3.0])
    def test_bernoulli_log_prob(self, positive):
        x = self.b.detach().sigmoid().requires_grad_()
        log_prob = vf.bernoulli_log_prob(self.a, x, x_scale=0.5, pos_weight=positive)
        number = None if positive is None else torch.tensor(positive, dtype=torch.float64)
        operands, options, needs = (self.a, x, number), {"x_scale": 0.5}, (True, True)
        forward = self.raw("bernoulli_log_prob_fwd", *operands, None, **options, needs=needs)
        assert torch.equal(log_prob, forward[0])
        got = grads(log_prob, (self.a, x), self.g)
        options["needs"] = (*needs, False)
        assert_close(got, self.raw("bernoulli_log_prob_bwd", self.g, *operands, None, **options)[:2])
        ones = self.raw("bernoulli_log_prob_bwd", torch.ones_like(self.g), *operands, None, **options)[:2]
        assert_close(tuple(forward[1:]), ones)

    def test_bernoulli_log_prob_of_probabilities(self):
        p, x = (t.detach().sigmoid().requires_grad_() for t in (self.a, self.b))
        log_prob = vf.bernoulli_log_prob(p, x, reduction="sum", param="probs")
        options = {"reduction": SUM, "param": PROBS}
        forward = self.raw("bernoulli_log_prob_fwd", p, x, **options, needs=(True, True))
        assert torch.equal(log_prob, forward[0])
        one = torch.ones(())
        got = grads(log_prob, (p, x), one)
        want = self.raw("bernoulli_log_prob_bwd", one, p, x, **options, needs=(True, True, False))[:2]
        assert_close(got, want)
        assert_close(got, tuple(forward[1:]))

    def test_gaussian_log_prob(self):
        operands = (self.a, self.b, self.c)
        log_prob = vf.gaussian_log_prob(*operands, reduction="mean", bounds=(-1.0, None))
        options = {"reduction": MEAN, "low": -1.0}
        forward = self.raw("gaussian_log_prob_fwd", *operands, **options, needs=(True,) * 3)
        assert torch.equal(log_prob, forward[0])
        one = torch.ones(())
        got = grads(log_prob, operands, one)
        backward = (one, *operands)
        want = self.raw("gaussian_log_prob_bwd", *backward, **options, needs=(*(True,) * 3, False))[:3]
        assert_close(got, want)
        assert_close(got, tuple(forward[1:]))

    @pytest.mark.parametrize("param", ["log_mean", "softmax"])
    def test_negative_binomial_log_prob(self, param):
        x = torch.randint(0, 9, (4, 3, 5))
        library = torch.randn(4, 3, 1, requires_grad=True) if param == "softmax" else None
        theta = self.b.detach().abs().add(0.1).requires_grad_()
        given = {"zero_logits": self.c, "log_library": library, "param": param, "eps": 0.01}
        log_prob = vf.negative_binomial_log_prob(self.a, theta, x, **given)
        operands = (self.a, theta, self.c, library, x)
        options = {"param": MEAN_PARAMS[param], "eps": 0.01}
        needs = (True, True, True, library is not None)
        forward = self.raw("negative_binomial_log_prob_fwd", *operands, None, **options, needs=needs)
        assert torch.equal(log_prob, forward[0])
        backward = (self.g, *operands, None)
        want = self.raw("negative_binomial_log_prob_bwd", *backward, **options, needs=(*needs, False))
        wanted = [t for t in operands[:-1] if t is not None]
        assert_close(grads(log_prob, wanted, self.g), want[: len(wanted)])

    def test_poisson_log_prob(self):
        rate, x = self.a.detach().abs().requires_grad_(), torch.randint(0, 9, (4, 3, 5), dtype=torch.int16)
        log_prob = vf.poisson_log_prob(rate, x, reduction="sum", eps=0.01)
        options = {"reduction": SUM, "eps": 0.01}
        forward = self.raw("poisson_log_prob_fwd", rate, x, **options, needs=(True,))
        assert torch.equal(log_prob, forward[0])
        one = torch.ones(())
        got = grads(log_prob, (rate,), one)
        assert_close(got, self.raw("poisson_log_prob_bwd", one, rate, x, **options, needs=(True, False))[:1])
        assert_close(got, tuple(forward[1:]))

    def test_weights(self):
        weight = torch.rand(4, 3, 1, requires_grad=True)
        operands = (self.a, self.b, self.c, weight)
        log_prob = vf.gaussian_log_prob(*operands[:3], weight=weight)
        want = self.raw("gaussian_log_prob_bwd", self.g, *operands, needs=(True,) * 4)
        assert_close(grads(log_prob, operands, self.g), want)

    def test_gradients_not_asked_for_are_empty(self):
        args = arguments("bernoulli_log_prob_fwd", self.a, self.b, needs=(False, True))
        _, dlogits, dx = OPS.bernoulli_log_prob_fwd(*args)
        assert dlogits.shape == (0,) and dx.shape == self.b.shape
