"""torch.export, strict and not: graphs that hold the operator, for any batch, with gradients; packages of them."""

import os
import subprocess
import sys

import pytest
import torch
from torch import nn

import vae_fast as vf
from helpers.calls import same_bits
from helpers.marks import each_backend, each_call, each_density, each_sampler
from vae_fast import native
from vae_fast.operators import DIFFERENTIABLE

pytestmark = each_backend

each_strictness = pytest.mark.parametrize("strict", [False, True], ids=["default", "strict"])
# The same operators, in another grouping where a compiler makes it.
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


class Calling(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *tensors):
        return self.function(*tensors)


def export(function, n_tensors, strict, shape=(5, 4)):
    """``function`` of tensors in [0, 1], exported for any size of the first dim."""
    batch = torch.export.Dim("batch")
    tensors = tuple(torch.rand(shape) for _ in range(n_tensors))
    shapes = {"tensors": ({0: batch},) * n_tensors}
    return torch.export.export(Calling(function), tensors, dynamic_shapes=shapes, strict=strict)


def operators(program):
    """The operations of a program's graph, results taken out of tuples left aside."""
    calls = [node.target for node in program.graph.nodes if node.op == "call_function"]
    return [str(target) for target in calls if isinstance(target, torch._ops.OpOverload)]


@each_strictness
class TestGraphs:
    @pytest.mark.compiles
    @each_call
    def test_one_operator(self, call, strict, request):
        """Of native and triton; the reference's own operations where that is named."""
        found = operators(export(call, len(call.operands), strict))
        if "reference" in request.node.callspec.id:
            assert not any("_fwd" in name for name in found)
            return
        is_triton = "triton" in request.node.callspec.id
        namespace, served = ("vae_fast_triton", call.operator) if is_triton else ("vae_fast", call.served)
        assert found == [f"{namespace}.{DIFFERENTIABLE[served.forward.name]}"]

    @each_sampler
    def test_an_unseeded_draw_is_one_more(self, call, strict, request):
        program = export(lambda *t: call(*t, seed=None), 2, strict)
        found = operators(program)
        assert sum(name.startswith("aten.randint") for name in found) == 1
        if "reference" not in request.node.callspec.id:
            assert len(found) == 2
        mu = torch.zeros(8, 4)
        program = program.module()
        torch.manual_seed(3)
        ours = [program(mu, mu)[0] for _ in range(2)]
        torch.manual_seed(3)
        assert same_bits(ours, [call(mu, mu, seed=None)[0] for _ in range(2)]) and not torch.equal(*ours)

    def test_standard_normal(self, strict, request):
        program = export(lambda mu: vf.standard_normal((mu.shape[0], 3), seed=5) + mu.sum(), 1, strict)
        if "reference" not in request.node.callspec.id:
            assert any("standard_normal_fwd" in name for name in operators(program))
        x = torch.zeros(7, 4)
        assert same_bits([program.module()(x)], [vf.standard_normal((7, 3), seed=5)])

    @pytest.mark.compiles
    @each_call
    def test_any_batch(self, call, strict):
        """Values and gradients; the large one is beyond where the reference sums by rows."""

        def every(*tensors):
            options = [{"reduction": r} for r in ("none", "sum", "mean")] if call.density else [{}]
            return tuple(out for o in options for out in call(*tensors, **o))

        program = export(every, len(call.operands), strict).module()
        for n in (1, 4, 9000):
            tensors = call.draw((n, 4))
            ours, theirs = tuple(program(*tensors)), every(*tensors)
            torch.testing.assert_close(ours, theirs, **CLOSE)
            grads = (
                torch.autograd.grad(sum(o.mean() for o in outs), call.wanted(tensors)) for outs in (ours, theirs)
            )
            # A graph is differentiated operation by operation; slopes of counts cancel, of terms x/θ up to 40.
            close = {"rtol": 1e-5, "atol": 2e-5} if call.counted else CLOSE
            torch.testing.assert_close(*grads, **close)

    def test_operands_of_other_shapes(self, strict):
        """A size is not bound by comparison with a feature's or a sample's."""

        def every(mu, feature):
            z = vf.rsample(mu, feature[0], (2,), seed=3, offset=4)
            kl = vf.gaussian_kl(mu, feature[0], 0.5, -1.0, reduction="sum")
            return z, kl, vf.gaussian_log_prob(mu, feature[0], z, reduction="mean")

        batch = torch.export.Dim("batch")
        tensors = torch.rand(5, 4), torch.rand(1, 4)
        shapes = {"tensors": ({0: batch}, None)}
        program = torch.export.export(Calling(every), tensors, dynamic_shapes=shapes, strict=strict).module()
        for n in (1, 2, 4, 7):
            tensors = torch.rand(n, 4), torch.rand(1, 4)
            torch.testing.assert_close(tuple(program(*tensors)), every(*tensors), **CLOSE)


