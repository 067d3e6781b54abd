"""The operators on pairs: what is tried of them, the truth from whole tables in float64, and their rows.

A case's shape is (data, components, dims), or of a discrepancy (points, other points, dims); what is a mixture of
logistics' stands in logistic_pairs.py. Errors are measured as
those of the other operators; terms are those of the shares too, whose errors are those of the logarithms that they
are exponentials of.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

import vae_fast
from vae_fast.checking import logistic_pairs
from vae_fast.checking.cases import DTYPES, shape_text
from vae_fast.checking.rows import Failure, Row
from vae_fast.checking.words import PAIRS, options_text

# The lists of words that are tried.
_VARIANTS = {
    "gaussian_mixture_log_prob": (
        *((), ("per_dim",), ("weights",), ("per_dim", "weights"), ("per_dim", "own_weights")),
        *(("own_components",), ("per_dim", "own_weights", "own_components")),
    ),
    "mmd": ((), ("rbf",), ("biased",), ("biased", "scales"), ("rbf", "biased")),
    "logistic_mixture_log_prob": logistic_pairs.VARIANTS,
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
_SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_MORE_SCALES = tuple(0.3 * k for k in range(1, 20))


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
    def exists(self) -> bool:
        known = self.layout in LAYOUTS and self.inputs in INPUTS and set(self.options) <= set(PAIRS[self.op])
        # Of one channel there are no coefficients.
        sizes = len(self.shape) == 3 and not ("coefficients" in self.options and self.shape[2] == 1)
        return known and sizes and min(self.shape) > (1 if self.op == "mmd" else 0)

    @property
    def names(self) -> tuple[str, ...]:
        """The operands'."""
        if self.op == "mmd":
            return "x", "y"
        if self.op == "logistic_mixture_log_prob":
            return logistic_pairs.names(self.options)
        weighted = {"weights", "own_weights"} & set(self.options)
        return ("mu", "logvar", "z", "log_weight") if weighted else ("mu", "logvar", "z")

    @property
    def results(self) -> tuple[str, ...]:
        if self.op == "mmd":
            return ("mmd",)
        return ("log_prob", "marginals") if "per_dim" in self.options else ("log_prob",)

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
    rng = torch.Generator().manual_seed(case.seed)
    n, k, d = case.shape

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=rng, dtype=torch.float64)

    far = case.inputs == "extreme"
    if case.op == "logistic_mixture_log_prob":
        made = logistic_pairs.draw(case)
    elif case.op == "mmd":
        made = {"x": normal(n, d), "y": 1.3 * normal(k, d) + 0.2}
        # One point that hardly has a neighbour.
        made["x"][0] += 1e4 if far else 0.0
    else:
        of = (n, k) if "own_components" in case.options else (k,)
        made = {"mu": normal(*of, d), "logvar": 0.5 * normal(*of, d), "z": normal(n, d)}
        if far:
            # σ near 0.001, and data at a few of these from a component.
            made["logvar"] -= 2 * math.log(1000.0)
            near = made["mu"] if made["mu"].ndim == 2 else made["mu"][:, 0]
            made["z"] = near[torch.arange(n) % len(near)] + 0.001 * made["z"]
        if "log_weight" in case.names:
            own = len(of) == 2 or "own_weights" in case.options
            made["log_weight"] = torch.log_softmax(normal(*((n, k) if own else (k,))), -1)
    placed = {name: value.to(DTYPES[case.dtype]).to(case.device) for name, value in made.items()}
    if case.layout == "transposed":
        placed = {name: t.mT.contiguous().mT if t.ndim > 1 else t for name, t in placed.items()}
    return {name: t.requires_grad_() for name, t in placed.items()}


def upstreams(case: PairsCase, outs: Sequence[Tensor]) -> list[Tensor]:
    """The gradients that reach the results."""
    rng = torch.Generator().manual_seed(case.seed + 1)
    return [torch.randn(out.shape, generator=rng, dtype=torch.float64).to(out.dtype).to(out.device) for out in outs]


