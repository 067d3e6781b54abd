"""bfloat16's gradients of a forward pass, kept for "sum" and "mean": the bits that a backward pass would make.

Whether a backward pass made them is seen by operands that are NaN by then: gradients that were kept are not.
"""

import math
from types import SimpleNamespace

import pytest
import torch

import vae_fast as vf
from helpers.calls import BERNOULLI, COUNT, DENSITIES, GAUSSIAN, KL, bits
from helpers.marks import each_density, served
from vae_fast import front, native
from vae_fast.backends import _KERNELS
from vae_fast.ops import early

FACTORS = (1.0, -1.0, 2.0, -0.5, 2.0**-7, 2.0**-120, 2.0**100, 0.0, 0.01, 3.0, math.inf, math.nan)
SHAPES = ((), (1,), (7, 5), (3, 64), (16, 24), (2, 5, 130))
# Of kernels that have the CPU's tensors for a GPU's, and no front, which hands kept gradients over.
ON_HOST = not native.REASON and native.instruction_set() == "cuda on the host"


def serving():
    for backend, device in served():
        missing = front.CUDA_REASON if device == "cuda" else front.REASON
        if backend == "triton" or (backend == "native" and (ON_HOST or not missing)):
            yield backend, device


pytestmark = pytest.mark.parametrize("backend", list(serving()), ids="-".join)


@pytest.fixture(autouse=True)
def handed_over(monkeypatch):
    """What the front does, where kernels have none: tests/cuda_host has an operator for it."""
    if not ON_HOST:
        return

    def with_kept(grads, bwd, args):
        torch.ops.vae_fast_host.keep(*grads, *[None] * (4 - len(grads)))
        return bwd(*args)

    kernels = SimpleNamespace(**vars(_KERNELS["native"]), with_kept=with_kept)
    monkeypatch.setitem(_KERNELS, "native", kernels)
    monkeypatch.setattr(early, "_SCALING", ("native", "triton"))


def drawn(call, shape, device, dtype=torch.bfloat16):
    return [t.detach().to(device).requires_grad_(t.requires_grad) for t in call.draw(shape, dtype)]


def gradients(call, tensors, factor, backend, between=None, **options):
    """Of a loss whose upstream gradient is the factor; ``between`` is what happens after the forward pass."""
    (out,) = call(*tensors, backend=backend[0], **{"reduction": "sum", **options})
    if between is not None:
        between(tensors)
    upstream = torch.full_like(out, factor)
    return torch.autograd.grad(out, [t for t in call.wanted(tensors) if t.requires_grad], upstream)


def made_anew(call, tensors, factor, backend, **options):
    with vf.early_gradients(False):
        return gradients(call, tensors, factor, backend, **options)


def poison(tensors):
    for t in tensors:
        if t.is_floating_point():
            t.data.fill_(math.nan)


