"""Which backend serves a call: names, the three ways to choose, what never happens, and what auto takes."""

import importlib
import os
import subprocess
import sys

import pytest
import torch

import vae_fast as vf
from helpers.calls import BERNOULLI, GAUSSIAN, KL, same_bits
from helpers.faults import install
from helpers.marks import each_call
from vae_fast import reference, tracing
from vae_fast.operators import OPERATORS, PAIRWISE

# The package's attribute of this name is the function.
backends = importlib.import_module("vae_fast.backends")


@pytest.fixture(autouse=True)
def choice_from_auto():
    """Every test starts at "auto", whatever the environment says."""
    with vf.use_backend("auto"):
        yield


def current():
    return backends.choose("gaussian_kl", torch.device("cpu"), None)


class Fake:
    """A backend under the name "native" that counts its calls and marks its results by adding 1000 to the first."""

    def __init__(self, monkeypatch, ops=backends.OPS, devices=("cpu",)):
        self.calls = []
        kernels = {
            name: self._kernel(name)
            for op in ops
            for name in (f"{op}_fwd", f"{op}_bwd")
            if hasattr(reference.KERNELS, name)
        }
        install(monkeypatch, kernels, ops, devices)

    def _kernel(self, name):
        def kernel(*args):
            self.calls.append(name)
            out = getattr(reference.KERNELS, name)(*args)
            if isinstance(out, tuple):
                return tuple(v + 1000.0 if k == 0 and v is not None else v for k, v in enumerate(out))
            return out + 1000.0

        return kernel


class TestTable:
    def test_the_three(self):
        found = vf.backends()
        assert list(found) == ["reference", "native", "triton"]
        for name, backend in found.items():
            assert isinstance(backend, vf.Backend)
            assert backend.name == name and isinstance(backend.available, bool)
            assert bool(backend.reason) != backend.available
        assert found["reference"].available and set(found["reference"].ops) == set(backends.OPS)

    def test_a_copy(self):
        vf.backends().clear()
        assert "reference" in vf.backends()

    def test_what_is_available_has_its_kernels(self):
        for backend in vf.backends().values():
            if backend.available:
                for op in backend.ops:
                    for name in (OPERATORS | PAIRWISE)[op].schemas:
                        assert callable(backends.kernel(backend.name, name))


class TestUseBackend:
    def test_as_a_function(self, monkeypatch):
        Fake(monkeypatch)
        vf.use_backend("reference")
        assert current() == "reference"
        vf.use_backend("native")
        assert current() == "native"
        vf.use_backend("auto")
        assert current() == "native"

    def test_as_a_context_manager(self, monkeypatch):
        Fake(monkeypatch)
        assert current() == "native"
        with vf.use_backend("reference"):
            assert current() == "reference"
            with vf.use_backend("native"):
                assert current() == "native"
                with vf.use_backend("reference"):
                    assert current() == "reference"
                assert current() == "native"
            assert current() == "reference"
        assert current() == "native"

    def test_an_exception_inside(self, monkeypatch):
        Fake(monkeypatch)
        with pytest.raises(ZeroDivisionError), vf.use_backend("reference"):
            raise ZeroDivisionError
        assert current() == "native"

    def test_a_block_undoes_a_function_call_inside(self, monkeypatch):
        Fake(monkeypatch)
        with vf.use_backend("reference"):
            vf.use_backend("native")
            assert current() == "native"
        assert backends._current == "auto"

    def test_one_object_twice(self, monkeypatch):
        Fake(monkeypatch)
        chosen = vf.use_backend("reference")
        for _ in range(2):
            with chosen:
                assert current() == "reference"
            assert current() == "native"

    @pytest.mark.parametrize("name", ["cuda", "Reference", "", None, 3, ["native"]])
    def test_unknown(self, name):
        with pytest.raises(ValueError, match="unknown backend.*reference, native, triton and auto"):
            vf.use_backend(name)
        assert backends._current == "auto"

    def test_not_available(self, monkeypatch):
        monkeypatch.setitem(backends._TABLE, "triton", backends.Backend("triton", False, "the reason why", (), ()))
        with pytest.raises(RuntimeError, match="'triton' is not available: the reason why"):
            vf.use_backend("triton")
        assert backends._current == "auto"

    def test_what_is_not_available_here_says_so(self):
        for name, backend in vf.backends().items():
            if not backend.available:
                with pytest.raises(RuntimeError) as caught:
                    vf.use_backend(name)
                assert backend.reason in str(caught.value)

    def test_another_thread_sees_it(self, monkeypatch):
        """The setting is the process's, as torch.backends' flags are."""
        import threading

        Fake(monkeypatch)
        seen = []
        with vf.use_backend("reference"):
            thread = threading.Thread(target=lambda: seen.append(current()))
            thread.start()
            thread.join()
        assert seen == ["reference"]


