"""What the raw operators demand of their arguments, before any kernel runs: each against the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vae_fast import results
from vae_fast.operators import BERNOULLI_PARAMS, MEAN_PARAMS, PARAMETER, SIGNATURES, Operand, Wanted

FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
TARGETS = (*FLOATS, torch.uint8, torch.bool)
COUNTS = (*TARGETS, torch.int16, torch.int32, torch.int64)
# Elements of a result: as many as bytes, of which there are eight an element at most, fit 63 bits.
_MOST = 2**60


def dtypes_of(operand: Operand) -> tuple[torch.dtype, ...]:
    """Those that an operand may be of."""
    return FLOATS if operand.role == PARAMETER else COUNTS if operand.counts else TARGETS


def countable(shape: Sequence[int], what: str) -> None:
    """Raises ValueError for a negative size, or more elements than can be counted; not for traced sizes."""
    # To a compiler, that shows traced sizes as numbers, the comparison would be a bound of them.
    if torch.compiler.is_compiling():
        return
    negative, numel = False, 1
    for n in shape:
        if type(n) is not int:
            return
        negative = negative or n < 0
        # An empty dim hides the others from the product, but not from strides.
        numel *= n or 1
    if negative or numel > _MOST:
        raise ValueError(
            f"{what} of shape {tuple(shape)} has a negative size, or more elements than 64 bits can count"
        )


def _dtype(name: str, tensor: Tensor | None, allowed: Sequence[torch.dtype] = FLOATS) -> None:
    if tensor is not None and (tensor.dtype not in allowed or tensor.layout != torch.strided):
        raise TypeError(f"{name} must be a dense tensor of a floating dtype, got {tensor.dtype} ({tensor.layout})")


def _device(anchor: Tensor, **others: Tensor | None) -> None:
    for name, t in others.items():
        if t is not None and t.device != anchor.device and (t.ndim or t.device.type != "cpu"):
            raise ValueError(f"{name} is on {t.device}, the first operand on {anchor.device}")


def _broadcast(*tensors: Tensor | None) -> tuple[int, ...]:
    """The shape that operands have together."""
    try:
        shape = tuple(torch.broadcast_shapes(*(t.shape for t in tensors if t is not None)))
    except RuntimeError:
        shapes = ", ".join(str(tuple(t.shape)) for t in tensors if t is not None)
        raise ValueError(f"the operands do not broadcast: {shapes}") from None
    countable(shape, "the operands together")
    return shape


def _like(name: str, tensor: Tensor | None, shape: Sequence[int]) -> None:
    """An upstream gradient: of the result's shape."""
    if tensor is not None and tuple(tensor.shape) != tuple(shape):
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}, and not {tuple(shape)} as the result has")


def _code(name: str, code: int, codes: dict[str, int]) -> None:
    if code not in codes.values():
        raise ValueError(f"{name} must be a code from 0 to {len(codes) - 1}, got {code}")


def _events(event_ndim: int, shape: Sequence[int]) -> None:
    if not 0 <= event_ndim <= len(shape):
        raise ValueError(f"event_ndim={event_ndim} does not fit a shape of {len(shape)} dims")


def _softmax(mean: Tensor, log_library: Tensor | None, shape: Sequence[int], options: Any) -> None:
    if options.param != MEAN_PARAMS["softmax"]:
        if log_library is not None:
            raise ValueError("log_library is for a mean by softmax")
        return
    if tuple(mean.shape) != tuple(shape):
        raise ValueError(
            f"mean of shape {tuple(mean.shape)} must have the shape of all operands together, {tuple(shape)}, "
            "for a softmax"
        )
    if options.event_ndim == 0:
        raise ValueError("a softmax needs an event: event_ndim is 0")


def _packed(operands: Sequence[Any], wanted: Wanted) -> None:
    """``packed`` is the tensor whose halves along a dim the first two are; its gradient is that of both."""
    packed, dim = wanted.packed, wanted.packed_dim
    if packed is None:
        return
    (first, second, *_), (need_first, need_second, *_) = operands, wanted.needs
    if not (need_first and need_second):
        raise ValueError("packed stands for both gradients, and one of them is not asked for")
    _dtype("packed", packed)
    fits = -packed.ndim <= dim < packed.ndim and packed.ndim == first.ndim
    whole = [n * 2 if d == dim % packed.ndim else n for d, n in enumerate(first.shape)] if fits else []
    same = first.shape == second.shape and first.dtype == second.dtype == packed.dtype
    if not fits or not same or list(packed.shape) != whole or packed.device != first.device:
        raise ValueError(
            f"packed, of shape {tuple(packed.shape)} and {packed.dtype}, must hold operands of shapes "
            f"{tuple(first.shape)} and {tuple(second.shape)} as its halves along dim {dim}"
        )


