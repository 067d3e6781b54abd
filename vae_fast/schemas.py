"""The raw operators torch.ops.vae_fast.<op>_fwd and <op>_bwd: shapes, and the body that always serves.

Their signatures stand in signatures.py. A raw operator is a pure function without autograd (its overload "autograd"
has a gradient: what a graph of operators is made of). Its tensor arguments broadcast against each other; the
outputs of ``_bwd`` have the shape and dtype of the argument they belong to and the strides of
``torch.empty_like`` of it. A gradient whose ``need_…`` is false comes back with shape (0,). The densities'
``_fwd`` also returns gradients, for an upstream gradient of 1, where their ``need_…`` is true; the weight's, last
of all, comes from ``_bwd`` alone.

Each operand keeps its dtype. Results have that which the parameters (all but x and weight) promote to, sums at
least float32; arithmetic is float64 where that is, or where any operand with dims is, else float32.

Where mu and logvar (mean and logvar) are the halves of one tensor along a dim, ``packed`` is that tensor and
``packed_dim`` that dim: both gradients then come as one tensor of its layout, in the place of the first of them,
and the other has shape (0,).

Codes: ``param`` indexes scale.KINDS (of the Bernoulli: PARAMS of its reference), ``reduction``
densities.REDUCTIONS; bounds of −inf and inf are none.
``seed`` holds 64 bits as a signed integer, and ``seed_tensor``, one int64 element, replaces it where given.
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
from vae_fast.reference.densities import NONE, broadcast_shape, compute_dtype, promoted_dtype
from vae_fast.signatures import DEFINITIONS, DIFFERENTIABLE, SCHEMAS

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


_UNPACKED = {"sample_shape": _shape, "shape": _shape, "low": _bound, "high": _bound}
_PACKED_AS = {"low": _finite, "high": _finite}


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


# ---- shapes, dtypes and strides of the outputs -----------------------------------------------------------


def _density(parameters: tuple[Tensor, ...], shape, event_ndim: int, reduction: int) -> Tensor:
    out = tuple(shape)[: len(shape) - event_ndim] if reduction == NONE else ()
    return parameters[0].new_empty(out, dtype=compute_dtype(promoted_dtype(*parameters)))


def _grads(anchor: Tensor, needs, operands) -> tuple[Tensor, ...]:
    return tuple(
        anchor.new_empty(0) if like is None or not need else torch.empty_like(like)
        for need, like in zip(needs, operands, strict=True)
    )


def _together(grads: tuple[Tensor, ...], packed: Tensor | None = None, packed_dim: int = 0) -> tuple[Tensor, ...]:
    """Gradients of a backward pass, the first two as one where they belong to the halves of ``packed``."""
    if packed is None:
        return grads
    return (torch.empty_like(packed), packed.new_empty(0), *grads[2:])


def _standard_normal_fwd(sample_shape, shape, seed, seed_tensor, offset, first_sample, dtype, device):
    return torch.empty((*sample_shape, *shape), dtype=dtype, device=device)


def _rsample_fwd(mu, logvar, sample_shape, *_options):
    shape, dtype = (*sample_shape, *broadcast_shape(mu, logvar)), promoted_dtype(mu, logvar)
    # By length first: a comparison of sizes at unlike places would bind them in a trace.
    if mu.ndim == len(shape) and tuple(mu.shape) == shape:
        return torch.empty_like(mu, dtype=dtype)
    return mu.new_empty(shape, dtype=dtype)


def _rsample_bwd(dz, mu, logvar, *options):
    return _together(_grads(mu, options[9:11], (mu, logvar)), *options[11:])


def _rsample_kl_fwd(mu, logvar, sample_shape, seed, seed_tensor, offset, first_sample, event_ndim, *_options):
    kl = _density((mu, logvar), broadcast_shape(mu, logvar), event_ndim, NONE)
    return _rsample_fwd(mu, logvar, sample_shape), kl


def _rsample_kl_bwd(dz, dkl, mu, logvar, *options):
    return _rsample_bwd(dz, mu, logvar, *options[2:])


def _gaussian_kl_fwd(mu, logvar, prior_mu, prior_logvar, weight, event_ndim, reduction, *options):
    operands = (mu, logvar, prior_mu, prior_logvar)
    kl = _density(operands, broadcast_shape(*operands, weight), event_ndim, reduction)
    return (kl, *_grads(mu, options[-4:], operands))


def _gaussian_kl_bwd(dkl, mu, logvar, prior_mu, prior_logvar, weight, *options):
    grads = _grads(mu, options[8:13], (mu, logvar, prior_mu, prior_logvar, weight))
    return _together(grads, *options[13:])


def _bernoulli_log_prob_fwd(logits, x, weight, event_ndim, reduction, *options):
    log_prob = _density((logits,), broadcast_shape(logits, x, weight), event_ndim, reduction)
    return (log_prob, *_grads(logits, options[-2:], (logits, x)))


def _bernoulli_log_prob_bwd(dlog_prob, logits, x, weight, *options):
    return _grads(logits, options[-3:], (logits, x, weight))


def _gaussian_log_prob_fwd(mean, logvar, x, weight, event_ndim, reduction, *options):
    log_prob = _density((mean, logvar), broadcast_shape(mean, logvar, x, weight), event_ndim, reduction)
    return (log_prob, *_grads(mean, options[-3:], (mean, logvar, x)))


def _gaussian_log_prob_bwd(dlog_prob, mean, logvar, x, weight, *options):
    grads = _grads(mean, options[8:12], (mean, logvar, x, weight))
    return _together(grads, *options[12:])


FAKES = {name: globals()[f"_{name}"] for name in SCHEMAS}


def _body(name: str):
    """The reference's function, with its results laid out as the fake says."""
    compute, layout = getattr(reference, name), FAKES[name]

    def body(*args):
        check(name, args)
        values, outs = compute(*args), layout(*args)
        if isinstance(outs, Tensor):
            return outs.copy_(values)
        pairs = zip(outs, values, strict=True)
        return tuple(out if value is None else out.copy_(value) for out, value in pairs)

    return body


