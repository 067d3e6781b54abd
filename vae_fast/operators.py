"""Every operator, once: its operands, its options and its results. What else says them derives from here.

Of an operator <op> there is a raw operator <op>_fwd, which takes operands and options, and one <op>_bwd, which
takes upstream gradients before them. A density's _fwd also makes gradients, for an upstream gradient of 1, of all
operands but the weight. A shape may be None, which stands for (): AOTInductor passes an empty list so.

A raw operator's overload "common" is for most calls there are: without optional operands, and with nothing but a
seed, event dims, a reduction and a scale told otherwise than by the options' defaults. Every argument that is not
there saves a call of it a tenth of a microsecond. Its results are the long one's, but for the gradients of what it
has not.

Without torch, since the build reads the signatures too: the compiled library defines the operators in a process
that has not this package.
"""

from __future__ import annotations

import math
from collections import namedtuple
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

REDUCTIONS = {"none": 0, "sum": 1, "mean": 2}
# What a Gaussian's second argument says of σ (sigma.py), and what a Bernoulli's first one is.
FORMS = {"logvar": 0, "logstd": 1, "std": 2, "var": 3, "softplus": 4}
BERNOULLI_PARAMS = {"logits": 0, "probs": 1}
# What a count's mean and a negative binomial's inverse dispersion are given by.
MEAN_PARAMS = {"mean": 0, "log_mean": 1, "softmax": 2}
RATE_PARAMS = {"rate": 0, "log_rate": 1}
THETA_PARAMS = {"theta": 0, "log_theta": 1}
# What a location-scale density's scale is given by.
SCALE_PARAMS = {"scale": 0, "log_scale": 1}
# The gradient of what a bound clamps.
BOUNDS_GRADS = {"zero": 0, "pass": 1}
# Whose gradient log q(z|x) has: that by z and by q's parameters, or by z alone.
Q_GRADS = {"total": 0, "path": 1}


class Role(Enum):
    """Parameters decide a result's dtype; data and weights do not, and may be bytes or bools.

    Of several weights the last one multiplies terms; the others are part of a term.
    """

    PARAMETER = "parameter"
    DATA = "data"
    WEIGHT = "weight"


PARAMETER, DATA, WEIGHT = Role


class Operand(NamedTuple):
    """A tensor that broadcasts against the others, which come in the order of their roles.

    ``neutral`` leaves every term and gradient finite, in the operand's place where a weight is 0. ``torch_name`` is
    torch.distributions' name for it. ``counts`` may be of any integer dtype.
    """

    name: str
    torch_name: str
    role: Role = PARAMETER
    neutral: float = 0.0
    optional: bool = False
    differentiable: bool = True
    counts: bool = False


class _Required:
    """Stands for no default."""


class Option(NamedTuple):
    """What is no operand: its type in the language of PyTorch's schemas, and its value where nothing is said.

    ``codes`` are the numbers that stand for the words which the public function takes. ``common`` says that common
    calls have it too; in all others than these it has its default.
    """

    name: str
    type: str
    default: Any = _Required
    codes: dict[str, int] | None = None
    common: bool = False


class Wanted(NamedTuple):
    """The gradients that a call is to make: which, and the tensor whose halves the first two operands are."""

    needs: tuple[bool, ...]
    packed: Tensor | None = None
    packed_dim: int = 0


