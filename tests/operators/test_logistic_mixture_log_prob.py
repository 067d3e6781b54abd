"""A mixture of discretised logistics: as published, against 50 digits, of which that loses many, as an operator."""

import math

import mpmath
import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

import vae_fast as vf
from helpers.behaviour import on_threads
from helpers.calls import same_bits

OP = "logistic_mixture_log_prob"
BACKENDS = [name for name, b in vf.backends().items() if b.available and b.serves(OP, "cpu")]
each = pytest.mark.parametrize("backend", BACKENDS)
EPS = {torch.float32: 2.0**-23, torch.float64: 2.0**-52}
mp = mpmath.mp.clone()
mp.dps = 50


def parameters(data, k=4, channels=3, dtype=torch.float64):
    """logits, mean, log_scale, coefficients: leaves."""
    pairs = channels * (channels - 1) // 2
    made = [torch.randn(*data, k), 0.5 * torch.randn(*data, channels, k), torch.randn(*data, channels, k) - 3]
    made.append(torch.randn(*data, pairs, k))
    return [t.to(dtype).requires_grad_() for t in made]


def pixels(data, channels=3, levels=256):
    return torch.randint(0, levels, (*data, channels), dtype=torch.uint8)


def call(logits, mean, log_scale, coefficients, x, **options):
    return vf.logistic_mixture_log_prob(logits, mean, log_scale, x, coefficients=coefficients, **options)


# ---- as published ----------------------------------------------------------------------------------------


def published(x, h, k, bins=255.0, right=0.999):
    """Of a network's output [B, H, W, 10·k] and x [B, H, W, 3] in [−1, 1]: the difference of two sigmoids.

    Where that is below 1e-5, the density at the centre times the width. VDVAE has it so, and NVAE with its own last
    edge, and [B, 10·k, H, W].
    """
    logits, rest = h[..., :k], h[..., k:].unflatten(-1, (3, 3 * k))
    means, log_scales, coefficients = rest[..., :k], rest[..., k : 2 * k], torch.tanh(rest[..., 2 * k :])
    log_scales = torch.clamp(log_scales, min=-7.0)
    red, green = x[..., 0:1], x[..., 1:2]
    moved = torch.stack(
        (
            means[..., 0, :],
            means[..., 1, :] + coefficients[..., 0, :] * red,
            means[..., 2, :] + coefficients[..., 1, :] * red + coefficients[..., 2, :] * green,
        ),
        -2,
    )
    centred, rate, wide = x.unsqueeze(-1) - moved, torch.exp(-log_scales), x.unsqueeze(-1)
    plus, minus, middle = rate * (centred + 1 / bins), rate * (centred - 1 / bins), rate * centred
    delta = torch.sigmoid(plus) - torch.sigmoid(minus)
    density = middle - log_scales - 2 * F.softplus(middle) - math.log(bins / 2)
    inner = torch.where(delta > 1e-5, torch.log(delta.clamp(min=1e-12)), density)
    log_p = torch.where(
        wide < -0.999, plus - F.softplus(plus), torch.where(wide > right, -F.softplus(minus), inner)
    )
    return torch.logsumexp(log_p.sum(-2) + F.log_softmax(logits, -1), -1)


def cut(h, k):
    """What docs/pairs.md says of a network's output."""
    logits, rest = h.split((k, 9 * k), -1)
    return (logits, *rest.unflatten(-1, (3, 3 * k)).split(k, -1))


