"""The words that say what a case's options are, which of them an operator knows, and what is tried by default."""

from __future__ import annotations

from dataclasses import dataclass

from vae_fast.operators import DATA, FORMS, OPERATORS, PARAMETER, REDUCTIONS, Operator

PARAMS = tuple(name for name in FORMS if name != "logvar")
REDUCED = tuple(name for name in REDUCTIONS if name != "none")
WEIGHTS = ("weight", "datum_weight", "masked")
BYTES = ("uint8", "bool")
EVENTS = ("event0", "event2")
# A prior's form where it is another one than the posterior's.
PRIOR_PARAMS = tuple(f"prior_{name}" for name in FORMS)
PRIOR_FORM = (*PRIOR_PARAMS, "prior_eps", "prior_bounds")
# Words of which a case has one at most.
EXCLUSIVE = (
    *(PARAMS, REDUCED, WEIGHTS, BYTES, EVENTS, PRIOR_PARAMS),
    *(("noise", word) for word in ("offset", "stream")),
    ("pos_weight", "probs"),
    # A softmax is over an event, and of every logit: none can be anything.
    *(("softmax", word) for word in ("log_mean", "event0", "masked")),
)
# Words that say something with another one only.
NEEDS = {"pass": "bounds", "library": "softmax", **dict.fromkeys(PRIOR_FORM, "prior")}

# The words that go with an option or operand of an operator, by its name in the table.
_WORDS = {
    "sample_shape": ("samples",),
    "offset": ("offset", "stream"),
    "noise": ("noise",),
    "temperature": ("temperature",),
    "x": BYTES,
    "free_bits": ("free_bits",),
    "param_eps": (*PARAMS, "eps", "bounds"),
    "eps": ("eps",),
    "log_library": ("library",),
    "bounds_grad": ("pass",),
    "q_grad": ("path",),
    "reduction": (*WEIGHTS, *REDUCED, "negated"),
    "event_ndim": EVENTS,
    "pos_weight": ("pos_weight",),
    "prior_param": PRIOR_FORM,
}
# Words that make another formula of an operator, tried with all its others.
FORMULAS = ("prior", "probs", "zero_inflated")
# The words that stand for optional parameters.
OPTIONAL = {"prior_mu": "prior", "prior_logvar": "prior", "zero_logits": "zero_inflated", "log_library": "library"}
# What is tried together by default, where the operator knows all the words.
_TOGETHER = (
    *(f"{param},{more}" for param in PARAMS for more in ("eps", "bounds")),
    "samples,offset",
    "offset,stream",
    "samples,noise,temperature",
    "sum,negated",
    "mean,negated",
    "weight,sum,negated",
    "masked,mean",
    "uint8,sum,negated",
    "bool,weight,mean",
    "pos_weight,uint8,sum,negated",
    "pos_weight,weight,mean",
    "bounds,pass",
    "softplus,bounds,pass",
    "samples,softplus,eps",
    "samples,free_bits,var",
    "samples,path",
    "noise,path,softplus,eps",
    "softplus,eps,weight,mean",
    "log_mean,log_theta",
    "log_mean,log_theta,eps,weight,mean",
    "softmax,library",
    "softmax,library,log_theta,weight,mean",
    "softmax,eps,uint8,sum,negated",
    "log_scale,weight,mean",
    "log_scale,uint8,sum,negated",
    "log_rate,eps",
    "log_rate,uint8,sum,negated",
)
# Each form once as the posterior's, and once as the prior's.
_TO_A_PRIOR = (
    "prior,prior_std",
    "prior,logstd,prior_softplus,prior_eps",
    "prior,std,bounds,prior_logvar",
    "prior,var,prior_logstd,prior_bounds",
    "prior,softplus,eps,prior_var,prior_bounds",
    "prior,bounds,pass,prior_bounds",
)
# With a prior a sampler's sample is what it is without one: of its other words these go with both.
_SAMPLED_TO_A_PRIOR = (
    "prior,samples,offset",
    "prior,samples,temperature,stream",
    "prior,samples,free_bits,var",
    "prior,noise,event2",
    "prior,samples,path,offset",
    "prior,softplus,eps",
)


@dataclass(frozen=True)
class Op:
    """An operator: its operands in order, its results, the option words it knows, and those tried by default.

    ``of_samples``: its sums are of every sample.
    """

    operands: tuple[str, ...]
    results: tuple[str, ...]
    words: tuple[str, ...]
    variants: tuple[str, ...]
    of_samples: bool


def coded(operator: Operator) -> dict[str, tuple[str, ...]]:
    """The words for what a parameter may be given by beside the usual, by option; a Gaussian's σ has its own."""
    forms = any(option.name == "param_eps" for option in operator.options)
    codes = {option.name: tuple(option.codes or ()) for option in operator.options if option.name.endswith("param")}
    return {} if forms else {name: some[1:] for name, some in codes.items()}


def _op(operator: Operator) -> Op:
    names = {option.name for option in operator.options} | {operand.name for operand in operator.operands}
    if not operator.operands:
        names.discard("sample_shape")  # part of the shape that the public function takes
    words = tuple(word for name, some in _WORDS.items() if name in names for word in some)
    of_codes = tuple(word for some in coded(operator).values() for word in some)
    words = (*words, *(word for word in of_codes if word not in FORMULAS))
    alone = tuple(word for word in words if word not in NEEDS)
    variants = (*alone, *_known(_TOGETHER, words))
    optional = (OPTIONAL[o.name] for o in operator.operands if o.role == PARAMETER and o.optional)
    formula = next((word for word in (*optional, *of_codes) if word in FORMULAS), "")
    if formula:
        words = (*words, formula)
        again = (
            (*(f"{formula},{text}" for text in variants), *_known(_TO_A_PRIOR, words))
            if operator.density
            else (*_known(_SAMPLED_TO_A_PRIOR, words), *_TO_A_PRIOR)
        )
        variants = (*variants, formula, *again)
    operands = tuple(operand.name for operand in operator.operands if operand.role in (PARAMETER, DATA))
    return Op(operands, operator.results, words, variants, operator.of_samples)


def _known(texts: tuple[str, ...], words: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(text for text in texts if set(text.split(",")) <= set(words))


OPS = {name: _op(operator) for name, operator in OPERATORS.items()}
# The words of the operators on pairs (pairs.py).
PAIRS = {
    "gaussian_mixture_log_prob": ("per_dim", "weights", "own_weights", "own_components"),
    "mmd": ("rbf", "biased", "scales"),
    "logistic_mixture_log_prob": ("coefficients", "levels", "edges", "density"),
}


def options_text(options: tuple[str, ...]) -> str:
    return ",".join(options) or "plain"


def parse_options(text: str) -> tuple[str, ...]:
    """ "prior,sum" → ("prior", "sum"), "plain" → (). Raises ValueError naming the words there are."""
    options = () if text == "plain" else tuple(text.split(","))
    known = sorted({word for words in (*(op.words for op in OPS.values()), *PAIRS.values()) for word in words})
    for word in options:
        if word not in known:
            raise ValueError(f"unknown option {word!r}; there are plain, {', '.join(known)}")
    return options