def same(these, those):
    """Every bit, but a zero's sign and which NaN it is."""
    for a, b in zip(these, those, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape and a.stride() == b.stride()
        differ = (bits(a) != bits(b)) & ~((a == 0) & (b == 0)) & ~(a.isnan() & b.isnan())
        assert not differ.any(), f"{a[differ][:4]} instead of {b[differ][:4]}"


@each_density
@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("factor", FACTORS)
def test_every_factor(call, reduction, factor, backend):
    for shape in SHAPES if call in (KL, BERNOULLI) else SHAPES[2:4]:
        tensors = drawn(call, shape, backend[1])
        options = {"reduction": reduction, "scale": -1.5, "event_ndim": min(1, len(shape))}
        same(
            gradients(call, tensors, factor, backend, **options),
            made_anew(call, tensors, factor, backend, **options),
        )


@pytest.mark.filterwarnings("ignore:(over|under)flow encountered:RuntimeWarning")
@each_density
@pytest.mark.parametrize("some", [0.0, 2.0**-124, 2.0**-140, 2.0**126, None], ids=str)
def test_numbers_at_both_ends(call, some, backend):
    """Of weights that make some gradients 0, subnormal or infinite; or scales that make all of them nearly so."""
    tensors = drawn(call, (5, 48), backend[1])
    weight = torch.ones(5, 48, device=backend[1])
    weight[1, ::7], weight[3, 40:] = some or 0.0, some or 0.0
    kinds = [{"scale": 2.0**n} for n in (-118, -130, 122)] if some is None else [{"weight": weight}]
    for options in kinds:
        for factor in (1.0, -1.0, 2.0, -(2.0**-7), 2.0**-120, 2.0**100):
            same(
                gradients(call, tensors, factor, backend, **options),
                made_anew(call, tensors, factor, backend, **options),
            )


def test_what_was_rounded_to_the_least_normal_number(backend):
    """Which has a digit less than twice as much has."""
    logits, x = torch.zeros(16, 16, dtype=torch.bfloat16), torch.ones(16, 16, dtype=torch.bfloat16)
    tensors = logits.to(backend[1]).requires_grad_(), x.to(backend[1])
    weight = torch.full((16, 16), 2.0**-125 * (1 - 0.75 * 2.0**-8), device=backend[1])
    for factor, least in ((1.0, 2.0**-126), (2.0, 2.0**-125 - 2.0**-133)):
        (made,) = gradients(BERNOULLI, tensors, factor, backend, weight=weight)
        assert (made == least).all()


@each_density
def test_no_operand_is_read(call, backend):
    """By a factor of 1 or ±2ⁿ; any other one makes the gradients anew."""
    tensors = drawn(call, (6, 40), backend[1])
    for factor in (1.0, -1.0, 0.5, -(2.0**-10)):
        want = made_anew(call, tensors, factor, backend)
        same(gradients(call, [*clones(tensors)], factor, backend, poison), want)
    for factor in (3.0, 0.01, math.inf, 0.0):
        made = gradients(call, [*clones(tensors)], factor, backend, poison)
        assert all(g.isnan().all() for g in made)


def clones(tensors):
    return (t.detach().clone(memory_format=torch.preserve_format).requires_grad_(t.requires_grad) for t in tensors)


@pytest.mark.parametrize("call", [c for c in DENSITIES if "x" in c.operands], ids=str)
def test_only_where_it_must(call, backend):
    """What leaves the normal numbers makes its neighbours anew, and no gradient far from it."""
    tensors = drawn(call, (64, 520), backend[1])
    weight = torch.ones(64, 520, device=backend[1])
    weight[40, 300] = 2.0**-120
    want = made_anew(call, tensors, 2.0**-8, backend, weight=weight)
    made = gradients(call, [*clones(tensors)], 2.0**-8, backend, poison, weight=weight)
    assert any(g[40, 300].isnan() for g in made)
    for got, expected in zip(made, want, strict=True):
        kept = ~got.isnan()
        assert kept.float().mean() > (0.9 if backend[0] == "native" else -1) and torch.equal(
            got[kept], expected[kept]
        )


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
@each_density
def test_no_other_type(call, dtype, backend):
    """float16 never keeps any: by a loss scale, which it is there for, they would come from flushed numbers."""
    tensors = drawn(call, (6, 40), backend[1], dtype)
    made = gradients(call, tensors, 1.0, backend, poison)
    assert all(g.isnan().all() == (dtype is torch.float16) for g in made)


@pytest.mark.parametrize("kind", ["transposed", "sliced", "expanded data", "offset"])
def test_strides(kind, backend):
    def laid_out(t):
        if kind == "transposed":
            return t.clone().t()
        if kind == "sliced":
            return torch.stack([t, t], -1)[..., 0]
        return torch.cat([t.new_zeros(1), t.reshape(-1)])[1:].view(t.shape)

    for call in (GAUSSIAN, BERNOULLI, COUNT):
        tensors = drawn(call, (24, 32), backend[1])
        if kind == "expanded data":
            tensors[-1] = tensors[-1][:1].detach().expand(24, 32).requires_grad_(tensors[-1].requires_grad)
        else:
            tensors = [laid_out(t.detach()).requires_grad_(t.requires_grad) for t in tensors]
        for factor in (1.0, -0.25, 2.0, 3.0):
            same(gradients(call, tensors, factor, backend), made_anew(call, tensors, factor, backend))


def test_float32_beside_it(backend):
    """Both types' gradients are kept, scaled and made anew together."""
    mean, logvar, _ = drawn(GAUSSIAN, (9, 56), backend[1])
    x = torch.randn(9, 56, device=backend[1], requires_grad=True)
    for weight in (None, torch.full((9, 1), 2.0**-121, device=backend[1])):
        for factor in FACTORS:
            given = {} if weight is None else {"weight": weight}
            same(
                gradients(GAUSSIAN, (mean, logvar, x), factor, backend, **given),
                made_anew(GAUSSIAN, (mean, logvar, x), factor, backend, **given),
            )
    made = gradients(GAUSSIAN, [*clones((mean, logvar, x))], -2.0, backend, poison)
    assert all(not g.isnan().any() for g in made)


def test_not_of_operands_that_are_broadcast(backend):
    """Whose gradients are sums: of those no part could be made anew."""
    mean, logvar, x = drawn(GAUSSIAN, (9, 56), backend[1])
    for small in (logvar[:1], logvar[:, :1], logvar[0, 0]):
        tensors = mean, small.detach().requires_grad_(), x
        for factor in (1.0, -1.0, 3.0):
            same(gradients(GAUSSIAN, tensors, factor, backend), made_anew(GAUSSIAN, tensors, factor, backend))
        made = gradients(GAUSSIAN, [*clones(tensors)], 1.0, backend, poison)
        assert all(g.isnan().all() for g in made)
        # One that has no gradient may be.
        tensors = mean, small.detach(), x
        made = gradients(GAUSSIAN, [*clones(tensors)], 1.0, backend, poison)
        same(made, made_anew(GAUSSIAN, tensors, 1.0, backend))


def test_not_of_a_softmax(backend):
    """By whose logits a gradient is not the kernel's own."""
    logits, theta, x = drawn(COUNT, (9, 56), backend[1])
    for wanted in ((True, True), (True, False), (False, True)):
        given = [t.detach().requires_grad_(need) for t, need in zip((logits, theta), wanted, strict=True)]
        for factor in (1.0, -1.0, 3.0):
            args = COUNT, (*given, x), factor, backend
            same(gradients(*args, param="softmax"), made_anew(*args, param="softmax"))


def test_second_backward_passes_and_asked_for_apart(backend):
    mean, logvar, x = tensors = drawn(GAUSSIAN, (9, 56), backend[1])
    want = made_anew(GAUSSIAN, tensors, -1.0, backend)
    (out,) = GAUSSIAN(*tensors, reduction="sum", backend=backend[0])
    minus = -torch.ones_like(out)
    first = torch.autograd.grad(out, (mean, x), minus, retain_graph=True)
    same(first, [want[0], want[2]])
    second = torch.autograd.grad(out, tensors, minus, retain_graph=True)
    same(second, want)
    assert not {g.data_ptr() for g in first} & {g.data_ptr() for g in second}
    graph = torch.autograd.grad(out, tensors, minus, create_graph=True)
    assert all(g.requires_grad for g in graph)


def test_operands_that_were_changed_are_refused(backend):
    mean, logvar, x = drawn(GAUSSIAN, (9, 56), backend[1])
    (out,) = GAUSSIAN(mean * 1, logvar, x.detach(), reduction="sum", backend=backend[0])
    (out,) = GAUSSIAN(mean, logvar, changed := x.detach().clone(), reduction="sum", backend=backend[0])
    changed.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        (-out).backward()


def test_forbidden_and_under_hooks(backend):
    tensors = drawn(KL, (9, 56), backend[1])
    with vf.early_gradients(False):
        made = gradients(KL, [*clones(tensors)], 1.0, backend, poison)
    assert all(g.isnan().all() for g in made)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t.clone(), lambda t: t):
        (out,) = KL(*tensors, reduction="sum", backend=backend[0])
    same(torch.autograd.grad(out, tensors), made_anew(KL, tensors, 1.0, backend))


def test_empty(backend):
    tensors = drawn(KL, (0, 5), backend[1])
    for factor in (1.0, -1.0, 3.0):
        same(gradients(KL, tensors, factor, backend), made_anew(KL, tensors, factor, backend))
