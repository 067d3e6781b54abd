"""What the count densities share: logarithms and sums that keep their digits for every θ, ∞ too (csrc/counts.h)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from vae_fast import tracing

# Factors that are taken one by one; Stirling's series is of arguments from here on.
_FACTORS = 8
# B₂ₖ/(2k(2k − 1)) of log Γ's series in 1/z.
_STIRLING = (
    *(1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188),
    *(-691 / 360360, 1 / 156, -3617 / 122400, 43867 / 244188, -174611 / 125400),
)


def dense(x: Tensor) -> Tensor:
    """For operations of PyTorch's that know no CSR matrix; to what traces, x is no such thing."""
    return x if tracing.traced() or x.layout is not torch.sparse_csr else x.to_dense()


def polynomial(x: Tensor, coefficients: list[float]) -> Tensor:
    result = torch.full_like(x, coefficients[-1])
    for c in reversed(coefficients[:-1]):
        result = result * x + c
    return result


class Growth(NamedTuple):
    """log(1 + r), how much more it is than r/(1 + r), and that."""

    log: Tensor
    excess: Tensor
    share: Tensor


def growth(r: Tensor) -> Growth:
    """For r ≥ 0 up to ∞, by log(1 + r) = 2·artanh(t), t = r/(2 + r), where r is small."""
    small = r <= 3.0
    near, far = torch.where(small, r, 0.0), torch.where(small, 3.0, r)
    t, inverse = near / (near + 2.0), 1.0 / (r + 1.0)
    # 2t³(1/3 + t²/5 + …) up to t = 0.6: the first term that is left out is below a tenth of a unit.
    terms = [2.0 / k for k in range(3, 73 if r.dtype == torch.float64 else 33, 2)]
    cubic = t * t * t * polynomial(t * t, terms)
    share = torch.where(small, near / (near + 1.0), 1.0 - inverse)
    log = torch.where(small, torch.log1p(near), torch.log1p(far))
    return Growth(log, torch.where(small, t * near / (near + 1.0) + cubic, log - share), share)


class Rising(NamedTuple):
    """Σ_{k<x} log(1 + k/θ) − log x!, and Σ_{k<x} k/(θ(θ + k)), minus the derivative of the first by θ."""

    value: Tensor
    slope: Tensor


def _stirling(z: Tensor) -> tuple[Tensor, Tensor]:
    """What Stirling's formula lacks of log Γ(z), and minus its derivative, for z ≥ 8."""
    terms = [*_STIRLING] if z.dtype == torch.float64 else [*_STIRLING[:4]]
    inverse = 1.0 / z
    slopes = [(2 * k + 1) * c for k, c in enumerate(terms)]
    square = inverse * inverse
    return inverse * polynomial(square, terms), square * polynomial(square, slopes)


def _stirling_rising(more: Tensor, start: Tensor) -> Rising:
    """log Γ(start + more) − log Γ(start) − more·log start, and minus its derivative by start, for start ≥ 8."""
    end, q = start + more, more / start
    log, excess, share = growth(q)
    (a, da), (b, db) = _stirling(start), _stirling(end)
    whole = torch.where(torch.isinf(end), 0.0, torch.where(torch.isinf(end), 1.0, end) * excess)
    return Rising((whole - 0.5 * log) - (a - b), ((q * share - excess) - 0.5 * (q / end)) - (da - db))


def _stirling_factorial(x: Tensor) -> Tensor:
    """log x! for x ≥ 8."""
    log = torch.log(x)
    return x * (log - 1.0) + (0.5 * log + (_stirling(x)[0] + 0.5 * math.log(2 * math.pi)))


def rising(x: Tensor, theta: Tensor) -> Rising:
    """Of counts x, and of numbers above −1, for θ > 0."""
    inverse = 1.0 / theta
    large, beyond = theta >= 1.0, x > _FACTORS
    whole = (x == torch.floor(x)) & (x >= 0)
    count = torch.where(whole | beyond, x, 0.0)
    a, b = torch.where(large, 1.0, theta), torch.where(large, inverse, 1.0)
    product, factorial = torch.ones_like(a * count), torch.ones_like(count)
    total = torch.zeros_like(product)
    for k in range(1, _FACTORS):
        inside = count > k
        factor = torch.where(inside, a + k * b, 1.0)
        total = total * factor + torch.where(inside, k * product, 0.0)
        product = product * factor
        factorial = torch.where(inside, factorial * (k + 1), factorial)
    n = torch.clamp(count - 1.0, 0.0, _FACTORS - 1.0)
    log_theta = torch.log(torch.where(large, 1.0, theta))
    value = torch.log(product) - torch.where(beyond, 0.0, torch.log(factorial)) - n * log_theta
    slope = total / product * inverse * torch.where(large, inverse, 1.0)
    # What is more than these factors; and of fractions all.
    more = torch.where(beyond, x - _FACTORS, torch.where(whole, 1.0, x))
    rest, start = _stirling_rising(more, theta + _FACTORS), theta + _FACTORS
    steps = more * growth(_FACTORS * inverse).log + rest.value
    more_slope = more * _FACTORS * inverse / start + rest.slope
    large_x = torch.where(beyond, x, _FACTORS + 1.0)
    value = torch.where(beyond, value + (steps - _stirling_factorial(large_x)), value)
    slope = torch.where(beyond, slope + more_slope, slope)
    fraction = ~whole & ~beyond
    between = torch.where(fraction, x, 0.5)
    steps = steps - _stirling_factorial(between + _FACTORS)
    for k in range(_FACTORS):
        factor = theta + k
        steps = steps - torch.log1p(between / factor) + torch.log(between + (k + 1))
        more_slope = more_slope - between / factor / (factor + between)
    return Rising(torch.where(fraction, steps, value), torch.where(fraction, more_slope, slope))


def many_times(x: Tensor, theta: Tensor, m: Tensor) -> Rising:
    """Of x > 8 and θ ≤ x/8: log Γ(x + θ) − log x! − log Γ(θ) − x·log(1 + θ/m), and its derivative by θ.

    There the other form's parts are far larger than what they add up to.
    """
    after, end, start = x + 1.0, x + theta, theta + _FACTORS
    (a, da), (_, db) = _stirling(start), _stirling(end)
    gamma = (start - 0.5) * torch.log(start) + ((0.5 * math.log(2 * math.pi) - start) + a)
    inverses = torch.zeros_like(theta)
    for k in range(_FACTORS):
        gamma = gamma - torch.log(theta + k)
        inverses = inverses + 1.0 / (theta + k)
    more = theta - 1.0
    ratio = more * torch.log(after) + _stirling_rising(more, after).value
    value = (ratio - gamma) - x * growth(theta / m).log
    psi = growth((x - _FACTORS) / start).log + ((0.5 / start - 0.5 / end) + (da - db))
    return Rising(value, (inverses + psi) - x / (theta + m))


def log_factorial(x: Tensor) -> Tensor:
    """log x!, of numbers above −1 log Γ(x + 1)."""
    beyond = x > _FACTORS
    factorial = torch.ones_like(x)
    for k in range(2, _FACTORS + 1):
        factorial = torch.where(x >= k, factorial * k, factorial)
    few = torch.where(x == torch.floor(x), torch.log(factorial), torch.lgamma(x + 1.0))
    return torch.where(beyond, _stirling_factorial(torch.where(beyond, x, _FACTORS + 1.0)), few)
