"""The operators on pairs: what is tried of them, the truth from whole tables in float64, and their rows.

Each operator has a module of what is its own: the lists of words that are tried, whether a case exists, the names
of results, the operands, the public call, the whole table in PyTorch, Σ|terms|, and a factor of the bar. Errors are
measured as those of the other operators; terms are those of the shares too, whose errors are those of the
logarithms that they are exponentials of.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vae_fast.checking import gaussian_pairs, logistic_pairs, mmd_pairs
from vae_fast.checking.cases import DTYPES, shape_text
from vae_fast.checking.rows import Failure, Row
from vae_fast.checking.words import PAIRS, options_text

_OPERATORS: dict[str, ModuleType] = {
    "gaussian_mixture_log_prob": gaussian_pairs,
    "mmd": mmd_pairs,
    "logistic_mixture_log_prob": logistic_pairs,
}
LAYOUTS = ("contiguous", "transposed")
INPUTS = ("ordinary", "extreme")
# Fewer pairs than a tile of any backend has; more, on either side, and more dims.
_SMALL, _LARGE = (5, 7, 3), (37, 70, 18)
# What is tried of each list of words.
_TRIED = (
    (_SMALL, "contiguous", "ordinary"),
    (_LARGE, "contiguous", "ordinary"),
    (_SMALL, "transposed", "ordinary"),
    (_SMALL, "contiguous", "extreme"),
)


@dataclass(frozen=True)
class PairsCase:
    """One call and its backward pass."""

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
    def own(self) -> Any:
        """The operator's module."""
        return _OPERATORS[self.op]

    @property
    def exists(self) -> bool:
        known = self.layout in LAYOUTS and self.inputs in INPUTS and set(self.options) <= set(PAIRS[self.op])
        return known and len(self.shape) == 3 and self.own.exists(self)

    @property
    def results(self) -> tuple[str, ...]:
        return self.own.results(self.options)

    @property
    def command(self) -> str:
        """The command line that runs this case and no other."""
        return (
            f"python -m vae_fast check --op {self.op} --backend {self.backend} --device {self.device} "
            f"--dtype {self.dtype} --shape {shape_text(self.shape)} --layout {self.layout} --inputs {self.inputs} "
            f"--options {options_text(self.options)} --seed {self.seed}"
        )


class Wanted(NamedTuple):
    """What a result or a gradient should be, and Σ|terms|, which its errors go with."""

    truth: Tensor
    terms: Tensor


# ---- a case's tensors ------------------------------------------------------------------------------------


def draw(case: PairsCase) -> dict[str, Tensor]:
    """The operands, from the case's seed: leaves with gradients."""
    made = case.own.draw(case)
    placed = {name: value.to(DTYPES[case.dtype]).to(case.device) for name, value in made.items()}
    if case.layout == "transposed":
        placed = {name: t.mT.contiguous().mT if t.ndim > 1 else t for name, t in placed.items()}
    return {name: t.requires_grad_() for name, t in placed.items()}


def upstreams(case: PairsCase, outs: Sequence[Tensor]) -> list[Tensor]:
    """The gradients that reach the results."""
    rng = torch.Generator().manual_seed(case.seed + 1)
    return [torch.randn(out.shape, generator=rng, dtype=torch.float64).to(out.dtype).to(out.device) for out in outs]


# ---- the truth -------------------------------------------------------------------------------------------


def expected(case: PairsCase, operands: dict[str, Tensor], given: Sequence[Tensor]) -> dict[str, Wanted]:
    """Results and gradients in float64 by PyTorch's derivatives of the whole tables, and their terms."""
    exact = {name: t.detach().double().cpu().requires_grad_() for name, t in operands.items()}
    outs = case.own.whole(case, exact)
    grads = torch.autograd.grad(outs, tuple(exact.values()), [g.double().cpu() for g in given])
    with torch.no_grad():
        plain = {name: t.detach() for name, t in exact.items()}
        terms = case.own.terms(case, plain, given)
    truths = dict(zip(case.results, (out.detach() for out in outs), strict=True))
    truths |= {f"d{name}": grad for name, grad in zip(exact, grads, strict=True)}
    return {name: Wanted(truth, terms[name]) for name, truth in truths.items()}


# ---- measured --------------------------------------------------------------------------------------------


def bar(case: PairsCase, name: str) -> float:
    """The units of ε·Σ|terms| allowed.

    ½u² is of a difference, a product with a rounded exponential and a square, 5 units; a gradient's summand has
    such factors beside its share, is multiplied by an upstream gradient, and 2 more where it is two that cancel. A
    discrepancy's kernel has the square's errors once and its slope twice. Sums as everywhere. Of logistics the
    terms are larger, and hold what their exponents are rounded by: 3 and 6.
    """
    n = math.prod(case.shape)
    share = 1.0 if case.dtype == "float64" else 1e-7 / torch.finfo(torch.float32).eps
    bound = 6.0 if name in case.results else 12.0
    bound += share * (1 + math.log2(n))
    bound *= case.own.LOOSENESS
    return 2 * bound if case.dtype == "float64" else bound


