"""The raw operators: all registered, checked by opcheck, and equal to the public functions that stand on them."""

import pytest
import torch
from accuracy import backend  # noqa: F401
from torch.library import opcheck
from torch.testing import assert_close

import vae_fast as vf
from vae_fast import operators
from vae_fast.backends import OPS as OPERATORS
from vae_fast.backends import choose, kernel

INF = float("inf")
LOGVAR = (0, 0.0, -INF, INF)
OPS = torch.ops.vae_fast
# seed, seed_tensor, offset, first_sample
NOISE = (5, None, 3, 2)
NONE, SUM, MEAN = range(3)
LOGITS, PROBS = range(2)


def tensors(dtype, *shapes):
    return [torch.rand(shape, dtype=torch.float64).add(0.1).to(dtype) for shape in shapes]


def calls(dtype, layout=lambda t: t):
    """(name, arguments) of every raw operator; operands broadcast, some dense in another order."""
    a, b, c, d = map(layout, tensors(dtype, *((2, 3, 4, 5),) * 4))
    (small,) = tensors(dtype, (5,))
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    mask = torch.rand(2, 3, 4, 1) < 0.5
    pixels = layout(torch.randint(0, 256, (2, 3, 4, 5), dtype=torch.uint8))
    g = torch.randn(2, 3, dtype=wide)
    one = torch.ones((), dtype=wide)
    seed = torch.tensor([7])
    dz = torch.randn(2, 2, 3, 4, 5, dtype=torch.float64).to(dtype)
    number = torch.tensor(0.5, dtype=torch.float64)
    yield "standard_normal_fwd", ((2,), (3, 4), *NOISE, dtype, a.device)
    for v in (b, small):
        yield "rsample_fwd", (a, v, (2,), *NOISE, *LOGVAR)
        yield "rsample_bwd", (dz, a, v, (2,), *NOISE, *LOGVAR, True, v is b)
        yield "rsample_kl_fwd", (a, v, (2,), 0, seed, 0, 0, 2, 0.1, 4, 0.2, -1.0, 1.0)
        yield "rsample_kl_bwd", (dz, g, a, v, (2,), *NOISE, 2, None, *LOGVAR, True, True)
    yield "rsample_kl_bwd", (None, g, a, b, (2,), *NOISE, 2, 0.3, *LOGVAR, False, True)
    yield "rsample_kl_bwd", (dz, None, a, number, (2,), *NOISE, 2, 0.3, *LOGVAR, True, False)
    for priors, needs in (
        ((None, None), (True, True, False, False)),
        ((c, d), (True,) * 4),
        ((number, small), (False, True, False, True)),
    ):
        kl = (a, b, *priors, mask)
        yield "gaussian_kl_fwd", (*kl, 2, NONE, 1.0, None, *LOGVAR, *needs)
        yield "gaussian_kl_fwd", (*kl, 1, MEAN, -2.0, 0.2, 2, 0.1, 0.0, 3.0, False, False, False, False)
        yield "gaussian_kl_bwd", (g, *kl, 2, NONE, 1.0, None, *LOGVAR, *needs, False)
        weighted = (*kl[:-1], small)
        yield "gaussian_kl_bwd", (g, *weighted, 2, NONE, 1.0, None, *LOGVAR, *needs, True)
    packed = layout(torch.cat([b, c], 1))
    halves = packed.chunk(2, 1)
    yield "rsample_bwd", (dz, *halves, (2,), *NOISE, *LOGVAR, True, True, packed, 1)
    yield "rsample_kl_bwd", (dz, g, *halves, (2,), *NOISE, 2, None, *LOGVAR, True, True, packed, 1)
    kl = (*halves, a, d, mask)
    yield "gaussian_kl_bwd", (g, *kl, 2, NONE, 1.0, None, *LOGVAR, True, True, False, True, False, packed, 1)
    for x, need in ((c, True), (pixels, False)):
        gaussian = (*halves, x, mask, 2, NONE, 1.0, 1 / 255, *LOGVAR)
        yield "gaussian_log_prob_bwd", (g, *gaussian, True, True, need, False, packed, 1)
    for x, need in ((c, True), (pixels, False)):
        bernoulli = (a, x, mask)
        for param in (LOGITS, PROBS):
            yield "bernoulli_log_prob_fwd", (*bernoulli, 2, NONE, 1.0, 1 / 255, param, True, need)
            yield "bernoulli_log_prob_bwd", (g, *bernoulli, 2, NONE, 1.0, 1 / 255, param, True, need, False)
        yield "bernoulli_log_prob_bwd", (one, a, x, b, 1, MEAN, -1.0, 1.0, PROBS, False, need, True)
        gaussian = (a, small, x, None)
        yield "gaussian_log_prob_fwd", (*gaussian, 2, NONE, 1.0, 1 / 255, *LOGVAR, True, True, need)
        yield "gaussian_log_prob_bwd", (g, *gaussian, 2, NONE, 1.0, 1 / 255, *LOGVAR, True, True, need, False)
        gaussian = (a, small, x, b)
        yield (
            "gaussian_log_prob_bwd",
            (one, *gaussian, 1, SUM, -1.0, 1.0, 4, 0.1, -1.0, 1.0, True, True, need, True),
        )


