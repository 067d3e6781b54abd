"""log p(x|z) of Student's t: csrc/location_scale.h in Triton."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from vae_fast.triton_kernels.arithmetic import constant, divide, polynomial
from vae_fast.triton_kernels.counts import HALF_LOG_2PI, growth
from vae_fast.triton_kernels.density_launch import Density, launchers
from vae_fast.triton_kernels.logarithms import log
from vae_fast.triton_kernels.scale import by_raw, constants_of, log_scale, numbers_of, under
from vae_fast.triton_kernels.wide import narrow, over, times, wide, wide_exp


@triton.jit
def _half_step(a):
    """log Γ(a + ½) − log Γ(a) − ½log a, and its derivative, for a > 0 up to ∞."""
    small = a < 12.0
    one = constant(a, 1.0)
    inverse = divide(one, tl.where(small, a + 8.0, a))
    square = inverse * inverse
    if a.dtype == tl.float64:
        value = polynomial(
            square,
            (
                -1.0 / 8,
                1.0 / 192,
                -1.0 / 640,
                17.0 / 14336,
                -31.0 / 18432,
                691.0 / 180224,
                -5461.0 / 425984,
                929569.0 / 15728640,
                -3202291.0 / 8912896,
                221930581.0 / 79691776,
            ),
        )
        slope = polynomial(
            square,
            (
                1.0 / 8,
                -3.0 / 192,
                5.0 / 640,
                -7 * 17.0 / 14336,
                9 * 31.0 / 18432,
                -11 * 691.0 / 180224,
                13 * 5461.0 / 425984,
                -15 * 929569.0 / 15728640,
                17 * 3202291.0 / 8912896,
                -19 * 221930581.0 / 79691776,
            ),
        )
    else:
        value = polynomial(square, (-1.0 / 8, 1.0 / 192, -1.0 / 640, 17.0 / 14336))
        slope = polynomial(square, (1.0 / 8, -3.0 / 192, 5.0 / 640, -7 * 17.0 / 14336))
    value, slope = value * inverse, slope * square
    grown, steepness = a * 0.0, a * 0.0
    for k in tl.static_range(0, 8):
        start = a + k
        d = divide(constant(a, 0.25), start * (start + 1.0))
        grown = tl.fma(d, grown + 1.0, grown)
        steepness = steepness + divide(d, start + 0.5)
    more, _, _ = growth(grown)
    return tl.where(small, tl.fma(more, constant(a, -0.5), value), value), tl.where(small, slope + steepness, slope)


@triton.jit
def _faint_slope(difference, factor, sigma, BY_LOG: tl.constexpr):
    """factor·difference/σ² in numbers of any exponent."""
    product = times(wide(difference), wide(factor))
    if BY_LOG:
        inverse = wide_exp(-sigma)
        return narrow(times(times(product, inverse), inverse))
    else:
        square = times(wide(sigma), wide(sigma))
        return narrow(over(product, square))


@triton.jit
def _term(operands, g, numbers, CONSTANTS: tl.constexpr):
    loc, sigma, df, x = operands
    BY_LOG: tl.constexpr = CONSTANTS[0]
    double: tl.constexpr = df.dtype == tl.float64
    big: tl.constexpr = 2.0**1000 if double else 2.0**100
    nothing: tl.constexpr = 2.0**-54 if double else 2.0**-25
    one = constant(df, 1.0)
    # What df is needed for alone comes first: its load would else come after arithmetic of the others.
    value, slope = _half_step(df * 0.5)
    difference = x * numbers[0] - loc
    inverse, y = divide(one, df), under(difference, sigma, BY_LOG)
    more = inverse + 1.0
    w = divide(y, df) * y
    far, some = w >= big, w >= nothing
    log_1p, excess, share = growth(tl.where(far, big, w))
    rest = divide(one, w + 1.0)
    log_sigma = log_scale(sigma, BY_LOG)
    far_log = (log(tl.abs(difference)) - log_sigma) * 2.0 - log(df)
    log_1p, excess = tl.where(far, far_log, log_1p), tl.where(far, far_log - 1.0, excess)
    loss = tl.where(some, (df + 1.0) * 0.5 * log_1p, more * y * 0.5 * y)
    # Of two forms of each the one that magnifies no rounding of w.
    large = w >= 1.0
    near_slope = tl.where(some, divide(y, df + y * y) * (df + 1.0), more * y)
    square = near_slope * y
    pull = by_raw(tl.where(large, df * share - rest, square - 1.0), sigma, BY_LOG)
    dloc = tl.where(large, divide((df + 1.0) * share, difference), under(near_slope, sigma, BY_LOG))
    # Of a y that is subnormal where all of it is not.
    least: tl.constexpr = 2.0**-969 if double else 2.0**-102
    faint = (tl.abs(y) < least) & (difference != 0.0)
    dloc = tl.where(faint, _faint_slope(difference, more, sigma, BY_LOG), dloc)
    log_prob = ((value - constant(df, HALF_LOG_2PI)) - log_sigma) - loss
    by_df = tl.where(inverse == 0.0, inverse, ((slope - excess) + share * inverse) * 0.5)
    if not BY_LOG:
        # A square may be beyond its dtype where its quotient by σ is not.
        pull = tl.where((square == float("inf")) & (w < 1.0), dloc * y, pull)
    dloc = g * dloc
    return log_prob, (dloc, g * pull, g * by_df, -dloc * numbers[0])


def _parts(options: Any, operands: Sequence[Tensor | None]) -> int:
    *_, weight = operands
    return 2 if weight is None else 4


student_t_log_prob_fwd, student_t_log_prob_bwd = launchers(
    Density("student_t_log_prob", _term, numbers_of, constants_of, parts=_parts)
)
