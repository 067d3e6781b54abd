"""One case of the check: an operator, where it runs, on which tensors, with which options; and its names.

Everything about a case follows from its fields, so that one command line says all of it. Options are words that
may be combined ("prior,weight,sum", words.py); what a word stands for is in ``arguments``.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from vae_fast.checking import words
from vae_fast.checking.forms import Form
from vae_fast.checking.formulas import Forms
from vae_fast.checking.words import OPS, Op, options_text
from vae_fast.operators import OPERATORS

DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
INPUTS = ("ordinary", "extreme")
# One whose place in a sample's counter word has the highest bit set, and others.
_STREAM = 2**31 + 5
# What extreme inputs go with: sums of them are infinite or NaN, and σ overflows where log σ² does not.
_ONE_BY_ONE = {*words.FORMULAS, "offset", "stream", "event0", *words.BYTES}

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
    "csr": 2,
}
# Layouts in which every second operand is smaller than the others, and broadcasts to them.
BROADCAST = ("per_feature", "per_datum", "scalar", "number")


def _csr(x: torch.Tensor) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        return x.to_sparse_csr()


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
        left_out = {o.name for o in operands if o.optional and words.OPTIONAL.get(o.name) not in self.options}
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
    def place(self) -> tuple[int, int, int]:
        """Of the noise in that of the seed: offset, number of the first sample, stream."""
        offset, first_sample = (5, 2) if "offset" in self.options else (0, 0)
        return offset, first_sample, _STREAM if "stream" in self.options else 0

    @property
    def counted(self) -> tuple[int, int]:
        """Offset and number of the first sample as noise.py has them: stream and sample in one, of 64 bits."""
        offset, first_sample, stream = self.place
        return offset, (stream << 32 | first_sample) - (stream >> 31 << 64)

    @property
    def temperature(self) -> float:
        return 0.7 if "temperature" in self.options else 1.0

    @property
    def reduction(self) -> str:
        return next((name for name in words.REDUCED if name in self.options), "none")

    @property
    def factor(self) -> float:
        """The option ``scale`` of a density."""
        return -1.0 if "negated" in self.options else 1.0

    @property
    def weighted(self) -> bool:
        return bool(set(self.options) & set(words.WEIGHTS))

    @property
    def probs(self) -> bool:
        """Whether the Bernoulli is given by its probabilities."""
        return "probs" in self.options

    @property
    def form(self) -> Form:
        """What the case's Gaussians make of their scale argument."""
        form = Form(
            next((p for p in words.PARAMS if p in self.options), "logvar"), 1e-3 if "eps" in self.options else 0.0
        )
        form = form._replace(passing="pass" in self.options)
        if "bounds" not in self.options:
            return form
        low, high = (0.25, 1.5) if form.positive else (-0.75, 0.75)
        return form._replace(low=low, high=high)

    @property
    def prior_form(self) -> Form:
        """What they make of the prior's: the same, but for what the options say of it."""
        own = self.form
        param = next((word for word in words.PRIOR_PARAMS if word in self.options), "")
        form = Form(param.removeprefix("prior_"), passing=own.passing) if param else own
        if "prior_eps" in self.options:
            form = form._replace(eps=3e-3)
        if "prior_bounds" in self.options:
            low, high = (0.375, 1.25) if form.positive else (-0.5, 0.5)
            form = form._replace(low=low, high=high)
        return form

    @property
    def forms(self) -> Forms:
        return Forms(self.form, self.prior_form)

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
        return 1 / 255 if "uint8" in self.options and not self.counted_data else 1.0

    @property
    def counted_data(self) -> bool:
        """Whether x is a count, and its parameters positive or logarithms."""
        return OPERATORS[self.op].counted

    @property
    def by_logarithm(self) -> dict[str, bool]:
        """The words for parameters that are given by logarithms, and whether they are; so is a mean by softmax."""
        found = {word: word in self.options for some in self._coded.values() for word in some}
        if found.pop("softmax", False):
            found["log_mean"] = True
        return found

    @property
    def location_scale(self) -> bool:
        """Whether the scale of a density is given by itself or its logarithm; a Gaussian's has its form."""
        return "log_scale" in self.by_logarithm

    @property
    def softmax(self) -> bool:
        """Whether the mean is a share of a library."""
        return "softmax" in self.options

    @property
    def _coded(self) -> dict[str, tuple[str, ...]]:
        return words.coded(OPERATORS[self.op])

    @property
    def exists(self) -> bool:
        """Whether the operator knows these options and layout, and the shape has the dims they need."""
        given = set(self.options)
        if not given <= set(self.spec.words) or len(given) != len(self.options):
            return False
        if any(len(given & set(group)) > 1 for group in words.EXCLUSIVE):
            return False
        if any(word in given and needed not in given for word, needed in words.NEEDS.items()):
            return False
        if self.op == "standard_normal":
            return self.layout == "contiguous" and self.inputs == "ordinary"
        if self.layout == "number" and self.spec.operands[1] == "x":
            return False
        # Counts as a matrix of those that are not 0.
        if self.layout == "csr" and not (self.counted_data and len(self.shape) == 2):
            return False
        if self.softmax and self.event_ndim == 0:
            return False
        if self.event_ndim > len(self.shape) or ("datum_weight" in given and not self.shape):
            return False
        if self.layout == "channels_last" and (len(self.shape) != 4 or given & {"event0", "event2"}):
            return False
        if self.inputs != "ordinary" and (not given <= _ONE_BY_ONE or self.layout in BROADCAST):
            return False
        dims = len(self.shape)
        if self.layout.startswith("upstream"):
            if self.reduction != "none":
                return False
            dims -= self.event_ndim if self.density else 0
        return dims >= LAYOUTS[self.layout]

    def arguments(
        self, tensors: dict[str, Any], factors: Mapping[str, torch.Tensor | None]
    ) -> tuple[list[Any], dict[str, Any]]:
        """The positional and keyword arguments of the public function; ``factors`` are those without a gradient."""
        offset, first_sample, stream = self.place
        if self.op == "standard_normal":
            noise = {"seed": self.seed, "offset": offset, "sample": first_sample, "stream": stream}
            where = {"device": self.device, "dtype": self.torch_dtype, "backend": self.backend}
            return [self.shape], noise | where
        form = self.form
        values = {
            "sample_shape": self.sample_shape,
            "temperature": self.temperature,
            "event_ndim": self.event_ndim,
            "reduction": self.reduction,
            "scale": self.factor,
            "free_bits": self.free_bits,
            "x_scale": self.x_scale,
            "param": form.param,
            "param_eps": form.eps,
            "bounds_grad": "pass" if form.passing else "zero",
            "q_grad": "path" if "path" in self.options else "total",
        }
        if "noise" not in self.options:
            values |= {"seed": self.seed, "offset": offset, "first_sample": first_sample}
        operator = OPERATORS[self.op]
        names = {option.name for option in operator.options}
        codes = {option.name: option.codes for option in operator.options}
        for name, some in self._coded.items():
            values[name] = next((word for word in some if word in self.options), next(iter(codes[name] or ())))
        if self.counted_data:
            values["eps"] = form.eps
        kwargs = {name: value for name, value in values.items() if name in names}
        if "low" in names:
            kwargs["bounds"] = form.bounds
        if stream:
            kwargs["stream"] = stream
        kwargs |= self._of_prior()
        kwargs |= {name: value for name, value in factors.items() if value is not None}
        if self.layout == "csr":
            tensors = tensors | {"x": _csr(tensors["x"])}
        optional = {operand.name for operand in operator.operands if operand.optional}
        kwargs |= {name: tensors[name] for name in self.operands if name in optional}
        return [tensors[name] for name in self.operands if name not in optional], kwargs | {"backend": self.backend}

    def _of_prior(self) -> dict[str, Any]:
        """Of the prior's form what is not the posterior's."""
        given, form = set(self.options), self.prior_form
        found: dict[str, Any] = {}
        if given & set(words.PRIOR_PARAMS):
            found["prior_param"] = form.param
        if "prior_eps" in given:
            found["prior_param_eps"] = form.eps
        if "prior_bounds" in given:
            found["prior_bounds"] = form.bounds
        return found

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
