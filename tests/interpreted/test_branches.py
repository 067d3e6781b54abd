"""Every way through the Triton kernels and their launchers, once, at tiles of 256 bytes.

Each call is compared with the reference in float64 of the same values: the kernels' accuracy has tests of its own.
"""

import math
from types import SimpleNamespace

import pytest
import torch
from torch.testing import assert_close

import vae_fast as vf
from helpers.calls import BERNOULLI, GAUSSIAN, KL, KL_PRIOR, PROBS, RSAMPLE, RSAMPLE_KL, same_bits
from vae_fast.triton_kernels import early, launch, layout, walk

pytestmark = pytest.mark.usefixtures("small_tiles")

FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
CLOSE = {torch.float32: 2e-6, torch.float64: 1e-13, torch.bfloat16: 1e-2, torch.float16: 2e-3}
# A tile of 256 bytes holds 64 float32: rows of 5 lie 8 to a tile, of 70 in two tiles; one row alone is cut.
SHORT, LONG, SPLIT = (11, 5), (2, 70), (1, 140)


def compare(call, tensors, upstream_seed=3, **options):
    """Results and gradients on Triton, checked against the reference's in float64."""
    dtype = tensors[0].dtype
    leaves = [t.detach().clone().requires_grad_(t.requires_grad) if t is not None else None for t in tensors]
    wide = [t.detach().double().requires_grad_(t.requires_grad) if t is not None else None for t in tensors]
    torch.manual_seed(upstream_seed)
    outs = call(*leaves, backend="triton", **options)
    truth = call(*wide, backend="reference", **options)
    upstream = [torch.randn_like(t) for t in truth]
    wanted = [k for k, t in enumerate(tensors) if t is not None and t.requires_grad]
    got, want = list(outs), list(truth)
    if wanted:
        narrow = [u.to(o.dtype) for u, o in zip(upstream, outs, strict=True)]
        got += torch.autograd.grad(outs, [leaves[k] for k in wanted], narrow)
        want += torch.autograd.grad(truth, [wide[k] for k in wanted], [n.double() for n in narrow])
    tolerance = CLOSE[dtype]
    for a, b in zip(got, want, strict=True):
        assert a.shape == b.shape
        scale = max(1.0, b.abs().max().item()) if b.numel() else 1.0
        assert_close(a.double(), b, rtol=0, atol=tolerance * scale)
    return got


def draw(shape, dtype=torch.float32, grad=True):
    return torch.randn(shape, dtype=torch.float64).to(dtype).requires_grad_(grad)


