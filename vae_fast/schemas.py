"""The raw operators torch.ops.vae_fast.<op>_fwd and <op>_bwd: schemas, shapes, and the body that always serves.

A raw operator is a pure function without autograd. Its tensor arguments broadcast against each other; the
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

import torch
from torch import Tensor

from vae_fast import noise, reference
from vae_fast.checks import check, check_devices
from vae_fast.reference.densities import NONE, broadcast_shape, compute_dtype, promoted_dtype

_NOISE = "SymInt seed, Tensor? seed_tensor, SymInt offset, SymInt first_sample"
_SCALE = "int param, float param_eps, float low, float high"
_DENSITY = "int event_ndim, int reduction, float scale"
_MOMENTS = "Tensor mu, Tensor logvar, SymInt[] sample_shape"
_KL = "Tensor mu, Tensor logvar, Tensor? prior_mu, Tensor? prior_logvar, Tensor? weight"
_KL_NEEDS = "bool need_dmu, bool need_dlogvar, bool need_dprior_mu, bool need_dprior_logvar"
_KL_GRADS = "Tensor dmu, Tensor dlogvar, Tensor dprior_mu, Tensor dprior_logvar"
_BERNOULLI = f"Tensor logits, Tensor x, Tensor? weight, {_DENSITY}, float x_scale, int param"
_GAUSSIAN = f"Tensor mean, Tensor logvar, Tensor x, Tensor? weight, {_DENSITY}, float x_scale, {_SCALE}"
_GAUSSIAN_NEEDS = "bool need_dmean, bool need_dlogvar, bool need_dx"
_PACKED = "Tensor? packed=None, int packed_dim=0"

SCHEMAS = {
    "standard_normal_fwd": (
        f"(SymInt[] sample_shape, SymInt[] shape, {_NOISE}, ScalarType dtype, Device device) -> Tensor"
    ),
    "rsample_fwd": f"({_MOMENTS}, {_NOISE}, {_SCALE}) -> Tensor",
    "rsample_bwd": (
        f"(Tensor dz, {_MOMENTS}, {_NOISE}, {_SCALE}, bool need_dmu, bool need_dlogvar, {_PACKED})"
        " -> (Tensor dmu, Tensor dlogvar)"
    ),
    "rsample_kl_fwd": (
        f"({_MOMENTS}, {_NOISE}, int event_ndim, float? free_bits, {_SCALE}) -> (Tensor z, Tensor kl)"
    ),
    "rsample_kl_bwd": (
        f"(Tensor? dz, Tensor? dkl, {_MOMENTS}, {_NOISE}, int event_ndim, float? free_bits, {_SCALE},"
        f" bool need_dmu, bool need_dlogvar, {_PACKED}) -> (Tensor dmu, Tensor dlogvar)"
    ),
    "gaussian_kl_fwd": (
        f"({_KL}, {_DENSITY}, float? free_bits, {_SCALE}, {_KL_NEEDS}) -> (Tensor kl, {_KL_GRADS})"
    ),
    "gaussian_kl_bwd": (
        f"(Tensor dkl, {_KL}, {_DENSITY}, float? free_bits, {_SCALE}, {_KL_NEEDS}, bool need_dweight, {_PACKED})"
        f" -> ({_KL_GRADS}, Tensor dweight)"
    ),
    "bernoulli_log_prob_fwd": (
        f"({_BERNOULLI}, bool need_dlogits, bool need_dx) -> (Tensor log_prob, Tensor dlogits, Tensor dx)"
    ),
    "bernoulli_log_prob_bwd": (
        f"(Tensor dlog_prob, {_BERNOULLI}, bool need_dlogits, bool need_dx, bool need_dweight)"
        " -> (Tensor dlogits, Tensor dx, Tensor dweight)"
    ),
    "gaussian_log_prob_fwd": (
        f"({_GAUSSIAN}, {_GAUSSIAN_NEEDS}) -> (Tensor log_prob, Tensor dmean, Tensor dlogvar, Tensor dx)"
    ),
    "gaussian_log_prob_bwd": (
        f"(Tensor dlog_prob, {_GAUSSIAN}, {_GAUSSIAN_NEEDS}, bool need_dweight, {_PACKED})"
        " -> (Tensor dmean, Tensor dlogvar, Tensor dx, Tensor dweight)"
    ),
}

library = torch.library.Library("vae_fast", "DEF")
for _name, _schema in SCHEMAS.items():
    library.define(_name + _schema, tags=(torch.Tag.pt2_compliant_tag,))

# The reference's noise as one operator of its own, so that it stays the reference's when a backend serves
# standard_normal_fwd.
library.define(
    f"reference_normals(SymInt[] sample_shape, SymInt[] shape, {_NOISE}, Device device) -> Tensor",
    tags=(torch.Tag.pt2_compliant_tag,),
)
library.impl("reference_normals", lambda *args: noise.normals(*args).contiguous(), "CompositeExplicitAutograd")


@torch.library.register_fake("vae_fast::reference_normals", lib=library)
def _(sample_shape, shape, seed, seed_tensor, offset, first_sample, device):
    return torch.empty((*sample_shape, *shape), dtype=torch.float32, device=device)


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
    if tuple(mu.shape) == shape:
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


for _name in FAKES:
    library.impl(_name, _body(_name), "CompositeExplicitAutograd")
    torch.library.register_fake(f"vae_fast::{_name}", _fake(_name), lib=library)


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
