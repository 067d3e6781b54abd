"""Under dispatch modes, fake tensors and traces: an unseeded draw is an operation that each of them sees."""

import contextlib
import copy
import functools
import pickle
import threading
import warnings

import pytest
import torch
from functorch.compile import aot_module, nop
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

import vae_fast as vf
from helpers.calls import CALLS, same_bits
from helpers.marks import each_backend, each_call, each_sampler

pytestmark = each_backend


def pair():
    """Two draws, which nothing may merge."""
    mu = torch.zeros(3, 4)
    return vf.rsample(mu, mu), vf.rsample_kl(mu, mu)[0]


class Seen(TorchDispatchMode):
    """The operations that go by, by name."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(function.name())
        return function(*args, **(kwargs or {}))


def make_vae():
    return vf.VAE(vf.GaussianMLP(9, 4, 16), vf.BernoulliMLP(4, 9, 16))


def train(vae, x):
    optimizer = torch.optim.Adam(vae.parameters())
    out = vae(x)
    out.loss.backward()
    optimizer.step()
    return out


class TestMakeFx:
    @pytest.mark.parametrize("pre_dispatch", [False, True])
    @pytest.mark.parametrize("allow", [False, True])
    @pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
    def test_draws_at_every_run(self, mode, allow, pre_dispatch):
        """From the default generator, as eager code does; not a seed of the trace's."""

        def draw(moments):
            first, second = (vf.DiagonalGaussian(moments).sample() for _ in range(2))
            return first, second, vf.DiagonalGaussian(moments).rsample_kl()[0]

        moments = torch.randn(4, 6)
        options = {"tracing_mode": mode, "_allow_non_fake_inputs": allow, "pre_dispatch": pre_dispatch}
        graph = make_fx(draw, **options)(moments)
        first, second, third = graph(moments)
        assert not torch.equal(first, second) and not torch.equal(second, third)
        assert not torch.equal(graph(moments)[0], first)
        state = torch.get_rng_state()
        ours = graph(moments)
        torch.set_rng_state(state)
        torch.testing.assert_close(ours, draw(moments))
        assert sum(node.target is torch.ops.aten.randint.default for node in graph.graph.nodes) == 3
        if mode == "symbolic":
            assert graph(torch.randn(9, 6))[0].shape == (9, 3)

    @pytest.mark.compiles
    @each_call
    @pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
    def test_forward_and_backward(self, call, mode):
        """A graph of both, and the gradients of a graph of the forward pass."""

        def both(*tensors):
            leaves = [t.detach().requires_grad_(i in call.argnums) for i, t in enumerate(tensors)]
            outs = call(*leaves)
            return (*outs, *torch.autograd.grad(sum(o.sum() for o in outs), call.wanted(leaves)))

        tensors = [t.detach() for t in call.draw((5, 4))]
        graph = make_fx(both, tracing_mode=mode)(*tensors)
        tensors = call.draw((5, 4))
        torch.testing.assert_close(tuple(graph(*tensors)), both(*tensors))
        graph = make_fx(call, tracing_mode=mode)(*(t.detach() for t in tensors))
        outs = graph(*tensors)
        grads = torch.autograd.grad(sum(o.sum() for o in outs), call.wanted(tensors))
        torch.testing.assert_close(tuple(grads), both(*tensors)[len(outs) :])

    @pytest.mark.parametrize("call", [c for c in CALLS if c.density], ids=str)
    def test_reductions_of_any_size(self, call):
        """The reference's sums are in one order up to a size: a trace must not be bound to it."""
        options = {"reduction": "mean", "scale": -1.0}
        small, large = ([t.detach() for t in call.draw((n, 8))] for n in (3, 5000))
        graph = make_fx(functools.partial(call, **options), tracing_mode="symbolic")(*small)
        torch.testing.assert_close(tuple(graph(*large)), call(*large, **options))

    def test_vmap_inside(self):
        def rows(mu):
            return torch.func.vmap(lambda row: vf.rsample(row, 0.0), randomness="different")(mu)

        mu = torch.zeros(3, 4)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            graph = make_fx(rows)(mu)
            found = graph(mu)
        assert len({tuple(row.tolist()) for row in found}) == 3 and not torch.equal(found, graph(mu))

    def test_sizes_and_places_of_a_trace_are_not_fixed(self):
        def draw(mu):
            return vf.rsample(mu, 0.0, (mu.shape[0],), seed=3, offset=mu.shape[0], first_sample=mu.shape[1])

        graph = make_fx(draw, tracing_mode="symbolic")(torch.zeros(3, 4))
        mu = torch.zeros(5, 6)
        assert same_bits([graph(mu)], [draw(mu)])


