"""The raw operators of a common call's arguments: results and errors of the long ones, and who asks for them."""

import pytest
import torch
from functorch.compile import make_boxed_func
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.eval_frame import _debug_get_cache_entry_list
from torch.library import opcheck

import vae_fast as vf
from helpers.calls import BERNOULLI, CALLS, RSAMPLE_KL, same_bits
from helpers.marks import needs_native
from vae_fast import front, native, operators, schemas
from vae_fast.backends import kernel
from vae_fast.operators import COMMON, DIFFERENTIABLE, OPERATORS
from vae_fast.ops import autograd

pytestmark = needs_native

PLAIN_CALLS = [call for call in CALLS if call.served is not call.operator]
each_call = pytest.mark.parametrize("call", PLAIN_CALLS, ids=str)
# Of each type an option's value that is no default.
OTHERS = {"int": 3, "float": 0.5, "float?": 0.5, "SymInt": 3, "SymInt[]?": (2,), "Tensor?": torch.zeros(())}


def arguments(call, dtype=torch.float32, seed_tensor=None):
    """Of each direction, (the short operator, its arguments)."""
    common = call.operator.common
    tensors = [t.detach() for t in call.draw((4, 3, 5), dtype)]
    for reduction in (0, 1, 2) if call.density else (0,):
        told = {"seed": 7, "seed_tensor": seed_tensor, "event_ndim": 2, "reduction": reduction, "scale": -0.5}
        options = [told[option.name] for option in common.options]
        forward, backward = common.forward, common.backward
        made = schemas.kernels("vae_fast")[forward.name](*tensors, *options, *(False for _ in forward.needs))
        made = (made,) if isinstance(made, torch.Tensor) else made
        upstream = [torch.randn_like(result) for result in made[: len(call.operator.results)]]
        for k in range(2 ** len(backward.needs)):
            needs = [bool(k >> i & 1) for i in range(len(backward.needs))]
            if forward.needs:
                yield forward, (*tensors, *options, *needs[: len(forward.needs)])
            yield backward, (*upstream, *tensors, *options, *needs)
        if not forward.needs:
            yield forward, (*tensors, *options)


def results(function, args):
    out = function(*args)
    return [out] if isinstance(out, torch.Tensor) else list(out)


@each_call
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("seed_tensor", [None, torch.tensor([9])], ids=["seed", "seed tensor"])
def test_results_of_the_long_one(call, dtype, seed_tensor):
    """Bit for bit, in their layouts, of every gradient; and of the reference's too."""
    served = schemas.kernels("vae_fast")
    for signature, args in arguments(call, dtype, seed_tensor):
        short = COMMON[signature.name]
        ours = results(served[signature.name], args)
        assert len(ours) == len(signature.results)
        assert same_bits(ours, results(short.lengthened(served[short.long.name]), args))
        fakes = results(served[signature.name], [a.to("meta") if isinstance(a, torch.Tensor) else a for a in args])
        for real, fake in zip(ours, fakes, strict=True):
            assert (real.shape, real.dtype, real.stride()) == (fake.shape, fake.dtype, fake.stride())


@pytest.mark.parametrize("op", [name for name, operator in OPERATORS.items() if operator.packed])
def test_halves_of_one_tensor(op):
    """Their gradient is the moments'."""
    call = next(call for call in PLAIN_CALLS if call.op == op)
    for signature, args in arguments(call):
        if not signature.upstream or not all(args[-len(signature.needs) :]):
            continue
        n = len(signature.upstream)
        moments = torch.cat(args[n : n + 2], -1)
        args = (*args[:n], *moments.chunk(2, -1), *args[n + 2 :], moments, -1)
        served, short = schemas.kernels("vae_fast"), COMMON[signature.name]
        ours = results(served[signature.name], args)
        assert ours[0].shape == moments.shape and ours[1].shape == (0,)
        assert same_bits(ours, results(short.lengthened(served[short.long.name]), args))


@each_call
def test_errors_of_the_long_one(call):
    served = schemas.kernels("vae_fast")
    for signature, args in arguments(call):
        short, n = COMMON[signature.name], len(signature.upstream)
        for wrong in (args[n].int(), torch.ones(7, 2), args[n].to_sparse()):
            given = (*args[:n], wrong, *args[n + 1 :])
            said = []
            for function in (served[signature.name], short.lengthened(served[short.long.name])):
                with pytest.raises((RuntimeError, ValueError, TypeError)) as caught:
                    function(*given)
                said.append(str(caught.value).splitlines()[0].replace(signature.qualified, short.long.qualified))
            assert said[0] == said[1]
        break


@each_call
def test_opcheck(call):
    for signature, args in arguments(call):
        opcheck(schemas.kernels("vae_fast")[signature.name], args, test_utils=["test_schema", "test_faketensor"])
        if signature.name in DIFFERENTIABLE:
            overload = schemas.overload("vae_fast", DIFFERENTIABLE[signature.name])
            utils = ["test_schema", "test_faketensor", "test_autograd_registration"]
            opcheck(overload, args, test_utils=utils)
            with_gradient = [a.clone().requires_grad_() if torch.is_tensor(a) else a for a in args]
            assert same_bits(results(overload, with_gradient), results(kernel("native", signature.name), args))


