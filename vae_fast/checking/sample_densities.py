"""A sample's log-densities, q's and the prior's, element by element, as textbooks write them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from vae_fast.checking.element import Element, Pair
from vae_fast.checking.forms import Array
from vae_fast.checking.formulas import Forms, sample, standardised


class SampleElements(NamedTuple):
    """Of z = μ + σε, of log q(z) and of log p(z); each result's slopes are by all that it depends on."""

    z: Element
    log_q: Element
    log_p: Element


def sample_log_prob(
    forms: Forms,
    eps: Array,
    mu: Array,
    raw: Array,
    prior_mu: Array = None,
    prior_raw: Array = None,
    *,
    path: bool = False,
    f: Any = np,
) -> SampleElements:
    """z, −½ε² − ½log 2πσ² and −½((z − μp)/σp)² − ½log 2πσp²; μp is 0 and σp 1 where they are None.

    ``path``: log q's slopes are those through z alone, with μ and σ constant in it. What z is off by, of the size
    of what it is made of, is off in (z − μp)/σp² too.
    """
    form, prior = forms
    z = sample(form, mu, raw, eps, f=f)
    r = form.clamp(raw, f)
    log_2pi = f.log(2 * f.pi * f.ones(()))
    log_var, by_z = form.log_var(r, f), -eps * form.inverse(r, f)
    dsigma_eps, _ = z.slopes["logvar"]
    score = form.inside(raw, -form.dlog_var(r, f) / 2, f)
    through_z = by_z * dsigma_eps
    slopes: dict[str, Pair] = {"mu": (by_z, abs(by_z)), "logvar": (through_z, abs(through_z))}
    if not path:
        slopes = {"mu": (0.0 * eps, 0.0 * eps), "logvar": (score + 0.0 * eps, abs(score) + 0.0 * eps)}
    square = eps / 2 * eps
    log_q = Element(
        (-(square + (log_var + log_2pi) / 2), square + (abs(log_var) + log_2pi) / 2),
        slopes,
        (*z.steps, z.value[0], by_z) if path else (*z.steps, z.value[0]),
    )
    value, size = z.value
    difference = value if prior_mu is None else value - prior_mu
    size = size if prior_mu is None else size + abs(prior_mu)
    square, slope, inverse_square, prior_log_var = difference / 2 * difference, difference, 1.0, 0.0
    prior_r = None
    if prior_raw is not None:
        prior_r = prior.clamp(prior_raw, f)
        square, slope = standardised(difference, prior, prior_r, f)
        inverse_square, prior_log_var = prior.inverse_square(prior_r, f), prior.log_var(prior_r, f)
    slope_terms, square_terms = abs(slope) + size * inverse_square, square + abs(slope) * size
    slopes = {
        "mu": (-slope, slope_terms),
        "logvar": (-slope * dsigma_eps, slope_terms * abs(dsigma_eps)),
        "prior_mu": (slope, slope_terms),
    }
    if prior_r is not None:
        dprior = prior.dlog_var(prior_r, f)
        slopes["prior_logvar"] = (
            prior.inside(prior_raw, (square - 0.5) * dprior, f),
            (square_terms + 0.5) * abs(dprior),
        )
    log_p = Element(
        (-(square + (prior_log_var + log_2pi) / 2), square_terms + (abs(prior_log_var) + log_2pi) / 2),
        slopes,
        (*z.steps, value, difference, slope, slope * eps, square, size * inverse_square, abs(slope) * size),
    )
    return SampleElements(z, log_q, log_p)