class TestAotModule:
    @pytest.mark.parametrize("network", ["moments", "vae"])
    def test_a_step(self, network):
        class Sampling(nn.Module):
            def __init__(self):
                super().__init__()
                self.network = nn.Linear(9, 8) if network == "moments" else make_vae()

            def forward(self, x):
                if network == "vae":
                    return self.network(x).loss
                posterior = vf.DiagonalGaussian(self.network(x))
                return posterior.sample().square().sum() + posterior.kl().sum()

        model, x = Sampling(), torch.rand(5, 9)
        compiled = aot_module(model, nop)
        assert compiled(x) != compiled(x)
        found = []
        for module in (compiled, model):
            torch.manual_seed(5)
            loss = module(x)
            found.append((loss, *torch.autograd.grad(loss, list(model.parameters()))))
        torch.testing.assert_close(*found)


class TestFakeTensors:
    def test_a_training_step(self):
        """And what else draws, of a VAE and of packed moments."""
        with FakeTensorMode():
            vae, x = make_vae(), torch.rand(5, 9)
            out = train(vae, x)
            assert isinstance(out.loss, FakeTensor) and out.z.shape == (5, 4)
            assert vae.sample(3).shape == (3, 9) and vae.log_marginal(x, 5).shape == (5,)
            assert vae.sample(3, generator=torch.Generator()).shape == (3, 9)
            moments = torch.randn(5, 8, requires_grad=True)
            posterior = vf.DiagonalGaussian(moments)
            (posterior.sample(torch.Generator()).sum() + posterior.rsample_kl()[0].sum()).backward()
            assert moments.grad.shape == (5, 8)

    @each_call
    def test_each(self, call):
        real = call.draw((3, 4))
        with FakeTensorMode() as mode:
            fake = [mode.from_tensor(t).detach().requires_grad_() for t in real]
            outs = call.with_grads(*fake)
        for out, want in zip(outs, call.with_grads(*real), strict=True):
            assert isinstance(out, FakeTensor)
            assert (out.shape, out.dtype, out.stride()) == (want.shape, want.dtype, want.stride())

    @pytest.mark.parametrize("call", [c for c in CALLS if c.density], ids=str)
    def test_no_early_gradients(self, call, backend):
        """A backward outside of the mode would look at the upstream gradient's value, and there is none."""
        real = call.draw((3, 4))
        with FakeTensorMode() as mode:
            tensors = [mode.from_tensor(t).detach().requires_grad_() for t in real]
            out, upstream = call(*tensors, reduction="mean")[0], torch.ones(())
        with contextlib.nullcontext() if backend != "reference" else mode:  # whose formulas make constants
            grads = torch.autograd.grad(out, call.wanted(tensors), upstream)
        assert all(isinstance(g, FakeTensor) for g in grads)

    @each_call
    def test_outside_of_their_mode(self, call):
        """A number beside them, and the noise, become fake too."""
        mode = FakeTensorMode()
        first, *others = (mode.from_tensor(t.detach()) for t in call.draw((3, 4)))
        if "logvar" in call.operands:
            others[0] = 0.5
        options = {"seed": None} if not call.density else {}
        outs = call(first, *others, **options)
        assert all(isinstance(out, FakeTensor) for out in outs)
        assert isinstance(vf.DiagonalGaussian(first).sample(), FakeTensor)

    def test_no_seed_of_the_host_for_a_gpu(self):
        """No GPU is needed to see it: the draw is an operation on the tensors' device."""
        with FakeTensorMode(), Seen() as seen, torch.no_grad():
            z = vf.rsample(torch.empty(3, 4, device="meta"), 0.0, backend="reference")
        assert z.shape == (3, 4) and seen.names.count("aten::randint") == 1

    @pytest.mark.parametrize("fake", [False, True])
    def test_memory_tracker(self, fake):
        """A step's memory, of real tensors or fake ones: at its end the parameters and their gradients."""
        with FakeTensorMode() if fake else contextlib.nullcontext():
            vae, x = make_vae(), torch.rand(5, 9)
            tracker = MemTracker()
            tracker.track_external(vae, x)
            with tracker:
                vae(x).loss.backward()
        left, peak = (next(iter(tracker.get_tracker_snapshot(kind).values())) for kind in ("current", "peak"))
        left = {getattr(kind, "value", kind): n for kind, n in left.items()}
        assert left["Parameter"] == left["Gradient"] == sum(4 * p.numel() for p in vae.parameters())
        assert peak["Total"] >= left["Total"]