def _fake(name: str):
    """The results' layouts; as "meta" tensors' kernel it may meet operands of other devices."""

    def fake(*args):
        check_devices(name, args)
        return FAKES[name](*args)

    return fake


def overloads(namespace: str):
    """Every operator of a namespace, with its name and that of its function."""
    packet = getattr(torch.ops, namespace)
    for name in SCHEMAS:
        yield getattr(packet, name).default, name, name
        if name in DIFFERENTIABLE:
            yield getattr(packet, name).autograd, f"{name}.autograd", name


for _op, _qualified, _name in overloads("vae_fast"):
    _serve(_qualified, unpacked(_op, _body(_name)))
    torch.library.register_fake(f"vae_fast::{_qualified}", unpacked(_op, _fake(_name)), lib=library)

_normals = torch.ops.vae_fast.reference_normals.default
_serve("reference_normals", unpacked(_normals, lambda *args: noise.normals(*args).contiguous()))


def _fake_normals(sample_shape, shape, seed, seed_tensor, offset, first_sample, device):
    return torch.empty((*sample_shape, *shape), dtype=torch.float32, device=device)


torch.library.register_fake("vae_fast::reference_normals", unpacked(_normals, _fake_normals), lib=library)


@torch.library.register_vmap("vae_fast::reference_normals", lib=library)
def _(info, in_dims, *args):
    """One draw for each seed: only that can be batched."""
    place = 3
    seeds = args[place].movedim(in_dims[place], 0).unbind()
    return torch.stack([_normals(*args[:place], seed, *args[place + 1 :]) for seed in seeds]), 0


# ---- the gradients of the overload "autograd" ------------------------------------------------------------


def attach_gradients(namespace: str, lib: torch.library.Library) -> None:
    """Gives each overload "autograd" of a namespace the gradient that its operator's ``_bwd`` computes."""
    for name in DIFFERENTIABLE:
        _attach(getattr(torch.ops, namespace), f"{name.removesuffix('_fwd')}_bwd", name, lib)


def _attach(packet, bwd_name: str, name: str, lib) -> None:
    fwd, bwd = getattr(packet, name).autograd, getattr(packet, bwd_name).default
    names = [argument.name for argument in fwd._schema.arguments]
    bwd_names = [argument.name for argument in bwd._schema.arguments]
    # What a backward operator takes: upstream gradients, the forward's arguments, which gradients are needed.
    n_upstream = bwd_names.index(names[0])
    operands = [n.removeprefix("need_d") for n in bwd_names if n.startswith("need_d")]
    n_args = sum(not n.startswith("need_d") for n in names)

    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*(arg for arg in inputs[:n_args] if isinstance(arg, Tensor)))
        ctx.others = [None if isinstance(arg, Tensor) else (arg,) for arg in inputs[:n_args]]
        ctx.set_materialize_grads(n_upstream == 1)

    def backward(ctx, *upstream):
        saved = iter(ctx.saved_tensors)
        args = [next(saved) if other is None else other[0] for other in ctx.others]
        needs = [ctx.needs_input_grad[names.index(operand)] for operand in operands]
        compute = unpacked(bwd, getattr(reference, bwd_name)) if torch.is_grad_enabled() else bwd
        found = dict(zip(operands, compute(*upstream[:n_upstream], *args, *needs), strict=True))
        wanted = dict(zip(operands, needs, strict=True))
        return tuple(found[n] if wanted.get(n) else None for n in names)

    qualified = f"{fwd.namespace}::{name}.autograd"
    torch.library.register_autograd(qualified, backward, setup_context=setup_context, lib=lib)


attach_gradients("vae_fast", library)


def in_graphs(namespace: str) -> SimpleNamespace:
    """A namespace's operators by name as graphs hold them: with gradients, called with what a package can hold."""
    packet = getattr(torch.ops, namespace)
    kinds = {name: "autograd" if name in DIFFERENTIABLE else "default" for name in SCHEMAS}
    return SimpleNamespace(**{name: packable(getattr(getattr(packet, name), kind)) for name, kind in kinds.items()})


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