def _seed(seed_tensor: Tensor | None, device: torch.device) -> None:
    if seed_tensor is None:
        return
    if seed_tensor.dtype != torch.int64 or seed_tensor.numel() != 1:
        raise TypeError(f"seed_tensor must hold one int64, got {seed_tensor.dtype} of {tuple(seed_tensor.shape)}")
    if seed_tensor.device.type != device.type:
        raise ValueError(f"seed_tensor is on {seed_tensor.device}, the result on {device}")


def _prior(operands: Sequence[Tensor | None], shape: Sequence[int]) -> None:
    """A prior does not make a sample of another shape."""
    mu, logvar, *prior = operands
    if any(t is not None for t in prior) and _broadcast(mu, logvar) != tuple(shape):
        raise ValueError(f"the prior does not broadcast to the shape of mu and logvar, {_broadcast(mu, logvar)}")


def _noise(noise: Tensor | None, anchor: Tensor, shape: Sequence[int]) -> None:
    """ε itself: of the sample's shape."""
    if noise is None:
        return
    _dtype("noise", noise)
    _device(anchor, noise=noise)
    if tuple(noise.shape) != tuple(shape):
        raise ValueError(f"noise has shape {tuple(noise.shape)}, and not {tuple(shape)} as the sample has")


def _standard_normal(options: Any) -> None:
    countable((*options.sample_shape, *options.shape), "the result")
    _seed(options.seed_tensor, options.device)
    if options.dtype not in FLOATS:
        raise TypeError(f"dtype must be float32, bfloat16, float16 or float64, got {options.dtype}")


def check(name: str, args: Sequence[Any]) -> None:
    """Raises TypeError or ValueError where the arguments of the raw operator ``name`` do not go together."""
    signature = SIGNATURES[name]
    operator, n_upstream = signature.operator, len(signature.upstream)
    tensors, options, wanted = signature.split(tuple(args))
    upstream, operands = tensors[:n_upstream], tensors[n_upstream:]
    if not operands:
        _standard_normal(options)
        return
    anchor, *_ = operands
    named = {operand.name: tensor for operand, tensor in zip(operator.operands, operands, strict=True)}
    for operand in operator.operands:
        _dtype(operand.name, named[operand.name], dtypes_of(operand))
    _device(anchor, **named)
    for option in operator.options:
        if option.codes is not None:
            _code(option.name, getattr(options, option.name), option.codes)
    if named.get("pos_weight") is not None and options.param == BERNOULLI_PARAMS["probs"]:
        raise ValueError("pos_weight is for logits, not for probabilities")
    shape = _broadcast(*operands)
    if operator.sums:
        _events(options.event_ndim, shape)
    if "log_library" in named:
        _softmax(anchor, named["log_library"], shape, options)
    if not operator.density:
        _seed(options.seed_tensor, anchor.device)
        sample = (*options.sample_shape, *shape)
        countable(sample, "z")
        _noise(options.noise, anchor, sample)
        _prior(operands, shape)
    triples = zip(signature.upstream, upstream, results.shapes(operator, shape, options), strict=False)
    for grad_name, gradient, result in triples:
        _dtype(grad_name, gradient)
        _like(grad_name, gradient, result)
        _device(anchor, **{grad_name: gradient})
    for operand_name, need in zip(signature.needs, wanted.needs, strict=True):
        tensor = named[operand_name]
        if need and tensor is not None and tensor.dtype not in FLOATS:
            raise TypeError(f"{operand_name} of {tensor.dtype} has no gradient")
    _packed(operands, wanted)


def check_devices(name: str, args: Sequence[Any]) -> None:
    """Raises ValueError where operands are on several devices: all that can be checked without their sizes."""
    anchor = args[len(SIGNATURES[name].upstream)]
    if isinstance(anchor, Tensor):
        _device(anchor, **{f"argument {k}": arg for k, arg in enumerate(args) if isinstance(arg, Tensor)})
