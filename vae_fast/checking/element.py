"""What a formula of the check gives of one element, and a function that several of them need."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from vae_fast.checking.forms import Array

Pair = tuple[Array, Array]


class Element(NamedTuple):
    """An element's value and its slopes by operand, each with its Σ|terms|; and numbers on the way to them.

    Where one of these ``steps`` is beyond the dtype computed in, so may the result be.
    """

    value: Pair
    slopes: dict[str, Pair]
    steps: tuple[Array, ...] = ()


def log_growth_less_share(r: Array, f: Any) -> Array:
    """log(1 + r) − r/(1 + r) = Σ_{k≥2} s^k/k of the share s = r/(1 + r), which no term of cancels."""
    share = r / (1 + r)
    near = f.where(share < 0.5, share, 0.0)
    series = 0.0 * near
    # 2^-60 is 9e-19, 2^-180 7e-55.
    for k in range(60 if f is np else 180, 1, -1):
        series = series * near + f.ones(()) / k
    return f.where(share < 0.5, series * near * near, f.log1p(r) - share)
