"""What only a CUDA GPU can show of a backend: graphs, streams, launches, synchronisation, very large tensors.

`make test-gpu` runs it beside the operators' own tests, which run on every device there is.
"""

import os
import threading

import pytest
import torch
from hypothesis import given, settings

import vae_fast as vf
from helpers import definition
from helpers.calls import BERNOULLI, GAUSSIAN, KL, RSAMPLE_KL, same_bits
from helpers.marks import each_call, each_density

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU"),
    # What torch says of the debug mode itself, and of leaves that are used on a stream that is not theirs.
    pytest.mark.filterwarnings("ignore:Synchronization debug mode"),
    pytest.mark.filterwarnings("ignore:The AccumulateGrad node's stream"),
    # A compiled graph without kernels: what torch.compile keeps of a step that is not differentiated.
    pytest.mark.filterwarnings("ignore:The CUDA Graph is empty"),
]
BACKENDS = [name for name in ("native", "triton") if "cuda" in vf.backends()[name].devices]
# A graph of the kinds of calls that a training step makes.
SHAPES = ((100, 20), (512, 784))


@pytest.fixture(params=BACKENDS)
def backend(request):
    return request.param


def draw(call, shape, dtype=torch.float32):
    return [t.detach().cuda().requires_grad_() for t in call.draw(shape, dtype)]


class TestNoise:
    @pytest.mark.parametrize("dtype", (torch.float32, torch.float64, torch.bfloat16, torch.float16), ids=str)
    @pytest.mark.parametrize("offset", (0, 1, 6, -9, 2**63 - 5))
    def test_the_bits_of_the_cpu(self, backend, dtype, offset):
        options = {"seed": 2**63 - 25, "offset": offset, "sample": 2**33, "dtype": dtype}
        got = vf.standard_normal(2**20 + 3, device="cuda", backend=backend, **options)
        assert same_bits([got.cpu()], [vf.standard_normal(2**20 + 3, device="cpu", **options)])

    def test_of_a_seed_on_the_device(self, backend):
        seed = torch.tensor([12345], device="cuda")
        got = vf.standard_normal(1000, seed=seed, device="cuda", backend=backend)
        assert same_bits([got.cpu()], [vf.standard_normal(1000, seed=12345, device="cpu")])

    def test_every_backend_s_samples(self):
        mu, std = torch.zeros(33, 37, device="cuda"), torch.ones(33, 37, device="cuda")
        samples = [
            vf.rsample(mu, std, (3,), seed=5, param="std", offset=2, backend=name)
            for name in (*BACKENDS, "reference")
        ]
        for other in samples[1:]:
            assert same_bits([samples[0]], [other])


@settings(max_examples=int(os.environ.get("VAE_FAST_TEST_CASES", "1000")))
@given(case=definition.cases())
@pytest.mark.parametrize("name", BACKENDS)
def test_like_the_definition(name, case):
    definition.check(case, name, "cuda")


class TestRepeats:
    @each_call
    def test_the_same_bits_250_times(self, backend, call):
        tensors = draw(call, (129, 1031))
        options = {"reduction": "sum"} if call.density else {}
        first = call.with_grads(*tensors, backend=backend, **options)
        for _ in range(250):
            assert same_bits(call.with_grads(*tensors, backend=backend, **options), first)

    def test_gradients_of_broadcast_operands(self, backend):
        mean, x = (torch.randn(513, 300, device="cuda", requires_grad=True) for _ in range(2))
        for size in ((300,), (513, 1), ()):
            logvar = torch.randn(size, device="cuda", requires_grad=True)
            first = GAUSSIAN.with_grads(mean, logvar, x, reduction="sum", backend=backend)
            for _ in range(50):
                assert same_bits(GAUSSIAN.with_grads(mean, logvar, x, reduction="sum", backend=backend), first)