@each
def test_vdvae_s_and_nvae_s_values(backend):
    k = 10
    h = torch.randn(2, 3, 5, 10 * k, dtype=torch.float64)
    h[..., k:].unflatten(-1, (3, 3, k))[..., 1, :].sub_(3)
    h.requires_grad_()
    x = 2 * torch.randint(0, 256, (2, 3, 5, 3)).double() / 255 - 1
    published_form = {"edges": (-0.999, 0.999), "density_below": 1e-5, "backend": backend}
    logits, mean, log_scale, coefficients = cut(h, k)
    got, want = call(logits, mean, log_scale, coefficients, x, **published_form), published(x, h, k)
    # Of a difference of sigmoids above 1e-5.
    assert_close(got, want, rtol=1e-9, atol=1e-9)
    ours, theirs = (torch.autograd.grad(value.sum(), h)[0] for value in (got, want))
    assert_close(ours, theirs, rtol=1e-8, atol=1e-8)

    # 5 bits, an edge of its own, channels first.
    x = 2 * torch.randint(0, 32, (2, 3, 5, 3)).double() / 31 - 1
    first = h.detach().movedim(-1, 1).contiguous().requires_grad_()
    options = {"levels": 32, "edges": (-0.999, 0.93), "density_below": 1e-5, "backend": backend}
    logits, mean, log_scale, coefficients = cut(first.movedim(1, -1), k)
    got = call(logits, mean, log_scale, coefficients, x, **options)
    want = published(x, first.movedim(1, -1), k, 31.0, 0.93)
    assert_close(got, want, rtol=1e-9, atol=1e-9)
    ours, theirs = (torch.autograd.grad(value.sum(), first)[0] for value in (got, want))
    assert_close(ours, theirs, rtol=1e-8, atol=1e-8)
    assert x.gt(0.93).any() and x.lt(-0.999).any()


# ---- against 50 digits -----------------------------------------------------------------------------------


def exact(distance, log_scale, x, half, low, high):
    """log P and its derivatives by the mean and by log s, and Σ|terms| of each."""
    d, s, h = (mp.mpf(v) for v in (distance, log_scale, half))
    rate = mp.exp(-s)
    plus, minus = rate * (d + h), rate * (d - h)

    def sigmoid(t):
        return 1 / (1 + mp.exp(-t))

    below, above = mp.log(sigmoid(plus)), mp.log(sigmoid(-minus))
    within = mp.log(-mp.expm1(-2 * h * rate))
    up, down = sigmoid(-plus), sigmoid(minus)
    by_width = 2 * h * rate / mp.expm1(2 * h * rate)
    # Of plus and minus each is a product of a rounded exponential and a sum of two numbers, whose sizes' sum this
    # is; an error of it goes into a slope by the curvature.
    moved = rate * (abs(d) + h)
    if x < low:
        value, by_distance, by_log_scale = below, rate * up, -plus * up
        terms = abs(below) + up * moved, rate * up * (1 + moved), up * moved * (1 + moved)
    elif x > high:
        value, by_distance, by_log_scale = above, -rate * down, minus * down
        terms = abs(above) + down * moved, rate * down * (1 + moved), down * moved * (1 + moved)
    else:
        value, by_distance = within + below + above, rate * (up - down)
        by_log_scale = -by_width - plus * up + minus * down
        slopes = (up + down) * moved
        curved = (up * (1 - up) + down * (1 - down)) * moved
        width = abs(within) + (abs(s) + abs(mp.log(2 * h)) if 2 * h * rate < 2 else 0)
        terms = (
            width + abs(below) + abs(above) + slopes,
            rate * (up + down + curved),
            by_width * (1 + 2 * h * rate) + slopes + curved * moved,
        )
    return (value, -by_distance, by_log_scale), terms


DISTANCES = (0.0, 1e-6, 1e-3, 1 / 256, 0.004, 0.02, 0.3, 1.0, 30.0)
LOG_SCALES = (-7.0, -6.0, -5.2, -4.9, -3.0, -1.0, 2.0, 30.0)


@each
@pytest.mark.parametrize("dtype", EPS, ids=str)
@pytest.mark.parametrize("x", (0.25, -1.0, 1.0))
def test_against_50_digits(backend, dtype, x):
    """Near, within a bin's edges and far; where a bin is all there is, and where it is nearly nothing."""
    grid = [(sign * d, s) for d in DISTANCES for sign in (1, -1) for s in LOG_SCALES]
    mean = torch.tensor([[[x - d]] for d, _ in grid], dtype=dtype).requires_grad_()
    log_scale = torch.tensor([[[s]] for _, s in grid], dtype=dtype).requires_grad_()
    data = torch.full((len(grid), 1), x, dtype=dtype)
    logits = torch.zeros(len(grid), 1, dtype=dtype)
    value = call(logits, mean, log_scale, None, data, backend=backend)
    got = [value, *torch.autograd.grad(value.sum(), (mean, log_scale))]
    for k in range(len(grid)):
        # The distance of what the means are as numbers of the dtype.
        distance = mp.mpf(data[k].item()) - mp.mpf(mean[k].item())
        want, terms = exact(distance, log_scale[k].item(), x, mp.mpf(1) / 255, -1 + 1 / 255, 1 - 1 / 255)
        for name, a, b, size in zip(("log p", "dmean", "dlog_scale"), got, want, terms, strict=True):
            off = abs(mp.mpf(a[k].item()) - b)
            assert off <= 6 * EPS[dtype] * size + 1e-43, (name, grid[k], a[k].item(), float(b), float(off / size))