LAYOUTS = {
    "contiguous": lambda t: t,
    "channels_last": lambda t: t.contiguous(memory_format=torch.channels_last),
    "transposed": lambda t: t.transpose(0, 2).contiguous().transpose(0, 2),
    "sliced": lambda t: torch.stack([t, t], -1)[..., 0],
}


def test_every_schema_is_registered():
    for definition in operators.DEFINITIONS:
        schema = torch._C.parse_schema(f"vae_fast::{definition}")
        packet = getattr(OPS, schema.name.removeprefix("vae_fast::"))
        registered = getattr(packet, schema.overload_name or "default")
        assert torch.Tag.pt2_compliant_tag in registered.tags
        assert str(registered._schema) == str(schema)
    assert {name.rsplit("_", 1)[0] for name in operators.SCHEMAS} == set(OPERATORS)
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
    mu, logvar = torch.zeros(3, 4), torch.full((3, 4), INF)
    largest = torch.finfo(torch.float64).max
    for overload in (OPS.rsample_fwd.default, OPS.rsample_fwd.autograd):
        z = overload(mu, logvar, None, *NOISE, 0, 0.0, -largest, largest)
        assert torch.equal(z, OPS.rsample_fwd(mu, logvar, (), *NOISE, *LOGVAR)) and z.isinf().all()
    eps = OPS.standard_normal_fwd(None, None, *NOISE, torch.float32, mu.device)
    assert eps.shape == () and torch.equal(eps, OPS.standard_normal_fwd((), (), *NOISE, torch.float32, mu.device))
    assert torch.equal(eps, OPS.reference_normals(None, None, *NOISE, mu.device))


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
        if name == "rsample_fwd":
            z = getattr(OPS, name)(args[0], args[1], (), *args[3:])
            assert z.stride() == torch.empty_like(args[0]).stride()


def grads(out, wanted, upstream):
    return torch.autograd.grad(out, wanted, upstream)