class TestDensities:
    @pytest.mark.parametrize(
        ("shape", "reduction", "dtype"),
        (
            *((shape, reduction, torch.float32) for shape in (SHORT, LONG, SPLIT) for reduction in ("none", "sum")),
            *((LONG, reduction, dtype) for dtype in FLOATS[1:] for reduction in ("none", "mean")),
        ),
        ids=str,
    )
    def test_bernoulli(self, shape, reduction, dtype):
        x = torch.rand(shape).to(dtype).requires_grad_()
        compare(BERNOULLI, (draw(shape, dtype), x), reduction=reduction)
        compare(PROBS, (torch.sigmoid(draw(shape, dtype)).detach().requires_grad_(), x), reduction=reduction)

    @pytest.mark.parametrize("dtype", (torch.float32, torch.float64), ids=str)
    def test_probabilities_at_their_ends(self, dtype):
        info = torch.finfo(dtype)
        tiny = info.tiny
        p = [0.0, -0.0, 1.0, tiny * info.eps, tiny / 4, tiny, 1e-13, 1e-11, 0.25, 0.29, 0.3, 0.5, 0.7, 0.75]
        p = torch.tensor([*p, 1 - info.eps / 2, 1 - info.eps, 1 - 2**-12, -0.5, 2.0, math.nan], dtype=dtype)
        p = p.requires_grad_()
        for target in (0.0, 0.3, 1.0):
            t = torch.full_like(p, target).requires_grad_()
            got, want = (PROBS.with_grads(p, t, event_ndim=0, backend=b) for b in ("triton", "reference"))
            for a, b in zip(got, want, strict=True):
                assert_close(a, b, rtol=3 * info.eps, atol=float(tiny * info.eps), equal_nan=True)

    @pytest.mark.parametrize("call", (GAUSSIAN, KL, KL_PRIOR), ids=str)
    @pytest.mark.parametrize("reduction", ("none", "sum"))
    @pytest.mark.parametrize("shape", (SHORT, LONG, SPLIT), ids=("short", "long", "split"))
    def test_gaussian_and_kl(self, shape, reduction, call):
        compare(call, [draw(shape) for _ in call.operands], reduction=reduction, scale=-0.5)

    @pytest.mark.parametrize("size", ((70,), (2, 1), (), (1, 70), (1, 1)), ids=str)
    @pytest.mark.parametrize("reduction", ("none", "sum"))
    def test_gradients_of_broadcast_operands(self, size, reduction, launched):
        compare(GAUSSIAN, (draw(LONG), draw(size), draw(LONG)), reduction=reduction)
        kinds = {constants["KINDS"][1] for _, _, constants in launched if "KINDS" in constants}
        expected = layout.ALL if math.prod(size) == 1 else layout.ROW if size == (2, 1) else layout.COLUMN
        assert expected in kinds

    def test_gradient_of_a_channel(self, launched):
        compare(GAUSSIAN, (draw((2, 3, 4, 5)), draw((3, 1, 1)), draw((2, 3, 4, 5))), event_ndim=3, reduction="sum")
        assert any(
            c["KINDS"][1] == layout.EACH and c["VALUE"] == layout.NONE for _, _, c in launched if "KINDS" in c
        )

    def test_sums_of_two_orders_are_made_apart(self, launched):
        m, r = draw(LONG), draw((70,))
        vf.gaussian_kl(m, r, reduction="sum", backend="triton")
        values = [c["VALUE"] for name, _, c in launched if name == "density"]
        assert values == [layout.ALL, layout.NONE]

    @pytest.mark.parametrize("event_ndim", (0, 1, 2, 3))
    def test_event_dims(self, event_ndim):
        for reduction in ("none", "mean"):
            compare(KL, (draw((2, 3, 20)), draw((2, 3, 20))), event_ndim=event_ndim, reduction=reduction)

    @pytest.mark.parametrize("x", (torch.uint8, torch.bool, torch.float32, torch.float16), ids=str)
    def test_targets(self, x):
        values = (torch.rand(LONG) * 255).to(x) if x != torch.bool else torch.rand(LONG) < 0.5
        compare(BERNOULLI, (draw(LONG), values), x_scale=1 / 255)
        compare(GAUSSIAN, (draw(LONG, torch.bfloat16), draw(LONG, torch.bfloat16), values), x_scale=1 / 255)

    @pytest.mark.parametrize("size", (LONG, (2, 1), ()), ids=str)
    @pytest.mark.parametrize("call", (BERNOULLI, GAUSSIAN, KL_PRIOR), ids=str)
    def test_weights(self, call, size):
        weight = torch.randint(0, 3, size).to(torch.uint8)
        compare(call, [draw(LONG) for _ in call.operands], weight=weight, reduction="mean" if size else "none")
        tensors = [torch.randn(LONG) for _ in call.operands]
        hidden = [torch.where(weight.expand(LONG) == 0, torch.nan, t).requires_grad_() for t in tensors]
        got = call.with_grads(*hidden, weight=weight, backend="triton")
        assert all(t.isfinite().all() for t in got)

    @pytest.mark.parametrize("param", ("logvar", "logstd", "std", "var", "softplus"))
    @pytest.mark.parametrize(("eps", "bounds"), ((0.0, None), (0.1, (0.5, 1.5))), ids=("plain", "changed"))
    def test_params(self, param, eps, bounds):
        form = {"param": param, "param_eps": eps, "bounds": bounds}
        positive = draw(LONG).detach().abs() + 0.25
        raw, prior = positive.clone().requires_grad_(), positive.flip(-1).clone().requires_grad_()
        compare(GAUSSIAN, (draw(LONG), raw, draw(LONG)), **form)
        compare(KL_PRIOR, (draw(LONG), raw, draw(LONG), prior), **form)
        if bounds is None:
            compare(KL, (draw(LONG), raw), **form)
        else:
            compare(RSAMPLE_KL, (draw(LONG), raw), **form)

    @pytest.mark.parametrize("free_bits", (0.0, 0.3))
    def test_free_bits(self, free_bits):
        compare(KL_PRIOR, [draw(LONG) for _ in range(4)], free_bits=free_bits)
        compare(RSAMPLE_KL, (draw(LONG), draw(LONG)), free_bits=free_bits)

    def test_numbers(self, launched):
        m, x = draw(LONG), draw(LONG)
        got = vf.gaussian_log_prob(m, -0.3, x, backend="triton")
        assert_close(got, vf.gaussian_log_prob(m, -0.3, x, backend="reference"))
        assert launched[0][2]["MODES"][1] == walk.NUMBER
        got = vf.gaussian_kl(m.double(), 0.1, 0.2, 0.3, backend="triton")
        assert_close(got, vf.gaussian_kl(m.double(), 0.1, 0.2, 0.3, backend="reference"), rtol=1e-14, atol=0)

    @pytest.mark.parametrize(
        "view",
        (
            lambda t: t.T.contiguous().T,
            lambda t: torch.stack([t, t], -1)[..., 0],
            lambda t: torch.cat([t, t], 1)[:, : t.shape[1]],
            lambda t: torch.cat([t[:, :1], t], 1)[:, 1:],
            lambda t: torch._neg_view(-t),
        ),
        ids=("transposed", "strided", "packed", "misaligned", "negative"),
    )
    def test_layouts(self, view):
        for reduction in ("none", "sum"):
            tensors = [view(torch.randn(LONG)).detach().requires_grad_() for _ in range(2)]
            got = KL.with_grads(*tensors, reduction=reduction, backend="triton")
            plain = [t.detach().contiguous().requires_grad_() for t in tensors]
            want = KL.with_grads(*plain, reduction=reduction, backend="reference")
            for a, b in zip(got, want, strict=True):
                assert_close(a, b)
            assert [g.stride() for g in got[1:]] == [torch.empty_like(t).stride() for t in tensors]

    def test_samples_share_their_targets(self, launched):
        y, x = draw((3, 2, 70)), torch.rand(2, 70).requires_grad_()
        compare(BERNOULLI, (y, x))
        assert any(c["SAMPLES"] for _, _, c in launched if "SAMPLES" in c)

    def test_rows_that_break_twice(self):
        compare(KL, (draw((2, 3, 4, 9)), draw((3, 1, 9))))
        compare(KL, (draw((2, 3, 4, 9)), draw((2, 1, 1, 9))))
        compare(KL, (draw((2, 3, 4, 9)), draw((2, 1, 4, 9))), reduction="sum")

    @pytest.mark.parametrize("shape", ((0, 5), (5, 0), (0,), (2, 0, 3)), ids=str)
    @pytest.mark.parametrize("reduction", ("none", "sum", "mean"))
    def test_nothing(self, shape, reduction):
        tensors = [torch.empty(shape).requires_grad_(), torch.zeros(()).requires_grad_()]
        got = KL.with_grads(*tensors, reduction=reduction, backend="triton")
        want = KL.with_grads(*tensors, reduction=reduction, backend="reference")
        for a, b in zip(got, want, strict=True):
            assert_close(a, b, equal_nan=True)

    def test_large_sums_have_few_partials(self, launched, monkeypatch):
        monkeypatch.setattr(layout, "MOST_PARTIALS", 4)
        layout.layout.cache_clear()
        try:
            compare(BERNOULLI, (draw((5, 70)), torch.rand(5, 70)), reduction="sum")
        finally:
            layout.layout.cache_clear()
        # Six tiles, for four programs at most: two for each of three.
        assert [programs for _, programs, c in launched if c.get("VALUE") == layout.ALL] == [3]