@each
@pytest.mark.parametrize(
    ("distance", "value_off", "slope_off"),
    (
        # P is 1.4e-4, a difference of sigmoids near 1; and 9e-6, which the density stands for.
        (0.012, 2e-5, 1e-4),
        (0.0145, 0.15, 0.25),
        (0.02, 0.1, 0.15),
    ),
)
def test_what_the_published_form_loses(backend, distance, value_off, slope_off):
    """In float32, at s = e⁻⁷, which is where published code clamps it to: of log P, and of its slope by log s."""
    raw = torch.zeros(1, 1, 1, 10)
    raw[..., 1::3], raw[..., 2::3] = -distance, -7.0
    found = []
    for form, dtype in ((None, torch.float64), (published, torch.float32), (call, torch.float32)):
        own, x = raw.to(dtype).requires_grad_(), torch.zeros(1, 1, 1, 3, dtype=dtype)
        value = published(x, own, 1) if form is published else call(*cut(own, 1), x, backend=backend)
        found.append((value.double().item(), torch.autograd.grad(value.sum(), own)[0][..., 2].double().item()))
    truth, theirs, ours = found
    off = [abs(a / b - 1) for a, b in zip(theirs, truth, strict=True)]
    assert off[0] > value_off and off[1] > slope_off
    assert max(abs(a / b - 1) for a, b in zip(ours, truth, strict=True)) < 1e-6


@each
@pytest.mark.parametrize("dtype", EPS, ids=str)
def test_of_all_levels_the_probabilities_sum_to_1(backend, dtype):
    levels = 16
    grid = torch.cartesian_prod(torch.arange(levels), torch.arange(levels)).to(torch.uint8)
    given = parameters((), channels=2, dtype=dtype)
    expanded = [t.detach().expand(len(grid), *t.shape) for t in given]
    log_p = call(*expanded, grid, levels=levels, backend=backend)
    assert_close(log_p.double().exp().sum(), torch.tensor(1.0).double(), rtol=0, atol=64 * EPS[dtype])


# ---- as an operator --------------------------------------------------------------------------------------


@each
@pytest.mark.parametrize(("data", "k", "channels"), (((), 3, 3), ((7,), 1, 1), ((2, 3, 17), 20, 3), ((37,), 5, 4)))
@pytest.mark.parametrize("dtype", EPS, ids=str)
def test_backends_agree(backend, data, k, channels, dtype):
    given, x = parameters(data, k, channels, dtype), pixels(data, channels)
    wide = [t.detach().double().requires_grad_() for t in given]
    options = {"density_below": 1e-3, "edges": (-0.9, 0.95)}
    got, want = call(*given, x, backend=backend, **options), call(*wide, x, backend="reference", **options)
    assert got.shape == data and got.dtype == dtype
    close = {"rtol": 2e-4, "atol": 2e-4} if dtype == torch.float32 else {"rtol": 1e-11, "atol": 1e-11}
    upstream = torch.cos(torch.arange(float(got.numel()))).view(data)
    ours = torch.autograd.grad(got, given, upstream.to(dtype))
    theirs = torch.autograd.grad(want, wide, upstream.double())
    assert_close(got.double(), want, **close)
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == dtype
        assert_close(a.double(), b, **close)


@each
def test_layouts_change_no_bit(backend):
    """A network's output with its channels last, and first; and one whose dims no two views have."""
    k, h = 4, torch.randn(3, 5, 7, 40)
    x = pixels((3, 5, 7))
    layouts = (
        h,
        h.movedim(-1, 1).contiguous().movedim(1, -1),
        h.movedim(0, 2).contiguous().movedim(2, 0),
        torch.stack((h, h), -1)[..., 0],
    )
    found = []
    for own in layouts:
        own = own.detach().requires_grad_()
        for images in (x, x.movedim(-1, 1).contiguous().movedim(1, -1)):
            value = call(*cut(own, k), images, backend=backend)
            found.append((value, torch.autograd.grad(value.sum(), own)[0]))
    for made in found[1:]:
        # PyTorch's own sums have an order by their strides.
        assert same_bits(made, found[0]) if backend != "reference" else assert_close(made, found[0]) is None


