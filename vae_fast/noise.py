"""The noise ε: Philox4x32-10 counters turned into standard normals, in plain PyTorch.

This file is the definition. Every backend gives these bits, on every device, for every launch shape and
thread count. ε is a pure function of (seed, sample, index):

    key     = seed, 64 bits, low word first
    counter = (index >> 2, sample), 64 bits each, low words first
    lane    = index & 3
    words (x, y), as signed 32-bit numbers, make two lanes: (x0, x1) lanes 0 and 1, (x2, x3) lanes 2 and 3:
        q = (x + ½) 2⁻³²,  u = q where q > 0, else 1 + q,  r = sqrt(−2 ln u)
        θ = π (y + ½) 2⁻³²,  ±(r cos θ, r sin θ), minus where the last bit of y is 1

u is uniform on (0, 1), and keeps its relative accuracy at both ends: below 0, q is u − 1. θ is uniform on half a
turn, and the sign says which half.

Everything after the integers is float32 with +, −, ×, √ and fma (a·b + c rounded once), each correctly rounded, in
the order written here. No intermediate is subnormal, so flush-to-zero modes change nothing. The result is within
3.5e-7 · max(1, r) of the exact value, and |ε| ≤ 6.7638.

Source of the generator: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).
Source of the transform: Box and Muller, "A note on the generation of random normal deviates" (1958).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_WORD = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10

# Counters worked on at a time: their int64 temporaries (half a MiB each) stay in a core's cache.
_BLOCK = 1 << 16

_TWO_LN2 = 1.3862943649291992

# On [−½, 0]: −2 ln(1 + t)/t, to 2.5e-8 of the value, where 2.3e-8 is the least (tools/coefficients.py).
_LOG = (
    -2.0,
    0.99999022483825684,
    -0.66727113723754883,
    0.48728305101394653,
    -0.52785891294479370,
    -0.36338910460472107,
    -2.4199140071868896,
    -3.2812252044677734,
    -2.8297011852264404,
)
# On a quarter of a turn either way, w in half turns, u = w²: sin πw = w S(u), to 2.8e-8 of the value, which is what
# float32's π is off by; and cos πw = C(u), to 6e-8, where 4.7e-8 is the least.
_SIN = (3.1415927410125732, -5.1677150726318359, 2.5501449108123779, -0.59863293170928955, 0.078240960836410522)
_COS = (0.99999994039535522, -4.9347920417785645, 4.0583992004394531, -1.3318091630935669, 0.21956668794155121)


def philox4x32(counter: Sequence[Tensor], seed: int | Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Philox4x32-10 of four counter words (int64 tensors holding 32-bit values) under a 64-bit key."""
    c0, c1, c2, c3 = counter
    k0, k1 = seed & _WORD, (seed >> 32) & _WORD
    for _ in range(_ROUNDS):
        # The 64-bit product wraps in int64 with the right bits; the mask undoes the shift's sign extension.
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (p1 >> 32 & _WORD) ^ c1 ^ k0, p1 & _WORD, (p0 >> 32 & _WORD) ^ c3 ^ k1, p0 & _WORD
        k0, k1 = (k0 + _WEYL[0]) & _WORD, (k1 + _WEYL[1]) & _WORD
    return c0, c1, c2, c3


def _fma(a: Tensor, b: Tensor | float, c: Tensor | float) -> Tensor:
    """a·b + c of float32 numbers, in float64 and then rounded: a product of theirs is exact there.

    The sum is rounded twice, which is not fma in general. For every input that occurs here it is: all 2³² words of
    either kind have been tried (``make test-large``), and are to be again whenever a coefficient changes.
    """
    return (a.double() * b + c).float()


def _horner(coefficients: Sequence[float], x: Tensor) -> Tensor:
    """Σ c[k]·xᵏ, x in float64 and a float32 number."""
    value = (x * coefficients[-1]).add_(coefficients[-2]).float()
    for c in reversed(coefficients[:-2]):
        value = value.double().mul_(x).add_(c).float()
    return value