@dataclass(frozen=True)
class Operator:
    """An operator's facts.

    ``packed`` says that its first two operands may be the halves of one tensor, ``of_samples`` that a sampler's
    sums are of every sample. ``overload`` is that of its raw operators.
    """

    name: str
    operands: tuple[Operand, ...]
    options: tuple[Option, ...]
    results: tuple[str, ...]
    packed: bool = False
    of_samples: bool = False
    overload: str = ""

    @property
    def title(self) -> str:
        """The name as a class has it: GaussianKl."""
        return "".join(word.title() for word in self.name.split("_"))

    @property
    def density(self) -> bool:
        """Whether it sums terms, which a weight may multiply; otherwise it draws noise."""
        return all(option.name != "seed" for option in self.options)

    @cached_property
    def counted(self) -> bool:
        """Whether its data are counts."""
        return any(operand.counts for operand in self.operands)

    @cached_property
    def sums(self) -> tuple[str, ...]:
        """The results that sum over event dims: all but a sampler's first one, the sample."""
        sample, *others = self.results
        return self.results if self.density else tuple(others)

    @cached_property
    def differentiable(self) -> tuple[str, ...]:
        """The operands with a gradient, by name: those that a backward pass is asked for."""
        return tuple(operand.name for operand in self.operands if operand.differentiable)

    @cached_property
    def differentiable_in_forward(self) -> tuple[str, ...]:
        """Those whose gradients a forward pass can be asked for."""
        others = (operand for operand in self.operands if operand.differentiable and operand.role != WEIGHT)
        return tuple(operand.name for operand in others) if self.density else ()

    @cached_property
    def softmax(self) -> int:
        """The code of a mean that is a softmax's share, whose gradient is not its kernel's own; −1 without any."""
        return max(((option.codes or {}).get("softmax", -1) for option in self.options), default=-1)

    @cached_property
    def common(self) -> Operator | None:
        """The same of a common call's arguments; None where there is no operand to begin with."""
        if not self.operands:
            return None
        operands = tuple(operand for operand in self.operands if not operand.optional)
        options = tuple(option for option in self.options if option.common)
        return replace(self, operands=operands, options=options, overload="common")

    @cached_property
    def Options(self) -> Any:
        """The options' record: a NamedTuple of the schema's names in the schema's order."""
        with_default = [option.default for option in self.options if option.default is not _Required]
        return namedtuple(f"{self.title}Options", [option.name for option in self.options], defaults=with_default)

    @cached_property
    def forward(self) -> Signature:
        made = self.differentiable_in_forward
        return Signature("fwd", self, (), made, (*self.results, *(f"d{name}" for name in made)))

    @cached_property
    def backward(self) -> Signature | None:
        """None where there is nothing to differentiate by."""
        if not self.differentiable:
            return None
        upstream = tuple(f"d{result}" for result in self.results)
        made = self.differentiable
        return Signature("bwd", self, upstream, made, tuple(f"d{name}" for name in made))

    @property
    def schemas(self) -> dict[str, str]:
        """The raw operators', by name."""
        return {made.name: made.schema for made in (self.forward, self.backward) if made is not None}


@dataclass(frozen=True)
class Signature:
    """A raw operator's arguments: upstream gradients, operands, options, which gradients are wanted."""

    direction: str
    operator: Operator
    upstream: tuple[str, ...]
    needs: tuple[str, ...]
    results: tuple[str, ...]

    @cached_property
    def name(self) -> str:
        """The raw operator's: rsample_kl_fwd, rsample_kl_fwd_common."""
        return "_".join(filter(None, (self.operator.name, self.direction, self.operator.overload)))

    @cached_property
    def qualified(self) -> str:
        """As PyTorch has it: rsample_kl_fwd, rsample_kl_fwd.common."""
        return ".".join(filter(None, (f"{self.operator.name}_{self.direction}", self.operator.overload)))

    @cached_property
    def split(self) -> Callable[[tuple[Any, ...]], tuple[tuple[Any, ...], Any, Wanted]]:
        """Makes (upstream gradients and operands, options, what is wanted) of the arguments in their order."""
        # Plain numbers, which a compiler reads as constants.
        tensors = len(self.upstream) + len(self.operator.operands)
        options = tensors + len(self.operator.options)
        needs = options + len(self.needs)
        record = self.operator.Options

        def split(args: tuple[Any, ...]) -> tuple[tuple[Any, ...], Any, Wanted]:
            return args[:tensors], record(*args[tensors:options]), Wanted(args[options:needs], *args[needs:])

        return split

    def _arguments(self) -> Iterator[str]:
        # Of several results one may have no gradient.
        yield from (f"{'Tensor' if len(self.upstream) == 1 else 'Tensor?'} {name}" for name in self.upstream)
        yield from (f"{'Tensor?' if o.optional else 'Tensor'} {o.name}" for o in self.operator.operands)
        yield from (f"{option.type} {option.name}" for option in self.operator.options)
        yield from (f"bool need_d{name}" for name in self.needs)
        if self.upstream and self.operator.packed:
            yield "Tensor? packed=None"
            yield "int packed_dim=0"

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The arguments'."""
        return tuple(argument.split()[-1].partition("=")[0] for argument in self._arguments())

    @cached_property
    def types(self) -> tuple[str, ...]:
        """The arguments', in the language of PyTorch's schemas."""
        return tuple(argument.split()[0] for argument in self._arguments())

    @property
    def schema(self) -> str:
        """In the language of PyTorch's schemas, without the name."""
        several = ", ".join(f"Tensor {name}" for name in self.results)
        return f"({', '.join(self._arguments())}) -> {f'({several})' if len(self.results) > 1 else 'Tensor'}"