@each
def test_reductions_events_scale_and_weights(backend):
    data = (2, 3, 4)
    given, x = parameters(data), pixels(data)
    each_pixel = call(*given, x, backend=backend)
    weight = torch.rand(3, 4)
    images = call(*given, x, event_ndim=3, weight=weight, scale=-0.5, backend=backend)
    assert_close(images, (each_pixel * weight).sum((1, 2)) * -0.5)
    for reduction, n in (("sum", 1), ("mean", 2)):
        total = call(*given, x, event_ndim=3, weight=weight, scale=3, reduction=reduction, backend=backend)
        assert_close(total, (each_pixel * weight).sum() * 3 / n)
        want = torch.autograd.grad((each_pixel * weight).sum() * 3 / n, given, retain_graph=True)
        for factor in (1.0, 0.25):
            total = call(*given, x, event_ndim=3, weight=weight, scale=3, reduction=reduction, backend=backend)
            # The second time the gradients of the forward pass are gone.
            for _ in range(2):
                got = torch.autograd.grad(total * factor, given, retain_graph=True)
                assert_close(got, tuple(g * factor for g in want))
    with vf.early_gradients(False):
        total = call(*given, x, reduction="sum", backend=backend)
    assert_close(torch.autograd.grad(total, given), torch.autograd.grad(each_pixel.sum(), given, retain_graph=True))


@each
@pytest.mark.parametrize("reduction", ("none", "sum"))
def test_where_the_weight_is_0_there_is_nothing(backend, reduction):
    given, x = parameters((4, 5)), pixels((4, 5))
    weight = torch.ones(4, 5)
    weight[1:3] = 0
    want = torch.autograd.grad((call(*given, x, backend=backend) * weight).sum(), given)
    with torch.no_grad():
        for t in given:
            t[1], t[2] = math.nan, math.inf
    value = call(*given, x, weight=weight, reduction=reduction, backend=backend)
    assert value.isfinite().all()
    assert_close(torch.autograd.grad(value.sum(), given), want)


@each
def test_one_gradient_alone_and_none(backend):
    given, x = parameters((6, 5)), pixels((6, 5))
    whole = torch.autograd.grad(call(*given, x, backend=backend).sum(), given)
    for k in range(4):
        own = [t.detach().requires_grad_(j == k) for j, t in enumerate(given)]
        for reduction in ("none", "sum"):
            value = call(*own, x, reduction=reduction, backend=backend).sum()
            assert_close(torch.autograd.grad(value, own[k])[0], whole[k], rtol=1e-13, atol=1e-13)
    assert not call(*(t.detach() for t in given), x, backend=backend).requires_grad


@each
def test_data_of_bytes_and_of_numbers(backend):
    given, x = parameters((9,), dtype=torch.float32), pixels((9,))
    assert same_bits(
        [call(*given, x, backend=backend)], [call(*given, (2 * x.float() - 255) / 255, backend=backend)]
    )
    five = pixels((9,), levels=32)
    assert same_bits(
        [call(*given, five, levels=32, backend=backend)],
        [call(*given, (2 * five.float() - 31) / 31, levels=32, backend=backend)],
    )


@each
def test_a_gradient_of_the_data(backend):
    given = parameters((3,))
    x = torch.rand(3, 3, dtype=torch.float64).mul(1.8).sub(0.9).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: call(*given, x, backend=backend), x)


@each
def test_what_is_clamped_has_no_gradient(backend):
    given, x = parameters((5,)), pixels((5,))
    with torch.no_grad():
        given[2][::2] = -9.0
    value = call(*given, x, min_log_scale=-4.0, backend=backend)
    (by_scale,) = torch.autograd.grad(value.sum(), given[2], retain_graph=True)
    assert by_scale[::2].eq(0).all()
    with torch.no_grad():
        given[2].clamp_(min=-4.0)
    assert_close(call(*given, x, min_log_scale=-70.0, backend=backend), value)


