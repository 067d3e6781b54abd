"""One case of the check: an operator, where it runs, on which tensors, with which options; and its names.

Everything about a case follows from its fields, so that one command line says all of it. Options are words that
may be combined ("prior,weight,sum"); what a word stands for is in ``arguments``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from vae_fast.operators import FORMS, REDUCTIONS
from vae_fast.sigma import SigmaForm

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
# Words of which a case has one at most.
_EXCLUSIVE = (_PARAMS, _REDUCTIONS, _WEIGHTS, _BYTES, ("event0", "event2"))

_SCALES = (*_PARAMS, "eps", "bounds")
_DENSITY = (*_WEIGHTS, *_REDUCTIONS, "negated", "event0", "event2")
_NOISE = ("samples", "offset")


# What extreme inputs go with: sums of them are infinite or NaN, and σ overflows where log σ² does not.
_ONE_BY_ONE = {"prior", "offset", "event0", "probs", *_BYTES}


@dataclass(frozen=True)
class Op:
    """An operator: its operands in order, its results, the option words it knows, and those tried by default."""

    operands: tuple[str, ...]
    results: tuple[str, ...]
    words: tuple[str, ...]
    variants: tuple[str, ...]


_SCALE_VARIANTS = (*_PARAMS, "eps", *(f"{p},eps" for p in _PARAMS), "bounds", *(f"{p},bounds" for p in _PARAMS))
_DENSITY_VARIANTS = (
    "weight",
    "datum_weight",
    "masked",
    "sum",
    "mean",
    "sum,negated",
    "mean,negated",
    "negated",
    "weight,sum,negated",
    "masked,mean",
    "event0",
    "event2",
)
_BERNOULLI_VARIANTS = ("uint8", "bool", *_DENSITY_VARIANTS, "uint8,sum,negated", "bool,weight,mean")
OPS = {
    "standard_normal": Op((), ("eps",), ("offset",), ("offset",)),
    "rsample": Op(
        ("mu", "logvar"),
        ("z",),
        (*_NOISE, *_SCALES),
        ("samples", "offset", "samples,offset", *_SCALE_VARIANTS, "samples,softplus,eps"),
    ),
    "rsample_kl": Op(
        ("mu", "logvar"),
        ("z", "kl"),
        (*_NOISE, *_SCALES, "free_bits", "event0", "event2"),
        ("samples", "samples,offset", "free_bits", "event0", "event2", *_SCALE_VARIANTS, "samples,free_bits,var"),
    ),
    "gaussian_kl": Op(
        ("mu", "logvar", "prior_mu", "prior_logvar"),
        ("kl",),
        ("prior", "free_bits", *_SCALES, *_DENSITY),
        (
            "prior",
            "free_bits",
            "prior,free_bits",
            *_DENSITY_VARIANTS,
            *(f"prior,{v}" for v in ("weight", "sum", "mean,negated", "masked,sum", "event2")),
            *_SCALE_VARIANTS,
            *(f"prior,{v}" for v in _SCALE_VARIANTS),
        ),
    ),
    "bernoulli_log_prob": Op(
        ("logits", "x"),
        ("log_prob",),
        ("probs", *_BYTES, *_DENSITY),
        (*_BERNOULLI_VARIANTS, "probs", *(f"probs,{v}" for v in _BERNOULLI_VARIANTS)),
    ),
    "gaussian_log_prob": Op(
        ("mean", "logvar", "x"),
        ("log_prob",),
        (*_BYTES, *_SCALES, *_DENSITY),
        ("uint8", "bool", *_DENSITY_VARIANTS, *_SCALE_VARIANTS, "uint8,sum,negated", "softplus,eps,weight,mean"),
    ),
}

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
    def operands(self) -> tuple[str, ...]:
        """The names of the tensor operands of this case, in order."""
        names = self.spec.operands
        return names[:2] if self.op == "gaussian_kl" and "prior" not in self.options else names

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
    def reduction_name(self) -> str:
        return next((name for name in _REDUCTIONS if name in self.options), "none")

    @property
    def reduction(self) -> int:
        """Its code, as the raw operators take it."""
        return REDUCTIONS[self.reduction_name]

    @property
    def factor(self) -> float:
        """The option ``scale`` of a density."""
        return -1.0 if "negated" in self.options else 1.0

    @property
    def weighted(self) -> bool:
        return bool(set(self.options) & set(_WEIGHTS))

    @property
    def param(self) -> str:
        return next((p for p in _PARAMS if p in self.options), "logvar")

    @property
    def probs(self) -> bool:
        """Whether the Bernoulli is given by its probabilities."""
        return "probs" in self.options

    @property
    def positive(self) -> bool:
        """Whether the Gaussian's scale is a σ or σ² itself."""
        return self.param in ("std", "var")

    @property
    def form(self) -> SigmaForm:
        """What the case's Gaussians make of their second argument."""
        low, high = ((0.25, 1.5) if self.positive else (-0.75, 0.75)) if "bounds" in self.options else (None, None)
        eps = 1e-3 if "eps" in self.options else 0.0
        bounds = -math.inf if low is None else low, math.inf if high is None else high
        return SigmaForm(FORMS[self.param], eps, *bounds)

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
        if self.layout == "number" and self.op == "bernoulli_log_prob":
            return False
        if self.event_ndim > len(self.shape) or ("datum_weight" in words and not self.shape):
            return False
        if self.layout == "channels_last" and (len(self.shape) != 4 or words & {"event0", "event2"}):
            return False
        if self.inputs != "ordinary" and (not words <= _ONE_BY_ONE or self.layout in BROADCAST):
            return False
        dims = len(self.shape)
        if self.layout.startswith("upstream"):
            if self.reduction_name != "none":
                return False
            dims -= 0 if self.op == "rsample" else self.event_ndim
        return dims >= LAYOUTS[self.layout]

    def arguments(self, tensors: dict[str, Any], weight: torch.Tensor | None) -> tuple[list[Any], dict[str, Any]]:
        """The positional and keyword arguments of the public function."""
        kwargs: dict[str, Any] = {"backend": self.backend}
        offset, first_sample = self.noise
        if self.op == "standard_normal":
            kwargs |= {"seed": self.seed, "offset": offset, "sample": first_sample}
            return [self.shape], kwargs | {"device": self.device, "dtype": self.torch_dtype}
        if self.op != "rsample":
            kwargs["event_ndim"] = self.event_ndim
        if self.op in ("rsample", "rsample_kl"):
            kwargs |= {"sample_shape": self.sample_shape, "seed": self.seed}
            kwargs |= {"offset": offset, "first_sample": first_sample}
        else:
            kwargs |= {"weight": weight, "reduction": self.reduction_name, "scale": self.factor}
        if self.op in ("rsample_kl", "gaussian_kl"):
            kwargs["free_bits"] = self.free_bits
        if "x" in tensors:
            kwargs["x_scale"] = self.x_scale
        if self.op == "bernoulli_log_prob":
            kwargs["param"] = "probs" if self.probs else "logits"
        else:
            form = self.form
            bounds = (form.low, form.high) if form.bounded else None
            kwargs |= {"param": self.param, "param_eps": form.eps, "bounds": bounds}
        return [tensors[name] for name in self.operands], kwargs

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