class TestStreams:
    def test_two_at_once(self, backend):
        """Each stream's sums have tickets of their own: thousands of overlapping calls give the serial bits."""
        inputs = [draw(BERNOULLI, (512, 784)) for _ in range(2)]
        expected = [BERNOULLI.with_grads(*t, reduction="sum", backend=backend) for t in inputs]
        streams = [torch.cuda.Stream() for _ in range(2)]
        torch.cuda.synchronize()
        results = [[], []]
        for _ in range(500):
            for k, stream in enumerate(streams):
                with torch.cuda.stream(stream):
                    results[k].append(vf.bernoulli_log_prob(*inputs[k], reduction="sum", backend=backend).detach())
        torch.cuda.synchronize()
        for k in range(2):
            assert all(same_bits([r], expected[k][:1]) for r in results[k])

    def test_the_current_one(self, backend):
        """A kernel waits for what its stream does before it."""
        stream = torch.cuda.Stream()
        y, x = (torch.zeros(4096, 4096, device="cuda") for _ in range(2))
        torch.cuda.synchronize()
        with torch.cuda.stream(stream):
            for _ in range(50):
                y = y + 1.0
            got = vf.bernoulli_log_prob(y, x, backend=backend)
        stream.synchronize()
        assert same_bits([got], [vf.bernoulli_log_prob(torch.full_like(y, 50.0), x, backend=backend)])

    @pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one GPU")
    def test_the_tensors_device(self, backend):
        mu = torch.randn(100, 20, device="cuda:1")
        z = vf.rsample(mu, 0.0, seed=1, backend=backend)
        assert z.device == mu.device and same_bits([z.cpu()], [vf.rsample(mu.cpu(), 0.0, seed=1)])


@pytest.mark.skipif("triton" not in BACKENDS, reason="no Triton")
class TestKeptKernels:
    """Triton's compiled kernels, launched again without Triton's own call."""

    @pytest.fixture
    def triton_s_own(self, monkeypatch):
        """The kernels of those launches that go its way."""
        from vae_fast.triton_kernels import launch

        made, run = [], launch.run
        monkeypatch.setattr(launch, "run", lambda kernel, *more: made.append(kernel) or run(kernel, *more))
        return made

    @each_call
    @pytest.mark.parametrize("shape", ((100, 20), (129, 1031)))
    def test_the_bits_of_triton_s_own_launches(self, monkeypatch, triton_s_own, call, shape):
        """Of aligned operands, and of those that begin an element later."""
        from vae_fast.triton_kernels import kept

        aligned = [t.detach() for t in draw(call, shape)]
        odd = [torch.cat((t.new_zeros(1), t.flatten()))[1:].view(t.shape) for t in aligned]
        options = {"reduction": "sum"} if call.density else {}
        for tensors in (aligned, odd):
            leaves = [t.requires_grad_() for t in tensors]
            call.with_grads(*leaves, backend="triton", **options)
            triton_s_own.clear()
            got = call.with_grads(*leaves, backend="triton", **options)
            assert kept.KEEPS and not triton_s_own
            with monkeypatch.context() as patch:
                patch.setattr(kept, "KEEPS", False)
                assert same_bits(got, call.with_grads(*leaves, backend="triton", **options))
            assert triton_s_own

    def test_in_a_graph(self, triton_s_own):
        """Captured on the stream that captures, as any other launch."""
        y, x = (torch.rand(512, 784, device="cuda") for _ in range(2))
        want = vf.bernoulli_log_prob(y, x, backend="triton")
        triton_s_own.clear()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            got = vf.bernoulli_log_prob(y, x, backend="triton")
        assert not triton_s_own
        x.add_(1.0)
        graph.replay()
        assert not same_bits([got], [want])
        assert same_bits([got], [vf.bernoulli_log_prob(y, x, backend="triton")])


