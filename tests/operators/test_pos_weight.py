"""``pos_weight`` of bernoulli_log_prob: F.binary_cross_entropy_with_logits' own, in value and in every gradient."""

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

import vae_fast as vf
from helpers import accuracy
from helpers.accuracy import units
from helpers.behaviour import with_grads
from helpers.calls import BERNOULLI, PROBS, same_bits
from helpers.marks import each_backend
from helpers.published import assert_published
from vae_fast.checking import formulas

pytestmark = each_backend

SHAPE = (4, 3, 2, 2)
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
each_reduction = pytest.mark.parametrize("reduction", ["none", "sum", "mean"])


def inputs(dtype=torch.float64, shape=SHAPE):
    """Targets from 0 to 1, both ends among them."""
    y = torch.randn(shape, dtype=torch.float64)
    t = (1.4 * torch.rand(shape, dtype=torch.float64) - 0.2).clamp(0, 1)
    return y.to(dtype), t.to(dtype)


def loss(y, t, **options):
    return -F.binary_cross_entropy_with_logits(y, t, reduction="none", **options)


@each_dtype
@each_reduction
@pytest.mark.parametrize("shape", [SHAPE, (3, 1, 1), (2,), (4, 1, 1, 1), ()], ids=str)
def test_published(dtype, reduction, shape):
    p = (0.25 + 3 * torch.rand(shape, dtype=torch.float64)).to(dtype)

    def formula(y, t):
        each = loss(y, t, pos_weight=p.double().to(y.dtype)).sum((-1, -2, -3))
        return -0.5 * {"none": each, "sum": each.sum(), "mean": each.mean()}[reduction]

    def ours(y, t):
        return vf.bernoulli_log_prob(y, t, pos_weight=p, event_ndim=3, reduction=reduction, scale=-0.5)

    compile = (dtype, reduction, shape) == (torch.bfloat16, "none", (3, 1, 1))
    assert_published(ours, formula, *inputs(dtype), compile=compile)


@each_reduction
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_weights(dtype, reduction):
    """With a weight an element, whose gradient is the weighted element's term."""
    p, weight = torch.rand(3, 1, 1, dtype=torch.float64).to(dtype), torch.rand(SHAPE, dtype=torch.float64).to(dtype)
    weight[1] = 0.0

    def formula(y, t, w):
        # By PyTorch's own weight where it has a gradient too: it is a factor.
        each = (w * loss(y, t, pos_weight=p.double())).sum(-1)
        return {"none": each, "sum": each.sum(), "mean": each.mean()}[reduction]

    def ours(y, t, w):
        return vf.bernoulli_log_prob(y, t, pos_weight=p, weight=w, reduction=reduction)

    assert_published(ours, formula, *inputs(dtype), weight)


def test_a_weight_of_zero_hides_anything():
    y, t = inputs(torch.float32)
    weight = (torch.rand(SHAPE) < 0.5).float()
    p = torch.full(SHAPE, 2.0)
    clean = with_grads(lambda *a: vf.bernoulli_log_prob(*a, pos_weight=p, weight=weight), y, t)
    for bad in (torch.nan, torch.inf, -torch.inf):
        dirty = [torch.where(weight == 0, bad, a) for a in (y, t, p)]
        found = with_grads(
            lambda *a, q=dirty[2]: vf.bernoulli_log_prob(*a, pos_weight=q, weight=weight), *dirty[:2]
        )
        assert same_bits(found, clean)


@pytest.mark.parametrize("kind", [torch.uint8, torch.bool], ids=str)
@pytest.mark.parametrize("x_scale", [1.0, 1 / 255])
def test_bytes(kind, x_scale):
    """As targets, and as weights of the positive."""
    y, _ = inputs(torch.float32)
    x = torch.randint(0, 256, SHAPE).to(kind) if kind == torch.uint8 else torch.rand(SHAPE) < 0.5
    for p in (torch.full((3, 1, 1), 2.5), torch.tensor([1, 0, 3], dtype=torch.uint8)[:, None, None]):
        assert_published(
            lambda y, p=p: vf.bernoulli_log_prob(y, x, x_scale=x_scale, pos_weight=p, event_ndim=0) / 255,
            lambda y, p=p: loss(y, x.double() * x_scale, pos_weight=p.double()) / 255,
            y,
        )