# ---- the table -------------------------------------------------------------------------------------------

_WEIGHT = Operand("weight", "weight", WEIGHT, neutral=1.0, optional=True)
_MOMENTS = (Operand("mu", "loc"), Operand("logvar", "scale", neutral=1.0))
_PRIOR = (
    Operand("prior_mu", "loc", optional=True),
    Operand("prior_logvar", "scale", neutral=1.0, optional=True),
)
_SUM = (
    Option("event_ndim", "int", 1, common=True),
    Option("reduction", "int", 0, REDUCTIONS, common=True),
    Option("scale", "float", 1.0, common=True),
)
# Infinite bounds are none.
_FORM = (
    Option("param", "int", 0, FORMS),
    Option("param_eps", "float", 0.0),
    Option("low", "float", -math.inf),
    Option("high", "float", math.inf),
    Option("bounds_grad", "int", 0, BOUNDS_GRADS),
)
# The prior's, whose bounds have the posterior's gradient.
_PRIOR_FORM = (
    Option("prior_param", "int", 0, FORMS),
    Option("prior_param_eps", "float", 0.0),
    Option("prior_low", "float", -math.inf),
    Option("prior_high", "float", math.inf),
)
# ``seed`` holds 64 bits as a signed integer; ``seed_tensor``, one int64 element, replaces it where given.
_NOISE = (
    Option("seed", "SymInt", 0, common=True),
    Option("seed_tensor", "Tensor?", None, common=True),
    Option("offset", "SymInt", 0),
    Option("first_sample", "SymInt", 0),
)
# ``noise`` is ε itself, of the sample's shape, in place of all these.
_GIVEN = Option("noise", "Tensor?", None)
_DRAW = (*_NOISE, _GIVEN, Option("temperature", "float", 1.0))
_SAMPLES = Option("sample_shape", "SymInt[]?", ())
_FREE_BITS = Option("free_bits", "float?", None)
_X_SCALE = Option("x_scale", "float", 1.0)
_SCALE_PARAM = Option("param", "int", 0, SCALE_PARAMS)

