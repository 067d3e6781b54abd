"""KL(N(μ, σ²) ‖ N(μp, σp²)), by default to N(0, I)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from vae_fast.triton_kernels.density_launch import Density, launchers
from vae_fast.triton_kernels.forms import ALIKE, are_half, are_plain, form_of, parts_of, prior_form_of
from vae_fast.triton_kernels.sigma import clamped, within
from vae_fast.triton_kernels.terms import floored, gaussian_kl
from vae_fast.triton_kernels.terms_to_prior import clamped_prior, gaussian_kl_to_prior, within_prior


@triton.jit
def _term(operands, g, numbers, CONSTANTS: tl.constexpr):
    mu, raw, prior_mu, prior_raw = operands
    floor, eps, low, high = numbers
    TO_PRIOR: tl.constexpr = CONSTANTS[0]
    FLOOR: tl.constexpr = CONSTANTS[1]
    FORM: tl.constexpr = CONSTANTS[2]
    EPS: tl.constexpr = CONSTANTS[3]
    BOUNDED: tl.constexpr = CONSTANTS[4]
    PRIOR: tl.constexpr = CONSTANTS[5]
    dm, r = mu - prior_mu, clamped(raw, low, high, BOUNDED)
    if TO_PRIOR:
        prior_r = clamped_prior(prior_raw, low, high, BOUNDED, PRIOR)
        kl, slope, draw, dprior_raw = gaussian_kl_to_prior(dm, r, prior_r, eps, FORM, EPS, PRIOR)
    else:
        kl, draw = gaussian_kl(dm, r, eps, FORM, EPS)
        slope, dprior_raw = dm, draw
    kl, g = floored(kl, g, floor, FLOOR)
    slope, draw, dprior_raw = g * slope, g * draw, g * dprior_raw
    draw = within(raw, draw, low, high, BOUNDED)
    dprior_raw = within_prior(prior_raw, dprior_raw, low, high, BOUNDED, PRIOR)
    return kl, (slope, draw, -slope, dprior_raw)


def _numbers(options: Any) -> tuple[float, ...]:
    return options.free_bits or 0.0, options.param_eps, options.low, options.high


def _constants(options: Any, operands: Sequence[Tensor | None]) -> tuple[Any, ...]:
    mu, logvar, prior_mu, prior_logvar, weight = operands
    to_prior = prior_logvar is not None
    prior_form = prior_form_of(options) if to_prior else ALIKE
    form = form_of(options, not to_prior and are_half((mu, logvar, prior_mu), (weight,)))
    return to_prior, options.free_bits is not None, *form, prior_form


def _in_few_registers(options: Any, operands: Sequence[Tensor | None]) -> bool:
    return are_plain(options)


def _parts(options: Any, operands: Sequence[Tensor | None]) -> int:
    _, _, _, prior_logvar, _ = operands
    return parts_of(options, prior_logvar)


gaussian_kl_fwd, gaussian_kl_bwd = launchers(
    Density("gaussian_kl", _term, _numbers, _constants, _in_few_registers, _parts)
)