@each
def test_far_off_and_of_no_weight(backend):
    given, x = parameters((6,), dtype=torch.float32), pixels((6,))
    with torch.no_grad():
        given[0][0, 1] = -math.inf
        given[1][1:3] = 1e25
        given[2][3] = 85.0
        given[3][4] = 60.0
    value = call(*given, x, backend=backend)
    grads = torch.autograd.grad(value.sum(), given)
    assert value.isfinite().all() and all(g.isfinite().all() for g in grads)
    assert grads[1][0, :, 1].eq(0).all() and value[1] < -1e25
    with torch.no_grad():
        given[1][0, 0, 0] = math.nan
    assert call(*given, x, backend=backend).isnan().tolist() == [True] + [False] * 5


@each
@pytest.mark.parametrize("dtype", (torch.bfloat16, torch.float16), ids=str)
def test_half_types_are_computed_in_float32(backend, dtype):
    given, x = parameters((4,), dtype=dtype), pixels((4,))
    wide = [t.detach().float().requires_grad_() for t in given]
    got, want = call(*given, x, backend=backend), call(*wide, x, backend=backend)
    assert got.dtype == torch.float32 and same_bits([got], [want])
    pairs = zip(torch.autograd.grad(got.sum(), given), torch.autograd.grad(want.sum(), wide), strict=True)
    for a, b in pairs:
        assert a.dtype == dtype and same_bits([a], [b.to(dtype)])


@each
def test_no_data(backend):
    given, x = parameters((0, 5)), pixels((0, 5))
    value = call(*given, x, backend=backend)
    assert value.shape == (0, 5)
    for reduction in ("none", "sum"):
        grads = torch.autograd.grad(call(*given, x, reduction=reduction, backend=backend).sum(), given)
        assert [g.shape for g in grads] == [t.shape for t in given]


@each
def test_derivatives(backend):
    given, x = parameters((2,), k=2), pixels((2,))
    # In one random direction: in the interpreter of Triton each call takes long.
    fast = {"fast_mode": True}
    for options in ({}, {"reduction": "mean"}, {"event_ndim": 2, "weight": torch.rand(2)}):
        assert torch.autograd.gradcheck(lambda *t, o=options: call(*t, x, backend=backend, **o), given, **fast)
    assert torch.autograd.gradgradcheck(lambda *t: call(*t, x, backend=backend), given, **fast)
    assert torch.autograd.gradgradcheck(lambda *t: call(*t, x, reduction="sum", backend=backend), given, **fast)


@each
def test_transforms(backend):
    given, x = [t.detach() for t in parameters((5,))], pixels((5,))

    def of(mean):
        return call(given[0], mean, *given[2:], x, reduction="sum", backend=backend)

    leaf = given[1].clone().requires_grad_()
    want = torch.autograd.grad(of(leaf), leaf)[0]
    assert_close(torch.func.grad(of)(given[1]), want)
    assert_close(
        torch.func.vmap(of)(torch.stack([given[1], given[1] + 1])), torch.stack([of(given[1]), of(given[1] + 1)])
    )
    _, tangent = torch.func.jvp(of, (given[1],), (torch.ones_like(given[1]),))
    assert_close(tangent, want.sum())
    each_pixel = torch.autograd.grad(
        call(given[0], leaf, *given[2:], x, backend=backend), leaf, torch.eye(5).double(), is_grads_batched=True
    )[0]
    assert_close(each_pixel.sum(0), want)


@each
@pytest.mark.parametrize("compiler", ("aot_eager", "inductor"))
def test_compiled(backend, compiler):
    h, x = torch.randn(2, 3, 5, 40).requires_grad_(), pixels((2, 3, 5))

    weight = torch.rand(5)

    def step(h, x, weight):
        of_images = call(*cut(h, 4), x, event_ndim=3, backend=backend)
        return 3 * of_images + call(*cut(h, 4), x, weight=weight, reduction="mean", backend=backend)

    got, want = torch.compile(step, backend=compiler, fullgraph=True)(h, x, weight), step(h, x, weight)
    assert_close(got, want)
    ours, theirs = (torch.autograd.grad(value.sum(), h)[0] for value in (got, want))
    assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_under_a_checkpoint_nothing_is_kept():
    given, x = parameters((40,)), pixels((40,))

    def of(*t):
        return call(*t, x, reduction="sum")

    value = torch.utils.checkpoint.checkpoint(of, *given, use_reentrant=False)
    assert_close(torch.autograd.grad(value, given), torch.autograd.grad(of(*given), given))


