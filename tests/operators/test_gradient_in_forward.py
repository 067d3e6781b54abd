"""Gradients that come with the forward pass of "sum" and "mean": once, scaled, and right whatever comes after."""

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

import vae_fast as vf
from helpers.calls import BERNOULLI, same_bits
from helpers.marks import each_density, needs_native
from vae_fast import front
from vae_fast.backends import _KERNELS
from vae_fast.ops import early

pytestmark = needs_native

each_reduction = pytest.mark.parametrize("reduction", ["sum", "mean"])


@pytest.fixture
def calls_of(monkeypatch):
    """The raw operators that the native backend is asked for, in order."""
    names, kernels = [], _KERNELS["native"]

    class Watched:
        def __getattr__(self, name):
            kernel = getattr(kernels, name)
            return lambda *args: names.append(name.removesuffix("_common")) or kernel(*args)

    monkeypatch.setitem(_KERNELS, "native", Watched())
    monkeypatch.setattr(front.state, "on", False)
    with vf.use_backend("native"):
        yield names


def recomputed(call, tensors, reduction, upstream):
    """The gradients by the backward kernel: what a second pass gives."""
    (out,) = call(*tensors, reduction=reduction, backend="native")
    torch.autograd.grad(out, call.wanted(tensors), retain_graph=True)
    return torch.autograd.grad(out, call.wanted(tensors), upstream)


@each_density
@each_reduction
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_one_kernel_for_both_directions(call, reduction, dtype, calls_of):
    tensors = call.draw((7, 5), dtype)
    out, *grads = call.with_grads(*tensors, reduction=reduction)
    assert calls_of == [f"{call.op}_fwd"]
    assert same_bits(grads, recomputed(call, tensors, reduction, torch.ones_like(out)))


@each_density
@each_reduction
@pytest.mark.parametrize("factor", [-1.0, 0.0, 3.0, 1e-30, torch.inf, torch.nan])
def test_upstream(call, reduction, factor):
    tensors = call.draw((7, 5))
    upstream = torch.tensor(factor)
    (out,) = call(*tensors, reduction=reduction, backend="native")
    grads = torch.autograd.grad(out, call.wanted(tensors), upstream)
    for grad, want in zip(grads, recomputed(call, tensors, reduction, upstream), strict=True):
        assert_close(grad, want, rtol=4 * torch.finfo(torch.float32).eps, atol=0, equal_nan=True)


@each_density
@pytest.mark.parametrize("options", [{}, {"reduction": "none"}], ids=["default", "none"])
def test_not_for_one_number_a_datum(call, options, calls_of):
    tensors = call.draw((7, 5))
    call.with_grads(*tensors, **options)
    assert calls_of == [f"{call.op}_fwd", f"{call.op}_bwd"]


@each_density
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_not_for_half_types(call, dtype, calls_of):
    """A rounded gradient would be scaled: here by 1024, as a gradient scaler does, with results that underflow."""
    tensors = call.draw((7, 5), dtype)
    (out,) = call(*tensors, reduction="mean")
    grads = torch.autograd.grad(out, call.wanted(tensors), torch.tensor(1024.0))
    assert calls_of == [f"{call.op}_fwd", f"{call.op}_bwd"]
    wide = [t.detach().float().requires_grad_() for t in tensors]
    (out,) = call(*wide, reduction="mean", backend="reference")
    for grad, want in zip(grads, torch.autograd.grad(out, call.wanted(wide), torch.tensor(1024.0)), strict=True):
        assert_close(grad.float(), want, rtol=torch.finfo(dtype).eps, atol=float(torch.finfo(dtype).tiny))


@each_density
def test_a_second_backward_pass_recomputes(call, calls_of):
    tensors = call.draw((7, 5))
    (out,) = call(*tensors, reduction="sum")
    first = torch.autograd.grad(out, call.wanted(tensors), retain_graph=True)
    kept = [g.clone() for g in first]
    second = torch.autograd.grad(out, call.wanted(tensors), 2 * torch.ones_like(out), retain_graph=True)
    third = torch.autograd.grad(out, call.wanted(tensors))
    assert calls_of == [f"{call.op}_fwd", f"{call.op}_bwd", f"{call.op}_bwd"]
    assert same_bits(first, kept) and same_bits(third, first)
    assert same_bits(second, [2 * g for g in first])


@each_density
def test_accumulation_and_hooks(call):
    tensors = call.draw((7, 5))
    seen = []
    wanted = call.wanted(tensors)
    handles = [t.register_hook(lambda g: seen.append(g.clone()) or 2 * g) for t in wanted]
    expected = recomputed(call, tensors, "sum", torch.ones(()))
    seen.clear()
    for _ in range(3):
        call(*tensors, reduction="sum", backend="native")[0].backward()
    for h in handles:
        h.remove()
    for t, want in zip(wanted, expected, strict=True):
        assert_close(t.grad, 3 * want)
    assert len(seen) == 3 * len(wanted)