def _signed_unit(x: Tensor) -> Tensor:
    """(x + ½) 2⁻³² of a 32-bit word x held in int64, taken as a number with a sign: in (−½, ½)."""
    return _fma((x - (x >> 31 << 32)).float(), 2.0**-32, 2.0**-33)


def radius(x: Tensor) -> Tensor:
    """r of 32-bit words x held in int64, in float32."""
    q = _signed_unit(x)
    lower = q >= 0
    # ln u = k ln 2 + ln(1 + t): of u in (0, ½) by its exponent and mantissa; from ½ on k = 0 and t = u − 1.
    mantissa, k = torch.frexp(q)
    t = torch.where(lower, mantissa - 1.0, q)
    square = t * _horner(_LOG, t.double())
    square = torch.where(lower, _fma(k.float(), -_TWO_LN2, square), square)
    # torch.sqrt of float32 is not correctly rounded everywhere. float64's may be a unit off in its last place too,
    # but the root of a float32 is at least four such units from where its rounding to float32 changes.
    return square.double().sqrt().float()


def cos_sin(y: Tensor) -> tuple[Tensor, Tensor]:
    """cos θ and sin θ of 32-bit words y held in int64, in float32."""
    w = _signed_unit(y)
    u = (w * w).double()
    return _horner(_COS, u), w * _horner(_SIN, u)


def _normals(counter: Sequence[Tensor], seed: int | Tensor) -> Tensor:
    """The four lanes of each counter, in a new last dim of size 4."""
    x0, x1, x2, x3 = philox4x32(counter, seed)
    lanes = []
    for x, y in ((x0, x1), (x2, x3)):
        r = radius(x)
        r = torch.where(y & 1 == 1, -r, r)
        cos, sin = cos_sin(y)
        lanes += [r * cos, r * sin]
    return torch.stack(lanes, -1)


def normals(
    sample_shape: Sequence[int],
    shape: Sequence[int],
    seed: int,
    seed_tensor: Tensor | None,
    offset: int,
    first_sample: int,
    device: torch.device | str,
) -> Tensor:
    """ε in float32, of shape sample_shape + shape.

    index = position in ``shape`` (C order) + ``offset``; sample = position in ``sample_shape`` (C order) +
    ``first_sample``; both modulo 2⁶⁴. ``seed_tensor`` (one int64 element), where given, replaces ``seed``. For
    a device without float64 (MPS) they are drawn on the CPU.
    """
    if torch.device(device).type == "mps":
        # Which has no float64.
        on_cpu = seed_tensor if seed_tensor is None else seed_tensor.cpu()
        return normals(sample_shape, shape, seed, on_cpu, offset, first_sample, "cpu").to(device)
    n, n_samples = math.prod(shape), math.prod(sample_shape)
    if n == 0 or n_samples == 0:
        return torch.empty((*sample_shape, *shape), dtype=torch.float32, device=device)
    key = seed if seed_tensor is None else seed_tensor.reshape(())
    lane = offset & 3
    first = (offset & 0xFFFFFFFFFFFFFFFF) >> 2
    n_counters = (lane + n + 3) >> 2
    # Python integers modulo 2⁶⁴, as the int64 with the same bits.
    start = (first_sample + 2**63) % 2**64 - 2**63
    per_block = max(1, _BLOCK // n_counters)
    parts = []
    for s in range(0, n_samples, per_block):
        sample = torch.arange(s, min(s + per_block, n_samples), device=device).unsqueeze(1) + start
        c2, c3 = sample & _WORD, sample >> 32 & _WORD
        for i in range(0, n_counters, _BLOCK):
            index = torch.arange(i, min(i + _BLOCK, n_counters), device=device) + first
            # A counter's high word has 30 bits: index >> 2 of a 64-bit index.
            c0, c1 = index & _WORD, index >> 32 & 0x3FFFFFFF
            parts.append(_normals((c0, c1, c2, c3), key).flatten(-3))
    flat = parts[0] if len(parts) == 1 else torch.cat(parts)
    return flat.reshape(n_samples, 4 * n_counters)[:, lane : lane + n].reshape((*sample_shape, *shape))