class TestTickets:
    def test_the_same_bits_every_time(self, launched):
        y, x = draw(LONG), torch.rand(LONG)
        first = BERNOULLI.with_grads(y, x, reduction="sum", backend="triton")
        assert launched[0][1] > 1 and not launched[0][2]["ALONE"]
        for _ in range(3):
            assert same_bits(BERNOULLI.with_grads(y, x, reduction="sum", backend="triton"), first)
        assert all(ticket.item() == 0 for ticket in launch._tickets.values())

    def test_a_graph_has_its_own(self):
        device = torch.device("cpu")
        kept = launch.ticket(device)
        assert launch.ticket(device) is kept
        with launch.fresh_tickets():
            assert launch.ticket(device) is not kept
        assert launch.ticket(device) is kept

    def test_each_captured_call_has_its_own(self, monkeypatch):
        """One that is 0 already, as long as there are some: without a launch that makes it so."""
        device = torch.device("cuda", 0)
        monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: SimpleNamespace(synchronize=lambda: None))
        monkeypatch.setattr(launch, "MOST_CAPTURED", 3)
        monkeypatch.setitem(launch._captured, 0, launch._zeros_to_capture(torch.device("cpu")))
        own = [launch.ticket(device) for _ in range(2)]
        with launch.fresh_tickets():
            own.append(launch.ticket(device))
        assert len({t.data_ptr() for t in own}) == 3
        assert all(t.data_ptr() % launch.ALIGNED == 0 and not t.any() for t in own)
        fresh = torch.zeros(1)
        monkeypatch.setattr(torch, "zeros", lambda *args, **options: fresh)
        assert launch.ticket(device) is fresh
        # Nor are there any on a GPU that was first met in a capture.
        assert launch.ticket(torch.device("cuda", 1)) is fresh

    def test_the_last_one_to_finish_adds_up(self, monkeypatch):
        """A ticket that is not 0 at the start: nobody is the last, and no result is written."""
        y, x = draw(LONG), torch.rand(LONG)
        monkeypatch.setattr(launch, "ticket", lambda device: torch.ones(1, dtype=torch.int32))
        assert vf.bernoulli_log_prob(y, x, reduction="sum", backend="triton").isnan()