@each_density
def test_a_used_gradient_is_not_written_again(call):
    """What a backward pass handed out belongs to the caller, whatever is done with the graph."""
    tensors = call.draw((7, 5))
    (out,) = call(*tensors, reduction="sum", backend="native")
    first = torch.autograd.grad(out, call.wanted(tensors), retain_graph=True)
    for g in first:
        g.fill_(torch.nan)
    assert all(g.isfinite().all() for g in torch.autograd.grad(out, call.wanted(tensors)))


@each_density
def test_only_what_is_asked_for(call, monkeypatch):
    kernels, asked = _KERNELS["native"], []
    forward, made = call.served.forward.name, call.served.differentiable_in_forward
    original, n = getattr(kernels, forward), len(made)
    monkeypatch.setattr(front.state, "on", False)
    monkeypatch.setattr(kernels, forward, lambda *args: asked.append(args[-n:]) or original(*args))
    tensors = call.draw((7, 5))
    names = [name for name in call.operands if name in call.operator.differentiable]
    for name in names:
        given = (t if own == name else t.detach() for own, t in zip(call.operands, tensors, strict=True))
        call(*given, reduction="sum", backend="native")
    assert asked == [tuple(name == other for other in made) for name in names]
    asked.clear()
    with torch.no_grad():
        call(*tensors, reduction="sum", backend="native")
    call(*(t.detach() for t in tensors), reduction="sum", backend="native")
    assert asked == [(False,) * n] * 2


@each_density
def test_double_backward(call):
    tensors = call.draw((3, 2), torch.float64)
    assert torch.autograd.gradgradcheck(lambda *t: call(*t, reduction="mean", backend="native")[0], tensors)
    (out,) = call(*tensors, reduction="sum", backend="native")
    graph = torch.autograd.grad(out, call.wanted(tensors), create_graph=True)
    plain = torch.autograd.grad(out, call.wanted(tensors))
    for a, b in zip(graph, plain, strict=True):
        assert a.requires_grad and not b.requires_grad
        assert_close(a.detach(), b)


@pytest.mark.parametrize("small", [(5,), (7, 1), ()], ids=str)
def test_broadcast_operands(small):
    y, x = torch.randn(7, 5, requires_grad=True), torch.rand(small, requires_grad=True)
    assert same_bits(
        torch.autograd.grad(BERNOULLI(y, x, reduction="mean", backend="native")[0], (y, x)),
        recomputed(BERNOULLI, (y, x), "mean", torch.ones(())),
    )


def test_gradient_scaler_and_checkpoint():
    y, x = torch.randn(7, 5, requires_grad=True), torch.rand(7, 5)

    def loss(y):
        return vf.bernoulli_log_prob(y, x, reduction="mean", scale=-1.0, backend="native")

    (expected,) = torch.autograd.grad(loss(y), y)
    (through,) = torch.autograd.grad(checkpoint(loss, y, use_reentrant=False), y)
    assert same_bits([through], [expected])


class Made(TorchDispatchMode):
    """The memory of what operations have made, as long as anything holds it."""

    def __init__(self):
        super().__init__()
        self.storages = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for o in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(o, torch.Tensor):
                storage = o.untyped_storage()
                self.storages[storage.data_ptr()] = (StorageWeakRef(storage), storage.nbytes())
        return out

    def frames(self):
        """In units of 64 KiB."""
        return sum(n for ref, n in self.storages.values() if not ref.expired()) >> 16


