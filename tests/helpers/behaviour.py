"""What every operator must do, checked in one place: derivatives of all kinds, layouts, half types, compilation.

Each check takes ``f``, a function of the given tensors only that returns a tensor or several. ``f.constants``, if
there is such, are the numbers of the tensors that have no gradient.
"""

import copy

import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

from helpers import accuracy

# Two results that are each within 3 ULP (1 ULP ≤ eps of the value) of one truth.
CLOSE = {"rtol": 6 * torch.finfo(torch.float32).eps, "atol": 6 * torch.finfo(torch.float32).eps}


def on_threads(n, made):
    """What ``made()`` gives on so many of PyTorch's threads."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(n)
        return made()
    finally:
        torch.set_num_threads(before)


def differentiable(f, inputs):
    """The numbers of the inputs that can have a gradient."""
    constants = getattr(f, "constants", ())
    return tuple(i for i, t in enumerate(inputs) if t.is_floating_point() and i not in constants)


def leaves(*inputs, of=None):
    """Copies that require grad, where they, as inputs of a function, can; layouts are kept."""
    copies = [copy.copy(t.detach()) if t.is_neg() else t.detach().clone() for t in inputs]
    return [t.requires_grad_(i in differentiable(of, inputs)) for i, t in enumerate(copies)]


def alike(f, other):
    """The other function, with f's constants."""
    other.constants = getattr(f, "constants", ())
    return other


def as_tuple(out):
    return out if isinstance(out, tuple) else (out,)


def with_grads(f, *inputs, upstream=None):
    """The outputs of f, then the gradient of every floating input (upstream: 1, or one tensor an output)."""
    inputs = leaves(*inputs, of=f)
    outs = as_tuple(f(*inputs))
    wanted = [t for t in inputs if t.requires_grad]
    upstream = [torch.ones_like(o) for o in outs] if upstream is None else upstream
    return (*(o.detach() for o in outs), *torch.autograd.grad(outs, wanted, upstream))


def check_derivatives(f, *inputs, batched=True):
    """First and second derivatives, in reverse and forward mode, of float64 inputs, against differences."""
    inputs = leaves(*inputs, of=f)
    assert gradcheck(
        f, inputs, check_forward_ad=True, check_batched_grad=batched, check_batched_forward_grad=batched
    )
    assert gradgradcheck(f, inputs, check_batched_grad=batched, fast_mode=True)


def check_gradients(f, *inputs):
    """First derivatives in reverse mode, of float64 inputs, against differences."""
    assert gradcheck(f, leaves(*inputs, of=f))


def check_transforms(f, *inputs):
    """vmap, jacrev, jacfwd and hessian against a loop and against autograd. Dim 0 of every input is mapped."""
    in_loop = [as_tuple(f(*(t[i] for t in inputs))) for i in range(len(inputs[0]))]
    mapped = as_tuple(torch.func.vmap(f)(*inputs))
    for k, out in enumerate(mapped):
        assert_close(out, torch.stack([outs[k] for outs in in_loop]))

    def total(*tensors):
        return sum(out.sum() for out in as_tuple(f(*tensors)))

    everything = differentiable(f, inputs)

    def of_these(*tensors):
        given = dict(zip(everything, tensors, strict=True))
        return total(*(given.get(i, t) for i, t in enumerate(inputs)))

    these = tuple(inputs[i] for i in everything)
    expected = torch.autograd.functional.jacobian(of_these, these)
    assert_close(torch.func.grad(total, everything)(*inputs), expected)
    assert_close(torch.func.jacrev(total, everything)(*inputs), expected)
    assert_close(torch.func.jacfwd(total, everything)(*inputs), expected)
    expected = torch.autograd.functional.hessian(of_these, these)
    assert_close(torch.func.hessian(total, everything)(*inputs), expected)
    per_example = torch.func.vmap(torch.func.grad(total, everything))(*inputs)
    in_loop = [torch.func.grad(total, everything)(*(t[i] for t in inputs)) for i in range(len(inputs[0]))]
    assert_close(per_example, tuple(map(torch.stack, zip(*in_loop, strict=True))))


def negative_view(x):
    """x again, as a view whose negative bit is set."""
    return torch.complex(torch.zeros_like(x), -x.double() if x.dtype == torch.float64 else -x).conj().imag


LAYOUTS = {
    "transposed": lambda x: x.transpose(-1, -2).contiguous().transpose(-1, -2),
    "batch_last": lambda x: x.movedim(0, -1).contiguous().movedim(-1, 0),
    "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "sliced": lambda x: torch.stack([x, torch.full_like(x, torch.nan)], -1)[..., 0],
    "cut": lambda x: torch.nn.functional.pad(x, (3, 5), value=torch.nan)[..., 3:-5],
    "negative": negative_view,
}


def check_layouts(f, *inputs):
    """4-D inputs in every layout, together and one at a time, give what contiguous ones give."""
    expected = with_grads(f, *inputs)
    for layout in LAYOUTS.values():
        for chosen in (range(len(inputs)), *((i,) for i in range(len(inputs)))):
            laid_out = [layout(t) if i in chosen and t.is_floating_point() else t for i, t in enumerate(inputs)]
            for out, want in zip(with_grads(f, *laid_out), expected, strict=True):
                assert_close(out, want, **CLOSE)


def check_expanded(f, *inputs, dim=0):
    """Inputs expanded along a dim (stride 0) give what their copies give, gradients summed."""
    narrow = [t.narrow(dim, 0, 1) for t in inputs]

    def expanded(*tensors):
        return f(*(t.expand_as(full) for t, full in zip(tensors, inputs, strict=True)))

    def copied(*tensors):
        return f(*(t.expand_as(full).contiguous() for t, full in zip(tensors, inputs, strict=True)))

    for out, want in zip(*(with_grads(alike(f, g), *narrow) for g in (expanded, copied)), strict=True):
        assert_close(out, want, **CLOSE)


def check_upstreams(f, *inputs):
    """Upstream gradients that are expanded, transposed or cut out of a larger tensor, or missing."""
    outs = as_tuple(f(*inputs))
    values = [torch.randn_like(o) for o in outs]
    expected = with_grads(f, *inputs, upstream=values)
    kinds = {
        "transposed": lambda g: g.movedim(0, -1).contiguous().movedim(-1, 0) if g.ndim else g,
        "cut": lambda g: torch.cat([torch.full_like(g, torch.nan), g], -1)[..., g.shape[-1] :] if g.ndim else g,
        "strided": lambda g: torch.stack([g, torch.full_like(g, torch.nan)], -1)[..., 0],
        "negative": negative_view,
    }
    for kind in kinds.values():
        for out, want in zip(with_grads(f, *inputs, upstream=[kind(v) for v in values]), expected, strict=True):
            assert_close(out, want, **CLOSE)
    ones = [torch.ones_like(o) for o in outs]
    expected = with_grads(f, *inputs, upstream=ones)
    expanded = [torch.ones((), dtype=o.dtype).expand_as(o) for o in outs]
    for out, want in zip(with_grads(f, *inputs, upstream=expanded), expected, strict=True):
        assert_close(out, want, **CLOSE)


def check_half(f, dtype, *inputs, light=False):
    """Half inputs are computed in float32: outputs are those of the widened inputs, rounded once if at all.

    Sums come out in float32, in an order that may follow the width of the operands. ``light``: half
    types have formulas of their own on a GPU.
    """
    inputs = [t.to(dtype) if t.is_floating_point() else t for t in inputs]
    widened = [t.float() if t.is_floating_point() else t for t in inputs]
    ours, wide = with_grads(f, *inputs), with_grads(f, *widened)
    light = light and accuracy.is_light(*inputs)
    for out, want in zip(ours, wide, strict=True):
        if light:
            rounded = torch.finfo(out.dtype).eps if out.dtype == dtype else 0.0
            assert_close(out.double(), want.double(), rtol=2 * accuracy.LIGHT + rounded, atol=2 * accuracy.LIGHT)
        elif out.dtype == dtype:
            assert torch.equal(out, want.to(dtype))
        else:
            assert_close(out, want.to(out.dtype), rtol=4 * torch.finfo(torch.float32).eps, atol=0)
    return ours


def check_shape_of_gradient(f, inputs, full_shape):
    """Operands of smaller shapes get the gradient of their own shape: that of their copies, summed."""

    def copied(*tensors):
        return f(*(t.expand(full_shape).clone() for t in tensors))

    for out, want in zip(with_grads(f, *inputs), with_grads(alike(f, copied), *inputs), strict=True):
        assert out.shape == want.shape
        assert_close(out, want)


def check_compiled(f, *inputs, compiler="aot_eager", batches=1):
    """torch.compile without graph breaks, forward and backward; then other batch sizes, traced once as dynamic."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    compiled = alike(f, torch.compile(f, fullgraph=True, backend=compiler))
    for n in range(len(inputs[0]), len(inputs[0]) - batches, -1):
        batch = [t[:n] for t in inputs]
        for out, want in zip(with_grads(compiled, *batch), with_grads(f, *batch), strict=True):
            assert out.dtype == want.dtype
            assert_close(out, want, **CLOSE)
    # One graph for the first batch size, one for all others.
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == min(batches, 2)


def check_exported(f, *inputs):
    class Module(torch.nn.Module):
        def forward(self, *tensors):
            return f(*tensors)

    program = torch.export.export(Module(), tuple(inputs))
    for out, want in zip(as_tuple(program.module()(*inputs)), as_tuple(f(*inputs)), strict=True):
        assert_close(out, want, **CLOSE)


def sigma_of(param, eps):
    """σ of the raw argument, as the documentation of ``param`` and ``param_eps`` says it."""
    return {
        "logvar": lambda r: torch.exp(r / 2) + eps,
        "logstd": lambda r: torch.exp(r) + eps,
        "std": lambda r: r + eps,
        "var": lambda r: torch.sqrt(r + eps),
        "softplus": lambda r: torch.log(1 + torch.exp(r)) + eps,
    }[param]