_OPERATORS = (
    Operator(
        "standard_normal",
        operands=(),
        options=(
            Option("sample_shape", "SymInt[]?"),
            Option("shape", "SymInt[]?"),
            *(option._replace(default=_Required) for option in _NOISE),
            Option("dtype", "ScalarType"),
            Option("device", "Device"),
        ),
        results=("eps",),
    ),
    Operator(
        "rsample",
        operands=_MOMENTS,
        options=(_SAMPLES, *_DRAW, *_FORM),
        results=("z",),
        packed=True,
    ),
    Operator(
        "rsample_kl",
        operands=(*_MOMENTS, *_PRIOR),
        options=(_SAMPLES, *_DRAW, Option("event_ndim", "int", 1, common=True), _FREE_BITS, *_FORM, *_PRIOR_FORM),
        results=("z", "kl"),
        packed=True,
    ),
    Operator(
        "rsample_log_prob",
        operands=(*_MOMENTS, *_PRIOR),
        options=(
            _SAMPLES,
            *_NOISE,
            _GIVEN,
            Option("event_ndim", "int", 1, common=True),
            Option("q_grad", "int", 0, Q_GRADS),
            *_FORM,
            *_PRIOR_FORM,
        ),
        results=("z", "log_q", "log_p"),
        of_samples=True,
    ),
    Operator(
        "gaussian_kl",
        operands=(*_MOMENTS, *_PRIOR, _WEIGHT),
        options=(*_SUM, _FREE_BITS, *_FORM, *_PRIOR_FORM),
        results=("kl",),
        packed=True,
    ),
    Operator(
        "bernoulli_log_prob",
        operands=(
            Operand("logits", "logits"),
            Operand("x", "value", DATA),
            Operand("pos_weight", "pos_weight", WEIGHT, neutral=1.0, optional=True, differentiable=False),
            _WEIGHT,
        ),
        options=(*_SUM, _X_SCALE, Option("param", "int", 0, BERNOULLI_PARAMS)),
        results=("log_prob",),
    ),
    Operator(
        "gaussian_log_prob",
        operands=(
            Operand("mean", "loc"),
            Operand("logvar", "scale", neutral=1.0),
            Operand("x", "value", DATA),
            _WEIGHT,
        ),
        options=(*_SUM, _X_SCALE, *_FORM),
        results=("log_prob",),
        packed=True,
    ),
    Operator(
        "negative_binomial_log_prob",
        operands=(
            Operand("mean", "mean", neutral=1.0),
            Operand("theta", "total_count", neutral=1.0),
            Operand("zero_logits", "gate_logits", optional=True),
            Operand("log_library", "log_library", optional=True),
            Operand("x", "value", DATA, differentiable=False, counts=True),
            _WEIGHT,
        ),
        options=(
            *_SUM,
            Option("param", "int", 0, MEAN_PARAMS),
            Option("theta_param", "int", 0, THETA_PARAMS),
            Option("eps", "float", 0.0),
        ),
        results=("log_prob",),
    ),
    Operator(
        "poisson_log_prob",
        operands=(
            Operand("rate", "rate", neutral=1.0),
            Operand("x", "value", DATA, differentiable=False, counts=True),
            _WEIGHT,
        ),
        options=(*_SUM, Option("param", "int", 0, RATE_PARAMS), Option("eps", "float", 0.0)),
        results=("log_prob",),
    ),
    Operator(
        "continuous_bernoulli_log_prob",
        operands=(Operand("logits", "logits"), Operand("x", "value", DATA), _WEIGHT),
        options=(*_SUM, _X_SCALE),
        results=("log_prob",),
    ),
    Operator(
        "laplace_log_prob",
        operands=(Operand("loc", "loc"), Operand("b", "scale", neutral=1.0), Operand("x", "value", DATA), _WEIGHT),
        options=(*_SUM, _X_SCALE, _SCALE_PARAM),
        results=("log_prob",),
    ),
    Operator(
        "student_t_log_prob",
        operands=(
            Operand("loc", "loc"),
            Operand("sigma", "scale", neutral=1.0),
            Operand("df", "df", neutral=1.0),
            Operand("x", "value", DATA),
            _WEIGHT,
        ),
        options=(*_SUM, _X_SCALE, _SCALE_PARAM),
        results=("log_prob",),
    ),
)

OPERATORS = {operator.name: operator for operator in _OPERATORS}

# ---- the signatures that follow --------------------------------------------------------------------------

SIGNATURES = {
    signature.name: signature
    for operator in _OPERATORS
    for signature in (operator.forward, operator.backward)
    if signature is not None
}
SCHEMAS = {name: schema for operator in _OPERATORS for name, schema in operator.schemas.items()}


