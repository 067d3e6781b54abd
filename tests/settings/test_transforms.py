"""The operators under PyTorch's transforms: torch.func, higher derivatives, autocast, compile, export, modules."""

import copy
import io

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vmap

import vae_fast as vf
from helpers.calls import BERNOULLI, GAUSSIAN, KL, KL_PRIOR, RSAMPLE, same_bits
from helpers.faults import install
from helpers.marks import each_call, each_density, each_sampler


def doubles(call, shape):
    return [t.detach() for t in call.draw(shape, torch.float64)]


def scalar(call):
    """The sum of a call's results, unlike weights on each."""

    def function(*tensors, **options):
        return sum((k + 1.0) * out.sum() for k, out in enumerate(call(*tensors, **options)))

    return function


def tangents_of(call, tensors):
    """A direction in which no constant moves."""
    return tuple(torch.randn_like(t) if i in call.argnums else torch.zeros_like(t) for i, t in enumerate(tensors))


class TestFunc:
    @each_call
    def test_vmap_is_a_loop(self, call):
        tensors = doubles(call, (5, 3, 4))
        batched = vmap(call)(*tensors)
        for k in range(5):
            for b, one in zip(batched, call(*(t[k] for t in tensors)), strict=True):
                torch.testing.assert_close(b[k], one)

    @each_call
    def test_vmap_over_one_operand_and_another_dim(self, call):
        tensors = doubles(call, (3, 4))
        wide = torch.rand(3, 5, 4, dtype=torch.float64)
        for i in range(len(tensors)):
            operands = [wide if k == i else t for k, t in enumerate(tensors)]
            batched = vmap(call, in_dims=tuple(1 if k == i else None for k in range(len(tensors))))(*operands)
            looped = [call(*(wide[:, n] if k == i else t for k, t in enumerate(tensors))) for n in range(5)]
            for b, ones in zip(batched, zip(*looped, strict=True), strict=True):
                torch.testing.assert_close(b, torch.stack(ones))

    @each_call
    def test_grad_is_backward(self, call):
        tensors = doubles(call, (3, 4))
        argnums = call.argnums
        ours = grad(scalar(call), argnums)(*tensors)
        leaves = [t.clone().requires_grad_(i in argnums) for i, t in enumerate(tensors)]
        torch.testing.assert_close(ours, torch.autograd.grad(scalar(call)(*leaves), call.wanted(leaves)))

    @each_call
    def test_per_example_gradients(self, call):
        tensors = doubles(call, (5, 4))
        argnums = call.argnums
        rows = vmap(grad(scalar(call), argnums))(*tensors)
        if not call.density:
            # vmap gives every example the noise of one.
            ones = [grad(scalar(call), argnums)(*(t[k] for t in tensors)) for k in range(5)]
            expected = tuple(torch.stack(g) for g in zip(*ones, strict=True))
        else:
            expected = grad(scalar(call), argnums)(*tensors)
        torch.testing.assert_close(rows, expected)

    @each_call
    def test_jvp_is_the_jacobian_times_the_tangent(self, call):
        tensors = tuple(doubles(call, (3, 4)))
        tangents = tangents_of(call, tensors)
        outs, moved = jvp(call, tensors, tangents)
        torch.testing.assert_close(outs, call(*tensors))
        argnums = call.argnums
        for k, change in enumerate(moved):
            jacobians = jacrev(lambda *t, k=k: call(*t)[k], argnums)(*tensors)
            expected = sum(
                (j.flatten(-2) @ v.flatten()).reshape(change.shape)
                for j, v in zip(jacobians, call.wanted(tangents), strict=True)
            )
            torch.testing.assert_close(change, expected)

    @each_call
    def test_jacfwd_is_jacrev(self, call):
        tensors = doubles(call, (2, 3))
        argnums = call.argnums
        torch.testing.assert_close(jacfwd(call, argnums)(*tensors), jacrev(call, argnums)(*tensors))

    @each_call
    def test_hessian(self, call):
        """Forward over reverse against reverse over reverse through the autograd.Function."""
        tensors = doubles(call, (2, 3))
        argnums = call.argnums
        ours = hessian(scalar(call), argnums)(*tensors)
        theirs = torch.autograd.functional.hessian(scalar(call), tuple(tensors))
        theirs = tuple(tuple(call.wanted(row)) for row in call.wanted(theirs))
        torch.testing.assert_close(ours, theirs)

    def test_hessian_of_the_kl(self):
        """d²/dμ² = 1, d²/dlogvar² = ½σ², nothing across."""
        mu, logvar = doubles(KL, (4,))
        (mm, ml), (_, ll) = hessian(vf.gaussian_kl, (0, 1))(mu, logvar)
        torch.testing.assert_close(mm, torch.eye(4, dtype=torch.float64))
        torch.testing.assert_close(ll, torch.diag(0.5 * torch.exp(logvar)))
        assert not ml.any()

    @each_density
    def test_options(self, call):
        """Masks, reductions and event dims, and free bits of the KL, under a transform."""
        tensors = doubles(call, (2, 3, 4))
        weight = torch.randint(0, 2, (2, 3, 1)).double()
        for options in (
            {"weight": weight, "event_ndim": 2, "reduction": "sum", "scale": -1.0},
            {"weight": weight, "reduction": "mean"},
            {"event_ndim": 0},
            *([{"free_bits": 0.5}] if call in (KL, KL_PRIOR) else []),
            *([{"param": "softplus", "param_eps": 0.1}] if call.has("param_eps") else []),
        ):
            ours = grad(scalar(call))(*tensors, **options)
            leaf = tensors[0].clone().requires_grad_()
            scalar(call)(leaf, *tensors[1:], **options).backward()
            torch.testing.assert_close(ours, leaf.grad)

    @each_call
    def test_float32(self, call):
        tensors = [t.detach() for t in call.draw((5, 3, 4))]
        for b, one in zip(vmap(call)(*tensors), call(*(t[2] for t in tensors)), strict=True):
            torch.testing.assert_close(b[2], one)