def errors(got: Tensor, want: Wanted) -> Tensor:
    """In units of ε·Σ|terms|; infinite where it is NaN, or of another shape."""
    if got.shape != want.truth.shape:
        return torch.full((1,), math.inf, dtype=torch.float64)
    info = torch.finfo(got.dtype)
    unit = info.eps * want.terms + info.smallest_normal * info.eps
    found = (got.detach().double().cpu() - want.truth).abs() / unit
    return torch.where(found.isnan(), math.inf, found)


def _measure(
    case: PairsCase, made: Sequence[Tensor], wanted: dict[str, Wanted]
) -> tuple[float, float, Failure | None]:
    forward = gradient = 0.0
    failure, excess = None, 1.0
    for got, (name, want) in zip(made, wanted.items(), strict=True):
        off = errors(got, want)
        worst = float(off.max())
        if name in case.results:
            forward = max(forward, worst)
        else:
            gradient = max(gradient, worst)
        if worst > excess * bar(case, name):
            excess = worst / bar(case, name)
            at = int(off.argmax()) if got.shape == want.truth.shape else 0
            index = tuple(int(i) for i in torch.unravel_index(torch.tensor(at), got.shape)) if got.ndim else ()
            shown = float(got.detach()[index]), float(want.truth[index])
            failure = Failure(case, name, index, {}, *shown, worst, bar(case, name), case.command)
    return forward, gradient, failure


class Prepared(NamedTuple):
    """Operands, upstream gradients and the truth, the same for every backend, and PyTorch's worst errors."""

    operands: dict[str, Tensor]
    given: list[Tensor]
    wanted: dict[str, Wanted]
    torch_forward: float
    torch_gradient: float


def prepare(case: PairsCase) -> Prepared:
    operands = draw(case)
    compute = torch.float64 if case.dtype == "float64" else torch.float32
    common = {name: t.detach().to(compute).requires_grad_() for name, t in operands.items()}
    outs = case.own.whole(case, common)
    given = upstreams(case, [out.detach() for out in outs])
    wanted = expected(case, operands, given)
    theirs = [*outs, *torch.autograd.grad(outs, tuple(common.values()), given)]
    torch_forward, torch_gradient, _ = _measure(case, theirs, wanted)
    return Prepared(operands, given, wanted, torch_forward, torch_gradient)


def run(case: PairsCase, prepared: Prepared) -> tuple[float, float, Failure | None]:
    """Worst errors of values and gradients, and the failure. What a call raises is one, too."""
    try:
        outs = case.own.call(case, prepared.operands)
        made = [*outs, *torch.autograd.grad(outs, tuple(prepared.operands.values()), prepared.given)]
    except Exception as raised:
        message = f"{type(raised).__name__}: {' '.join(str(raised).split())}"
        none = Failure(case, case.results[0], (), {}, message, "a result", math.inf, 0.0, case.command)
        return math.inf, math.inf, none
    return _measure(case, made, prepared.wanted)


def _smaller(case: PairsCase, failure: Failure) -> Failure:
    """The failure of the smallest case found, each size halved while it still fails."""
    shape = list(case.shape)
    for k in range(3):
        while shape[k] > 1:
            shape[k] //= 2
            smaller = dataclasses.replace(case, shape=tuple(shape))
            found = run(smaller, prepare(smaller))[-1] if smaller.exists else None
            if found is None:
                shape[k] *= 2
                break
            case, failure = smaller, found
    return failure


def cases(op: str, choice: Any) -> list[PairsCase]:
    """Those of an operator that a choice (choice.py) leaves, without backend, device and dtype."""
    found = [
        PairsCase(op, "", "cpu", "", choice.shape or shape, layout, inputs, options, choice.seed)
        for options in (_OPERATORS[op].VARIANTS if choice.options is None else (choice.options,))
        for shape, layout, inputs in _TRIED
        if choice.layout in (None, layout) and choice.inputs in (None, inputs)
    ]
    if choice.layout is not None and choice.inputs is not None and choice.options is not None:
        found = [PairsCase(op, "", "cpu", "", choice.shape or _SMALL, choice.layout, choice.inputs, choice.options,
                           choice.seed)]  # fmt: skip
    return list(dict.fromkeys(case for case in found if case.exists))


def rows(op: str, device: str, names: Sequence[str], choice: Any) -> Iterator[Row]:
    """A row for each dtype and backend."""
    tried = cases(op, choice)
    for dtype in ([choice.dtype] if choice.dtype else DTYPES) if tried else ():
        worst, failed = {name: [0.0] * 4 for name in names}, dict[str, Failure]()
        for base in tried:
            case = dataclasses.replace(base, device=device, dtype=dtype)
            prepared = prepare(case)
            for name in names:
                here = dataclasses.replace(case, backend=name)
                *found, failure = run(here, prepared)
                found += prepared.torch_forward, prepared.torch_gradient
                worst[name] = [max(a, b) for a, b in zip(worst[name], found, strict=True)]
                if failure is not None and name not in failed:
                    failed[name] = _smaller(here, failure)
        for name in names:
            forward, gradient, *theirs = worst[name]
            place = (op, name, device, dtype, "cases", len(tried))
            yield Row(*place, forward, gradient, theirs[0], theirs[1], failed.get(name))