class TestPublicFunctionsStandOnThem:
    """The public function and its gradients are the raw operator's results."""

    @pytest.fixture(autouse=True)
    def operands(self, request):
        request.getfixturevalue("backend")  # whose device they are on
        self.a, self.b, self.c, self.d = (torch.randn(4, 3, 5, requires_grad=True) for _ in range(4))
        self.g = torch.randn(4, 3)

    def raw(self, name, *args):
        """What the backend that serves registers, or, for the reference, what it would."""
        serving = choose(name.rsplit("_", 1)[0], self.a.device, None)
        with torch.no_grad():
            return kernel(serving, name)(*args)

    def test_standard_normal(self):
        z = vf.standard_normal((4, 3), seed=5, offset=3, sample=2)
        assert torch.equal(z, self.raw("standard_normal_fwd", (), (4, 3), *NOISE, torch.float32, z.device))

    def test_rsample(self):
        z = vf.rsample(self.a, self.b, 2, seed=5, offset=3, first_sample=2)
        args = (self.a, self.b, (2,), *NOISE, *LOGVAR)
        assert torch.equal(z, self.raw("rsample_fwd", *args))
        dz = torch.randn_like(z)
        assert_close(grads(z, (self.a, self.b), dz), self.raw("rsample_bwd", dz, *args, True, True))

    def test_rsample_kl(self):
        z, kl = vf.rsample_kl(self.a, self.b, 2, seed=5, offset=3, first_sample=2, free_bits=0.2)
        args = (self.a, self.b, (2,), *NOISE, 1, 0.2, *LOGVAR)
        for out, want in zip((z, kl), self.raw("rsample_kl_fwd", *args), strict=True):
            assert torch.equal(out, want)
        dz = torch.randn_like(z)
        want = self.raw("rsample_kl_bwd", dz, self.g, *args, True, True)
        assert_close(grads((z, kl), (self.a, self.b), (dz, self.g)), want)

    def test_gaussian_kl(self):
        operands = (self.a, self.b, self.c, self.d)
        kl = vf.gaussian_kl(*operands, weight=2.0, scale=-0.5)
        weight = torch.tensor(2.0, dtype=torch.float64)
        args = (*operands, weight, 1, NONE, -0.5, None, *LOGVAR)
        forward = self.raw("gaussian_kl_fwd", *args, *(True,) * 4)
        assert torch.equal(kl, forward[0])
        want = self.raw("gaussian_kl_bwd", self.g, *args, *(True,) * 4, False)[:4]
        assert_close(grads(kl, operands, self.g), want)
        kl = vf.gaussian_kl(*operands, weight=2.0, scale=-0.5)
        assert_close(grads(kl, operands, torch.ones_like(kl)), tuple(forward[1:]))

    def test_bernoulli_log_prob(self):
        x = self.b.detach().sigmoid().requires_grad_()
        log_prob = vf.bernoulli_log_prob(self.a, x, x_scale=0.5)
        args = (self.a, x, None, 1, NONE, 1.0, 0.5, LOGITS)
        forward = self.raw("bernoulli_log_prob_fwd", *args, True, True)
        assert torch.equal(log_prob, forward[0])
        got = grads(log_prob, (self.a, x), self.g)
        assert_close(got, self.raw("bernoulli_log_prob_bwd", self.g, *args, True, True, False)[:2])
        ones = self.raw("bernoulli_log_prob_bwd", torch.ones_like(self.g), *args, True, True, False)[:2]
        assert_close(tuple(forward[1:]), ones)

    def test_bernoulli_log_prob_of_probabilities(self):
        p, x = (t.detach().sigmoid().requires_grad_() for t in (self.a, self.b))
        log_prob = vf.bernoulli_log_prob(p, x, reduction="sum", param="probs")
        args = (p, x, None, 1, SUM, 1.0, 1.0, PROBS)
        forward = self.raw("bernoulli_log_prob_fwd", *args, True, True)
        assert torch.equal(log_prob, forward[0])
        one = torch.ones(())
        got = grads(log_prob, (p, x), one)
        assert_close(got, self.raw("bernoulli_log_prob_bwd", one, *args, True, True, False)[:2])
        assert_close(got, tuple(forward[1:]))

    def test_gaussian_log_prob(self):
        operands = (self.a, self.b, self.c)
        log_prob = vf.gaussian_log_prob(*operands, reduction="mean", bounds=(-1.0, None))
        args = (*operands, None, 1, MEAN, 1.0, 1.0, 0, 0.0, -1.0, INF)
        forward = self.raw("gaussian_log_prob_fwd", *args, *(True,) * 3)
        assert torch.equal(log_prob, forward[0])
        one = torch.ones(())
        got = grads(log_prob, operands, one)
        assert_close(got, self.raw("gaussian_log_prob_bwd", one, *args, *(True,) * 3, False)[:3])
        assert_close(got, tuple(forward[1:]))

    def test_weights(self):
        weight = torch.rand(4, 3, 1, requires_grad=True)
        operands = (self.a, self.b, self.c, weight)
        log_prob = vf.gaussian_log_prob(*operands[:3], weight=weight)
        args = (*operands, 1, NONE, 1.0, 1.0, *LOGVAR)
        want = self.raw("gaussian_log_prob_bwd", self.g, *args, *(True,) * 4)
        assert_close(grads(log_prob, operands, self.g), want)

    def test_gradients_not_asked_for_are_empty(self):
        args = (self.a, self.b, None, 1, NONE, 1.0, 1.0, LOGITS)
        _, dlogits, dx = OPS.bernoulli_log_prob_fwd(*args, False, True)
        assert dlogits.shape == (0,) and dx.shape == self.b.shape