def call(case: PairsCase, operands: dict[str, Tensor]) -> list[Tensor]:
    """The public function's results."""
    if case.op == "logistic_mixture_log_prob":
        return logistic_pairs.call(case, operands)
    if case.op == "mmd":
        options = _discrepancy(case)
        return [vae_fast.mmd(*operands.values(), backend=case.backend, **options)]
    mu, logvar, z, *weight = operands.values()
    options = {"log_weight": weight[0] if weight else None, "per_dim": "per_dim" in case.options}
    found = vae_fast.gaussian_mixture_log_prob(mu, logvar, z, backend=case.backend, **options)
    return list(found) if isinstance(found, tuple) else [found]


def _discrepancy(case: PairsCase) -> dict[str, Any]:
    scales = _MORE_SCALES if "scales" in case.options else _SCALES
    return {
        "kernel": "rbf" if "rbf" in case.options else "imq",
        "scales": scales,
        "unbiased": "biased" not in case.options,
    }


# ---- the truth -------------------------------------------------------------------------------------------


def whole(case: PairsCase, operands: dict[str, Tensor]) -> list[Tensor]:
    """The results as users write them in PyTorch, of whole tables, in the operands' dtype."""
    if case.op == "logistic_mixture_log_prob":
        return [logistic_pairs.whole(case, operands)]
    if case.op == "mmd":
        return [_whole_discrepancy(case, *operands.values())]
    mu, logvar, z, *weight = operands.values()
    square = (z.unsqueeze(-2) - mu) ** 2 * torch.exp(-logvar)
    terms = -0.5 * (square + logvar + math.log(2 * math.pi))
    log_w = weight[0] if weight else terms.new_full((mu.shape[-2],), -math.log(mu.shape[-2]))
    joint = torch.logsumexp(terms.sum(-1) + log_w, -1)
    if "per_dim" not in case.options:
        return [joint]
    return [joint, torch.logsumexp(terms + log_w.unsqueeze(-1), -2).sum(-1)]


def _whole_discrepancy(case: PairsCase, x: Tensor, y: Tensor) -> Tensor:
    options = _discrepancy(case)

    def mean(a: Tensor, b: Tensor) -> Tensor:
        table = _kernel(options, (a.unsqueeze(1) - b).pow(2).sum(-1), x.shape[1])
        if a is not b or not options["unbiased"]:
            return table.mean()
        return (table.sum() - table.diagonal().sum()) / (len(a) * (len(a) - 1))

    return mean(x, x) + mean(y, y) - 2 * mean(x, y)


def _kernel(options: dict[str, Any], square: Tensor, dims: int) -> Tensor:
    c = 2.0 * dims
    if options["kernel"] == "rbf":
        return torch.exp(-square / c)
    kernel = torch.zeros_like(square)
    for s in options["scales"]:
        kernel = kernel + s * c / (s * c + square)
    return kernel


def expected(case: PairsCase, operands: dict[str, Tensor], given: Sequence[Tensor]) -> dict[str, Wanted]:
    """Results and gradients in float64 by PyTorch's derivatives of the whole tables, and their terms."""
    exact = {name: t.detach().double().cpu().requires_grad_() for name, t in operands.items()}
    outs = whole(case, exact)
    grads = torch.autograd.grad(outs, tuple(exact.values()), [g.double().cpu() for g in given])
    with torch.no_grad():
        plain = {name: t.detach() for name, t in exact.items()}
        terms = _TERMS[case.op](case, plain, given)
    truths = dict(zip(case.results, (out.detach() for out in outs), strict=True))
    truths |= {f"d{name}": grad for name, grad in zip(exact, grads, strict=True)}
    return {name: Wanted(truth, terms[name]) for name, truth in truths.items()}