class TestDispatchModes:
    @each_sampler
    def test_one_draw_is_seen(self, call):
        mu = torch.zeros(3, 4)
        with Seen() as seen:
            z = call(mu, mu, seed=None)[0]
        assert seen.names.count("aten::randint") == 1 and not any("random_" in name for name in seen.names)
        assert not torch.equal(call(mu, mu, seed=None)[0], z)

    @each_sampler
    def test_draws_as_without(self, call):
        mu = torch.zeros(3, 4)
        torch.manual_seed(3)
        expected = call(mu, mu, seed=None)[0], torch.rand(2)
        torch.manual_seed(3)
        with Seen():
            found = call(mu, mu, seed=None)[0], torch.rand(2)
        assert same_bits(found, expected)

    @each_sampler
    @pytest.mark.parametrize("saved", ["random", "all", "none"])
    def test_selective_checkpoint(self, call, saved):
        """Whatever a policy saves, the recomputation has the same noise."""

        def policy(context, function, *args, **kwargs):
            random = torch.Tag.nondeterministic_seeded in function.tags
            keep = saved == "all" or (saved == "random" and random)
            return CheckpointPolicy.MUST_SAVE if keep else CheckpointPolicy.PREFER_RECOMPUTE

        def block(mu, logvar):
            return sum(out.square().sum() for out in call(mu, logvar, seed=None))

        contexts = functools.partial(create_selective_checkpoint_contexts, policy)
        tensors = call.draw((3, 4))
        torch.manual_seed(8)
        expected = torch.autograd.grad(block(*tensors), tensors)
        torch.manual_seed(8)
        loss = checkpoint(block, *tensors, use_reentrant=False, context_fn=contexts)
        assert same_bits(torch.autograd.grad(loss, tensors), expected)

    @pytest.mark.parametrize("call", [c for c in CALLS if c.density], ids=str)
    def test_backward_alone_under_a_mode(self, call):
        """The forward's early gradients are not read there."""
        tensors = call.draw((3, 4))
        expected = call.with_grads(*tensors, reduction="mean")[1:]
        out = call(*tensors, reduction="mean")[0]
        with Seen():
            torch.testing.assert_close(torch.autograd.grad(out, call.wanted(tensors)), expected)


@pytest.mark.parametrize("first", [torch.inference_mode, FakeTensorMode, Seen, torch.no_grad])
def test_a_threads_first_draw(first):
    """Whatever it is under, the thread's later draws are as ever."""
    found = []

    def work():
        mu = torch.zeros(3, requires_grad=True)
        with first():
            vf.rsample(torch.zeros(3), 0.0)
        for mode in (contextlib.nullcontext, torch.inference_mode, Seen, contextlib.nullcontext):
            with mode():
                found.append(vf.rsample(mu, 0.0))
        found[0].sum().backward()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len({tuple(z.tolist()) for z in found}) == 4


