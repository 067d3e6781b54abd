"""One case of the check: an operator, where it runs, on which tensors, with which options; and its names.

Everything about a case follows from its fields, so that one command line says all of it. Options are words that
may be combined ("prior,weight,sum"); what a word stands for is in ``arguments``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from vae_fast.checking.forms import Form
from vae_fast.operators import DATA, FORMS, OPERATORS, PARAMETER, REDUCTIONS, Operator

DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
INPUTS = ("ordinary", "extreme")

_PARAMS = tuple(name for name in FORMS if name != "logvar")
_REDUCTIONS = tuple(name for name in REDUCTIONS if name != "none")
_WEIGHTS = ("weight", "datum_weight", "masked")
_BYTES = ("uint8", "bool")
_EVENTS = ("event0", "event2")
# Words of which a case has one at most.
_EXCLUSIVE = (_PARAMS, _REDUCTIONS, _WEIGHTS, _BYTES, _EVENTS)

# The words that go with an option of an operator, by the option's name in the table.
_WORDS = {
    "sample_shape": ("samples",),
    "offset": ("offset",),
    "x_scale": _BYTES,
    "free_bits": ("free_bits",),
    "param_eps": (*_PARAMS, "eps", "bounds"),
    "reduction": (*_WEIGHTS, *_REDUCTIONS, "negated"),
    "event_ndim": _EVENTS,
}
# Words that make another formula of an operator, tried with all its others.
FORMULAS = ("prior", "probs")
# What is tried together by default, where the operator knows all the words.
_TOGETHER = (
    *(f"{param},{more}" for param in _PARAMS for more in ("eps", "bounds")),
    "samples,offset",
    "sum,negated",
    "mean,negated",
    "weight,sum,negated",
    "masked,mean",
    "uint8,sum,negated",
    "bool,weight,mean",
    "samples,softplus,eps",
    "samples,free_bits,var",
    "softplus,eps,weight,mean",
)
# What extreme inputs go with: sums of them are infinite or NaN, and σ overflows where log σ² does not.
_ONE_BY_ONE = {*FORMULAS, "offset", "event0", *_BYTES}


@dataclass(frozen=True)
class Op:
    """An operator: its operands in order, its results, the option words it knows, and those tried by default."""

    operands: tuple[str, ...]
    results: tuple[str, ...]
    words: tuple[str, ...]
    variants: tuple[str, ...]


def _op(operator: Operator) -> Op:
    names = {option.name for option in operator.options}
    if not operator.operands:
        names.discard("sample_shape")  # part of the shape that the public function takes
    words = tuple(word for name, some in _WORDS.items() if name in names for word in some)
    variants = (*words, *(text for text in _TOGETHER if set(text.split(",")) <= set(words)))
    formula = (
        "prior"
        if any(operand.role == PARAMETER and operand.optional for operand in operator.operands)
        else "probs"
        if "param" in names and "param_eps" not in names
        else ""
    )
    if formula:
        words, variants = (*words, formula), (*variants, formula, *(f"{formula},{text}" for text in variants))
    operands = tuple(operand.name for operand in operator.operands if operand.role in (PARAMETER, DATA))
    return Op(operands, operator.results, words, variants)


OPS = {name: _op(operator) for name, operator in OPERATORS.items()}

# What each layout needs of the shape: at least so many dims.
LAYOUTS = {
    "contiguous": 0,
    "transposed": 2,
    "packed": 1,
    "expanded": 1,
    "step": 1,
    "channels_last": 4,
    "per_feature": 1,
    "per_datum": 1,
    "scalar": 0,
    "number": 0,
    "upstream_expanded": 0,
    "upstream_transposed": 2,
    "upstream_cut": 1,
}
# Layouts in which every second operand is smaller than the others, and broadcasts to them.
BROADCAST = ("per_feature", "per_datum", "scalar", "number")


@dataclass(frozen=True)
class Case:
    """One call and its backward pass.

    ``inputs`` is "ordinary", "extreme" or "bits:START:STEP:OTHER" (operands.py).
    """

    op: str
    backend: str
    device: str
    dtype: str
    shape: tuple[int, ...]
    layout: str = "contiguous"
    inputs: str = "ordinary"
    options: tuple[str, ...] = ()
    seed: int = 0

    @property
    def spec(self) -> Op:
        return OPS[self.op]

    @property
    def torch_dtype(self) -> torch.dtype:
        return DTYPES[self.dtype]

    @property
    def compute_dtype(self) -> torch.dtype:
        """What is computed in, and what a density comes out in."""
        return torch.float64 if self.dtype == "float64" else torch.float32

    @property
    def sampled(self) -> bool:
        """Whether the first result is a sample."""
        return self.spec.results[0] == "z"

    @property
    def density(self) -> str:
        """The result that is a density's, the empty text where there is none."""
        return next((name for name in self.spec.results if name not in ("z", "eps")), "")

    @property
    def operands(self) -> tuple[str, ...]:
        """The names of the tensor operands of this case, in order."""
        operands = OPERATORS[self.op].operands
        left_out = {o.name for o in operands if o.optional and "prior" not in self.options}
        return tuple(name for name in self.spec.operands if name not in left_out)

    @property
    def event_ndim(self) -> int:
        """How many dims a density sums over: as the options say; 3 for images; 0 for inputs looked at singly."""
        for word, n in (("event0", 0), ("event2", 2)):
            if word in self.options:
                return n
        if self.layout == "channels_last":
            return 3
        return 0 if self.inputs != "ordinary" else min(1, len(self.shape))

    @property
    def sample_shape(self) -> tuple[int, ...]:
        return (3,) if "samples" in self.options else ()

    @property
    def noise(self) -> tuple[int, int]:
        """(offset, number of the first sample)."""
        return (5, 2) if "offset" in self.options else (0, 0)

    @property
    def reduction(self) -> str:
        return next((name for name in _REDUCTIONS if name in self.options), "none")

    @property
    def factor(self) -> float:
        """The option ``scale`` of a density."""
        return -1.0 if "negated" in self.options else 1.0

    @property
    def weighted(self) -> bool:
        return bool(set(self.options) & set(_WEIGHTS))

    @property
    def probs(self) -> bool:
        """Whether the Bernoulli is given by its probabilities."""
        return "probs" in self.options

    @property
    def form(self) -> Form:
        """What the case's Gaussians make of their scale argument."""
        form = Form(
            next((p for p in _PARAMS if p in self.options), "logvar"), 1e-3 if "eps" in self.options else 0.0
        )
        if "bounds" not in self.options:
            return form
        low, high = (0.25, 1.5) if form.positive else (-0.75, 0.75)
        return form._replace(low=low, high=high)

    @property
    def free_bits(self) -> float | None:
        return 0.1 if "free_bits" in self.options else None

    @property
    def x_dtype(self) -> torch.dtype:
        return (
            torch.uint8 if "uint8" in self.options else torch.bool if "bool" in self.options else self.torch_dtype
        )

    @property
    def x_scale(self) -> float:
        return 1 / 255 if "uint8" in self.options else 1.0

    @property
    def exists(self) -> bool:
        """Whether the operator knows these options and layout, and the shape has the dims they need."""
        words = set(self.options)
        if not words <= set(self.spec.words) or len(words) != len(self.options):
            return False
        if any(len(words & set(group)) > 1 for group in _EXCLUSIVE):
            return False
        if self.op == "standard_normal":
            return self.layout == "contiguous" and self.inputs == "ordinary"
        if self.layout == "number" and self.spec.operands[1] == "x":
            return False
        if self.event_ndim > len(self.shape) or ("datum_weight" in words and not self.shape):
            return False
        if self.layout == "channels_last" and (len(self.shape) != 4 or words & {"event0", "event2"}):
            return False
        if self.inputs != "ordinary" and (not words <= _ONE_BY_ONE or self.layout in BROADCAST):
            return False
        dims = len(self.shape)
        if self.layout.startswith("upstream"):
            if self.reduction != "none":
                return False
            dims -= self.event_ndim if self.density else 0
        return dims >= LAYOUTS[self.layout]

    def arguments(self, tensors: dict[str, Any], weight: torch.Tensor | None) -> tuple[list[Any], dict[str, Any]]:
        """The positional and keyword arguments of the public function."""
        offset, first_sample = self.noise
        if self.op == "standard_normal":
            noise = {"seed": self.seed, "offset": offset, "sample": first_sample, "backend": self.backend}
            return [self.shape], noise | {"device": self.device, "dtype": self.torch_dtype}
        form = self.form
        values = {
            "sample_shape": self.sample_shape,
            "seed": self.seed,
            "offset": offset,
            "first_sample": first_sample,
            "event_ndim": self.event_ndim,
            "weight": weight,
            "reduction": self.reduction,
            "scale": self.factor,
            "free_bits": self.free_bits,
            "x_scale": self.x_scale,
            "param": form.param,
            "param_eps": form.eps,
            "bounds": (form.low, form.high) if form.bounded else None,
        }
        operator = OPERATORS[self.op]
        names = {option.name for option in operator.options}
        if "param" in names and "param_eps" not in names:
            values["param"] = "probs" if self.probs else "logits"
        names |= {"weight"} if operator.density else set()
        names |= {"bounds"} if "low" in names else set()
        kwargs = {name: value for name, value in values.items() if name in names}
        return [tensors[name] for name in self.operands], kwargs | {"backend": self.backend}

    @property
    def command(self) -> str:
        """The command line that runs this case and no other."""
        return (
            f"python -m vae_fast check --op {self.op} --backend {self.backend} --device {self.device} "
            f"--dtype {self.dtype} --shape {shape_text(self.shape)} --layout {self.layout} --inputs {self.inputs} "
            f"--options {options_text(self.options)} --seed {self.seed}"
        )


def shape_text(shape: tuple[int, ...]) -> str:
    """(2, 3) → "2x3", () → "scalar"."""
    return "x".join(map(str, shape)) or "scalar"


def parse_shape(text: str) -> tuple[int, ...]:
    """The reverse of ``shape_text``. Raises ValueError for anything else."""
    if text == "scalar":
        return ()
    parts = text.split("x")
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise ValueError(f"{text!r} is not a shape such as 8x20 (or scalar)")
    return tuple(int(part) for part in parts)


def options_text(options: tuple[str, ...]) -> str:
    return ",".join(options) or "plain"


def parse_options(text: str) -> tuple[str, ...]:
    """ "prior,sum" → ("prior", "sum"), "plain" → (). Raises ValueError naming the words there are."""
    options = () if text == "plain" else tuple(text.split(","))
    known = sorted({word for op in OPS.values() for word in op.words})
    for word in options:
        if word not in known:
            raise ValueError(f"unknown option {word!r}; there are plain, {', '.join(known)}")
    return options