class TestMemory:
    """What is held between the passes, of 12 frames that a model makes: the README's figures, for 1 MB each."""

    @staticmethod
    def frame(p, x, reduction, function):
        return function(p * 2.0, x, reduction)

    @staticmethod
    def ours(y, x, reduction):
        return vf.bernoulli_log_prob(y, x, reduction=reduction, backend="native")

    @staticmethod
    def pytorch(y, x, reduction):
        return torch.nn.functional.binary_cross_entropy_with_logits(y, x, reduction=reduction)

    def held(self, function=None, reduction="sum", around=lambda f, *args: f(*args)):
        frames = [(torch.randn(2, 1 << 13, requires_grad=True), torch.rand(2, 1 << 13)) for _ in range(12)]
        with Made() as made:
            losses = [around(self.frame, p, x, reduction, function or self.ours) for p, x in frames]
            held = made.frames()
            torch.stack(losses).sum().backward()
        expected = [torch.sigmoid(2 * p.detach()) for p, _ in frames]
        n = 2 if reduction == "mean" else 1
        if function is None:
            for (p, x), prob in zip(frames, expected, strict=True):
                assert_close(p.grad, 2 * (x - prob) / n)
        del losses
        return held

    def buffers(self, reduction):
        """Of the gradients that are kept, in the same units; no mode may watch, under which none are."""
        frames = [(torch.randn(2, 1 << 13, requires_grad=True), torch.rand(2, 1 << 13)) for _ in range(12)]
        with front.disabled():
            losses = [self.frame(p, x, reduction, self.ours) for p, x in frames]
        kept = [grad for loss in losses for grads in loss.grad_fn.early for grad in grads]
        return sum(grad.untyped_storage().nbytes() for grad in kept) >> 16

    @each_reduction
    def test_with_early_gradients(self, reduction):
        assert self.held(reduction=reduction) + self.buffers(reduction) == 24

    @each_reduction
    def test_without(self, reduction):
        assert self.held(self.pytorch, reduction) == 12
        with vf.early_gradients(False):
            assert self.held(reduction=reduction) + self.buffers(reduction) == 12
        assert self.buffers(reduction) == 12

    @each_reduction
    def test_under_checkpoint(self, reduction):
        def around(f, *args):
            return checkpoint(f, *args, use_reentrant=False)

        assert self.held(self.pytorch, reduction, around) == 0
        assert self.held(reduction=reduction, around=around) == 0

    @each_reduction
    def test_under_saved_tensor_hooks(self, reduction):
        """Everything that is held goes through them: operands, and nothing else."""
        packed = []

        def pack(tensor):
            packed.append(tensor.numel())
            return tensor.clone()

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            assert self.held(reduction=reduction) == 24  # the copies of frames and targets that the hook makes
        assert sum(n == 1 << 14 for n in packed) == 24
        with torch.autograd.graph.save_on_cpu():
            assert self.held(reduction=reduction) == 12

    @pytest.mark.usefixtures("python_functions")
    def test_released_at_the_first_backward_pass(self):
        y, x = torch.randn(2, 1 << 13, requires_grad=True), torch.rand(2, 1 << 13)
        loss = self.ours(y, x, "sum")
        assert len(loss.grad_fn.early) == 1
        torch.autograd.grad(loss, y, retain_graph=True)
        assert loss.grad_fn.early == []

    @each_density
    def test_none_where_the_weight_has_one(self, call, calls_of):
        tensors, weight = call.draw((7, 5)), torch.rand(7, 1, requires_grad=True)
        (out,) = call(*tensors, weight=weight, reduction="sum")
        torch.autograd.grad(out, [*call.wanted(tensors), weight])
        assert calls_of == [f"{call.op}_fwd", f"{call.op}_bwd"]

    @each_density
    def test_none_where_a_gradient_is_narrower_than_the_arithmetic(self, call, calls_of):
        tensors = [t.detach().to(torch.float64 if k else torch.float32) for k, t in enumerate(call.draw((7, 5)))]
        tensors = [t.requires_grad_() for t in tensors]
        (out,) = call(*tensors, reduction="sum")
        torch.autograd.grad(out, call.wanted(tensors))
        assert calls_of == [f"{call.op}_fwd", f"{call.op}_bwd"]


class TestSwitch:
    def test_as_a_function_and_a_context(self, calls_of):
        def passes():
            calls_of.clear()
            BERNOULLI.with_grads(*BERNOULLI.draw((7, 5)), reduction="sum")
            return len(calls_of)

        assert passes() == 1
        with vf.early_gradients(False):
            assert passes() == 2
            with vf.early_gradients(True):
                assert passes() == 1
            assert passes() == 2
        assert passes() == 1
        switch = vf.early_gradients(False)
        assert passes() == 2
        with switch:
            pass
        assert passes() == 1
        with pytest.raises(TypeError, match="takes True or False, got 1"):
            vf.early_gradients(1)

    @pytest.mark.parametrize(("word", "expected"), [("0", 2), ("off", 2), ("1", 1), ("", 1)])
    def test_environment(self, calls_of, monkeypatch, word, expected):
        """Read at the first call that asks."""
        monkeypatch.setenv("VAE_FAST_EARLY_GRADIENTS", word)
        monkeypatch.setattr(early, "_allowed", None)
        monkeypatch.setattr(front.state, "early", -1)
        BERNOULLI.with_grads(*BERNOULLI.draw((7, 5)), reduction="sum")
        assert len(calls_of) == expected

    def test_a_wrong_word(self, monkeypatch):
        monkeypatch.setenv("VAE_FAST_EARLY_GRADIENTS", "2")
        monkeypatch.setattr(early, "_allowed", None)
        monkeypatch.setattr(front.state, "early", -1)
        with pytest.raises(ValueError, match="VAE_FAST_EARLY_GRADIENTS must be 0 or 1, got '2'"):
            BERNOULLI.with_grads(*BERNOULLI.draw((7, 5)), reduction="sum", backend="native")
