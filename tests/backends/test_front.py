"""The compiled front against the Python functions, which are the definition: the same bits, the same errors."""

import contextlib
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import vae_fast as vf
from helpers import behaviour
from helpers.calls import CALLS, same_bits
from helpers.cases import each_case
from helpers.fronts import both_ways, by_front, of_front
from helpers.marks import each_call
from vae_fast import front

pytestmark = of_front


class TestSameBits:
    @each_case()
    @pytest.mark.parametrize("wanted", ["all", "first", "none"])
    def test_of_every_option(self, case, wanted):
        tensors = [t.float() for t in case.inputs()]
        for i in case.call.argnums[: {"all": None, "first": 1, "none": 0}[wanted]]:
            tensors[i].requires_grad_()

        def results():
            outs = case(*tensors)
            if wanted == "none":
                assert not any(out.requires_grad for out in outs)
                return outs
            assert by_front(outs) == front.state.on
            leaves = [t for t in tensors if t.requires_grad]
            upstream = [torch.linspace(-1, 2, out.numel()).reshape(out.shape) for out in outs]
            first = torch.autograd.grad(outs, leaves, upstream, retain_graph=True)
            again = torch.autograd.grad(outs, leaves, upstream)
            return *(out.detach() for out in outs), *first, *again

        assert same_bits(*both_ways(results))

    @each_call
    @pytest.mark.parametrize("dtypes", ["half", "bfloat16", "float64", "mixed"])
    def test_of_every_dtype(self, call, dtypes):
        kinds = {"half": [torch.float16], "bfloat16": [torch.bfloat16], "float64": [torch.float64]}
        kinds = kinds.get(dtypes, [torch.float32, torch.float64, torch.bfloat16])
        tensors = call.draw((3, 4))
        tensors = [t.detach().to(kinds[k % len(kinds)]) for k, t in enumerate(tensors)]
        for i in call.argnums:
            tensors[i].requires_grad_()
        options = [{}, {"reduction": "sum", "scale": -0.5}] if call.density else [{}]
        for option in options:
            assert by_front(call(*tensors, **option))
            assert same_bits(*both_ways(lambda option=option: call.with_grads(*tensors, **option)))

    @each_call
    @pytest.mark.parametrize("layout", [layout for layout in behaviour.LAYOUTS if layout != "negative"])
    def test_of_every_layout(self, call, layout):
        tensors = [behaviour.LAYOUTS[layout](t.detach()) for t in call.draw((2, 3, 4, 5))]
        for i in call.argnums:
            tensors[i].requires_grad_()
        assert by_front(call(*tensors))
        assert same_bits(*both_ways(lambda: call.with_grads(*tensors)))

    def test_of_halves(self):
        moments = torch.randn(5, 8, requires_grad=True)

        def results():
            z, kl = vf.rsample_kl(*moments.chunk(2, -1), seed=3)
            assert by_front([z, kl]) == front.state.on
            return z, kl, *torch.autograd.grad([z.sum() + kl.sum()], moments)

        assert same_bits(*both_ways(results))

    @each_call
    def test_of_operands_of_their_own_shapes(self, call):
        shapes = [(3, 4), (4,), (3, 1), (1, 4)]
        tensors = [t[:1, :1].squeeze() if i == 1 else t for i, t in enumerate(call.draw((3, 4)))]
        tensors = [
            t.detach().expand(3, 4)[..., : shapes[i % 4][-1]].contiguous() if "x" != name else t.detach()
            for i, (name, t) in enumerate(zip(call.operands, tensors, strict=True))
        ]
        for i in call.argnums:
            tensors[i].requires_grad_()
        assert same_bits(*both_ways(lambda: call.with_grads(*tensors)))

    def test_of_numbers(self):
        mu, x = torch.randn(3, 4, requires_grad=True), torch.rand(3, 4)
        for function in (
            lambda: vf.rsample(mu, 0.5, seed=1),
            lambda: vf.rsample(mu, -1, seed=1),
            lambda: vf.gaussian_kl(mu, 0.1, 2, -0.3),
            lambda: vf.gaussian_log_prob(mu, 0.0, x),
            lambda: vf.bernoulli_log_prob(mu, x, weight=0.5, pos_weight=2),
        ):
            assert by_front([function()])
            assert same_bits(*both_ways(lambda f=function: (f(), *torch.autograd.grad(f().sum(), mu))))

    @pytest.mark.parametrize("drawn", ["default", "generator", "wrapped", "tensor", "noise"])
    def test_of_every_source_of_noise(self, drawn):
        mu, generator = torch.randn(3, 4, requires_grad=True), torch.Generator()

        def results():
            torch.manual_seed(5)
            generator.manual_seed(9)
            options = {
                "default": {},
                "generator": {"generator": generator},
                "wrapped": {"seed": -(2**70) - 3},
                "tensor": {"seed": torch.tensor([2**62 + 1])},
                "noise": {"noise": torch.linspace(-1, 1, 24).reshape(2, 3, 4)},
            }[drawn]
            z = vf.rsample(mu, mu, 2, **options)
            assert by_front([z]) == front.state.on
            states = torch.get_rng_state(), generator.get_state()
            return z, *torch.autograd.grad(z.sum(), mu), *(state.to(torch.int16) for state in states)

        assert same_bits(*both_ways(results))

    @pytest.mark.parametrize("dim", [1, -1])
    @pytest.mark.parametrize("wanted", ["both", "moments", "other", "none"])
    def test_of_packed_halves(self, dim, wanted):
        """DiagonalGaussian's: one gradient for both halves, in one piece."""
        moments, other = torch.randn(3, 4, 6), torch.randn(3, 4, 6)
        moments.requires_grad_(wanted in ("both", "moments"))
        other.requires_grad_(wanted in ("both", "other"))

        def results():
            q = vf.DiagonalGaussian(moments, dim=dim, sum_dims=(1, 2))
            p = vf.DiagonalGaussian(other, dim=dim, sum_dims=(1, 2), param="softplus", logvar_bounds=None)
            outs = [
                q.sample(seed=3),
                *q.rsample_kl(seed=4),
                q.kl(),
                q.kl(p),
                q.nll(other.chunk(2, dim)[0].detach()),
            ]
            leaves = [t for t in (moments, other) if t.requires_grad]
            outs = [out for out in outs if out.requires_grad] if leaves else outs
            if not leaves:
                return outs
            assert by_front(out for out in outs) == front.state.on
            upstream = [torch.linspace(-1, 2, out.numel()).reshape(out.shape) for out in outs]
            grads = torch.autograd.grad(outs, leaves, upstream, retain_graph=True, create_graph=False)
            return *(out.detach() for out in outs), *grads

        assert same_bits(*both_ways(results))

    def test_second_derivatives_of_packed_halves(self):
        moments = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
        q = vf.DiagonalGaussian(moments, dim=1, sum_dims=(1,))
        assert by_front([q.kl()])
        functions = (
            lambda m: vf.DiagonalGaussian(m, dim=1, sum_dims=(1,)).kl(),
            lambda m: vf.DiagonalGaussian(m, dim=1, sum_dims=(1,)).sample(seed=2),
        )
        for function in functions:
            assert torch.autograd.gradcheck(function, moments) and torch.autograd.gradgradcheck(function, moments)

    def test_normals(self):
        for options in ({}, {"dtype": torch.bfloat16}, {"stream": 3, "sample": 2, "offset": -1}):
            assert front.run(front.FUNCTIONS["standard_normal"], (3, 5), seed=4, **options) is not None
            assert same_bits(*both_ways(lambda o=options: [vf.standard_normal((3, 5), seed=4, **o)]))
        before = torch.get_default_dtype()
        try:
            torch.set_default_dtype(torch.float64)
            assert vf.standard_normal(3, seed=4).dtype == torch.float64
        finally:
            torch.set_default_dtype(before)

    @pytest.mark.parametrize("shape", [(0, 4), (3, 0), (0,), ()], ids=str)
    def test_of_no_elements(self, shape):
        for call in CALLS:
            tensors = call.draw(shape)
            options = {} if len(shape) else {"event_ndim": 0} if call.event else {}
            assert same_bits(*both_ways(lambda c=call, t=tensors, o=options: c.with_grads(*t, **o)))