class TestSamplers:
    @pytest.mark.parametrize(
        ("dtype", "shape", "offset"),
        (
            *((torch.float32, shape, offset) for shape in (SHORT, LONG, (2, 68), SPLIT) for offset in (0, 6)),
            *((torch.float32, shape, offset) for shape in (SHORT, LONG) for offset in (2, 8)),
            *((dtype, LONG, offset) for dtype in FLOATS[1:] for offset in (4, 7)),
        ),
        ids=str,
    )
    def test_every_alignment(self, dtype, shape, offset):
        call = RSAMPLE if offset % 4 else RSAMPLE_KL
        compare(call, (draw(shape, dtype), draw(shape, dtype)), offset=offset)

    @pytest.mark.parametrize("samples", ((1,), (3,), (2, 8), (0,)), ids=str)
    @pytest.mark.parametrize("call", (RSAMPLE, RSAMPLE_KL), ids=str)
    def test_samples(self, call, samples, launched):
        compare(call, (draw(SHORT), draw(SHORT)), sample_shape=samples)
        draws = math.prod(samples)
        assert any(c["GROUPED"] for name, _, c in launched if name == "backward") == (draws == 16)
        assert any(c["GROUPED"] for name, _, c in launched if name == "forward") == (draws > 1)

    @pytest.mark.parametrize("size", ((5,), (11, 1), ()), ids=str)
    @pytest.mark.parametrize("samples", ((), (3,)), ids=str)
    def test_broadcast_operands(self, size, samples):
        # A KL is of no samples.
        call = RSAMPLE if samples else RSAMPLE_KL
        compare(call, (draw(SHORT), draw(size)), sample_shape=samples)
        compare(call, (draw(size), draw(SHORT)), sample_shape=samples)

    @pytest.mark.parametrize("size", ((8,), (11, 1), ()), ids=str)
    def test_broadcast_operands_of_aligned_rows(self, size, launched):
        compare(RSAMPLE_KL, (draw((11, 8)), draw(size)))
        expected = {(8,): layout.COLUMN, (11, 1): layout.ROW, (): layout.ALL}[size]
        assert expected in {c["KINDS"][1] for name, _, c in launched if name == "backward"}

    def test_layouts(self):
        mu = torch.randn(2, 4, 3, 5).contiguous(memory_format=torch.channels_last).requires_grad_()
        logvar = torch.randn(2, 8, 3, 5)[:, 4:].requires_grad_()
        got = RSAMPLE_KL.with_grads(mu, logvar, event_ndim=3, backend="triton")
        want = RSAMPLE_KL.with_grads(mu, logvar, event_ndim=3, backend="reference")
        for a, b in zip(got, want, strict=True):
            assert_close(a, b)
        assert got[0].stride() == got[2].stride() == mu.stride()

    @pytest.mark.parametrize("kind", ("expanded", "transposed", "cut"))
    def test_upstreams(self, kind):
        mu, logvar = draw(SHORT), draw(SHORT)
        grad = {
            "expanded": lambda z: torch.ones(()).expand_as(z),
            "transposed": lambda z: torch.randn(z.shape[::-1]).permute(*reversed(range(z.ndim))),
            "cut": lambda z: torch.randn(*z.shape[:-1], z.shape[-1] + 3)[..., 3:],
        }[kind]
        for samples in ((), (2, 3)):
            z = vf.rsample(mu, logvar, samples, seed=7, backend="triton")
            upstream = grad(z)
            got = torch.autograd.grad(z, (mu, logvar), upstream)
            z = vf.rsample(mu, logvar, samples, seed=7, backend="reference")
            for a, b in zip(got, torch.autograd.grad(z, (mu, logvar), upstream), strict=True):
                assert_close(a, b)

    @pytest.mark.parametrize(
        ("dtype", "offset"), [*zip((*FLOATS, torch.float32), (0, 4, 7, -9, 2**63 - 5), strict=True)], ids=str
    )
    def test_noise_has_the_definition_s_bits(self, dtype, offset):
        last = 2**32 - 1
        for seed, sample, stream in ((5, 0, 0), (-3, last, last), (torch.tensor([2**62 + 1]), 0, 2)):
            options = {"seed": seed, "offset": offset, "sample": sample, "stream": stream, "dtype": dtype}
            got = vf.standard_normal((2, 35), backend="triton", **options)
            assert same_bits([got], [vf.standard_normal((2, 35), backend="reference", **options)])

    def test_a_seed_s_gradients(self):
        """z, and its gradient by σ, from one seed tensor: the noise of both is the same."""
        mu, std, seed = torch.zeros(3, 55), torch.ones(3, 55).requires_grad_(), torch.tensor([99])
        z = vf.rsample(mu, std, seed=seed, param="std", backend="triton")
        (eps,) = torch.autograd.grad(z.sum(), std)
        assert same_bits([z.detach()], [eps])