@pytest.fixture
def asked(monkeypatch):
    """The raw operators that are asked for, by name."""
    names, original = [], autograd.kernel
    monkeypatch.setattr(autograd, "kernel", lambda backend, name, *a: names.append(name) or original(backend, name))
    monkeypatch.setattr(front.state, "on", False)
    return names


@each_call
def test_common_calls_ask_for_it(call, asked):
    outs = call(*call.draw((4, 5)), backend="native")
    sum(out.sum() for out in outs).backward()
    with torch.no_grad():
        call(*call.draw((4, 5)), backend="native")
    assert set(asked) == {f"{call.op}_fwd_common"}
    asked.clear()
    call(*call.draw((4, 5)), backend="reference")
    assert asked == [f"{call.op}_fwd"]


@pytest.mark.parametrize("op", [name for name, operator in OPERATORS.items() if operator.common is not None])
def test_which_calls_are_common(op):
    """By no operand and no option that the short operator has not."""
    operator, x = OPERATORS[op], torch.zeros(2, 2)
    operands = [None if operand.optional else x for operand in operator.operands]
    options = operator.Options()
    name, tensors = f"{op}_common", [x] * len(operator.common.operands)

    def called(*, operands=operands, options=options, **more):
        (found, *_), given = autograd.call(op, "native", operands, options, **more)
        return found, list(given)

    assert called() == (name, tensors)
    assert called(noise=x)[0] == op
    assert autograd.call(op, "triton", operands, options)[0][0] == op
    for option in operator.options:
        other = options._replace(**{option.name: OTHERS[option.type]})
        assert called(options=other)[0] == (name if option.common else op), option
    for k, operand in enumerate(operator.operands):
        if operand.optional:
            assert called(operands=[*operands[:k], x, *operands[k + 1 :]])[0] == op, operand
    if operator.packed:
        assert called(operands=operands[1:], dim=-1) == (name, tensors[1:])


@pytest.mark.compiles
@pytest.mark.parametrize("call", [RSAMPLE_KL, BERNOULLI], ids=str)
def test_compiled_graphs_hold_it(call):
    """One of each direction; another seed is the same graph from the second on."""
    graphs = []

    def compiler(graph, _):
        graphs.append([str(node.target) for node in graph.graph.nodes if "vae_fast" in str(node.target)])
        return make_boxed_func(graph.forward)

    torch._dynamo.reset()
    backend = aot_autograd(fw_compiler=compiler)
    compiled = torch.compile(lambda *t, **o: call(*t, **o), fullgraph=True, backend=backend)
    for k in range(4):
        options = {} if call.density else {"seed": 1000 + k}
        tensors = call.draw((4, 5))
        outs = [compiled(*tensors, **options), call(*tensors, **options)]
        assert same_bits(*outs)
        grads = [torch.autograd.grad(sum(o.sum() for o in out), call.wanted(tensors)) for out in outs]
        assert same_bits(*grads)
    forward, backward = (f"vae_fast.{call.op}_{direction}.common" for direction in ("fwd", "bwd"))
    assert graphs == [[forward], [backward]] * (1 if call.density else 2)


@needs_native
def test_compiled_graphs_do_not_look_into_the_table():
    """Else every call would compare a hundred of its numbers."""

    def call(mu):
        return vf.gaussian_kl(mu, 0.0, backend="native")

    torch.compile(call, backend="eager", fullgraph=True)(torch.ones(3, 2))
    (compiled,) = _debug_get_cache_entry_list(call.__code__)
    assert str(compiled.guard_manager).count("_COMMON") < 10


def test_a_place_that_is_computed():
    """A traced offset is compared with its default by no graph that could not know it."""

    def draw(mu, place):
        return vf.rsample(mu, 0.0, seed=3, offset=place.item(), backend="native")

    mu = torch.zeros(4, 5)
    program = torch.export.export(_Module(draw), (mu, torch.tensor(8))).module()
    for start in (0, 8):
        want = vf.rsample(mu, 0.0, seed=3, offset=start, backend="native")
        assert torch.equal(program(mu, torch.tensor(start)), want)


class _Module(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *tensors):
        return self.function(*tensors)


def test_every_operator_has_both():
    """But for that without operands; and of kernels those of the library, not the reference."""
    of_operands = [name for name, operator in OPERATORS.items() if operator.operands]
    assert set(COMMON) == {f"{name}_{direction}_common" for name in of_operands for direction in ("fwd", "bwd")}
    for short in COMMON.values():
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"vae_fast::{short.signature.qualified}", "CPU")
    assert native.REASON == "" and set(operators.DIFFERENTIABLE) >= {s for s in COMMON if "_fwd" in s}