class TestGraphs:
    @staticmethod
    def captured(function):
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            for _ in range(3):
                function()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outs = function()
        return graph, outs

    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    @each_density
    def test_replays_give_the_eager_bits(self, backend, call, shape):
        tensors = draw(call, shape)
        graph, outs = self.captured(lambda: call.with_grads(*tensors, reduction="sum", backend=backend))
        for seed in range(3):
            torch.manual_seed(seed)
            for t in tensors:
                t.data.copy_(torch.rand_like(t))
            graph.replay()
            assert same_bits(outs, call.with_grads(*tensors, reduction="sum", backend=backend))

    def test_no_memory_is_set(self, backend, tmp_path):
        """A graph's sums have counters that were 0 before, and leave them so: no node fills memory."""
        tensors = draw(BERNOULLI, (512, 784))
        vf.bernoulli_log_prob(*tensors, reduction="sum", backend=backend)
        graph = torch.cuda.CUDAGraph()
        graph.enable_debug_mode()
        with torch.cuda.graph(graph), torch.no_grad():
            out = vf.bernoulli_log_prob(*tensors, reduction="sum", backend=backend)
        graph.replay()
        torch.cuda.synchronize()
        assert same_bits([out], [vf.bernoulli_log_prob(*tensors, reduction="sum", backend=backend).detach()])
        graph.debug_dump(str(tmp_path / "graph.dot"))
        nodes = (tmp_path / "graph.dot").read_text().lower()
        assert "density" in nodes and "memset" not in nodes and "fill" not in nodes

    @pytest.mark.parametrize("factor", [1.0, -0.5, 3.0])
    def test_replays_scale_gradients_that_were_kept(self, backend, factor):
        y, x = (t.detach().bfloat16() for t in draw(BERNOULLI, (512, 784)))
        y.requires_grad_()
        upstream = torch.full((), factor, device="cuda")

        def gradient():
            out = vf.bernoulli_log_prob(y, x, reduction="sum", backend=backend)
            return torch.autograd.grad(out, y, upstream)

        graph, grads = self.captured(gradient)
        for other in (factor, 1.0, 2.0**-7, 0.3):
            upstream.fill_(other)
            graph.replay()
            with vf.early_gradients(False):
                assert torch.equal(*grads, *gradient())

    def test_replays_draw_fresh_noise(self, backend):
        mu, logvar = draw(RSAMPLE_KL, (100, 20))

        def sample():
            z, kl = vf.rsample_kl(mu, logvar, backend=backend)
            return z, *torch.autograd.grad([z.sum(), kl.sum()], (mu, logvar))

        torch.manual_seed(0)
        graph, outs = self.captured(sample)
        replays = []
        for _ in range(3):
            graph.replay()
            replays.append([o.detach().clone() for o in outs])
        for a in range(3):
            z, dmu, dlogvar = replays[a]
            # The backward pass draws the noise of its own forward pass: dlogvar = ½σε + ½(σ² − 1).
            half = 0.5 * (z - mu) + 0.5 * torch.expm1(logvar)
            assert torch.allclose(dlogvar, half, rtol=1e-5, atol=1e-5)
            assert not any(torch.equal(z, replays[b][0]) for b in range(a))
        torch.manual_seed(0)
        graph, outs = self.captured(sample)
        graph.replay()
        assert same_bits([outs[0]], [replays[0][0]])

    def test_two_graphs_at_once(self, backend):
        tensors = [draw(BERNOULLI, (512, 784)) for _ in range(2)]
        made = [
            self.captured(lambda t=t: BERNOULLI.with_grads(*t, reduction="sum", backend=backend)) for t in tensors
        ]
        expected = [BERNOULLI.with_grads(*t, reduction="sum", backend=backend) for t in tensors]
        streams = [torch.cuda.Stream() for _ in range(2)]
        torch.cuda.synchronize()
        for _ in range(200):
            for (graph, _), stream in zip(made, streams, strict=True):
                with torch.cuda.stream(stream):
                    graph.replay()
        torch.cuda.synchronize()
        for (_, outs), want in zip(made, expected, strict=True):
            assert same_bits(outs, want)


def mixture(backend, mu, logvar, z, log_weight=None):
    return vf.gaussian_mixture_log_prob(mu, logvar, z, log_weight=log_weight, per_dim=True, backend=backend)