@each_dtype
@pytest.mark.parametrize("number", [2.5, 3, 0, 1.0])
def test_a_number(dtype, number):
    """It promotes nothing."""
    y, t = inputs(dtype)
    of_number, of_tensor = (
        with_grads(lambda *a, p=p: vf.bernoulli_log_prob(*a, pos_weight=p), y, t)
        for p in (number, torch.tensor(float(number), dtype=dtype))
    )
    assert same_bits(of_number, of_tensor)


@each_dtype
def test_one_is_none(dtype):
    """To rounding: it takes another formula."""
    y, t = inputs(dtype)
    with_one, without = (
        with_grads(lambda *a, o=o: vf.bernoulli_log_prob(*a, event_ndim=0, **o), y, t)
        for o in ({"pos_weight": 1.0}, {})
    )
    for a, b in zip(with_one, without, strict=True):
        # Half types without it have formulas of their own on a GPU.
        close = 4 * torch.finfo(a.dtype).eps + (accuracy.LIGHT if accuracy.is_light(y, t) else 0.0)
        assert_close(a, b, rtol=close, atol=close)


class TestAccuracy:
    """Within the bars of the unweighted likelihood, at logits of every size."""

    def logits(self, dtype):
        few, many = (400, 800) if dtype == torch.float64 else (2000, 50_000)
        return torch.cat([accuracy.everywhere(few, dtype), accuracy.magnitudes(many, dtype, 1e-3, 110)])

    def measured(self, y, t, p):
        (value, terms), slopes = accuracy.truth(formulas.bernoulli_weighted, y, t, p)
        log_prob, dlogits, dx = with_grads(
            lambda *a: vf.bernoulli_log_prob(*a, pos_weight=p.to(y.dtype), event_ndim=0), y, t
        )
        of_value = (log_prob, value, terms)
        for got, truth, size in (of_value, (dlogits, *slopes["logits"]), (dx, *slopes["x"])):
            # What underflows, log(1 + e^−|y|), is multiplied by p.
            info = torch.finfo(torch.float64 if y.dtype == torch.float64 else torch.float32)
            smallest = accuracy.doubles(p).clip(1) * info.smallest_normal * info.eps
            yield accuracy.error(got, truth, units(size, got.dtype) + smallest)

    @each_dtype
    @pytest.mark.parametrize("target", [0.0, 1.0, None])
    def test_every_size(self, dtype, target):
        """≤ 3ε·Σ|terms|, p·t and 1 − t, each times its logarithm, being the terms."""
        y = self.logits(dtype)
        t = torch.rand(len(y), dtype=torch.float64).to(dtype) if target is None else torch.full_like(y, target)
        p = torch.tensor([0.3125, 1.0, 7.0, 100.0])[torch.randint(0, 4, y.shape)].to(dtype)
        for errors in self.measured(y, t, p):
            accuracy.assert_within(3, errors, y, t)

    @each_dtype
    def test_certain(self, dtype):
        """A far logit of the right sign costs nothing, of the wrong one |y| times its weight; PyTorch's too."""
        y = torch.tensor([-1e4, -90.0, 90.0, 1e4, torch.inf, -torch.inf], dtype=torch.float64).to(dtype)
        for target, right in ((1.0, y > 0), (0.0, y < 0)):
            t = torch.full_like(y, target)
            log_prob, dlogits, _ = with_grads(
                lambda *a: vf.bernoulli_log_prob(*a, pos_weight=3.0, event_ndim=0), y, t
            )
            factor = 3.0 if target else 1.0
            size = y.abs().to(log_prob.dtype)
            assert_close(log_prob, torch.where(right, 0.0, -factor * size), rtol=1e-6, atol=1e-30)
            slope = torch.where(right, 0.0, factor if target else -factor).to(dtype)
            assert_close(dlogits, slope, rtol=1e-6, atol=1e-30)