class TestGraphsOfTheDefault:
    @each_call
    def test_second_derivatives(self, call):
        program = export(call, len(call.operands), strict=False).module()

        def second(function):
            value = sum(o.square().sum() for o in function(*tensors))
            first = torch.autograd.grad(value, call.wanted(tensors), create_graph=True)
            return torch.autograd.grad(sum(g.square().sum() for g in first), call.wanted(tensors))

        tensors = call.draw((6, 4))
        torch.testing.assert_close(second(program), second(call), rtol=1e-4, atol=1e-4)

    @each_density
    def test_options(self, call):
        """Bounds and weights go into the graph as they are."""
        weight = torch.tensor([1.0, 0.0, 2.0, 0.5])
        options = {"weight": weight, "scale": -1.0}
        if call.has("bounds"):
            options |= {"bounds": (0.2, None), "param": "softplus", "param_eps": 0.1}
        program = export(lambda *t: call(*t, **options), len(call.operands), strict=False).module()
        tensors = [t.detach() for t in call.draw((7, 4))]
        torch.testing.assert_close(tuple(program(*tensors)), call(*tensors, **options), **CLOSE)


class Sampling(nn.Module):
    """What a package may hold: samples with and without a seed, of no dims too, and a density of numbers."""

    def forward(self, mu, logvar):
        z, kl = vf.rsample_kl(mu, logvar)
        return (
            z,
            vf.rsample(mu, logvar),
            kl,
            vf.rsample(mu, logvar, seed=5),
            vf.rsample(mu, logvar, (2,), seed=5, offset=3),
            vf.rsample(mu.sum(), 0.0, seed=6),
            vf.standard_normal((3,), seed=4),
            vf.standard_normal((), seed=4),
            vf.gaussian_kl(mu, logvar, 0.5, reduction="mean", bounds=(-1.0, None)),
            vf.gaussian_kl(mu, logvar, reduction="sum", scale=0.5),
        )


UNSEEDED = 2

# A process that has the compiled library and not the package.
RUN = """
import sys
import torch
library, folder, backend = sys.argv[1:]
torch.ops.load_library(library)
x, expected = torch.load(f"{folder}/expected.pt")
program = torch._inductor.aoti_load_package(f"{folder}/program.pt2")
found = program(*x)
assert len(found) == len(expected) and "vae_fast" not in sys.modules
torch.testing.assert_close(found[2:], expected[2:], rtol=1e-5, atol=1e-6)
assert not torch.equal(found[0], found[1]) and not torch.equal(found[0], program(*x)[0])
import vae_fast as vf
torch.testing.assert_close(vf.rsample(*x, seed=5, backend=backend), expected[3], rtol=1e-5, atol=1e-6)
print("served without the package", vf.backends()["native"].available)
"""


# torch's compiler uses what torch deprecates.
@pytest.mark.filterwarnings("ignore::FutureWarning")
class TestPackages:
    """AOTInductor's, which any process that has loaded the compiled library can run."""

    @pytest.mark.compiles
    def test_with_the_package_and_without(self, backend, tmp_path, request):
        batch = torch.export.Dim("batch")
        tensors = torch.rand(5, 3), torch.rand(5, 3)
        program = torch.export.export(Sampling(), tensors, dynamic_shapes={"mu": {0: batch}, "logvar": {0: batch}})
        torch._inductor.aoti_compile_and_package(program, package_path=str(tmp_path / "program.pt2"))
        x = torch.rand(8, 3), torch.rand(8, 3)
        expected = Sampling()(*x)
        program = torch._inductor.aoti_load_package(str(tmp_path / "program.pt2"))
        found = program(*x)
        torch.testing.assert_close(tuple(found[UNSEEDED:]), expected[UNSEEDED:], **CLOSE)
        assert not torch.equal(found[0], found[1]) and not torch.equal(found[0], program(*x)[0])
        if native.REASON or "triton" in request.node.callspec.id:
            return  # no compiled library to run it without Python's
        torch.save((x, expected), tmp_path / "expected.pt")
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", RUN, str(native.LIBRARY), str(tmp_path), backend],
            env={**os.environ, "PYTHONPATH": str(native.FOLDER.parent)},
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == "served without the package True"