def mmd(backend, x, y):
    return (vf.mmd(x, y, backend=backend),)


def logistics(backend, logits, mean, log_scale, coefficients):
    x = torch.arange(mean[..., 0].numel(), device=mean.device).mul(37).remainder(256).view(mean.shape[:-1])
    return (
        vf.logistic_mixture_log_prob(
            logits, mean, log_scale - 2, x.to(torch.uint8), coefficients=coefficients, backend=backend
        ),
    )


def with_grads(function, backend, tensors):
    outs = function(backend, *tensors)
    upstream = [torch.cos(torch.arange(float(o.numel()), device=o.device)).view(o.shape).to(o.dtype) for o in outs]
    return [*(o.detach() for o in outs), *torch.autograd.grad(outs, tensors, upstream)]


class TestPairs:
    """Of several tiles of either side and chunks of dims; components for all data, and each datum's own."""

    SIZES = (
        (mixture, ((300, 40), (300, 40), (200, 40))),
        (mixture, ((300, 7), (300, 7), (2000, 7), (300,))),
        (mixture, ((90, 150), (90, 150), (70, 150), (70, 90))),
        (mixture, ((50, 30, 20), (50, 30, 20), (50, 20), (50, 30))),
        (mmd, ((300, 40), (500, 40))),
        (mmd, ((70, 150), (2000, 150))),
        (logistics, ((3, 700, 10), (3, 700, 3, 10), (3, 700, 3, 10), (3, 700, 3, 10))),
    )
    each = pytest.mark.parametrize(("function", "sizes"), SIZES, ids=str)

    @staticmethod
    def drawn(sizes, dtype=torch.float32):
        return [(torch.randn(s) * 0.5).to("cuda", dtype).requires_grad_() for s in sizes]

    @each
    @pytest.mark.parametrize("dtype", (torch.float32, torch.float64), ids=str)
    def test_like_the_reference(self, backend, function, sizes, dtype):
        tensors = self.drawn(sizes, dtype)
        exact = [t.detach().cpu().double().requires_grad_() for t in tensors]
        want = with_grads(function, "reference", exact)
        close = 2e-5 if dtype == torch.float32 else 1e-13
        for got, truth in zip(with_grads(function, backend, tensors), want, strict=True):
            assert got.dtype == dtype
            assert (got.cpu() - truth).abs().max() <= close * truth.abs().max().clamp(min=1.0)

    @each
    def test_the_same_bits_in_every_run_and_replay(self, backend, function, sizes):
        tensors = self.drawn(sizes)
        want = with_grads(function, backend, tensors)
        for _ in range(20):
            assert same_bits(with_grads(function, backend, tensors), want)
        graph, outs = TestGraphs.captured(lambda: with_grads(function, backend, tensors))
        for _ in range(3):
            graph.replay()
            assert same_bits(outs, want)

    @each
    def test_memory_is_that_of_the_operands(self, backend, function, sizes):
        tensors = self.drawn(sizes)
        with_grads(function, backend, tensors)
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        with_grads(function, backend, tensors)
        # Sums of parts are doubles of the owners' size, of at most as many points as keep a GPU busy.
        most = 64 * 512 * 8 * 3 * sizes[0][-1] + 16 * sum(8 * t.numel() for t in tensors)
        assert torch.cuda.max_memory_allocated() - before <= most


