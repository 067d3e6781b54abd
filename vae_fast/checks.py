"""What the raw operators demand of their arguments, before any kernel runs: each against the others."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from vae_fast.reference.bernoulli_log_prob import PARAMS
from vae_fast.reference.densities import NONE, REDUCTIONS
from vae_fast.scale import KINDS

FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
TARGETS = (*FLOATS, torch.uint8, torch.bool)
# Elements of a result: as many as bytes, of which there are eight an element at most, fit 63 bits.
_MOST = 2**60


def countable(shape: Sequence[int], what: str) -> None:
    """Raises ValueError for a negative size, or more elements than can be counted; not for traced sizes."""
    # To a compiler, that shows traced sizes as numbers, the comparison would be a bound of them.
    if torch.compiler.is_compiling() or not all(type(n) is int for n in shape):
        return
    # An empty dim hides the others from the product, but not from strides.
    if any(n < 0 for n in shape) or math.prod(max(n, 1) for n in shape) > _MOST:
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


def _events(event_ndim: int, shape: Sequence[int]) -> tuple[int, ...]:
    """The data dims."""
    if not 0 <= event_ndim <= len(shape):
        raise ValueError(f"event_ndim={event_ndim} does not fit a shape of {len(shape)} dims")
    return tuple(shape[: len(shape) - event_ndim])


def _packed(
    first: Tensor, second: Tensor, needs: Sequence[bool], packed: Tensor | None = None, dim: int = 0
) -> None:
    """``packed`` is the tensor whose halves along ``dim`` the two operands are; its gradient is that of both."""
    if packed is None:
        return
    if not all(needs):
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


def _result_of_density(
    upstream: tuple[str, Tensor] | None, event_ndim: int, reduction: int, anchor: Tensor, *others: Tensor | None
) -> None:
    data = _events(event_ndim, _broadcast(anchor, *others))
    _code("reduction", reduction, REDUCTIONS)
    if upstream is not None:
        name, gradient = upstream
        _dtype(name, gradient)
        _like(name, gradient, data if reduction == NONE else ())
        _device(anchor, **{name: gradient})


def bernoulli_log_prob(
    dlog_prob: Tensor | None, logits: Tensor, x: Tensor, weight: Tensor | None, event_ndim: int, reduction: int,
    scale: float, x_scale: float, param: int, *needs: bool,
) -> None:  # fmt: skip
    _dtype("logits", logits)
    _dtype("x", x, TARGETS)
    _dtype("weight", weight, TARGETS)
    _device(logits, x=x, weight=weight)
    _code("param", param, PARAMS)
    upstream = None if dlog_prob is None else ("dlog_prob", dlog_prob)
    _result_of_density(upstream, event_ndim, reduction, logits, x, weight)
    _differentiable(dict(zip(("x", "weight"), (x, weight), strict=True)), needs[1:])


def _differentiable(operands: dict[str, Tensor | None], needs: Sequence[bool]) -> None:
    for (name, operand), need in zip(operands.items(), needs, strict=False):
        if need and operand is not None and operand.dtype not in FLOATS:
            raise TypeError(f"{name} of {operand.dtype} has no gradient")


def gaussian_log_prob(
    dlog_prob: Tensor | None, mean: Tensor, logvar: Tensor, x: Tensor, weight: Tensor | None, event_ndim: int,
    reduction: int, scale: float, x_scale: float, param: int, param_eps: float, low: float, high: float,
    need_dmean: bool, need_dlogvar: bool, need_dx: bool, need_dweight: bool = False, *packed: Any,
) -> None:  # fmt: skip
    _dtype("mean", mean)
    _dtype("logvar", logvar)
    _dtype("x", x, TARGETS)
    _dtype("weight", weight, TARGETS)
    _device(mean, logvar=logvar, x=x, weight=weight)
    _code("param", param, KINDS)
    upstream = None if dlog_prob is None else ("dlog_prob", dlog_prob)
    _result_of_density(upstream, event_ndim, reduction, mean, logvar, x, weight)
    _differentiable({"x": x, "weight": weight}, (need_dx, need_dweight))
    _packed(mean, logvar, (need_dmean, need_dlogvar), *packed)


def gaussian_kl(
    dkl: Tensor | None, mu: Tensor, logvar: Tensor, prior_mu: Tensor | None, prior_logvar: Tensor | None,
    weight: Tensor | None, event_ndim: int, reduction: int, scale: float, free_bits: float | None, param: int,
    param_eps: float, low: float, high: float, need_dmu: bool, need_dlogvar: bool, need_dprior_mu: bool,
    need_dprior_logvar: bool, need_dweight: bool = False, *packed: Any,
) -> None:  # fmt: skip
    operands = {"mu": mu, "logvar": logvar, "prior_mu": prior_mu, "prior_logvar": prior_logvar}
    for name, operand in operands.items():
        _dtype(name, operand)
    _dtype("weight", weight, TARGETS)
    _device(mu, **operands, weight=weight)
    _code("param", param, KINDS)
    upstream = None if dkl is None else ("dkl", dkl)
    _result_of_density(upstream, event_ndim, reduction, mu, logvar, prior_mu, prior_logvar, weight)
    _differentiable({"weight": weight}, (need_dweight,))
    _packed(mu, logvar, (need_dmu, need_dlogvar), *packed)


def _moments(
    mu: Tensor, logvar: Tensor, sample_shape: Sequence[int], seed_tensor: Tensor | None, param: int
) -> tuple[int, ...]:
    """The shape of mu and logvar together."""
    _dtype("mu", mu)
    _dtype("logvar", logvar)
    _device(mu, logvar=logvar)
    _code("param", param, KINDS)
    _seed(seed_tensor, mu.device)
    shape = _broadcast(mu, logvar)
    countable((*sample_shape, *shape), "z")
    return shape


def _seed(seed_tensor: Tensor | None, device: torch.device) -> None:
    if seed_tensor is None:
        return
    if seed_tensor.dtype != torch.int64 or seed_tensor.numel() != 1:
        raise TypeError(f"seed_tensor must hold one int64, got {seed_tensor.dtype} of {tuple(seed_tensor.shape)}")
    if seed_tensor.device.type != device.type:
        raise ValueError(f"seed_tensor is on {seed_tensor.device}, the result on {device}")


def rsample(
    dz: Tensor | None, mu: Tensor, logvar: Tensor, sample_shape: Sequence[int], seed: int,
    seed_tensor: Tensor | None, offset: int, first_sample: int, param: int, param_eps: float, low: float,
    high: float, need_dmu: bool = False, need_dlogvar: bool = False, *packed: Any,
) -> None:  # fmt: skip
    shape = _moments(mu, logvar, sample_shape, seed_tensor, param)
    _dtype("dz", dz)
    _like("dz", dz, (*sample_shape, *shape))
    _device(mu, dz=dz)
    _packed(mu, logvar, (need_dmu, need_dlogvar), *packed)


def rsample_kl(
    dz: Tensor | None, dkl: Tensor | None, mu: Tensor, logvar: Tensor, sample_shape: Sequence[int], seed: int,
    seed_tensor: Tensor | None, offset: int, first_sample: int, event_ndim: int, free_bits: float | None,
    param: int, param_eps: float, low: float, high: float, need_dmu: bool = False, need_dlogvar: bool = False,
    *packed: Any,
) -> None:  # fmt: skip
    shape = _moments(mu, logvar, sample_shape, seed_tensor, param)
    for name, gradient, wanted in (("dz", dz, (*sample_shape, *shape)), ("dkl", dkl, _events(event_ndim, shape))):
        _dtype(name, gradient)
        _like(name, gradient, wanted)
        _device(mu, **{name: gradient})
    _packed(mu, logvar, (need_dmu, need_dlogvar), *packed)


def standard_normal(
    sample_shape: Sequence[int], shape: Sequence[int], seed: int, seed_tensor: Tensor | None, offset: int,
    first_sample: int, dtype: torch.dtype, device: torch.device,
) -> None:  # fmt: skip
    countable((*sample_shape, *shape), "the result")
    _seed(seed_tensor, device)
    if dtype not in FLOATS:
        raise TypeError(f"dtype must be float32, bfloat16, float16 or float64, got {dtype}")


_CHECKS: dict[str, Callable[..., None]] = {
    "bernoulli_log_prob_fwd": lambda *args: bernoulli_log_prob(None, *args),
    "bernoulli_log_prob_bwd": bernoulli_log_prob,
    "gaussian_log_prob_fwd": lambda *args: gaussian_log_prob(None, *args),
    "gaussian_log_prob_bwd": gaussian_log_prob,
    "gaussian_kl_fwd": lambda *args: gaussian_kl(None, *args),
    "gaussian_kl_bwd": gaussian_kl,
    "rsample_fwd": lambda *args: rsample(None, *args),
    "rsample_bwd": rsample,
    "rsample_kl_fwd": lambda *args: rsample_kl(None, None, *args),
    "rsample_kl_bwd": rsample_kl,
    "standard_normal_fwd": standard_normal,
}


def check(name: str, args: Sequence[Any]) -> None:
    """Raises TypeError or ValueError where the arguments of the raw operator ``name`` do not go together."""
    _CHECKS[name](*args)


def check_devices(name: str, args: Sequence[Any]) -> None:
    """Raises ValueError where operands are on several devices: all that can be checked without their sizes."""
    anchor = args[2 if name == "rsample_kl_bwd" else 1 if name.endswith("_bwd") else 0]
    if isinstance(anchor, Tensor):
        _device(anchor, **{f"argument {k}": arg for k, arg in enumerate(args) if isinstance(arg, Tensor)})
