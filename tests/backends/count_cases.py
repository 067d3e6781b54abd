"""The formulas of csrc/counts.h, for test_count_formulas.py: arguments, and truths in 50 digits and more."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from helpers.accuracy import mp

# For differences of log Γ.
far_mp = mp.clone()
far_mp.dps = 110


class Case(NamedTuple):
    """Arguments of a formula, and its results' truths, each with Σ|terms| where ULP is not its measure."""

    function: str
    which: int
    results: tuple[str, ...]
    inputs: Callable
    truth: Callable


def spread(n, low, high):
    """n numbers whose logarithms are spread evenly."""
    return torch.exp2(torch.empty(n, dtype=torch.float64).uniform_(np.log2(low), np.log2(high)))


def growth_of(r):
    log = mp.log1p(r)
    # By its series, where it would cancel.
    excess = sum((-1) ** k * (1 - mp.one / k) * r**k for k in range(2, 12)) if r < 1e-10 else log - r / (1 + r)
    return log, excess, r / (1 + r), 1 / (1 + r)


def artanh_cubic_of(square):
    if square < 1e-3:
        return (sum(square**k / (2 * k + 3) for k in range(25)),)
    t = mp.sqrt(square)
    return ((mp.atanh(t) / t - 1) / square,)


def stirling_of(z):
    z, f = far_mp.mpf(z), far_mp
    rest = f.loggamma(z) - (z - 0.5) * f.log(z) + z - f.log(2 * f.pi) / 2
    return rest, f.log(z) - 1 / (2 * z) - f.psi(0, z)


def log_factorial_of(x):
    if x == int(x):
        return (mp.log(mp.factorial(x)) if x < 50 else mp.loggamma(x + 1),)
    terms = mp.loggamma(x + 9) + sum(mp.log(x + k) for k in range(1, 9))
    return ((mp.loggamma(x + 1), terms),)


def rising_of_counts(x, theta):
    x = int(x)
    logs = mp.log(mp.fprod(1 + k / theta for k in range(x)))
    factorial = mp.log(mp.factorial(x))
    return (logs - factorial, logs + factorial), mp.fsum(k / (theta * (theta + k)) for k in range(x))


def rising_of_many(x, theta):
    f, x, theta = far_mp, far_mp.mpf(x), far_mp.mpf(theta)
    logs = f.loggamma(theta + x) - f.loggamma(theta) - x * f.log(theta)
    factorial = f.loggamma(x + 1)
    return (logs - factorial, logs + factorial), x / theta - f.psi(0, theta + x) + f.psi(0, theta)


def rising_of_fractions(x, theta):
    f, x, theta = far_mp, far_mp.mpf(x), far_mp.mpf(theta)
    value, slope = rising_of_many(x, theta)
    first = f.loggamma(theta + x + 8) - f.loggamma(theta + 8) - x * f.log(theta)
    factors = sum(f.log1p(x / (theta + k)) + f.log(x + k + 1) for k in range(8))
    slopes = 8 * x / theta / (theta + 8) + sum(x / (theta + k) / (theta + k + x) for k in range(8))
    return (value[0], first + factors + f.loggamma(x + 9)), (slope, slopes + abs(slope))


def gate_of(logits):
    e = mp.exp(logits)
    return e / (1 + e), 1 / (1 + e), mp.log1p(e)


def inflated_of(logits, log_prob, u, x):
    dead, alive, loss = gate_of(logits)
    if x:
        return log_prob - loss, mp.one, -dead
    none, lost = mp.exp(-u), -mp.expm1(-u)
    everything = dead + alive * none
    log = mp.log(everything) if everything < 0.5 else mp.log1p(-alive * lost)
    return log, alive * none / everything, dead * alive * lost / everything


def inflated_far_of(logits, log_prob, u, x):
    log, share, slope = inflated_of(logits, log_prob, u, x)
    return log, share, (slope, mp.one)


def inflated(n, low, high, u):
    logits = torch.empty(n, dtype=torch.float64).uniform_(low, high)
    return logits, -u, u, torch.zeros(n, dtype=torch.float64)


CASES = {
    "growth": Case(
        "growth(T r)",
        0,
        ("log", "excess", "share", "rest"),
        lambda n: (torch.cat([spread(n // 2, 2.0**-120, 2.0**120), spread(n - n // 2, 0.1, 30)]),),
        growth_of,
    ),
    "artanh_cubic": Case(
        "artanh_cubic(T square)", 1, ("value",), lambda n: (0.2178 * torch.rand(n).double(),), artanh_cubic_of
    ),
    "stirling": Case("stirling(T z)", 2, ("rest", "slope"), lambda n: (spread(n, 8, 64),), stirling_of),
    "log_factorial of counts": Case(
        "log_factorial(T x)", 3, ("counts",), lambda n: (spread(n, 0.5, 2.0**20).floor(),), log_factorial_of
    ),
    "log_factorial of fractions": Case(
        "log_factorial(T x)",
        3,
        ("fractions",),
        lambda n: (spread(n, 2.0**-8, 2.0**10) + 2.0**-9,),
        log_factorial_of,
    ),
    "rising of counts to 8": Case(
        "rising(T x, T theta, T inverse)",
        4,
        ("value", "slope"),
        lambda n: (torch.arange(n).double() % 9, spread(n, 2.0**-40, 2.0**40)),
        rising_of_counts,
    ),
    "rising of counts beyond": Case(
        "rising(T x, T theta, T inverse)",
        4,
        ("value", "slope"),
        lambda n: (spread(n, 9, 2.0**20).floor(), spread(n, 2.0**-30, 2.0**30)),
        rising_of_many,
    ),
    "rising of fractions": Case(
        "rising(T x, T theta, T inverse)",
        4,
        ("value", "slope"),
        lambda n: (spread(n, 2.0**-8, 2.0**10) + 2.0**-9, spread(n, 2.0**-30, 2.0**30)),
        rising_of_fractions,
    ),
    "gate_of": Case(
        "gate_of(T logits)",
        5,
        ("dead", "alive", "loss"),
        lambda n: (torch.cat([torch.empty(n // 2).uniform_(-80, 80), torch.randn(n - n // 2)]).double(),),
        gate_of,
    ),
    "zero_inflated": Case(
        "inflated_zero(T logits, T u)",
        6,
        ("log_prob", "share", "dlogits"),
        lambda n: inflated(n, -60, 60, spread(n, 2.0**-30, 80)),
        inflated_of,
    ),
    "zero_inflated far": Case(
        "inflated_far(T u, T logits)",
        6,
        ("log_prob", "share", "dlogits"),
        lambda n: inflated(n, -640, -625, torch.empty(n, dtype=torch.float64).uniform_(625, 640)),
        inflated_far_of,
    ),
    "zero_inflated of others": Case(
        "zero_inflated(T logits, T log_prob, T u, T x)",
        6,
        ("log_prob", "share", "dlogits"),
        lambda n: (torch.randn(n).double() * 5, -spread(n, 1.0, 100), spread(n, 1.0, 100), torch.ones(n).double()),
        inflated_of,
    ),
}
