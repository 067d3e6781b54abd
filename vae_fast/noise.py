"""The noise ε: Philox4x32-10 counters turned into standard normals, in plain PyTorch.

This file is the definition. Every backend gives these bits, on every device, for every launch shape and
thread count. ε is a pure function of (seed, sample, index):

    key     = seed, 64 bits, low word first
    counter = (index >> 2, sample), 64 bits each, low words first
    lane    = index & 3
    words (x0, x1) make lanes 0 and 1, words (x2, x3) make lanes 2 and 3:
        r = sqrt(-2 ln((x0 + 1/2) 2^-32)),  a = 2π (x1 + 1/2) 2^-32,  (r cos a, r sin a)

Everything after the integers is float32 with +, −, × and sqrt, each correctly rounded, in the order written
here and without fused multiply-add. No intermediate is subnormal, so flush-to-zero modes change nothing.
The result is within 4e-7 · max(1, r) of the exact value, and |ε| ≤ 6.7637.

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
_SQRT_HALF = 0.7071067690849304

# Minimax on [√½ − 1, √2 − 1]: −2 ln(1 + t) = t (−2 + t (1 + t P(t))), to 3.2e-8 of the value.
_LOG = (
    -0.6666781902313232,
    0.5000267028808594,
    -0.399262011051178,
    0.33155304193496704,
    -0.2982901632785797,
    0.2853386402130127,
    -0.17400802671909332,
)
# Minimax on an eighth of a turn either way, w in turns, u = w²: sin 2πw = w S(u), to 3.1e-9 of the value,
# and cos 2πw = 1 + u C(u), to 3.3e-8.
_SIN = (6.2831854820251465, -41.34186935424805, 81.62667083740234, -76.82975769042969)
_COS = (-19.739168167114258, 64.92339324951172, -83.67292785644531)


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


def _horner(coefficients: Sequence[float], t: Tensor) -> Tensor:
    value = t * coefficients[-1] + coefficients[-2]
    for c in reversed(coefficients[:-2]):
        value = value * t + c
    return value


def radius(x: Tensor) -> Tensor:
    """sqrt(−2 ln((x + ½) 2⁻³²)) in float32, for 32-bit words x held in int64."""
    upper = x >> 31 == 1
    # From the nearer end of (0, 1): q keeps its relative accuracy where the fraction is near 0 and near 1.
    q = (torch.where(upper, _WORD - x, x).to(torch.float32) + 0.5) * 2.0**-32
    fraction = torch.where(upper, 1.0 - q, q)
    # fraction = mantissa·2^exponent, the mantissa between √½ and √2.
    mantissa, exponent = torch.frexp(fraction)
    below = mantissa < _SQRT_HALF
    mantissa, exponent = (
        torch.where(below, mantissa + mantissa, mantissa),
        torch.where(below, exponent - 1, exponent),
    )
    t = torch.where(exponent == 0, -q, mantissa - 1.0)
    tail = _horner(_LOG, t)
    minus_two_log = (-exponent).to(torch.float32) * _TWO_LN2 + t * (t * (t * tail + 1.0) - 2.0)
    # torch.sqrt of float32 is not correctly rounded everywhere. float64's may be a unit off in its last place too,
    # but the root of a float32 is at least four such units from where its rounding to float32 changes.
    return minus_two_log.to(torch.float64).sqrt().to(torch.float32)


def cos_sin(x: Tensor) -> tuple[Tensor, Tensor]:
    """cos and sin of 2π (x + ½) 2⁻³² in float32, for 32-bit words x held in int64."""
    shifted = (x + (1 << 29)) & _WORD
    quarter = shifted >> 30
    w = (((shifted & 0x3FFFFFFF) - (1 << 29)).to(torch.float32) + 0.5) * 2.0**-32
    u = w * w
    sin = w * _horner(_SIN, u)
    cos = u * _horner(_COS, u) + 1.0
    odd = quarter & 1 == 1
    c, s = torch.where(odd, sin, cos), torch.where(odd, cos, sin)
    return torch.where((quarter + 1) & 2 == 2, -c, c), torch.where(quarter & 2 == 2, -s, s)


def _normals(counter: Sequence[Tensor], seed: int | Tensor) -> Tensor:
    """The four lanes of each counter, in a new last dim of size 4."""
    x0, x1, x2, x3 = philox4x32(counter, seed)
    lanes = []
    for u, v in ((x0, x1), (x2, x3)):
        r = radius(u)
        c, s = cos_sin(v)
        lanes += [r * c, r * s]
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
    ``first_sample``; both modulo 2⁶⁴. ``seed_tensor`` (one int64 element), where given, replaces ``seed``.
    """
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
