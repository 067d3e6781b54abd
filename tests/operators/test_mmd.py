"""The maximum mean discrepancy: value and gradients against the plain tables in float64, and as published."""

import math

import pytest
import torch
from torch.testing import assert_close

import vae_fast as vf
from helpers.behaviour import on_threads
from helpers.calls import same_bits

BACKENDS = [name for name, b in vf.backends().items() if b.available and b.serves("mmd", "cpu")]
each = pytest.mark.parametrize("backend", BACKENDS)
EPS = {torch.float32: 2.0**-24, torch.float64: 2.0**-53}
SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


def published(x, y, kernel="imq", bandwidth=1.0, scales=SCALES, unbiased=True):
    """MMD² as WAE and InfoVAE implementations have it: from whole matrices, their diagonals taken out."""
    c = 2 * x.shape[1] * bandwidth**2

    def table(a, b):
        square = (a[:, None] - b[None]).pow(2).sum(-1)
        if kernel == "rbf":
            return torch.exp(-square / c)
        return sum(s * c / (s * c + square) for s in scales)

    def own(k):
        return (k.sum() - k.diagonal().sum()) / (len(k) * (len(k) - 1)) if unbiased else k.mean()

    return own(table(x, x)) + own(table(y, y)) - 2 * table(x, y).mean()


def points(n, m, d, dtype=torch.float64):
    x, y = torch.randn(n, d), 1.3 * torch.randn(m, d) + 0.2
    return [t.to(dtype).requires_grad_() for t in (x, y)]


@each
@pytest.mark.parametrize(("n", "m", "d"), ((2, 2, 1), (7, 5, 3), (16, 33, 4), (300, 270, 16), (20, 20, 300)))
@pytest.mark.parametrize("kernel", ("imq", "rbf"))
@pytest.mark.parametrize("unbiased", (True, False))
@pytest.mark.parametrize("dtype", EPS, ids=str)
def test_value_and_gradients(backend, n, m, d, kernel, unbiased, dtype):
    tensors = points(n, m, d, dtype)
    exact = [t.detach().double().requires_grad_() for t in tensors]
    options = {"kernel": kernel, "bandwidth": 0.7, "unbiased": unbiased}
    got, want = vf.mmd(*tensors, backend=backend, **options), published(*exact, **options)
    terms = len(SCALES) if kernel == "imq" else 1
    # Of means of terms up to 1 that are each a few roundings off, and of squared distances.
    assert got.dtype == dtype and abs(got.item() - want.item()) <= 16 * terms * EPS[dtype]
    for a, b in zip(torch.autograd.grad(got, tensors), torch.autograd.grad(want, exact), strict=True):
        assert a.dtype == dtype
        assert ((a.double() - b).abs() <= 64 * EPS[dtype] * b.abs().max().clamp(min=1e-3)).all()


@each
def test_one_gradient_alone_and_none(backend):
    x, y = points(20, 30, 5)
    both = torch.autograd.grad(vf.mmd(x, y, backend=backend), (x, y))
    assert same_bits(torch.autograd.grad(vf.mmd(x, y.detach(), backend=backend), x), both[:1])
    assert same_bits(torch.autograd.grad(vf.mmd(x.detach(), y, backend=backend), y), both[1:])
    value = vf.mmd(x.detach(), y.detach(), backend=backend)
    assert not value.requires_grad and same_bits([value], [vf.mmd(x, y, backend=backend).detach()])


@each
def test_of_a_set_with_itself(backend):
    (x, _) = points(20, 20, 5)
    biased = vf.mmd(x, x, unbiased=False, backend=backend)
    assert_close(biased, torch.zeros_like(biased), rtol=0, atol=1e-14)
    (dx,) = torch.autograd.grad(biased, x)
    assert_close(dx, torch.zeros_like(dx), rtol=0, atol=1e-14)


@each
def test_scales_upstream_and_strides(backend):
    x, y = points(12, 9, 4)
    options = {"scales": [0.3, 4.0], "bandwidth": 2}
    assert_close(vf.mmd(x, y, backend=backend, **options), published(x, y, **options))
    whole = torch.autograd.grad(vf.mmd(x, y, backend=backend), (x, y))
    tenth = torch.autograd.grad(vf.mmd(x, y, backend=backend) * 0.1, (x, y))
    assert_close(tenth, tuple(g * 0.1 for g in whole))
    strided = x.detach().T.contiguous().T
    assert same_bits([vf.mmd(strided, y[::2], backend=backend)], [vf.mmd(x, y[::2].contiguous(), backend=backend)])