def test_has_no_gradient():
    y, t = (v.requires_grad_() for v in inputs(torch.float32))
    p = torch.full((2,), 2.0, requires_grad=True)
    out = vf.bernoulli_log_prob(y, t, pos_weight=p)
    grads = torch.autograd.grad(out.sum(), (y, t, p), allow_unused=True)
    assert grads[2] is None and grads[0] is not None
    assert not vf.bernoulli_log_prob(y.detach(), t.detach(), pos_weight=p).requires_grad


@each_reduction
def test_gradients_are_in_their_places(reduction):
    """Each of them alone, beside an operand that has none."""
    y, t, weight = *inputs(torch.float32), torch.rand(SHAPE)

    def f(y, t, w):
        return vf.bernoulli_log_prob(y, t, pos_weight=2.0, weight=w, reduction=reduction)

    everything = with_grads(f, y, t, weight)
    for k in range(3):
        leaves = [a.detach().requires_grad_(i == k) for i, a in enumerate((y, t, weight))]
        out = f(*leaves)
        (alone,) = torch.autograd.grad(out, leaves[k], torch.ones_like(out))
        assert_close(alone, everything[1 + k], rtol=2e-6, atol=2e-6)


def test_second_derivatives():
    tensors = tuple(v * 0.9 + 0.05 for v in inputs(shape=(2, 3)))
    p = torch.tensor([0.5, 1.0, 3.0], dtype=torch.float64)

    def ours(y, t, w):
        return vf.bernoulli_log_prob(y, t, pos_weight=p, weight=w).square().sum()

    def theirs(y, t, w):
        each = p * t * F.logsigmoid(y) + (1 - t) * F.logsigmoid(-y)
        return (w * each).sum(-1).square().sum()

    inputs_ = (*tensors, torch.rand(2, 3, dtype=torch.float64))
    want = torch.autograd.functional.hessian(theirs, inputs_)
    assert_close(torch.autograd.functional.hessian(ours, inputs_), want)
    assert_close(torch.func.hessian(ours, (0, 1, 2))(*inputs_), want)


def test_vmap():
    y, t = inputs(torch.float32, (4, 3))
    p = torch.rand(4, 3)
    got = torch.func.vmap(lambda y, t, p: vf.bernoulli_log_prob(y, t, pos_weight=p))(y, t, p)
    assert_close(got, vf.bernoulli_log_prob(y, t, pos_weight=p))


def test_of_probabilities():
    p, x = (t.detach() for t in PROBS.draw((3, 2)))
    for positive in (2.0, torch.ones(2)):
        with pytest.raises(ValueError, match='pos_weight is for logits: there is none with param="probs"'):
            PROBS(p, x, pos_weight=positive)


@pytest.mark.parametrize("wrong", [torch.ones(2, dtype=torch.int64), "1", True, 1j], ids=str)
def test_wrong(wrong):
    y, x = (t.detach() for t in BERNOULLI.draw((3, 2)))
    with pytest.raises(TypeError, match="pos_weight must be"):
        BERNOULLI(y, x, pos_weight=wrong)


def test_does_not_broadcast():
    y, x = (t.detach() for t in BERNOULLI.draw((3, 2)))
    with pytest.raises(ValueError, match="pos_weight of shape"):
        BERNOULLI(y, x, pos_weight=torch.ones(3))


@pytest.mark.parametrize("shape", [(0, 3), (3, 0)], ids=str)
def test_empty(shape):
    y, t = inputs(torch.float32, shape)
    out, *grads = with_grads(lambda *a: vf.bernoulli_log_prob(*a, pos_weight=2.0), y, t)
    assert out.shape == shape[:1] and bool((out == 0).all()) and all(g.shape == shape for g in grads)