class Shortened(NamedTuple):
    """The raw operator of common calls, of which ``long`` is the one of all calls.

    ``arguments`` are the long one's: the place of each among the short one's, or the value that it has there, in a
    tuple. ``results`` are the places of the short one's among the long one's.
    """

    signature: Signature
    long: Signature
    arguments: tuple[int | tuple[Any], ...]
    results: tuple[int, ...]

    @classmethod
    def of(cls, short: Signature, long: Signature) -> Shortened:
        values: dict[str, Any] = {option.name: option.default for option in long.operator.options}
        values |= {operand.name: None for operand in long.operator.operands}
        values |= {f"need_d{name}": False for name in long.needs}
        places = (short.names.index(n) if n in short.names else (values[n],) for n in long.names)
        return cls(short, long, tuple(places), tuple(long.results.index(result) for result in short.results))

    def lengthened(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function of the long one's arguments as one of the short one's."""

        def call(*args: Any) -> Any:
            # Of the last ones some may be left out: "packed" and its dim.
            parts = (part for part in self.arguments if isinstance(part, tuple) or part < len(args))
            made = function(*(part[0] if isinstance(part, tuple) else args[part] for part in parts))
            if len(self.long.results) == 1:
                return made
            first, *others = (made[k] for k in self.results)
            return (first, *others) if others else first

        return call


COMMON = {
    short.name: Shortened.of(short, long)
    for operator in _OPERATORS
    if operator.common is not None
    for short, long in ((operator.common.forward, operator.forward), (operator.common.backward, operator.backward))
    if short is not None and long is not None
}


class Pairwise(NamedTuple):
    """An operator on pairs of a datum and a component, whose operands do not broadcast: its raw operators' schemas.

    Its tensors are of one floating dtype; what it means and takes beside them stands in ops/<op>.py.
    """

    name: str
    fwd: str
    bwd: str | None = None

    @property
    def schemas(self) -> dict[str, str]:
        """The raw operators', by name; no _bwd where _fwd makes the gradients."""
        both = {f"{self.name}_fwd": self.fwd, f"{self.name}_bwd": self.bwd}
        return {name: schema for name, schema in both.items() if schema is not None}


_MIXTURE = "Tensor z, Tensor mu, Tensor rate, Tensor log_rate, Tensor log_weight"
PAIRWISE = {
    pairwise.name: pairwise
    for pairwise in (
        Pairwise(
            "gaussian_mixture_log_prob",
            f"({_MIXTURE}, bool per_dim) -> (Tensor log_prob, Tensor marginals)",
            f"(Tensor? dlog_prob, Tensor? dmarginals, {_MIXTURE}, Tensor log_prob, Tensor marginals, bool need_dz, "
            "bool need_dmu, bool need_drate, bool need_dlog_rate, bool need_dlog_weight) -> "
            "(Tensor dz, Tensor dmu, Tensor drate, Tensor dlog_rate, Tensor dlog_weight)",
        ),
        Pairwise(
            "mmd",
            "(Tensor x, Tensor y, float[] constants, bool exponential, bool unbiased, bool need_dx, bool need_dy) "
            "-> (Tensor mmd, Tensor dx, Tensor dy)",
        ),
        Pairwise(
            "logistic_mixture_log_prob",
            "(Tensor logits, Tensor mean, Tensor log_scale, Tensor? coefficients, Tensor x, Tensor? dlog_prob, "
            "float half_width, float min_log_scale, float low, float high, float density_below, bool need_dlogits, "
            "bool need_dmean, bool need_dlog_scale, bool need_dcoefficients) -> "
            "(Tensor log_prob, Tensor dlogits, Tensor dmean, Tensor dlog_scale, Tensor dcoefficients)",
        ),
    )
}
PAIRWISE_SCHEMAS = {name: schema for pairwise in PAIRWISE.values() for name, schema in pairwise.schemas.items()}

# The reference's noise as one operator of its own, so that it stays the reference's when a backend serves
# standard_normal_fwd.
NORMALS = f"({SCHEMAS['standard_normal_fwd'].replace('ScalarType dtype, ', '')[1:]}"

# Those with another overload, which has a gradient, for graphs made of operators; they themselves have none.
DIFFERENTIABLE = {
    made.forward.name: f"{made.forward.qualified}{'_' if made.overload else '.'}autograd"
    for operator in _OPERATORS
    for made in (operator, operator.common)
    if made is not None and made.backward is not None
}


def _schema(name: str) -> str:
    return COMMON[name].signature.schema if name in COMMON else SCHEMAS[name]


# What is defined: every operator and overload with its signature.
DEFINITIONS = (
    *(name + schema for name, schema in (SCHEMAS | PAIRWISE_SCHEMAS).items()),
    *(short.signature.qualified + short.signature.schema for short in COMMON.values()),
    *(overload + _schema(name) for name, overload in DIFFERENTIABLE.items()),
    f"reference_normals{NORMALS}",
)