def _terms_of_mixture(case: PairsCase, t: dict[str, Tensor], given: Sequence[Tensor]) -> dict[str, Tensor]:
    """Of a value |value| and the sizes of its terms by their shares; of a gradient its summands' sizes.

    Each of these as often as the exponent of its share is large.
    """
    rate = torch.exp(-0.5 * t["logvar"])
    u = ((t["z"].unsqueeze(-2) - t["mu"]) * rate).abs()
    own = 0.5 * u * u + 0.5 * t["logvar"].abs() + 1.0
    log_w = t.get("log_weight", torch.tensor(-math.log(t["mu"].shape[-2]), dtype=torch.float64))
    log_w = log_w.expand(u.shape[:-1])
    signed = -0.5 * u * u - 0.5 * t["logvar"] - 0.5 * math.log(2 * math.pi)

    # Of subnormal numbers a share has fewer digits.
    least = torch.finfo(torch.float64 if case.dtype == "float64" else torch.float32).smallest_normal

    def shares(exponents: Tensor, sizes: Tensor, dim: int) -> tuple[Tensor, Tensor]:
        value = torch.logsumexp(exponents, dim)
        share = torch.exp(exponents - value.unsqueeze(dim)).clamp(min=least)
        worth = value.abs() + (share * sizes).sum(dim) + 1.0
        return worth, share * (1.0 + sizes + worth.unsqueeze(dim))

    worth, weight = shares(signed.sum(-1) + log_w, own.sum(-1) + log_w.abs(), -1)
    found = {"log_prob": worth}
    of_pair = given[0].double().cpu().abs().unsqueeze(-1) * weight
    each = of_pair.unsqueeze(-1).expand(u.shape)
    if "per_dim" in case.options:
        upstream = given[1].double().cpu().abs()
        worth, weight = shares(signed + log_w.unsqueeze(-1), own + log_w.abs().unsqueeze(-1), -2)
        found["marginals"] = worth.sum(-1)
        each = each + upstream[:, None, None] * weight
        of_pair = of_pair + upstream.unsqueeze(-1) * weight.sum(-1)
    slope = each * u * rate
    over_data = {"mu": slope, "logvar": 0.5 * each * (u * u + 1.0), "log_weight": of_pair}
    for name, summands in over_data.items():
        if name in t:
            found[f"d{name}"] = summands if t[name].ndim == summands.ndim else summands.sum(0)
    found["dz"] = slope.sum(-2)
    return found


def _terms_of_discrepancy(case: PairsCase, t: dict[str, Tensor], given: Sequence[Tensor]) -> dict[str, Tensor]:
    """Of the value its means, of a gradient its summands; each as often as an exponent is large."""
    options, x, y = _discrepancy(case), t["x"], t["y"]
    found = {"mmd": torch.zeros((), dtype=torch.float64)}
    found |= {"dx": torch.zeros_like(x), "dy": torch.zeros_like(y)}
    c = 2.0 * x.shape[1]
    for a, b, factor, to in ((x, x, 1.0, "dx"), (y, y, 1.0, "dy"), (x, y, 2.0, "dx"), (y, x, 2.0, "dy")):
        difference = a.unsqueeze(1) - b
        square = difference.pow(2).sum(-1)
        value = _kernel(options, square, x.shape[1])
        if options["kernel"] == "rbf":
            value = value * (1.0 + square / c)
            slope = value * 2 / c
        else:
            slope = sum(2 * s * c / (s * c + square) ** 2 for s in options["scales"])
        if a is b and options["unbiased"]:
            pairs = len(a) * (len(a) - 1)
            value, slope = (table - torch.diag(table.diagonal()) for table in (value, slope))
        else:
            pairs = len(a) * len(b)
        # The last of the four is of a gradient alone.
        if (a is x) or (a is b):
            found["mmd"] += factor * value.sum() / pairs
        twice = 2.0 if a is b else 1.0
        summands = (slope.unsqueeze(-1) * difference.abs()).sum(1)
        found[to] += given[0].double().cpu().abs() * twice * factor / pairs * summands
    return found


_TERMS = {
    "gaussian_mixture_log_prob": _terms_of_mixture,
    "mmd": _terms_of_discrepancy,
    "logistic_mixture_log_prob": logistic_pairs.terms,
}

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
    if case.op == "logistic_mixture_log_prob":
        bound *= 0.5
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
    outs = whole(case, common)
    given = upstreams(case, [out.detach() for out in outs])
    wanted = expected(case, operands, given)
    theirs = [*outs, *torch.autograd.grad(outs, tuple(common.values()), given)]
    torch_forward, torch_gradient, _ = _measure(case, theirs, wanted)
    return Prepared(operands, given, wanted, torch_forward, torch_gradient)


def run(case: PairsCase, prepared: Prepared) -> tuple[float, float, Failure | None]:
    """Worst errors of values and gradients, and the failure. What a call raises is one, too."""
    try:
        outs = call(case, prepared.operands)
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
        for options in (_VARIANTS[op] if choice.options is None else (choice.options,))
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