@each
@pytest.mark.parametrize("dtype", (torch.bfloat16, torch.float16), ids=str)
def test_half_types_are_computed_in_float32(backend, dtype):
    tensors = points(12, 9, 4, dtype)
    wide = [t.detach().float().requires_grad_() for t in tensors]
    got, want = vf.mmd(*tensors, backend=backend), vf.mmd(*wide, backend=backend)
    assert got.dtype == torch.float32 and same_bits([got], [want])
    for a, b in zip(torch.autograd.grad(got, tensors), torch.autograd.grad(want, wide), strict=True):
        assert a.dtype == dtype and same_bits([a], [b.to(dtype)])


@each
@pytest.mark.parametrize("kernel", ("imq", "rbf"))
def test_points_far_off_and_nan(backend, kernel):
    x, y = points(5, 40, 3, torch.float32)
    with torch.no_grad():
        x[2] = 1e30
    value = vf.mmd(x, y, kernel=kernel, backend=backend)
    grads = torch.autograd.grad(value, (x, y))
    assert value.isfinite() and all(g.isfinite().all() for g in grads) and grads[0][2].eq(0).all()
    with torch.no_grad():
        x[2, 0] = math.nan
    assert vf.mmd(x, y, kernel=kernel, backend=backend).isnan()


@each
def test_derivatives(backend):
    tensors = points(4, 3, 2)
    assert torch.autograd.gradcheck(lambda x, y: vf.mmd(x, y, backend=backend), tensors)
    assert torch.autograd.gradgradcheck(lambda x, y: vf.mmd(x, y, backend=backend), tensors)


@each
def test_transforms(backend):
    x, y = (t.detach() for t in points(6, 7, 3))

    def of(x):
        return vf.mmd(x, y, backend=backend)

    leaf = x.clone().requires_grad_()
    want = torch.autograd.grad(of(leaf), leaf)[0]
    assert_close(torch.func.grad(of)(x), want)
    assert_close(torch.func.vmap(of)(torch.stack([x, x + 1])), torch.stack([of(x), of(x + 1)]))
    _, tangent = torch.func.jvp(of, (x,), (torch.ones_like(x),))
    assert_close(tangent, want.sum())


@each
@pytest.mark.parametrize("compiler", ("aot_eager", "inductor"))
def test_compiled(backend, compiler):
    tensors = points(12, 9, 4, torch.float32)

    def step(x, y):
        return 3 * vf.mmd(x, y, backend=backend)

    got, want = torch.compile(step, backend=compiler, fullgraph=True)(*tensors), step(*tensors)
    assert_close(got, want)
    assert_close(torch.autograd.grad(got, tensors), torch.autograd.grad(want, tensors))


@pytest.mark.skipif("native" not in BACKENDS, reason="the compiled kernels are not there")
class TestNative:
    def test_threads_change_no_bit(self):
        tensors = points(700, 300, 9, torch.float32)

        def made():
            value = vf.mmd(*tensors, backend="native")
            return [value, *torch.autograd.grad(value, tensors)]

        assert same_bits(on_threads(1, made), on_threads(3, made))

    def test_the_raw_operator_checks_what_it_reads(self):
        op = torch.ops.vae_fast.mmd_fwd
        x, y, c = torch.zeros(4, 3), torch.zeros(5, 3), [1.0, 2.0]
        op(x, y, c, False, True, True, True)
        for wrong in ([], c):
            with pytest.raises(ValueError, match="constants must be"):
                op(x, y, wrong, bool(wrong), True, True, True)
        for wrong in (
            (x, y[:, :2], c),
            (x, y.double(), c),
            (x[0], y, c),
            (x.half(), y.half(), c),
        ):
            with pytest.raises((RuntimeError, ValueError)):
                op(*wrong, False, True, True, True)


@pytest.mark.parametrize(
    ("change", "words"),
    (
        ({"y": torch.zeros(4, 2)}, "x and y must be"),
        ({"x": torch.zeros(3)}, "x and y must be"),
        ({"x": torch.zeros(1, 3)}, "need 2 points each"),
        ({"x": torch.zeros(0, 3), "unbiased": False}, "need 1 points each"),
        ({"kernel": "linear"}, "kernel must be one of"),
        ({"bandwidth": 0.0}, "bandwidth must be above 0"),
        ({"scales": (1.0, -1.0)}, "scales must be above 0"),
        ({"scales": ()}, "scales must not be empty"),
    ),
    ids=lambda v: v if isinstance(v, str) else "-".join(v),
)
def test_refusals(change, words):
    call = {"x": torch.zeros(4, 3), "y": torch.zeros(4, 3)} | change
    with pytest.raises(ValueError, match=words):
        vf.mmd(call.pop("x"), call.pop("y"), **call)
    with pytest.raises(TypeError, match="x must be"):
        vf.mmd(torch.zeros(4, 3, dtype=torch.int64), torch.zeros(4, 3))
