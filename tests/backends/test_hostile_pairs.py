"""Raw operators on pairs refuse what does not fit before any kernel runs, and read operands of any strides."""

import os
import random

import pytest
import torch
from torch.testing import assert_close

from helpers.marks import needs_native
from vae_fast import reference
from vae_fast.operators import PAIRWISE_SCHEMAS

COUNT = int(os.environ.get("VAE_FAST_HOSTILE_CALLS", "2000")) // 5
pytestmark = [pytest.mark.usefixtures("one_thread"), needs_native]


def strided(rng, shape, dtype):
    """Numbers of a shape, contiguous, transposed, every second one, or one for all."""
    made = torch.randn(shape, dtype=torch.float64).to(dtype)
    kind = rng.randrange(4)
    if kind == 1 and len(shape) > 1:
        return made.mT.contiguous().mT
    if kind == 2 and shape:
        return torch.stack((made, made), -1)[..., 0]
    return made[..., :1].expand(shape) if kind == 3 and shape and shape[-1] else made


def sound(rng, name):
    """A call's arguments by name."""
    dtype = rng.choice((torch.float32, torch.float64))
    n, k, d = rng.choice((0, 1, 5, 19)), rng.choice((1, 4, 18, 40)), rng.choice((1, 3, 17))
    if name == "mmd_fwd":
        exponential = rng.random() < 0.5
        constants = [rng.random() + 0.1 for _ in range(1 if exponential else rng.choice((1, 7, 18)))]
        args = {"x": strided(rng, (n + 2, d), dtype), "y": strided(rng, (k + 2, d), dtype), "constants": constants}
        flags = ("unbiased", "need_dx", "need_dy")
        return args | {"exponential": exponential} | {flag: rng.random() < 0.6 for flag in flags}
    if name == "logistic_mixture_log_prob_fwd":
        return sound_logistics(rng, dtype, (rng.choice((0, 1, 3)), n), d if d < 9 else 4, k)
    of = rng.choice(((k, d), (n, k, d)))
    weights = (n, k) if len(of) == 3 else rng.choice(((k,), (n, k)))
    args = {"z": (n, d), "mu": of, "rate": of, "log_rate": of, "log_weight": weights}
    args = {name: strided(rng, shape, dtype) for name, shape in args.items()}
    args["rate"] = args["rate"].abs() + 0.5
    if name.endswith("_fwd"):
        return args | {"per_dim": rng.random() < 0.5}
    joint, marginals = reference.KERNELS.gaussian_mixture_log_prob_fwd(*args.values(), True)
    upstream = {
        "dlog_prob": rng.choice((None, strided(rng, (n,), dtype))),
        "dmarginals": rng.choice((None, strided(rng, (n, d), dtype))),
    }
    needs = {f"need_{name}": rng.random() < 0.7 for name in args}
    return upstream | args | {"log_prob": joint, "marginals": marginals} | needs


def sound_logistics(rng, dtype, data, channels, components):
    pairs = channels * (channels - 1) // 2
    shapes = {
        "logits": (*data, components),
        "mean": (*data, channels, components),
        "log_scale": (*data, channels, components),
        "coefficients": (*data, pairs, components),
        "x": (*data, channels),
        "dlog_prob": data,
    }
    args = {name: strided(rng, shape, dtype) for name, shape in shapes.items()}
    needs = {f"need_d{name}": rng.random() < 0.6 for name in ("logits", "mean", "log_scale", "coefficients")}
    if rng.random() < 0.3:
        args["coefficients"], needs["need_dcoefficients"] = None, False
    if rng.random() < 0.3:
        args["dlog_prob"] = None
    bins = {"half_width": 0.1, "min_log_scale": -1.0, "low": -0.9, "high": 0.9, "density_below": 0.01}
    return args | bins | needs


def spoilt(rng, args):
    """The arguments with one tensor that does not fit: another size, dim, dtype, or no memory."""
    present = [name for name, value in args.items() if isinstance(value, torch.Tensor)]
    # What is read only where its gradient is there.
    unread = {"log_prob": "dlog_prob", "marginals": "dmarginals"}
    name = rng.choice([name for name in present if name not in unread or args[unread[name]] is not None])
    value = args[name]
    kinds = [
        lambda: torch.cat(
            (value, value[..., :1] if value.shape[-1] else value.new_zeros(*value.shape[:-1], 1)), -1
        ),
        lambda: value.reshape(*value.shape, 1, 1),
        lambda: value.to(torch.float64 if value.dtype == torch.float32 else torch.float32),
        lambda: value.half(),
        lambda: value.to(torch.int64),
        lambda: value.to("meta"),
        lambda: freed(value),
    ]
    return args | {name: rng.choice(kinds)()}


def freed(value):
    if not value.numel():
        return value.reshape(*value.shape, 1)
    copy = value.clone(memory_format=torch.contiguous_format)
    copy.untyped_storage().resize_(0)
    return copy


@pytest.mark.parametrize("name", PAIRWISE_SCHEMAS)
def test_sound_calls_are_the_reference_s(name):
    rng = random.Random(11)
    operator, truth = getattr(torch.ops.vae_fast, name).default, getattr(reference.KERNELS, name)
    for _ in range(COUNT):
        args = sound(rng, name)
        for got, want in zip(operator(*args.values()), truth(*args.values()), strict=True):
            close = 1e-3 if got.dtype == torch.float32 else 1e-9
            assert_close(got, want, rtol=close, atol=close, msg=lambda text, args=args: f"{text}\n{args}")


@pytest.mark.parametrize("name", PAIRWISE_SCHEMAS)
def test_what_does_not_fit_is_refused(name):
    rng = random.Random(12)
    operator = getattr(torch.ops.vae_fast, name).default
    for _ in range(COUNT):
        args = spoilt(rng, sound(rng, name))
        try:
            operator(*args.values())
        except (RuntimeError, ValueError, TypeError, NotImplementedError):
            continue
        shapes = {k: (v.dtype, tuple(v.shape)) for k, v in args.items() if isinstance(v, torch.Tensor)}
        raise AssertionError(f"{name} takes {shapes}")