class TestLaunches:
    @pytest.fixture(autouse=True)
    def fresh_memory_as_it_is(self, monkeypatch):
        """Filling it with NaN, as the other tests do, is a kernel too."""
        monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)

    @staticmethod
    def kernels(function):
        """The names of the kernels a call launches, after it was called before."""
        function()
        torch.cuda.synchronize()
        activities = [torch.profiler.ProfilerActivity.CUDA]
        with torch.profiler.profile(activities=activities, acc_events=True) as profile:
            function()
            torch.cuda.synchronize()
        return [e.name for e in profile.events() if e.device_type == torch.profiler.DeviceType.CUDA]

    @pytest.mark.parametrize("call", (RSAMPLE_KL, KL, BERNOULLI, GAUSSIAN), ids=str)
    @pytest.mark.parametrize("reduction", ("none", "sum"))
    def test_one_kernel_a_direction(self, backend, call, reduction):
        shape = (100, 784) if call in (BERNOULLI, GAUSSIAN) else (100, 20)
        tensors = [
            t.detach().requires_grad_(name != "x") for t, name in zip(draw(call, shape), call.operands, strict=True)
        ]
        options = {"reduction": reduction} if call.density else {}
        kept = []
        forward = self.kernels(lambda: kept.append(call(*tensors, backend=backend, **options)))
        assert len(forward) == 1, forward
        wanted = [t for t in tensors if t.requires_grad]
        upstream = [torch.ones_like(o) for o in kept[-1]]
        outs = iter(kept)
        backward = self.kernels(lambda: torch.autograd.grad(next(outs), wanted, upstream))
        assert len(backward) == 1, backward

    @each_call
    def test_nothing_waits_for_the_device(self, backend, call):
        tensors = draw(call, (100, 20))
        options = {"reduction": "sum"} if call.density else {}

        def step():
            outs = call(*tensors, backend=backend, **options)
            torch.autograd.grad([o.sum() for o in outs], tensors)

        step()
        torch.cuda.set_sync_debug_mode("error")
        try:
            step()
            if not call.density:
                call.function(*tensors, backend=backend)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    @pytest.mark.parametrize("own", (torch.float32, torch.float16), ids=str)
    def test_one_kernel_whatever_dtypes_there_are(self, backend, own):
        """No operand is copied to match another's dtype, and a weight's gradient comes with the others."""
        mean, logvar, x, weight = (torch.randn(100, 784, device="cuda") for _ in range(4))
        leaves = [t.requires_grad_() for t in (mean.bfloat16(), logvar, x.half(), weight.to(own))]
        kept, upstream = [], torch.ones(100, device="cuda")
        forward = self.kernels(
            lambda: kept.append(vf.gaussian_log_prob(*leaves[:3], weight=leaves[3], backend=backend))
        )
        assert len(forward) == 1, forward
        outs = iter(kept)
        backward = self.kernels(lambda: torch.autograd.grad(next(outs), leaves, upstream))
        assert len(backward) == 1, backward

    @pytest.mark.parametrize("factor", (1.0, 0.25))
    def test_early_gradients_are_scaled_on_the_device(self, backend, factor):
        y, x = draw(BERNOULLI, (512, 784))
        (vf.bernoulli_log_prob(y, x.detach(), reduction="sum", backend=backend) * factor).backward()
        got, y.grad = y.grad, None
        (vf.bernoulli_log_prob(y, x.detach(), reduction="sum", backend="reference") * factor).backward()
        torch.testing.assert_close(got, y.grad)

    @pytest.mark.parametrize("factor", (1.0, 0.25))
    @pytest.mark.parametrize("what", ("scale", "data"))
    def test_early_gradients_of_other_dtypes_than_the_result(self, backend, what, factor):
        """A scale without dims, of float64, beside float32; float64 data, whose gradient is wider than results."""
        mean, logvar, x = (t.detach() for t in draw(GAUSSIAN, (512, 784)))
        operands = (mean, logvar[0, 0].double(), x) if what == "scale" else (mean, logvar, x.double())
        wanted = (True, True, False) if what == "scale" else (False, False, True)
        grads = []
        for name in (backend, "reference"):
            leaves = [t.detach().requires_grad_(need) for t, need in zip(operands, wanted, strict=True)]
            out = vf.gaussian_log_prob(*leaves, reduction="sum", backend=name) * factor
            assert out.dtype == torch.float32
            grads.append(torch.autograd.grad(out, [t for t in leaves if t.requires_grad]))
        for got, want in zip(*grads, strict=True):
            torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("value", (torch.inf, torch.nan))
    def test_early_gradients_at_a_weight_of_0(self, backend, value):
        """They are 0, and stay so: nobody looks whether the upstream gradient is finite."""
        y, x = draw(BERNOULLI, (512, 784))
        weight = (torch.rand(512, 784, device="cuda") < 0.5).float()
        out = vf.bernoulli_log_prob(y, x.detach(), weight=weight, reduction="sum", backend=backend)
        (got,) = torch.autograd.grad(out, y, torch.full_like(out, value))
        assert bool((got[weight == 0] == 0).all()) and not bool(got[weight == 1].isfinite().any())