class TestArgument:
    @each_call
    def test_goes_before_use_backend(self, call, monkeypatch):
        fake = Fake(monkeypatch)
        tensors = call.draw((3, 4))
        with vf.use_backend("reference"):
            call(*tensors, backend="native")
        assert fake.calls == [f"{call.op}_fwd"]
        with vf.use_backend("native"):
            call(*tensors, backend="reference")
        assert fake.calls == [f"{call.op}_fwd"]
        with vf.use_backend("reference"):
            call(*tensors, backend="auto")
        assert fake.calls == [f"{call.op}_fwd"] * 2

    @each_call
    def test_unknown(self, call):
        with pytest.raises(ValueError, match="unknown backend 'cuda'"):
            call(*call.draw((3, 4)), backend="cuda")

    @each_call
    def test_not_available(self, call, monkeypatch):
        monkeypatch.setitem(backends._TABLE, "triton", backends.Backend("triton", False, "the reason why", (), ()))
        with pytest.raises(RuntimeError, match="'triton' is not available: the reason why"):
            call(*call.draw((3, 4)), backend="triton")

    def test_standard_normal(self, monkeypatch):
        fake = Fake(monkeypatch)
        vf.standard_normal((3,), seed=1, backend="reference")
        assert fake.calls == []
        vf.standard_normal((3,), seed=1, backend="native")
        assert fake.calls == ["standard_normal_fwd"]
        with pytest.raises(ValueError, match="unknown backend 'cuda'"):
            vf.standard_normal((3,), seed=1, backend="cuda")


