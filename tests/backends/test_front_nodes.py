"""The compiled front beside PyTorch: its nodes, what watches them, its functions' faces, and its library."""

import inspect
import os
import pickle
import subprocess
import sys
import threading

import pytest
import torch
from torch.testing import assert_close

import vae_fast as vf
from helpers.calls import BERNOULLI, CALLS, DENSITIES, KL, RSAMPLE, RSAMPLE_KL, same_bits
from helpers.fronts import both_ways, by_front, of_front
from helpers.marks import each_call, each_density
from vae_fast import front
from vae_fast.operators import OPERATORS

pytestmark = of_front


class TestToPyTorch:
    """A node like PyTorch's own."""

    @each_call
    def test_once_more_without_the_graph(self, call):
        tensors = call.draw((3, 4))
        outs = call(*tensors)
        torch.autograd.grad(outs, call.wanted(tensors), [torch.ones_like(out) for out in outs])
        with pytest.raises(RuntimeError, match="second time"):
            torch.autograd.grad(outs, call.wanted(tensors), [torch.ones_like(out) for out in outs])

    @each_call
    def test_operands_changed_in_place(self, call):
        tensors = call.draw((3, 4))
        outs = call(*tensors)
        with torch.no_grad():
            tensors[0].add_(1.0)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            torch.autograd.grad(outs, call.wanted(tensors), [torch.ones_like(out) for out in outs])

    @each_call
    def test_second_derivatives(self, call):
        def results():
            tensors = call.draw((2, 3), torch.float64)
            torch.manual_seed(1)
            outs = call(*tensors)
            assert by_front(outs) == front.state.on
            first = torch.autograd.grad(
                outs, call.wanted(tensors), [torch.rand_like(o) for o in outs], create_graph=True
            )
            total = sum((g * g).sum() for g in first if g.requires_grad)
            return torch.autograd.grad(total, call.wanted(tensors), allow_unused=True, materialize_grads=True)

        torch.manual_seed(0)
        found = results()
        torch.manual_seed(0)
        with front.disabled():
            expected = results()
        assert_close(found, expected)

    @each_call
    def test_a_batch_of_upstream_gradients(self, call):
        tensors = call.draw((2, 3))
        outs = call(*tensors)
        upstream = [torch.randn(4, *out.shape) for out in outs]
        wanted = call.wanted(tensors)
        batch = torch.autograd.grad(outs, wanted, upstream, is_grads_batched=True, retain_graph=True)
        parts = [[u[i] for u in upstream] for i in range(4)]
        each = [torch.autograd.grad(outs, wanted, part, retain_graph=True) for part in parts]
        assert_close(batch, tuple(map(torch.stack, zip(*each, strict=True))))

    @each_density
    def test_early_gradients(self, call):
        """Scaled by any upstream gradient; where that is not finite they are made anew."""
        tensors = call.draw((3, 4))
        for factor in (1.0, -2.5, 0.0, float("inf"), float("nan")):

            def results(factor=factor):
                outs = call(*tensors, reduction="mean")
                return torch.autograd.grad(outs, call.wanted(tensors), torch.tensor(factor))

            assert same_bits(*both_ways(results))

    def test_early_gradients_can_be_forbidden(self):
        y, x = BERNOULLI.draw((3, 4))
        with vf.early_gradients(False):
            out = vf.bernoulli_log_prob(y, x, reduction="sum")
        with torch.no_grad():
            y.add_(1.0)  # seen only where the operands are read again
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            out.backward()

    @pytest.mark.parametrize("reduction", ["none", "sum"])
    def test_saved_tensor_hooks(self, reduction):
        y, x = BERNOULLI.draw((3, 4))
        packed = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t: packed.append(t) or len(packed) - 1, packed.__getitem__
        ):
            out = vf.bernoulli_log_prob(y, x, reduction=reduction)
        assert len(packed) == 2 and by_front([out])
        (found,) = torch.autograd.grad(out.sum(), y)
        with front.disabled():
            (expected,) = torch.autograd.grad(vf.bernoulli_log_prob(y, x).sum(), y)
        assert_close(found, expected)

    @pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled")
    def test_hooks_and_anomaly_mode(self):
        mu, logvar = RSAMPLE.draw((3, 4))
        seen = []
        with torch.autograd.detect_anomaly(check_nan=True):
            z = vf.rsample(mu, logvar, seed=1)
            z.register_hook(lambda g: seen.append("tensor"))
            z.grad_fn.register_hook(lambda i, o: seen.append("node"))
            z.retain_grad()
            z.sum().backward()
        assert seen == ["tensor", "node"] and z.grad.shape == (3, 4)
        y, x = BERNOULLI.draw((3, 4))
        with torch.autograd.detect_anomaly(check_nan=True):
            out = vf.bernoulli_log_prob(y * float("nan"), x)
            with pytest.warns(UserWarning, match="Traceback of forward call"):
                with pytest.raises(RuntimeError, match="BernoulliLogProbBackward.*nan"):
                    out.sum().backward()

    def test_profiler(self):
        mu, logvar = RSAMPLE_KL.draw((3, 4))
        with torch.profiler.profile(acc_events=True) as profile:
            z, kl = vf.rsample_kl(mu, logvar)
            (z.sum() + kl.sum()).backward()
        names = {event.key for event in profile.key_averages()}
        assert {"vae_fast::rsample_kl_fwd", "vae_fast::rsample_kl_bwd"} <= names
        assert any("RsampleKlBackward" in name for name in names)

    def test_compiled_autograd(self):
        import torch._dynamo.compiled_autograd as compiled_autograd

        for call in CALLS:
            tensors, seeds = call.draw((3, 4)), range(2)
            for seed in seeds:
                options = {"seed": seed} if not call.density else {}
                expected = call.with_grads(*tensors, **options)[-len(call.argnums) :]
                outs = call(*tensors, **options)
                assert by_front(outs)
                leaves = call.wanted(tensors)
                for leaf in leaves:
                    leaf.grad = None
                with compiled_autograd._enable(torch.compile(backend="eager")):
                    torch.autograd.backward(outs, [torch.ones_like(out) for out in outs])
                assert_close([leaf.grad for leaf in leaves], list(expected))

    def test_keeps_nothing(self):
        """No reference is left to what a call was given, whether it was taken, refused or differentiated."""
        mu, logvar, x = (
            torch.randn(3, 4, requires_grad=True),
            torch.randn(3, 4, requires_grad=True),
            torch.rand(3, 4),
        )
        seed, bounds = 2**40, (-1.0, 2.0)
        before = [sys.getrefcount(o) for o in (mu, logvar, x, seed, bounds)]
        for _ in range(100):
            z, kl = vf.rsample_kl(mu, logvar, seed=seed, bounds=bounds)
            (z.sum() + kl.sum()).backward()
            vf.gaussian_log_prob(mu, logvar, x, reduction="sum")
            assert front.run(front.FUNCTIONS["rsample"], mu, logvar, seed=seed, bounds=(2.0, 1.0)) is None
            with pytest.raises(ValueError):
                vf.rsample(mu, logvar, seed=seed, bounds=(2.0, 1.0))
        del z, kl
        mu.grad = logvar.grad = None
        assert [sys.getrefcount(o) for o in (mu, logvar, x, seed, bounds)] == before

    def test_threads(self):
        mu, logvar = RSAMPLE_KL.draw((50, 20))
        expected = RSAMPLE_KL.with_grads(mu, logvar)
        wrong = []

        def run():
            for _ in range(200):
                if not same_bits(RSAMPLE_KL.with_grads(mu, logvar), expected):
                    wrong.append(1)

        threads = [threading.Thread(target=run) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong

    def test_compiled_graphs_do_not_see_it(self):
        mu, logvar = KL.draw((3, 4))
        compiled = torch.compile(lambda m, v: vf.gaussian_kl(m, v), backend="eager", fullgraph=True)
        assert_close(compiled(mu, logvar), vf.gaussian_kl(mu, logvar))

    def test_a_large_call_lets_other_threads_run(self):
        """Python's lock is free meanwhile: a thread that counts gets on."""
        mu = torch.zeros(1 << 22)
        count, stop = [0], threading.Event()

        def tick():
            while not stop.is_set():
                count[0] += 1

        thread = threading.Thread(target=tick)
        thread.start()
        try:
            before = count[0]
            for _ in range(5):
                assert front.run(front.FUNCTIONS["rsample"], mu, mu, seed=1) is not None
            assert count[0] > before
        finally:
            stop.set()
            thread.join()


class TestFace:
    @pytest.mark.parametrize("op", OPERATORS)
    def test_is_the_python_functions(self, op):
        function = getattr(vf, op)
        inner = inspect.unwrap(function)
        assert inspect.signature(function) == inspect.signature(inner) and function.__doc__ == inner.__doc__
        assert function.__module__ == f"vae_fast.ops.{op}" and pickle.loads(pickle.dumps(function)) is function

    @pytest.mark.parametrize("op", OPERATORS)
    def test_defaults_are_the_python_functions(self, op):
        """The front fills in the table's defaults: those of the function, or it would make another result."""
        options = {option.name: option for option in OPERATORS[op].options}
        for name, parameter in inspect.signature(getattr(vf, op)).parameters.items():
            option = options.get(name)
            if option is None or parameter.default is parameter.empty or name.startswith("prior_"):
                continue
            default = option.codes[parameter.default] if option.codes else parameter.default
            default = 0 if name in ("seed", "dtype", "device") else default
            expected = option.default if not isinstance(option.default, type) else None
            if name not in ("seed", "dtype", "device", "offset"):
                assert default == expected, name


class TestLoading:
    def run(self, code, **environment):
        done = subprocess.run(
            [sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def test_the_environment_leaves_it_out(self):
        code = "import vae_fast as vf; print(vf.backends()['native'].front)"
        assert self.run(code, VAE_FAST_FRONT="0") == "VAE_FAST_FRONT is 0"
        assert self.run(code) == "compiled"

    def test_a_library_of_other_sources(self):
        with pytest.raises(ImportError, match="built from other sources"):
            front._cpu.load(1, "another", None)

    def test_another_torch(self):
        code = "import torch; torch.__version__ = '2.99.0'; import vae_fast as vf; b = vf.backends()['native']"
        found = self.run(f"{code}; print(b.available, b.front)")
        assert found.startswith("True the compiled front was not built: ")


def test_every_density_has_early_gradients_of_its_own():
    """What early_wanted in csrc/front reads of the table."""
    assert all(call.operator.differentiable_in_forward for call in DENSITIES)
