"""The KL to a prior whose σ is in a form of its own, over the whole range of a dtype, and its exact results.

In 50 digits, whose exponents have no end: what cancels in a float does not there.
"""

import itertools

import numpy as np

import vae_fast as vf
from helpers import accuracy
from helpers.behaviour import with_grads
from helpers.whole_range import EPS, arguments, chosen, columns, differences, errors
from vae_fast.checking import formulas, measure

RESULTS = ("value", "dmu", "dlogvar", "dprior_mu", "dprior_logvar")
FORMS = [(param, eps) for param in EPS for eps in (0.0, EPS[param])]
PAIRS = [(own, prior) for own, prior in itertools.product(FORMS, FORMS) if own != prior]
# Arguments, (posterior's, prior's): a ratio of variances that is beyond all range where its slope is not, and a
# difference whose rounding error its exponential magnifies.
MORE = {
    ("logvar", "softplus"): [(400.0, -390.0), (352.0, 80.0), (200.0, -190.0), (-9.7131, -67.3719)],
    ("softplus", "logvar"): [(-390.0, -400.0), (-190.0, -200.0), (-390.0, -380.0), (-20.7131, -87.3719)],
    ("logvar", "logstd"): [(400.0, -390.0), (1e4, 5e3), (-1e4, -5e3), (81.3719, 0.0137), (0.0171, -41.7391)],
    ("logstd", "logvar"): [(40.7391, 0.0137), (0.0171, -81.3719)],
}
# Some of each kind, and all that have more.
SOME = [
    (own, prior)
    for k, (own, prior) in enumerate(PAIRS)
    if k % 5 == 0 or ((own[0], prior[0]) in MORE and own[1] == 0.0)
]


def truth(own, prior, mu, raw, prior_mu, prior_raw, f=np):
    """Every result, each with its Σ|terms|: as formulas.kl has them, which is of one form."""
    square = (mu - prior_mu) * prior.inverse(prior_raw, f)
    square, slope = square / 2 * square, square * prior.inverse(prior_raw, f)
    log_var, prior_log_var = own.log_var(raw, f), prior.log_var(prior_raw, f)
    if own.logarithmic and prior.logarithmic:
        d = log_var - prior_log_var
        growth, spread = f.expm1(d) / 2, formulas.expm1_minus(d, f) / 2
        growth_terms, spread_terms = abs(growth), spread
    else:
        # Digits enough for e^d, which d would have to have more of.
        ratio = own.sigma(raw, f) / prior.sigma(prior_raw, f)
        growth = (ratio - 1) * (ratio + 1) / 2
        spread = growth - (log_var - prior_log_var) / 2
        growth_terms = growth + 1
        spread_terms = growth_terms + (abs(log_var) + abs(prior_log_var)) / 2
    by_own, by_prior = own.dlog_var(raw, f), prior.dlog_var(prior_raw, f)
    return (
        (square + spread, square + spread_terms),
        (slope, abs(slope)),
        (growth * by_own, growth_terms * abs(by_own)),
        (-slope, abs(slope)),
        (-(square + growth) * by_prior, (square + growth_terms) * abs(by_prior)),
    )


def findings(own, prior, dtype, n):
    """(result, its bar, errors, inputs) of every result, of n pairs of arguments and MORE."""
    forms = tuple(formulas.Form(*form) for form in (own, prior))
    pairs = [*chosen(itertools.product(arguments(own[0], dtype), arguments(prior[0], dtype)), n)]
    pairs += MORE.get((own[0], prior[0]), [])
    d = differences(dtype)
    inputs = columns([(d[k * 7 % len(d)], a, 0.0, b) for k, (a, b) in enumerate(pairs)], dtype)
    options = dict(zip(("param", "param_eps", "prior_param", "prior_param_eps"), (*own, *prior), strict=True))
    got = with_grads(lambda *t: vf.gaussian_kl(*t, event_ndim=0, **options), *inputs)
    exact = accuracy.truth(truth, *forms, *inputs, numbers=accuracy.digits)
    for name, value, (want, terms) in zip(RESULTS, got, exact, strict=True):
        bar = max(measure.density_bar(form, name.endswith("logvar")) for form in forms)
        yield name, bar, errors(value, want, terms), inputs
