"""Every operator with every option it has, in small: what a test of all of them is parametrised over.

The options are the table's (vae_fast/operators.py), so that an operator with a row there has cases here.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from helpers.calls import (
    CALLS,
    COUNT,
    INFLATED,
    KL_PRIOR,
    PLAIN,
    PROBS,
    RSAMPLE_KL_PRIOR,
    RSAMPLE_LOG_PROB_PRIOR,
    Call,
)
from vae_fast.operators import FORMS

PARAMS = tuple(FORMS)
# A weight that every feature of three has.
WEIGHT = (0.0, 1.0, 2.5)


@dataclass(frozen=True)
class Case:
    """A call with some of its options, as a function of its operands only."""

    call: Call
    name: str
    options: dict[str, Any] = field(hash=False)

    def __call__(self, *tensors):
        options, first = dict(self.options), tensors[0]
        if "weight" in options:
            options["weight"] = torch.tensor(options["weight"], dtype=first.dtype, device=first.device)
        if "noise" in options:
            shape = (*options.get("sample_shape", ()), *torch.broadcast_shapes(*(t.shape for t in tensors)))
            steps = torch.arange(math.prod(shape), dtype=torch.float32, device=first.device)
            options["noise"] = torch.sin(options["noise"] * steps).reshape(shape)
        return self.call(*tensors, **options)

    def __str__(self):
        return f"{self.call}-{self.name}"

    @property
    def differentiable(self):
        """Whether its gradients are the derivatives of its values."""
        return self.options.get("bounds_grad") != "pass" and self.options.get("q_grad") != "path"

    @property
    def constants(self):
        """The inputs without a gradient, by number."""
        return self.call.constants

    def inputs(self, dtype=torch.float64, shape=(4, 2, 3)):
        """Operands that every parametrisation takes, without a gradient."""
        tensors = [t.detach() for t in self.call.draw(shape, torch.float64)]
        if self.call is PROBS:
            tensors[0] = 0.001 + 0.998 * tensors[0]
        param = self.options.get("param")
        params = {"logvar": param, "prior_logvar": self.options.get("prior_param", param)}
        positive = [params.get(name) in ("std", "var") for name in self.call.operands]
        tensors = [0.3 + t.abs() if p else t for t, p in zip(tensors, positive, strict=True)]
        return [t.to(dtype) for t in tensors]


def _having(call, **options):
    """Those of the options that the call has."""
    return {name: value for name, value in options.items() if call.has(name)}


def _alone(call):
    """Each option by itself."""
    yield "plain", {}
    if call.event:
        yield "elementwise", {"event_ndim": 0}
        yield "two_event_dims", {"event_ndim": 2} | _having(call, x_scale=0.5)
    if call.density:
        yield "sum", {"reduction": "sum", "scale": -1.5}
        yield "mean", {"reduction": "mean", "scale": 0.3} | _having(call, x_scale=2.0)
        yield "weight", {"weight": WEIGHT}
    else:
        yield "samples", {"sample_shape": (2, 2), "offset": 3, "first_sample": 2}
        yield "tempered_stream", _having(call, temperature=0.7) | {"stream": 3, "sample_shape": 2}
        yield "noise", {"seed": None, "noise": 7.0, "sample_shape": (2,)}
        if path := _having(call, q_grad="path"):
            yield "path", path | {"sample_shape": (2,)}
    if pos_weight := _having(call, pos_weight=2.5):
        yield "pos_weight", pos_weight | {"x_scale": 0.5}
    if free_bits := _having(call, free_bits=0.4):
        yield "free_bits", free_bits
    if bounds := _having(call, bounds=(-0.5, 0.7)):
        yield "bounds", bounds
        yield "passing_bounds", bounds | {"bounds_grad": "pass"}
        yield from ((param, {"param": param}) for param in PARAMS[1:])
        yield from ((f"{param}_eps", {"param": param, "param_eps": 0.2}) for param in PARAMS)
    if call.counted:
        yield "logarithms", _logarithms(call)
        yield from _moved(call)


def _formulas(call):
    """Of a formula beside another one of its operator's, with which it shares what options do."""
    yield "plain", {}
    yield from _moved(call)


def _moved(call):
    yield "eps", {"eps": 0.1}
    yield "logarithms_eps", {"eps": 0.1} | _logarithms(call)


def _logarithms(call):
    """The options by which a count's parameters are logarithms; those that are drawn can be both."""
    codes = {option.name: option.codes for option in call.operator.options if option.name.endswith("param")}
    return {name: next(word for word in words if word.startswith("log_")) for name, words in codes.items()}


def _together(call):
    """Of another formula of an operator, and of formulas that take long: several options at once."""
    yield "plain", {}
    more = _having(call, x_scale=0.5, free_bits=0.1, bounds=(None, 0.8))
    if call.density:
        yield "mean", {"reduction": "mean", "event_ndim": 2} | more
        yield "weight", {"weight": WEIGHT, "event_ndim": 0}
    else:
        yield "samples", {"sample_shape": (2, 2), "event_ndim": 2} | _having(call, temperature=0.5) | more
        if path := _having(call, q_grad="path"):
            yield "path", path | more
    if call.counted:
        yield from _moved(call)
    if _having(call, param_eps=0.1):
        yield from ((p, {"param": p, "param_eps": 0.1, "bounds": (-3.0, 1.5)}) for p in PARAMS)
    if _having(call, prior_param=""):
        passing = {"bounds": (-0.4, 0.6), "bounds_grad": "pass", "prior_bounds": (-0.5, 0.3)}
        yield "passing_bounds", passing
        yield from ((f"to_{q}", {"param": p, "prior_param": q, "prior_param_eps": 0.1}) for p, q in _UNLIKE)


# The forms of a posterior and of its prior, each once.
_UNLIKE = tuple(zip(PARAMS, PARAMS[1:] + PARAMS[:1], strict=True))


def _of_engine(call):
    """Of a density that is nothing but an Op: all of its own options, and the engine's together."""
    yield "plain", {}
    own = {"param": "log_scale"} if call.has("param") else {}
    yield "mean", {"reduction": "mean", "event_ndim": 2, "x_scale": 0.5} | own
    yield "weight", {"weight": WEIGHT, "event_ndim": 0}


_KINDS = (
    (_of_engine, PLAIN),
    (_together, (RSAMPLE_KL_PRIOR, RSAMPLE_LOG_PROB_PRIOR, KL_PRIOR, PROBS, INFLATED)),
    (_formulas, (COUNT,)),
)


def _options(call):
    return next((kind for kind, calls in _KINDS if call in calls), _alone)(call)


CASES = tuple(Case(call, name, options) for call in CALLS for name, options in _options(call))


def each_case(*names, among=CASES):
    """All cases, or those of these names."""
    chosen = [case for case in among if not names or case.name in names]
    return pytest.mark.parametrize("case", chosen, ids=str)