@pytest.mark.skipif("native" not in BACKENDS, reason="the compiled kernels are not there")
class TestNative:
    def test_threads_change_no_bit(self):
        given, x = parameters((3, 700), dtype=torch.float32), pixels((3, 700))

        def made():
            value = call(*given, x, backend="native")
            return [value, *torch.autograd.grad(value.sum(), given)]

        assert same_bits(on_threads(1, made), on_threads(3, made))

    def test_the_raw_operator_checks_what_it_reads(self):
        op = torch.ops.vae_fast.logistic_mixture_log_prob_fwd
        given = [t.detach() for t in parameters((2, 3))]
        x, bins, needs = torch.zeros(2, 3, 3).double(), (1 / 255, -7.0, -0.9, 0.9, 0.0), (True,) * 4
        op(*given, x, None, *bins, *needs)
        logits, mean, log_scale, coefficients = given
        for wrong in (
            (logits[..., :2], mean, log_scale, coefficients, x, None),
            (logits, mean[0], log_scale, coefficients, x, None),
            (logits, mean, log_scale.float(), coefficients, x, None),
            (logits, mean, log_scale, coefficients[..., :2, :], x, None),
            (logits, mean, log_scale, None, x, None),
            (logits, mean, log_scale, coefficients, x[..., :2], None),
            (logits, mean, log_scale, coefficients, x, torch.zeros(3).double()),
        ):
            with pytest.raises((RuntimeError, ValueError)):
                op(*wrong, *bins, *needs)
        for k, number in ((0, 0.0), (0, 2.0), (1, -81.0)):
            with pytest.raises((RuntimeError, ValueError), match="must be"):
                op(*given, x, None, *bins[:k], number, *bins[k + 1 :], *needs)


@pytest.mark.parametrize(
    ("change", "words"),
    (
        ({"x": torch.zeros(4, 2)}, "x \\[\\*data, C\\]"),
        ({"logits": torch.zeros(4, 6)}, "logits must be"),
        ({"mean": torch.zeros(5)}, "a channel and a component"),
        ({"mean": torch.zeros(4, 3, 0)}, "a channel and a component"),
        ({"log_scale": torch.zeros(4, 3, 1)}, "log_scale must be of mean's shape"),
        ({"coefficients": torch.zeros(4, 2, 5)}, "coefficients must be"),
        ({"levels": 1}, "levels must be 2"),
        ({"levels": 257, "x": torch.zeros(4, 3, dtype=torch.uint8)}, "256 levels at most"),
        ({"min_log_scale": -90}, "min_log_scale must be"),
        ({"edges": (0.5, -0.5)}, "low <= high"),
        ({"edges": 0.5}, "edges must be"),
        ({"density_below": 1.0}, "density_below must be"),
        ({"weight": torch.zeros(3)}, "broadcast"),
        ({"event_ndim": 0}, "event_ndim must be 1"),
        ({"event_ndim": 3}, "event_ndim=3"),
        ({"reduction": "all"}, "reduction must be"),
    ),
    ids=lambda v: v if isinstance(v, str) else "-".join(v),
)
def test_refusals(change, words):
    given = {"logits": torch.zeros(4, 5), "mean": torch.zeros(4, 3, 5), "log_scale": torch.zeros(4, 3, 5)}
    given |= {"x": torch.zeros(4, 3)} | change
    with pytest.raises(ValueError, match=words):
        vf.logistic_mixture_log_prob(**given)


@pytest.mark.parametrize(
    "change", ({"x": torch.zeros(4, 3, dtype=torch.int64)}, {"levels": 8.0}, {"mean": 0.0}), ids=str
)
def test_what_is_no_operand(change):
    given = {"logits": torch.zeros(4, 5), "mean": torch.zeros(4, 3, 5), "log_scale": torch.zeros(4, 3, 5)}
    with pytest.raises(TypeError):
        vf.logistic_mixture_log_prob(**(given | {"x": torch.zeros(4, 3)} | change))