class _Subclass(torch.Tensor):
    pass


class _Watching(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def dual(tensor):
    with torch.autograd.forward_ad.dual_level():
        yield torch.autograd.forward_ad.make_dual(tensor, torch.ones_like(tensor))


class TestLeftToPython:
    """What the front does not take goes to the Python function, and nothing else changes."""

    def taken(self, *args, **options):
        return front.run(front.FUNCTIONS["gaussian_kl"], *args, **options) is not None

    def test_common_calls_are_taken(self):
        mu = torch.randn(3, 4)
        assert self.taken(mu, mu) and self.taken(torch.nn.Parameter(mu), mu, event_ndim=0, free_bits=1)
        assert self.taken(mu, mu, scale=np.float64(0.5), reduction="sum")
        assert self.taken(mu, mu, **{"".join(["free", "_bits"]): 0.5})  # a name that is not interned
        assert self.taken(mu, mu, backend="native") and self.taken(mu, mu, backend="auto")
        with torch.autocast("cpu", torch.bfloat16):
            assert self.taken(mu, mu)

    @pytest.mark.parametrize("kind", ["subclass", "meta", "negative", "conjugate_free", "sparse", "symbolic"])
    def test_of_tensors(self, kind):
        mu = torch.randn(3, 4)
        odd = {
            "subclass": lambda: mu.as_subclass(_Subclass),
            "meta": lambda: mu.to("meta"),
            "negative": lambda: behaviour.negative_view(mu),
            "conjugate_free": lambda: mu.to(torch.int32),
            "sparse": lambda: mu.to_sparse(),
            "symbolic": lambda: np.ones((3, 4)),
        }[kind]()
        assert not self.taken(odd, mu) and not self.taken(mu, odd)

    def test_of_modes(self):
        mu = torch.randn(3, 4)
        with _Watching():
            assert not self.taken(mu, mu)
        with torch.inference_mode():
            assert not self.taken(mu, mu)
            inference = torch.randn(3, 4)
        assert not self.taken(inference, mu)
        with torch.device("cpu"):
            assert not self.taken(mu, mu)
        with dual(mu) as tangent:
            assert not self.taken(tangent, mu)
        with vf.use_backend("reference"):
            assert not self.taken(mu, mu) and self.taken(mu, mu, backend="native")
        with front.disabled():
            assert not self.taken(mu, mu, backend="native")
        seen = []
        torch.func.vmap(lambda m: seen.append(self.taken(m, m)) or m)(mu)
        assert seen == [False]

    WRONG = [
        ((), {}),
        ((1.0, 2.0), {}),
        ((None, None), {}),
        ("mu mu", {"wrong": 1}),
        ("mu mu mu mu mu", {}),
        ("mu mu", {"mu": 1}),
        ("mu mu", {"event_ndim": 5}),
        ("mu mu", {"event_ndim": True}),
        ("mu mu", {"event_ndim": -1}),
        ("mu mu", {"free_bits": "1"}),
        ("mu mu", {"param": "sigma"}),
        ("mu mu", {"param": 3}),
        ("mu mu", {"bounds": (1.0, 0.0)}),
        ("mu mu", {"bounds": 3}),
        ("mu mu", {"bounds_grad": None}),
        ("mu mu", {"reduction": "max"}),
        ("mu mu", {"backend": "cuda"}),
        ("mu mu", {"scale": torch.ones(())}),
        ("mu short", {}),
        ("mu bytes", {}),
        ("mu mu", {"prior_param": "x"}),
        ("mu mu", {"prior_bounds": (2, 1)}),
        ("mu mu", {"prior_param_eps": "x"}),
    ]

    @pytest.mark.parametrize(("args", "options"), WRONG, ids=str)
    def test_errors_are_the_python_functions(self, args, options):
        tensors = {"mu": torch.randn(3, 4), "short": torch.randn(5), "bytes": torch.zeros(3, 4, dtype=torch.uint8)}
        args = tuple(tensors[name] for name in args.split()) if isinstance(args, str) else args

        def raised():
            with pytest.raises(Exception) as error:
                vf.gaussian_kl(*args, **options)
            return type(error.value), str(error.value)

        found, expected = both_ways(raised)
        assert found == expected

    WRONG_NOISE = {
        "both": {"seed": 1, "generator": torch.Generator()},
        "seeded_noise": {"noise": torch.zeros(3, 4), "seed": 1},
        "shape": {"noise": torch.zeros(3, 5)},
        "temperature": {"temperature": -1.0},
        "float": {"seed": 1.5},
        "two_seeds": {"seed": torch.ones(2, dtype=torch.int64)},
        "stream": {"stream": 2**32},
        "negative_stream": {"stream": -1},
        "sample": {"first_sample": 2**32},
        "negative_shape": {"sample_shape": -1},
        "float_shape": {"sample_shape": (2.0,)},
        "float_offset": {"offset": 0.5},
    }

    @pytest.mark.parametrize("options", WRONG_NOISE.values(), ids=WRONG_NOISE)
    def test_errors_of_noise(self, options):
        mu = torch.randn(3, 4)

        def raised():
            torch.manual_seed(0)
            with pytest.raises((TypeError, ValueError)) as error:
                vf.rsample(mu, mu, **options)
            return type(error.value), str(error.value), torch.get_rng_state().tolist()

        found, expected = both_ways(raised)
        assert found == expected

    def test_data_of_another_number_of_dims(self):
        with pytest.raises(ValueError, match="would broadcast to"):
            vf.bernoulli_log_prob(torch.zeros(64, 1), torch.zeros(64))


IN_THREADS = """
import os
import numpy as np, torch
import vae_fast as vf

torch.set_num_threads(3)
call = lambda size: vf.gaussian_kl(torch.from_numpy(np.zeros((size, 64), np.float32)), 0.0, backend="native")
call(1)
before = len(os.listdir("/proc/self/task"))
call(1 << 14)
print(len(os.listdir("/proc/self/task")) - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts the threads of /proc")
def test_a_large_call_runs_on_pytorch_s_threads():
    """In a process whose first parallel loop it is: two threads come to the calling one."""
    done = subprocess.run([sys.executable, "-c", IN_THREADS], capture_output=True, text=True)
    assert done.stdout.strip() == "2", done.stdout + done.stderr
