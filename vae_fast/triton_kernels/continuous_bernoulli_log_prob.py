"""log p(x|z) of a continuous Bernoulli variable given by its logits: csrc/continuous_bernoulli.h in Triton."""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from vae_fast.triton_kernels.arithmetic import constant, divide, polynomial
from vae_fast.triton_kernels.density_launch import Density, launchers
from vae_fast.triton_kernels.exponentials import exp_of_negative
from vae_fast.triton_kernels.logarithms import log


@triton.jit
def log_sinhc(square):
    """log(sinh h/h)/h² of h² from 0 to 1."""
    if square.dtype == tl.float64:
        # To 2.8e-20.
        return polynomial(
            square,
            (
                0.16666666666666666,
                -0.005555555555555549,
                0.0003527336860667527,
                -2.6455026450827744e-05,
                2.137779881617369e-06,
                -1.8036686303360608e-07,
                1.5660917418065764e-08,
                -1.387508773491433e-09,
                1.2392426764757782e-10,
                -1.052506491347107e-11,
                6.421599125797982e-13,
            ),
        )
    else:
        # To 2.8e-10.
        return polynomial(
            square,
            (
                0.1666666716337204,
                -0.005555541720241308,
                0.0003526200307533145,
                -2.6128051104024053e-05,
                1.745097506500315e-06,
            ),
        )


@triton.jit
def log_sinhc_slope(square):
    """The derivative of log(sinh h/h) by h², for h² from 0 to 1."""
    if square.dtype == tl.float64:
        # To 7.6e-21.
        return polynomial(
            square,
            (
                0.16666666666666666,
                -0.011111111111111108,
                0.0010582010582009535,
                -0.00010582010581813358,
                1.0688899558579583e-05,
                -1.082202029851211e-06,
                1.0962933493647145e-07,
                -1.1106327171121694e-08,
                1.1238064589924514e-09,
                -1.123060045550072e-10,
                1.0342542341987684e-11,
                -6.522163248364548e-13,
            ),
        )
    else:
        # To 3.9e-11.
        return polynomial(
            square,
            (
                0.1666666716337204,
                -0.011111108586192131,
                0.0010581680107861757,
                -0.00010567561548668891,
                1.0400374776509125e-05,
                -8.083140983217163e-07,
            ),
        )


@triton.jit
def _term(operands, g, numbers, CONSTANTS: tl.constexpr):
    y, x = operands
    t = x * numbers[0]
    size, half, centred = tl.abs(y), y * 0.5, t - 0.5
    near = size <= 2.0
    square = tl.where(near, half * half, 0.0)
    e, _ = exp_of_negative(-size)
    rest, positive = 1.0 - e, y > 0.0
    wrong = tl.where(positive, 1.0 - t, t)
    cost = tl.where(wrong == 0.0, 0.0, size * wrong)
    infinity = constant(y, float("inf"))
    far = tl.where(cost == infinity, -infinity, log(divide(size, rest)) - cost)
    away = divide(constant(y, 1.0), size) - divide(e, rest)
    log_prob = tl.where(near, tl.fma(y, centred, -square * log_sinhc(square)), far)
    slope = tl.where(positive, away - wrong, wrong - away)
    slope = tl.where(near, tl.fma(half, -log_sinhc_slope(square), centred), slope)
    return log_prob, (g * slope, g * y * numbers[0])


def _numbers(options: Any) -> tuple[float, ...]:
    return (options.x_scale,)


continuous_bernoulli_log_prob_fwd, continuous_bernoulli_log_prob_bwd = launchers(
    Density("continuous_bernoulli_log_prob", _term, _numbers)
)