class TestHigherOrder:
    @each_call
    def test_third_derivatives(self, call):
        """Along a direction, three times by backward and three times by torch.func."""
        tensors = doubles(call, (2, 3))
        ways = tangents_of(call, tensors)

        def along(s):
            moved = [t + s * way for t, way in zip(tensors, ways, strict=True)]
            return scalar(call)(*moved)

        s = torch.zeros((), dtype=torch.float64, requires_grad=True)
        value = along(s)
        for _ in range(3):
            (value,) = torch.autograd.grad(value, s, create_graph=True)
        torch.testing.assert_close(value.detach(), grad(grad(grad(along)))(s.detach()))

    def test_every_derivative_of_the_kl(self):
        """All are ½σ² from the second on."""
        logvar = torch.tensor([0.7, -1.3, 1e-9, 0.0], dtype=torch.float64, requires_grad=True)
        value = vf.gaussian_kl(torch.zeros_like(logvar), logvar)
        for order in range(5):
            (value,) = torch.autograd.grad(value.sum(), logvar, create_graph=True)
            if order:
                torch.testing.assert_close(value, 0.5 * torch.exp(logvar))

    @each_call
    def test_backward_twice(self, call):
        tensors = call.draw((3, 4))
        loss = scalar(call)(*tensors)
        wanted = call.wanted(tensors)
        first = torch.autograd.grad(loss, wanted, retain_graph=True)
        assert same_bits(torch.autograd.grad(loss, wanted), first)
        with pytest.raises(RuntimeError, match="second time"):
            torch.autograd.grad(loss, wanted)

    @each_call
    def test_an_operand_changed_in_place(self, call):
        tensors = [t.detach().clone() for t in call.draw((3, 4))]
        tensors[0].requires_grad_()
        outs = call(*tensors)
        tensors[1].add_(1.0)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            sum(o.sum() for o in outs).backward()