# One process imports vae_fast with each of its arguments as the variable: forked, since importing torch is slow.
ENVIRONMENT = """
import os, sys
import torch

def say():
    import vae_fast as vf
    mu = torch.zeros(2, 3)
    vf.backends()
    for attempt in (lambda: vf.gaussian_kl(mu, mu), lambda: vf.standard_normal((3,), seed=1)):
        try:
            attempt()
            print("served")
        except Exception as error:
            print(type(error).__name__, error)
    print("by argument", tuple(vf.gaussian_kl(mu, mu, backend="reference").shape))
    with vf.use_backend("reference"):
        print("inside", tuple(vf.gaussian_kl(mu, mu).shape))

for value in sys.argv[1:]:
    child = os.fork()
    if child == 0:
        os.environ["VAE_FAST_BACKEND"] = value
        say()
        print("----", flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""


class TestEnvironment:
    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def said(cls):
        """What each value of VAE_FAST_BACKEND makes the script print, line by line."""
        unavailable = [name for name, backend in vf.backends().items() if not backend.available]
        values = {"good": "reference", "empty": "", "unknown": "fastest"}
        if unavailable:
            values["unavailable"] = unavailable[0]
        run = subprocess.run(
            [sys.executable, "-c", ENVIRONMENT, *values.values()],
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert run.stdout.count("----") == len(values), run.stderr
        blocks = run.stdout.split("----\n")
        cls.lines = {name: block.splitlines() for name, block in zip(values, blocks, strict=False)}

    @pytest.mark.parametrize("value", ["good", "empty"])
    def test_a_value_that_serves(self, value):
        assert self.lines[value] == ["served", "served", "by argument (2,)", "inside (2,)"]

    def test_an_unknown_name_raises_at_the_first_call(self):
        first, second, *rest = self.lines["unknown"]
        for line in (first, second):
            assert line.startswith("ValueError VAE_FAST_BACKEND") and "'fastest'" in line
        assert rest == ["by argument (2,)", "inside (2,)"]

    def test_a_backend_that_is_not_available_raises_at_the_first_call(self):
        if "unavailable" not in self.lines:
            pytest.skip("every backend is available here")
        first, second, *rest = self.lines["unavailable"]
        reasons = [b.reason for b in vf.backends().values() if not b.available]
        for line in (first, second):
            assert line.startswith("RuntimeError VAE_FAST_BACKEND")
            assert any(reason in line for reason in reasons)
        assert rest == ["by argument (2,)", "inside (2,)"]


class TestNoSilentFallback:
    """A backend with some of the operators, on some of the devices."""

    @pytest.fixture
    def fake(self, monkeypatch):
        return Fake(monkeypatch, ops=("gaussian_kl", "rsample"))

    def test_a_named_one_without_the_operator_raises(self, fake, monkeypatch):
        tensors = BERNOULLI.draw((3, 4))
        with pytest.raises(RuntimeError, match="backend: .*'native' does not serve bernoulli_log_prob"):
            BERNOULLI(*tensors, backend="native")
        with vf.use_backend("native"):
            with pytest.raises(RuntimeError, match="use_backend: .*'native' does not serve gaussian_log_prob"):
                GAUSSIAN(*GAUSSIAN.draw((3, 4)))
            KL(*KL.draw((3, 4)))
        monkeypatch.setattr(backends, "_current", "native")
        monkeypatch.setattr(backends, "_current_source", backends.ENVIRONMENT_VARIABLE)
        with pytest.raises(RuntimeError, match="VAE_FAST_BACKEND: .*'native' does not serve bernoulli_log_prob"):
            BERNOULLI(*tensors)
        assert fake.calls == ["gaussian_kl_fwd"]

    def test_a_named_one_on_another_device_raises(self, fake):
        mu = torch.zeros(3, 4, device="meta")
        with pytest.raises(RuntimeError, match="'native' does not serve meta tensors"):
            vf.gaussian_kl(mu, mu, backend="native")
        with vf.use_backend("native"), pytest.raises(RuntimeError, match="'native' does not serve meta tensors"):
            vf.rsample(mu, mu, seed=1)

    def test_auto_on_a_gpu(self, monkeypatch):
        """triton from a number of elements on, where it is; in a compiled graph, which may be for any, native."""
        gpu, many = torch.device("cuda"), backends._TRITON_FROM["rsample"]
        monkeypatch.setattr(backends, "_AUTO", {("rsample", "cuda"): "native"})
        monkeypatch.setattr(
            backends, "_TABLE", {"triton": backends.Backend("triton", True, "", ("cuda",), ("rsample",))}
        )
        assert [backends.choose("rsample", gpu, "auto", n) for n in (0, many - 1, many)] == [
            "native",
            "native",
            "triton",
        ]
        assert backends.choose("rsample", torch.device("cpu"), "auto", many) == "reference"
        assert backends.choose("gaussian_kl", gpu, "auto", many) == "reference"
        monkeypatch.setattr(tracing, "traced", lambda: True)
        assert backends.choose("rsample", gpu, "auto", many) == "native"
        monkeypatch.undo()

    def test_an_operator_on_one_of_its_devices(self, monkeypatch):
        ops = ("rsample", "gaussian_kl")
        native = backends.Backend("native", True, "", ("cpu", "cuda"), ops, (("gaussian_kl", "cuda"),))
        monkeypatch.setitem(backends._TABLE, "native", native)
        monkeypatch.setattr(backends, "_AUTO", backends._automatic())
        cpu, gpu = torch.device("cpu"), torch.device("cuda")
        assert backends.choose("rsample", gpu, "native") == "native"
        for choice in ("auto", None):
            assert backends.choose("gaussian_kl", cpu, choice) == "native"
            assert backends.choose("gaussian_kl", gpu, choice) == "reference"
        with pytest.raises(RuntimeError, match="gaussian_kl on cuda tensors, which reference does here"):
            backends.choose("gaussian_kl", gpu, "native")

    def test_auto_takes_it_where_it_serves(self, fake):
        KL(*KL.draw((3, 4)))
        assert fake.calls == ["gaussian_kl_fwd"]
        GAUSSIAN(*GAUSSIAN.draw((3, 4)))
        BERNOULLI(*BERNOULLI.draw((3, 4)))
        vf.standard_normal((3,), seed=1)
        assert fake.calls == ["gaussian_kl_fwd"]
        mu = torch.zeros(3, 4, device="meta")
        assert vf.gaussian_kl(mu, mu).device.type == "meta"
        assert fake.calls == ["gaussian_kl_fwd"]

    def test_an_error_of_its_own_is_not_swallowed(self, fake, monkeypatch):
        def broken(*args):
            raise FloatingPointError("from the kernel")

        monkeypatch.setattr(backends._KERNELS["native"], "gaussian_kl_fwd", broken)
        for name in ("native", "auto"):
            with pytest.raises(FloatingPointError, match="from the kernel"):
                KL(*KL.draw((3, 4)), backend=name)


class TestPaths:
    """Where a named backend's kernels are called, and where the reference formulas are."""

    @pytest.fixture
    def fake(self, monkeypatch):
        fake = Fake(monkeypatch)
        with vf.use_backend("native"):
            yield fake

    @each_call
    def test_forward_and_backward(self, call, fake):
        tensors = call.draw((3, 4))
        marked = call.with_grads(*tensors)
        assert fake.calls == [f"{call.op}_fwd", f"{call.op}_bwd"]
        plain = call.with_grads(*tensors, backend="reference")
        first_grad = len(marked) - len(call.argnums)
        expected = [v + 1000.0 if k in (0, first_grad) else v for k, v in enumerate(plain)]
        assert same_bits(marked, expected)

    @each_call
    def test_backward_is_the_forwards_backend(self, call, fake):
        """Not what use_backend says when backward runs."""
        tensors = call.draw((3, 4))
        outs = call(*tensors)
        with vf.use_backend("reference"):
            torch.autograd.grad(outs, call.wanted(tensors), [torch.ones_like(o) for o in outs])
        assert fake.calls == [f"{call.op}_fwd", f"{call.op}_bwd"]

    @each_call
    def test_no_backward_without_a_gradient(self, call, fake):
        call(*(t.detach() for t in call.draw((3, 4))))
        with torch.no_grad():
            call(*call.draw((3, 4)))
        assert fake.calls == [f"{call.op}_fwd"] * 2

    @each_call
    def test_a_gradient_not_needed_is_not_asked_for(self, call, fake, monkeypatch):
        kernels, asked = backends._KERNELS["native"], []
        original = getattr(kernels, f"{call.op}_bwd")
        names = call.operator.differentiable

        def watched(*args):
            asked.append(args[-len(names) :])
            return original(*args)

        monkeypatch.setattr(kernels, f"{call.op}_bwd", watched)
        for k in call.argnums:
            call.with_grads(*(t if i == k else t.detach() for i, t in enumerate(call.draw((3, 4)))))
        assert asked == [tuple(name == call.operands[k] for name in names) for k in call.argnums]

    @each_call
    def test_double_backward(self, call, fake):
        tensors = call.draw((3, 4), torch.float64)
        outs = call(*tensors)
        upstream = [torch.ones_like(o) for o in outs]
        grads = torch.autograd.grad(outs, call.wanted(tensors), upstream, create_graph=True)
        assert fake.calls == [f"{call.op}_fwd"]
        assert sum(g.sum() for g in grads).requires_grad
        assert all(bool((g.abs() < 900).all()) for g in grads)

    @each_call
    def test_vmap_and_grad(self, call, fake):
        tensors = [t.detach() for t in call.draw((5, 3, 4))]
        torch.func.vmap(call)(*tensors)
        torch.func.grad(lambda first: sum(o.sum() for o in call(first, *tensors[1:])))(tensors[0])
        assert fake.calls == []

    @each_call
    def test_forward_mode(self, call, fake):
        primals = tuple(t.detach() for t in call.draw((3, 4)))
        torch.func.jvp(call, primals, tuple(torch.ones_like(p) for p in primals))
        with torch.autograd.forward_ad.dual_level():
            duals = [torch.autograd.forward_ad.make_dual(p, torch.ones_like(p)) for p in primals]
            for out in call(*duals):
                assert torch.autograd.forward_ad.unpack_dual(out).tangent is not None
        assert fake.calls == []
        call(*primals)
        assert fake.calls == [f"{call.op}_fwd"]

    @each_call
    def test_a_subclass(self, call, fake):
        class Marked(torch.Tensor):
            pass

        tensors = [t.detach() for t in call.draw((3, 4))]
        for k in range(len(tensors)):
            odd = [t.as_subclass(Marked) if i == k else t for i, t in enumerate(tensors)]
            outs = call(*odd)
            assert all(type(out) is Marked for out in outs[-1:])
            plain = call(*tensors, backend="reference")
            assert same_bits([o.as_subclass(torch.Tensor) for o in outs], plain)

    @each_call
    def test_a_parameter_is_no_subclass(self, call, fake):
        call(*(torch.nn.Parameter(t.detach()) for t in call.draw((3, 4))))
        assert fake.calls == [f"{call.op}_fwd"]