class TestEarlyGradients:
    def test_rescaled_on_the_device(self):
        grads = [torch.randn(3, 70), torch.randn(5), torch.empty(0), torch.randn(())]
        want = [g * 0.3 for g in grads]
        early.rescale(grads, torch.tensor(0.3))
        assert same_bits(grads, want)

    def test_a_factor_of_1_writes_nothing(self, monkeypatch):
        # Signalling NaNs: any arithmetic would make quiet ones of them.
        grad = torch.full((70,), 0x7F800001, dtype=torch.int32).view(torch.float32)
        before = grad.view(torch.int32).clone()
        early.rescale([grad], torch.tensor(1.0))
        assert torch.equal(grad.view(torch.int32), before)


@pytest.mark.parametrize("call", (BERNOULLI, PROBS, GAUSSIAN, KL_PRIOR, RSAMPLE, RSAMPLE_KL), ids=str)
def test_compiled_graphs(call):
    """In a compiler's graph the kernels are operators of their own, without a break."""
    torch._dynamo.reset()
    tensors = [t.detach() for t in call.draw((3, 8))]

    def f(*tensors):
        return call(*tensors, backend="triton")

    got = torch.compile(f, fullgraph=True, backend="aot_eager")(*tensors)
    assert same_bits(got, f(*tensors))
    leaves = [t.requires_grad_() for t in tensors]
    outs = torch.compile(f, fullgraph=True, backend="aot_eager")(*leaves)
    grads = torch.autograd.grad([o.sum() for o in outs], leaves)
    for a, b in zip(grads, torch.autograd.grad([o.sum() for o in f(*leaves)], leaves), strict=True):
        assert_close(a, b)