@pytest.mark.parametrize("call", [c for c in CALLS if c.density], ids=str)
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_vmap_over_upstream_gradients(call, reduction):
    tensors = call.draw((3, 4))
    out = call(*tensors, reduction=reduction)[0]
    upstream = torch.randn(5, *out.shape, dtype=out.dtype)

    def backward(g):
        return torch.autograd.grad(out, call.wanted(tensors), g, retain_graph=True)

    found = torch.vmap(backward)(upstream)
    expected = [torch.stack(rows) for rows in zip(*map(backward, upstream), strict=True)]
    torch.testing.assert_close(found, tuple(expected))


class Everything(nn.Module):
    """Every public function, with places and seeds that are values of the trace."""

    def __init__(self):
        super().__init__()
        self.linear, self.logvar = nn.Linear(6, 6), nn.Parameter(torch.zeros(3))

    def forward(self, x, seed):
        mu, logvar = self.linear(x).chunk(2, 1)
        z, kl = vf.rsample_kl(mu, logvar, seed=seed, offset=x.shape[0])
        return (
            z,
            kl,
            vf.rsample(mu, logvar, (x.shape[0],), seed=3),
            vf.standard_normal((x.shape[0], 3), seed=seed),
            vf.gaussian_kl(mu, logvar, reduction="sum"),
            vf.bernoulli_log_prob(mu, torch.ones(3)),
            vf.gaussian_log_prob(torch.zeros(3), self.logvar, x=mu, weight=x[:, :1]),
            vf.kl_per_dim(mu, logvar),
            vf.active_units(mu).mask,
        )


class TestSymbolicTrace:
    FUNCTIONS = {
        vf.rsample_kl,
        vf.rsample,
        vf.standard_normal,
        vf.gaussian_kl,
        vf.bernoulli_log_prob,
        vf.gaussian_log_prob,
        vf.kl_per_dim,
        vf.active_units,
    }

    def test_public_functions_are_leaves(self):
        model, x = Everything(), torch.randn(4, 6)
        graph = torch.fx.symbolic_trace(model)
        assert {node.target for node in graph.graph.nodes} >= self.FUNCTIONS
        for module in (graph, copy.deepcopy(graph), pickle.loads(pickle.dumps(graph))):
            torch.testing.assert_close(module(x, 5), model(x, 5))

    def test_modules_as_leaves(self):
        """A VAE's own forward looks at shapes: it is a leaf where the tracer says so."""

        class Tracer(torch.fx.Tracer):
            def is_leaf_module(self, module, name):
                return isinstance(module, vf.VAE) or super().is_leaf_module(module, name)

        class Loss(nn.Module):
            def __init__(self):
                super().__init__()
                self.vae = make_vae()

            def forward(self, x):
                return self.vae(x / 255, seed=3).loss

        model, x = Loss(), 255 * torch.rand(4, 9)
        graph = torch.fx.GraphModule(model, Tracer().trace(model))
        assert torch.equal(graph(x), model(x))

    @each_call
    def test_tensor_subclasses_are_no_proxies(self, call):
        """They see the formulas' own operations, not the function."""
        seen = []

        class Watching(torch.Tensor):
            @classmethod
            def __torch_function__(cls, function, types, args=(), kwargs=None):
                seen.append(function)
                return super().__torch_function__(function, types, args, kwargs or {})

        tensors = [t.detach() for t in call.draw((3, 4))]
        outs = call(*(t.as_subclass(Watching) for t in tensors))
        assert seen and not self.FUNCTIONS.intersection(seen)
        assert all(type(out) is Watching for out in outs)
        with vf.use_backend("reference"):
            expected = call(*tensors)
        assert same_bits([out.as_subclass(torch.Tensor) for out in outs], expected)