class TestGradModes:
    @each_call
    def test_no_grad(self, call):
        tensors = call.draw((3, 4))
        with torch.no_grad():
            outs = call(*tensors)
        assert not any(o.requires_grad for o in outs)
        assert same_bits(outs, call(*tensors))

    @each_call
    def test_inference_mode(self, call):
        tensors = call.draw((3, 4))
        with torch.inference_mode():
            outs = call(*tensors)
            inner = call(*(t.detach() * 1.0 for t in tensors))
        assert all(o.is_inference() and not o.requires_grad for o in (*outs, *inner))
        assert same_bits(outs, call(*tensors)) and same_bits(inner, outs)

    @each_density
    def test_autocast_of_a_network(self, call):
        """What a linear layer gives under autocast, in bfloat16, goes in; a float32 density comes out."""
        first, *others = call.draw((8, 16))
        with torch.autocast("cpu", torch.bfloat16):
            head = nn.functional.linear(first, torch.eye(16))
            assert head.dtype == torch.bfloat16
            out = call(head, *others, reduction="sum")[0]
            out.backward()
        assert out.dtype == torch.float32 and first.grad.dtype == torch.float32
        assert same_bits([out], call(head.detach(), *others, reduction="sum"))


class Elbo(nn.Module):
    """Several operators in one module: an encoder's linear layer and a decoder's."""

    def __init__(self, seed=None):
        super().__init__()
        self.encoder = nn.Linear(9, 8)
        self.decoder = nn.Linear(4, 9)
        self.logvar = nn.Parameter(torch.zeros(9))
        self.seed = seed

    def forward(self, x, seed=None):
        mu, logvar = self.encoder(x / 255).chunk(2, -1)
        seed = self.seed if seed is None else seed
        z, kl = vf.rsample_kl(mu, logvar, free_bits=0.1, seed=seed)
        more = vf.rsample(mu, logvar, (2,), seed=seed, first_sample=1)
        logits = self.decoder(z)
        bernoulli = vf.bernoulli_log_prob(logits, x, x_scale=1 / 255, reduction="mean")
        gaussian = vf.gaussian_log_prob(self.decoder(more), self.logvar, x, x_scale=1 / 255, reduction="mean")
        prior = vf.gaussian_kl(mu, logvar, torch.ones_like(mu), 0.5, reduction="sum", scale=0.1)
        return z, -(bernoulli + gaussian) + kl.mean() + prior


def images(n):
    return torch.randint(0, 256, (n, 9)).float()


def step(function, model, x, **options):
    """The sample, the loss and every parameter's gradient, from one state of the default generator."""
    model.zero_grad()
    torch.manual_seed(99)
    z, loss = function(x, **options)
    loss.backward()
    return [z.detach(), loss.detach(), *(p.grad.clone() for p in model.parameters())]


class TestModules:
    def test_functional_call(self):
        model = Elbo(seed=3)
        x = images(5)
        parameters = {name: p.detach() for name, p in model.named_parameters()}
        torch.testing.assert_close(functional_call(model, parameters, (x,))[1], model(x)[1])
        grads = grad(lambda p: functional_call(model, p, (x,))[1])(parameters)
        model(x)[1].backward()
        torch.testing.assert_close(grads, {name: p.grad for name, p in model.named_parameters()})

    def test_ensemble(self):
        models = [Elbo(seed=3) for _ in range(3)]
        parameters, buffers = torch.func.stack_module_state(models)
        x = images(5)
        losses = vmap(lambda p, b: functional_call(models[0], (p, b), (x,))[1])(parameters, buffers)
        torch.testing.assert_close(losses, torch.stack([m(x)[1] for m in models]))

    def test_copies_and_files(self):
        model = Elbo(seed=3)
        x = images(5)
        loss = model(x)[1]
        loss.backward()
        file = io.BytesIO()
        torch.save(model, file)
        file.seek(0)
        for other in (copy.deepcopy(model), torch.load(file, weights_only=False)):
            assert same_bits([other(x)[1]], [loss])

    def test_results_without_a_graph_copy(self):
        mu = torch.randn(3, 4)
        z, kl = vf.rsample_kl(mu, mu, seed=1)
        assert same_bits(copy.deepcopy((z, kl)), (z, kl))


@pytest.fixture
def counter():
    """A compiler that counts the graphs it gets and differentiates them as inductor would, without fusing."""
    torch._dynamo.reset()
    yield CompileCounterWithBackend("aot_eager")
    torch._dynamo.reset()


def draw_both(mu, logvar, seed=None):
    z, kl = vf.rsample_kl(mu, logvar, seed=seed)
    return z, kl, vf.rsample(mu, logvar, (2,), seed=seed, first_sample=0 if seed is None else 1)