class TestCompiled:
    @pytest.mark.parametrize("mode", ("default", "reduce-overhead"))
    def test_a_step(self, backend, mode):
        torch._dynamo.reset()
        y, x = draw(BERNOULLI, (100, 784))
        mu, logvar = draw(RSAMPLE_KL, (100, 20))

        def loss(y, mu, logvar):
            z, kl = vf.rsample_kl(mu, logvar, seed=7, backend=backend)
            return (
                z.square().sum() + kl.sum() - vf.bernoulli_log_prob(y, x.detach(), reduction="sum", backend=backend)
            )

        compiled = torch.compile(loss, fullgraph=True, mode=mode)
        want = torch.autograd.grad(loss(y, mu, logvar), (y, mu, logvar))
        for _ in range(4):
            torch.compiler.cudagraph_mark_step_begin()
            got = [g.clone() for g in torch.autograd.grad(compiled(y, mu, logvar), (y, mu, logvar))]
            for a, b in zip(got, want, strict=True):
                torch.testing.assert_close(a, b)


class TestLarge:
    """More than 2³¹ elements: 15 GB."""

    N = 2**31 + 2**12

    @pytest.fixture(autouse=True)
    def memory(self):
        torch.cuda.empty_cache()
        if torch.cuda.mem_get_info()[0] < 30e9:
            pytest.skip("less than 30 GB of free GPU memory")

    def test_bernoulli(self, backend):
        y = torch.zeros(self.N, dtype=torch.float16, device="cuda")
        y[-1] = 3.0
        y.requires_grad_()
        x = torch.ones(1, dtype=torch.uint8, device="cuda").expand(self.N)
        out = vf.bernoulli_log_prob(y, x, reduction="sum", backend=backend)
        (grad,) = torch.autograd.grad(out, y)
        expected = -(self.N - 1) * 0.6931471805599453 - 0.04858735157374196
        assert abs(out.item() / expected - 1) < 1e-6
        assert grad[0].item() == grad[2**31].item() == 0.5 and abs(grad[-1].item() - 0.04742587) < 1e-4

    def test_noise(self, backend):
        z = vf.standard_normal(self.N, seed=3, device="cuda", dtype=torch.float16, backend=backend)
        tail = vf.standard_normal(2**12, seed=3, offset=2**31, device="cpu", dtype=torch.float16)
        assert same_bits([z[-(2**12) :].cpu()], [tail])

    def test_rows(self, backend):
        mean = torch.zeros(2**20 + 2, 2**11, dtype=torch.float16, device="cuda")
        mean[-1] = 1.0
        out = vf.gaussian_log_prob(mean, 0.0, torch.zeros((), device="cuda"), backend=backend)
        assert abs(out[0].item() / (-(2**10) * 1.8378770664093453) - 1) < 1e-6
        assert abs(out[-1].item() / (-(2**10) * 2.8378770664093453) - 1) < 1e-6


def test_many_threads(backend):
    """The ticket is the stream's, whichever thread calls."""
    y, x = draw(BERNOULLI, (512, 784))
    expected = BERNOULLI.with_grads(y, x, reduction="sum", backend=backend)
    wrong = []

    def work():
        tensors = [t.detach().clone().requires_grad_() for t in (y, x)]
        torch.cuda.synchronize()
        for _ in range(50):
            if not same_bits(BERNOULLI.with_grads(*tensors, reduction="sum", backend=backend), expected):
                wrong.append(tensors)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong
