"""The raw operators torch.ops.vae_fast.<op>_fwd and <op>_bwd: fakes, and the body that always serves.

Their signatures stand in operators.py. A raw operator is a pure function without autograd (its overload "autograd"
has a gradient: what a graph of operators is made of; the overload "common" is for calls of few arguments, and
"common_autograd" both). Its tensor arguments broadcast against each other; the
outputs of ``_bwd`` have the shape and dtype of the argument they belong to and the strides of
``torch.empty_like`` of it. A gradient whose ``need_…`` is false comes back with shape (0,). The densities'
``_fwd`` also returns gradients, for an upstream gradient of 1, where their ``need_…`` is true; the weight's, last
of all, comes from ``_bwd`` alone.

Each operand keeps its dtype. Results have that which the parameters (all but x and weight) promote to, sums at
least float32; arithmetic is float64 where that is, or where any operand with dims is, else float32.

Where mu and logvar (mean and logvar) are the halves of one tensor along a dim, ``packed`` is that tensor and
``packed_dim`` that dim: both gradients then come as one tensor of its layout, in the place of the first of them,
and the other has shape (0,).

A 0-d float64 tensor on the CPU is a Python number: it takes no part in dtypes.

The body registered here, the reference, serves every device that has no kernel of its own.
"""

from __future__ import annotations

import math
import sys
from types import SimpleNamespace

import torch
from torch import Tensor

from vae_fast import noise, reference
from vae_fast.checks import check, check_devices
from vae_fast.operators import (
    COMMON,
    DEFINITIONS,
    DIFFERENTIABLE,
    OPERATORS,
    PAIRWISE_SCHEMAS,
    SCHEMAS,
    Signature,
)
from vae_fast.results import LAYOUTS

library = torch.library.Library("vae_fast", "DEF")


def _defined(definition: str) -> bool:
    """Whether there is such an operator: of the compiled library, where that was loaded before this package."""
    schema = torch._C.parse_schema(f"vae_fast::{definition}")
    for present in torch._C._jit_get_schemas_for_operator(schema.name):
        if present.overload_name == schema.overload_name:
            if str(present) != str(schema):
                raise ImportError(f"a library of another version of vae_fast is loaded: it has {present}")
            return True
    return False


for _definition in DEFINITIONS:
    if not _defined(_definition):
        library.define(_definition, tags=(torch.Tag.pt2_compliant_tag,))


# AOTInductor's packages hold no infinity, for which the largest number stands, and of an empty list they make None.
_LARGEST = sys.float_info.max


def _shape(shape):
    return () if shape is None else shape


def _bound(bound):
    return math.copysign(math.inf, bound) if abs(bound) == _LARGEST else bound


def _finite(bound):
    return math.copysign(_LARGEST, bound) if math.isinf(bound) else bound


_BOUNDS = ("low", "high", "prior_low", "prior_high")
_UNPACKED = {"sample_shape": _shape, "shape": _shape, **dict.fromkeys(_BOUNDS, _bound)}
_PACKED_AS = dict.fromkeys(_BOUNDS, _finite)


def _translated(op, function, table):
    """``function`` of the operator's arguments, those in ``table`` translated."""
    names = [argument.name for argument in op._schema.arguments]
    if not set(table).intersection(names):
        return function

    def call(*args):
        pairs = zip(names, args, strict=False)
        return function(*(table[name](arg) if name in table else arg for name, arg in pairs))

    return call


def unpacked(op, function):
    """``function`` of what an operator is called with in a package, or by anyone."""
    return _translated(op, function, _UNPACKED)


def packable(op):
    """The operator, called with what a package can hold."""
    return _translated(op, op, _PACKED_AS)


def _serve(name, body) -> None:
    """Registers the body that serves every device without a kernel."""
    key = "CompositeExplicitAutograd"
    if not torch._C._dispatch_has_kernel_for_dispatch_key(f"vae_fast::{name}", key):
        library.impl(name, body, key)


# ---- bodies and fakes ------------------------------------------------------------------------------------


def _body(name: str):
    """The reference's function, with its results laid out as the fake says."""
    if name in COMMON:
        return COMMON[name].lengthened(_body(COMMON[name].long.name))
    compute, layout = getattr(reference.KERNELS, name), LAYOUTS[name]

    def body(*args):
        check(name, args)
        values, outs = compute(*args), layout(*args)
        if isinstance(outs, Tensor):
            return outs.copy_(values)
        pairs = zip(outs, values, strict=True)
        return tuple(out if value is None else out.copy_(value) for out, value in pairs)

    return body


def fake(name: str):
    """The results' layouts; as "meta" tensors' kernel it may meet operands of other devices."""
    if name in COMMON:
        return COMMON[name].lengthened(fake(COMMON[name].long.name))

    def layout(*args):
        check_devices(name, args)
        return LAYOUTS[name](*args)

    return layout


def overload(namespace: str, qualified: str):
    """The operator that a namespace has by a name, in which its overload's may be; None where it has none."""
    packet, _, kind = qualified.partition(".")
    return getattr(getattr(getattr(torch.ops, namespace), packet, None), kind or "default", None)


def kernels(namespace: str):
    """The raw operators that a namespace has, by name."""
    found = {name: overload(namespace, name) for name in SCHEMAS}
    found |= {name: overload(namespace, short.signature.qualified) for name, short in COMMON.items()}
    return {name: op for name, op in found.items() if op is not None}


def _differentiable(namespace: str):
    """Those with a gradient, by the names of those without."""
    names = DIFFERENTIABLE.keys() & kernels(namespace)
    return {name: overload(namespace, DIFFERENTIABLE[name]) for name in sorted(names)}


def overloads(namespace: str):
    """Every operator of a namespace, with its name and that of its function."""
    for table in (kernels(namespace), _differentiable(namespace)):
        for name, op in table.items():
            yield op, op._name.partition("::")[2], name


for _op, _qualified, _name in overloads("vae_fast"):
    _serve(_qualified, unpacked(_op, _body(_name)))
    torch.library.register_fake(f"vae_fast::{_qualified}", unpacked(_op, fake(_name)), lib=library)


# ---- the operators on pairs ------------------------------------------------------------------------------


def _fake_gaussian_mixture_log_prob_fwd(z, mu, rate, log_rate, log_weight, per_dim):
    return z.new_empty(z.shape[:1]), torch.empty_like(z) if per_dim else z.new_empty(0)


def _fake_gaussian_mixture_log_prob_bwd(dlog_prob, dmarginals, *args):
    z, mu, rate, log_rate, log_weight, log_prob, marginals, *needs = args
    pairs = zip((z, mu, rate, log_rate, log_weight), needs, strict=True)
    return tuple(t.new_empty(t.shape if need else 0) for t, need in pairs)


def _fake_mmd_fwd(x, y, constants, exponential, unbiased, need_dx, need_dy):
    return x.new_empty(()), x.new_empty(x.shape if need_dx else 0), y.new_empty(y.shape if need_dy else 0)


def _fake_logistic_mixture_log_prob_fwd(logits, mean, log_scale, coefficients, x, dlog_prob, *rest):
    operands, needs = (logits, mean, log_scale, coefficients), rest[-4:]
    made = (torch.empty_like(t) if need else mean.new_empty(0) for t, need in zip(operands, needs, strict=True))
    return mean.new_empty(mean.shape[:2]), *made


def _of_one_device(name, layout):
    """The fake, which as "meta" tensors' kernel may meet operands of other devices."""

    def checked(*args):
        devices = {arg.device for arg in args if isinstance(arg, Tensor)}
        if len(devices) > 1:
            raise ValueError(f"{name}: operands on several devices, {', '.join(sorted(map(str, devices)))}")
        return layout(*args)

    return checked


FAKES_OF_PAIRS = {name: _of_one_device(name, globals()[f"_fake_{name}"]) for name in PAIRWISE_SCHEMAS}
for _name in PAIRWISE_SCHEMAS:
    _serve(_name, getattr(reference.KERNELS, _name))
    torch.library.register_fake(f"vae_fast::{_name}", FAKES_OF_PAIRS[_name], lib=library)


_normals = torch.ops.vae_fast.reference_normals.default
_serve("reference_normals", unpacked(_normals, lambda *args: noise.normals(*args).contiguous()))


def _fake_normals(sample_shape, shape, *drawn_on):
    *_, device = drawn_on
    return torch.empty((*sample_shape, *shape), dtype=torch.float32, device=device)


torch.library.register_fake("vae_fast::reference_normals", unpacked(_normals, _fake_normals), lib=library)


@torch.library.register_vmap("vae_fast::reference_normals", lib=library)
def _(info, in_dims, *args):
    """One draw for each seed: only that can be batched."""
    place = [argument.name for argument in _normals._schema.arguments].index("seed_tensor")
    seeds = args[place].movedim(in_dims[place], 0).unbind()
    calls = [[seed if k == place else arg for k, arg in enumerate(args)] for seed in seeds]
    return torch.stack([_normals(*call) for call in calls]), 0


# ---- the gradients of the overload "autograd" ------------------------------------------------------------


def attach_gradients(namespace: str, lib: torch.library.Library) -> None:
    """Gives each overload for graphs of a namespace the gradient that its operator's ``_bwd`` computes."""
    for operator in OPERATORS.values():
        for made in (operator, operator.common):
            if made and made.backward and overload(namespace, made.backward.qualified):
                _attach(namespace, made.forward, made.backward, lib)


def _attach(namespace: str, forward: Signature, backward_: Signature, lib) -> None:
    fwd, bwd = overload(namespace, DIFFERENTIABLE[forward.name]), overload(namespace, backward_.qualified)
    names = [argument.name for argument in fwd._schema.arguments]
    n_upstream, n_args = len(backward_.upstream), len(names) - len(forward.needs)
    reference_bwd = unpacked(bwd, getattr(reference.KERNELS, backward_.name))

    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*(arg for arg in inputs[:n_args] if isinstance(arg, Tensor)))
        ctx.others = [None if isinstance(arg, Tensor) else (arg,) for arg in inputs[:n_args]]
        ctx.set_materialize_grads(n_upstream == 1)

    def backward(ctx, *upstream):
        saved = iter(ctx.saved_tensors)
        args = [next(saved) if other is None else other[0] for other in ctx.others]
        needs = [ctx.needs_input_grad[names.index(operand)] for operand in backward_.needs]
        compute = reference_bwd if torch.is_grad_enabled() else bwd
        grads = compute(*upstream[:n_upstream], *args, *needs)
        grads = (grads,) if isinstance(grads, Tensor) else grads
        found = {name: g for name, g, need in zip(backward_.needs, grads, needs, strict=True) if need}
        return tuple(found.get(name) for name in names)

    qualified = f"{namespace}::{DIFFERENTIABLE[forward.name]}"
    torch.library.register_autograd(qualified, backward, setup_context=setup_context, lib=lib)


attach_gradients("vae_fast", library)


def in_graphs(namespace: str) -> SimpleNamespace:
    """A namespace's operators by name as graphs hold them: with gradients, called with what a package can hold."""
    held = kernels(namespace) | _differentiable(namespace)
    return SimpleNamespace(**{name: packable(op) for name, op in held.items()})


def by_device(op):
    """A body that dispatches by the device argument of an operator without tensor operands."""

    def redispatch(*args):
        (device,) = (arg for arg in args if isinstance(arg, torch.device))
        keys = torch._C.DispatchKeySet(
            getattr(torch._C.DispatchKey, torch._C._dispatch_key_for_device(device.type))
        )
        return op.redispatch(keys, *args)

    return redispatch


library.impl("standard_normal_fwd", by_device(torch.ops.vae_fast.standard_normal_fwd.default), "BackendSelect")