def compare_draws(compiled, state=3, **options):
    """Both draws and, where they have a graph, their gradients, from one state of the default generator."""
    found = []
    tensors = RSAMPLE.draw((3, 4))
    for function in (compiled, draw_both):
        torch.manual_seed(state)
        outs = function(*tensors, **options)
        grads = torch.autograd.grad(sum(o.sum() for o in outs), tensors) if outs[0].requires_grad else ()
        found.append((*outs, *grads))
    torch.testing.assert_close(*found)


class TestCompile:
    @pytest.mark.parametrize("call", [RSAMPLE, KL, GAUSSIAN], ids=str)
    def test_an_operator_twice(self, call, counter):
        """Eager's values and gradients for any shape; twice in one function, since constants are then shared."""

        def twice(*tensors):
            return scalar(call)(*tensors) + 2.0 * scalar(call)(*(0.5 * t for t in tensors))

        compiled = torch.compile(twice, backend=counter, fullgraph=True, dynamic=True)
        graphs = []
        for shape in ((3, 4), (6, 5)):
            tensors = call.draw(shape)
            ours, theirs = compiled(*tensors), twice(*tensors)
            graphs.append(counter.frame_count)
            torch.testing.assert_close(ours, theirs)
            torch.testing.assert_close(torch.autograd.grad(ours, tensors), torch.autograd.grad(theirs, tensors))
        assert graphs[0] == graphs[1]

    @pytest.mark.parametrize("call", [RSAMPLE, KL_PRIOR, BERNOULLI, GAUSSIAN], ids=str)
    def test_one_tensor_as_every_operand(self, call):
        torch._dynamo.reset()
        tensor = torch.rand(3, 4, requires_grad=True)
        compiled = torch.compile(scalar(call), backend="eager", fullgraph=True)
        ours, theirs = (f(*[tensor] * len(call.operands)) for f in (compiled, scalar(call)))
        torch.testing.assert_close(ours, theirs)
        torch.testing.assert_close(torch.autograd.grad(ours, tensor), torch.autograd.grad(theirs, tensor))

    def test_a_module_of_several(self, counter):
        """Any batch size through one dynamic graph, without a break."""
        model = Elbo()
        compiled = torch.compile(model, backend=counter, fullgraph=True, dynamic=True)
        graphs = []
        for n in (5, 8, 30):
            x = images(n)
            torch.testing.assert_close(step(compiled, model, x, seed=n), step(model, model, x, seed=n))
            graphs.append(counter.frame_count)
        assert len(set(graphs)) == 1

    def test_a_seed_that_changes(self, counter):
        """No graph per seed: the first int is a constant, from the second on it is an input."""
        compiled = torch.compile(draw_both, backend=counter, fullgraph=True)
        graphs = []
        for seed in (5, 6, 7, 1000, -3, 2**31, 2**40 + 1, 2**63 - 1, -(2**63)):
            compare_draws(compiled, seed=seed)
            graphs.append(counter.frame_count)
        assert len(set(graphs[1:])) == 1

    def test_a_seed_tensor_that_changes(self, counter):
        compiled = torch.compile(draw_both, backend=counter, fullgraph=True)
        for seed in (0, 1, 2, -1, 2**63 - 1):
            compare_draws(compiled, seed=torch.tensor([seed]))
        assert counter.frame_count == 1

    @pytest.mark.parametrize("training", [True, False])
    def test_no_seed(self, training, counter):
        """Fresh noise at every call and for every draw in it, the noise eager code draws, from one graph."""
        compiled = torch.compile(draw_both, backend=counter, fullgraph=True)
        with torch.set_grad_enabled(training):
            for state in (1, 2):
                compare_draws(compiled, state, seed=None)
            mu, logvar = RSAMPLE.draw((3, 4))
            first, second = compiled(mu, logvar)[0], compiled(mu, logvar)[0]
            z, _, more = compiled(*(torch.zeros_like(t, requires_grad=True) for t in (mu, logvar)))
        assert not torch.equal(first, second)
        assert not any(torch.equal(z, m) for m in more), "two draws were merged into one"
        assert counter.frame_count == 1

    def test_fake_strides_of_the_noise(self):
        """The operator the graph calls lays its result out as it promised: inductor asserts it."""
        for shape, sample_shape, offset in (((2, 3), (2,), 0), ((4,), (3,), 1), ((5, 1), (2, 2), 6), ((7,), (), 3)):
            args = (sample_shape, shape, 5, None, offset, 2, torch.device("cpu"))
            noise = torch.ops.vae_fast.reference_normals(*args)
            assert noise.is_contiguous() and noise.shape == (*sample_shape, *shape)

    def test_offsets_and_samples_that_change(self, counter):
        mu = torch.zeros(3, 4)

        def draw(mu, offset, first_sample):
            return vf.rsample(mu, mu + 0.0, (2,), seed=3, offset=offset, first_sample=first_sample)

        compiled = torch.compile(draw, backend=counter, fullgraph=True)
        for place in ((0, 0), (12, 2), (24, 4), (36, 6), (2**40, 2**31)):
            assert same_bits([compiled(mu, *place)], [draw(mu, *place)])
        assert counter.frame_count <= 3

    @each_sampler
    def test_noise_bits(self, call, counter):
        """Of σ = 1 and μ = 0 the compiled sample is the noise itself, bit for bit."""
        mu = torch.zeros(3, 5)
        compiled = torch.compile(lambda m: call(m, 0.0, seed=6)[0], backend=counter, fullgraph=True)
        assert same_bits([compiled(mu)], [vf.standard_normal((3, 5), seed=6)])
        compiled = torch.compile(lambda s: vf.standard_normal((3, 5), seed=s), backend=counter, fullgraph=True)
        for seed in (6, 7, 8):
            assert same_bits([compiled(seed)], [vf.standard_normal((3, 5), seed=seed)])

    @pytest.mark.parametrize("call", [RSAMPLE, KL, BERNOULLI, GAUSSIAN], ids=str)
    def test_wrong_inputs_still_raise(self, call):
        torch._dynamo.reset()
        compiled = torch.compile(call, backend="eager")
        tensors = call.draw((3, 4))
        tensors[1] = torch.rand(5)
        with pytest.raises(Exception, match="do not broadcast"):
            compiled(*tensors)

    def test_use_backend_is_seen(self, counter, monkeypatch):
        """A function compiled with one backend takes another one that is chosen later."""
        from vae_fast import reference

        def fwd(*args):
            return reference.KERNELS.gaussian_kl_fwd(*args)[0] + 1000.0, None, None, None, None

        kernels = {"gaussian_kl_fwd": fwd, "gaussian_kl_bwd": reference.KERNELS.gaussian_kl_bwd}
        install(monkeypatch, kernels, ("gaussian_kl",), ("*",))
        mu = torch.randn(3, 4)
        compiled = torch.compile(lambda m: vf.gaussian_kl(m, m + 0.0), backend=counter, fullgraph=True)
        for name in ("reference", "native", "reference", "native"):
            with vf.use_backend(name):
                torch.testing.assert_close(compiled(mu), vf.gaussian_kl(mu, mu))
                assert bool((compiled(mu) > 900).all()) == (name == "native")
        assert counter.frame_count == 2


class TestExport:
    def test_a_module(self):
        """For any batch size."""
        model, x = Elbo(seed=3), images(5)
        batch = torch.export.Dim("batch", min=2)
        program = torch.export.export(model, (x,), dynamic_shapes={"x": {0: batch}})
        for n in (5, 8):
            x = images(n)
            torch.testing.assert_close(program.module()(x), model(x))

    def test_no_seed(self):
        """A program exported without a seed draws at every run, as its module does."""
        model, x = Elbo(), images(5)
        program = torch.export.export(model, (x,)).module()
        torch.manual_seed(3)
        ours = [program(x)[0] for _ in range(2)]
        torch.manual_seed(3)
        torch.testing.assert_close(ours, [model(x)[0] for _ in range(2)])
        assert not torch.equal(*ours)

    def test_saved(self, tmp_path):
        model, x = Elbo(seed=3), images(5)
        torch.export.save(torch.export.export(model, (x,)), tmp_path / "elbo.pt2")
        loaded = torch.export.load(tmp_path / "elbo.pt2").module()
        torch.testing.assert_close(loaded(x), model(x))
