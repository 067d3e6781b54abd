"""The Triton kernels compiled for GPUs that need not be there: what the machine code must have, and must not.

A representative set for sm_90 always; with -m triton every option with every dtype, every shape class, and sm_80,
sm_90 and sm_100.
"""

import os

import pytest
import torch

pytest.importorskip("triton", reason="triton is not installed")
if os.environ.get("TRITON_INTERPRET"):
    pytest.skip("the interpreter replaces the compiler", allow_module_level=True)

import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from helpers.ahead import THREADS, compile_call
from helpers.launched_calls import (
    INF,
    MEAN,
    NONE,
    SUM,
    bernoulli,
    continuous_bernoulli,
    gaussian,
    kl,
    laplace,
    logistics,
    mixture,
    mmd,
    negative_binomial,
    normal,
    of_kept,
    poisson,
    sample,
    sample_log_prob,
    student_t,
)
from vae_fast.triton_kernels import launch, layout, walk

FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
# One row of everything, short rows, rows of several tiles, one row cut into segments.
SHAPES = {"small": (100, 20), "rows": (512, 784), "long": (64, 12288), "split": (1, 1 << 20), "odd": (33, 37)}


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    before = os.environ.get("TRITON_CACHE_DIR")
    os.environ["TRITON_CACHE_DIR"] = str(tmp_path_factory.mktemp("triton"))
    yield
    if before is None:
        del os.environ["TRITON_CACHE_DIR"]
    else:
        os.environ["TRITON_CACHE_DIR"] = before


def key(case):
    name, shape, dtype, options = case
    extra = "-".join(f"{k}={'x'.join(map(str, v)) if isinstance(v, tuple) else v}" for k, v in options.items())
    return f"{name.__name__}-{shape}-{str(dtype)[6:]}-{extra}"


# Operators, and the options that decide what is compiled.
BOTH = (False, True)
OPTIONS = {
    bernoulli: [
        *({"reduction": r, "backward": b} for r in (NONE, SUM) for b in BOTH),
        {"reduction": MEAN, "backward": True, "dx": True},
        *({"reduction": r, "backward": b, "probs": True} for r in (NONE, SUM) for b in BOTH),
        {"reduction": MEAN, "backward": True, "dx": True, "probs": True},
        *({"reduction": SUM, "backward": b, "x": "bool", "weight": "bool"} for b in BOTH),
        *({"reduction": NONE, "backward": True, "weight": size, "dweight": True} for size in ("each", "datum")),
        {"reduction": SUM, "backward": True, "weight": "feature", "dweight": True, "dx": True, "probs": True},
        *({"reduction": r, "backward": b, "pos_weight": "feature"} for r in (NONE, SUM) for b in BOTH),
        {"reduction": NONE, "backward": True, "pos_weight": "each", "weight": "each", "dweight": True, "dx": True},
    ],
    gaussian: [
        *({"reduction": r, "backward": b} for r in (NONE, SUM) for b in BOTH),
        *({"reduction": SUM, "backward": True, "logvar": size} for size in ("feature", "datum", "scalar")),
        *({"reduction": SUM, "backward": b, "logvar": "float32", "x": "float32"} for b in BOTH),
        {"reduction": NONE, "backward": True, "x": "float64"},
        *({"reduction": NONE, "backward": b, "weight": "each"} for b in BOTH),
        *({"reduction": NONE, "backward": True, "weight": size, "dweight": True} for size in ("each", "datum")),
        *(
            {"reduction": NONE, "form": form, "backward": b}
            for form in ((1, 0.0, -INF, INF), (2, 0.1, 0.1, 2.0), (3, 0.0, -INF, 1.0), (4, 0.1, -INF, INF))
            for b in BOTH
        ),
    ],
    kl: [
        *({"reduction": r, "backward": b, "prior": p} for r in (NONE, SUM) for b in BOTH for p in BOTH),
        *({"reduction": NONE, "backward": b, "free_bits": 0.1, "form": (4, 0.0, -1.0, 1.0)} for b in BOTH),
        *({"reduction": SUM, "backward": b, "logvar": "float32"} for b in BOTH),
        *({"reduction": NONE, "backward": True, "weight": "each", "dweight": True, "prior": p} for p in BOTH),
        {"reduction": NONE, "backward": True, "form": (4, 0.1, -1.0, 1.0, 1), "prior": True},
        # To priors of other forms: of two logarithms, of other bounds, and of all else the largest.
        *({"reduction": NONE, "backward": b, "prior": True, "prior_form": (1, 0.0, -INF, INF)} for b in BOTH),
        *({"reduction": NONE, "backward": b, "prior": True, "prior_form": (0, 0.0, -1.0, 1.0)} for b in BOTH),
        *(
            {"reduction": NONE, "backward": b, "prior": True, "form": form, "prior_form": prior_form}
            for form, prior_form in (
                ((0, 0.0, -INF, INF), (4, 0.1, -1.0, 1.0)),
                ((4, 0.0, -1.0, 1.0), (1, 0.1, -INF, INF)),
                ((2, 0.0, -INF, INF), (3, 0.1, -INF, INF)),
                ((1, 0.1, -INF, INF), (4, 0.2, -1.0, 1.0)),
            )
            for b in BOTH
        ),
        *(
            {"reduction": NONE, "backward": b, "prior_logvar": "each", "prior_form": (4, 0.1, -1.0, 1.0)}
            for b in BOTH
        ),
        {
            "reduction": SUM,
            "backward": True,
            "prior": True,
            "prior_logvar": "feature",
            "prior_form": (4, 0.1, -1.0, 1.0),
        },
    ],
    negative_binomial: [
        *({"reduction": NONE, "backward": b, "zero_logits": "each"} for b in BOTH),
        *({"reduction": r, "backward": b} for r in (NONE, SUM) for b in BOTH),
        *(
            {"reduction": SUM, "backward": b, "zero_logits": "each", "theta": "feature", "x": "float32"}
            for b in BOTH
        ),
        {"reduction": SUM, "zero_logits": "each", "logs": True, "eps": 1e-8},
        {
            **{"reduction": NONE, "backward": True, "zero_logits": "each", "weight": "each", "dweight": True},
            **{"logs": True, "eps": 1e-8},
        },
    ],
    poisson: [
        {"reduction": SUM},
        {"reduction": SUM, "backward": True, "x": "float32"},
        *({"reduction": NONE, "backward": b, "logs": True, "eps": 1e-8} for b in BOTH),
        *(
            {"reduction": NONE, "backward": b, "weight": "each", "dweight": b, "logs": logs}
            for b in BOTH
            for logs in BOTH
        ),
    ],
    continuous_bernoulli: [
        *({"reduction": r, "backward": b} for r in (NONE, SUM) for b in BOTH),
        {"reduction": NONE, "backward": True, "weight": "each", "dx": True},
    ],
    laplace: [
        *({"reduction": r, "backward": b, "log_scale": r == SUM} for r in (NONE, SUM) for b in BOTH),
        {"reduction": NONE, "backward": True, "b": "feature", "x": "float32", "weight": "each", "log_scale": True},
    ],
    student_t: [
        *({"reduction": r, "backward": b, "log_scale": r == NONE} for r in (NONE, SUM) for b in BOTH),
        *({"reduction": SUM, "backward": b, "df": "scalar"} for b in BOTH),
        {"reduction": NONE, "backward": True, "df": "feature", "weight": "each", "log_scale": True},
    ],
    sample: [
        *({"backward": b, "with_kl": k, "samples": s} for b in BOTH for k in BOTH for s in ((), (5,), (64,))),
        *({"backward": b, "offset": 1, "tensor": True} for b in BOTH),
        *({"backward": b, "form": (4, 0.1, -1.0, 1.0), "free_bits": 0.1} for b in BOTH),
        *({"backward": b, "logvar": "float32"} for b in BOTH),
        *(
            {"backward": b, "with_kl": k, "noise": "same", "samples": s}
            for b in BOTH
            for k in BOTH
            for s in ((), (5,))
        ),
        *({"backward": b, "noise": "float64", "with_kl": False} for b in BOTH),
        *({"backward": b, "with_kl": k, "temperature": 0.7} for b in BOTH for k in BOTH),
        *({"backward": b, "prior": size} for b in BOTH for size in ("each", "feature", "datum", "scalar")),
        *({"backward": b, "prior": "each", "prior_form": (4, 0.1, -1.0, 1.0)} for b in BOTH),
        *(
            {
                "backward": b,
                "prior": "each",
                "noise": "same",
                "temperature": 0.7,
                "samples": (64,),
                "free_bits": 0.1,
            }
            for b in BOTH
        ),
    ],
    sample_log_prob: [
        *({"backward": b, "samples": s, "path": s == ()} for b in BOTH for s in ((), (5,), (64,))),
        *({"backward": b, "offset": 1, "tensor": True, "path": True} for b in BOTH),
        *({"backward": b, "samples": (64,), "noise": "same"} for b in BOTH),
        *({"backward": b, "form": (4, 0.1, -1.0, 1.0)} for b in BOTH),
        *({"backward": b, "prior": size, "samples": (5,)} for b in BOTH for size in ("each", "feature")),
        *({"backward": b, "prior": "each", "prior_form": (4, 0.1, -1.0, 1.0), "path": True} for b in BOTH),
    ],
    normal: [{}, {"offset": 3}],
}
# Of gradients that a forward pass kept.
KEPT = {
    bernoulli: [{}, {"dx": True, "probs": True}],
    gaussian: [{}, {"weight": "each"}, {"x": "float32"}],
    kl: [{}, {"prior": True}],
    negative_binomial: [{}, {"zero_logits": "each"}],
    poisson: [{}],
    continuous_bernoulli: [{}],
    laplace: [{}],
    student_t: [{}],
}
EVERY = [
    (make, shape, dtype, options)
    for make, kinds in OPTIONS.items()
    for options in kinds
    for shape in SHAPES
    for dtype in FLOATS
]


# The terms of counts take longest to compile: how many of their options are representative.
FEW = {negative_binomial: 2, poisson: 1, continuous_bernoulli: 1, laplace: 1, student_t: 1}


def _representative(case):
    """The plain ones in two shapes and in bfloat16; of the others, which come one of either pass, every fourth."""
    make, shape, dtype, options = case
    if make in FEW:
        return (shape, dtype) == ("rows", torch.float32) and OPTIONS[make].index(options) < FEW[make]
    if "float32" in options.values() and (shape, dtype) == ("rows", torch.bfloat16):
        return True
    special = {"form", "free_bits", "tensor", "logvar", "x", "weight", "dx", "prior", "probs", "pos_weight"}
    special |= {"prior_form", "prior_logvar", "noise", "temperature", "path"}
    if special & {name for name, value in options.items() if value} or options.get("samples"):
        k = OPTIONS[make].index(options)
        return (shape, dtype) == ("rows", torch.float32) and k % 8 in (0, 3)
    return (shape, dtype) in (("rows", torch.float32), ("rows", torch.bfloat16), ("odd", torch.float32))


TENSORS = ("logvar", "b", "df", "x", "weight", "pos_weight", "prior", "prior_logvar", "theta", "zero_logits")


def operand(options, shape, dtype):
    """The options, with operands as tensors: one value a feature, a datum, or one altogether; or all in a dtype."""
    sizes = {"feature": shape[1:], "datum": (shape[0], 1), "scalar": ()}
    return options | {
        name: torch.empty(sizes.get(kind, shape), dtype=getattr(torch, kind, dtype))
        for name, kind in options.items()
        if name in TENSORS and isinstance(kind, str)
    }


def check(compiled, half=False):
    """What holds for every kernel; ``half``: of operands of half types."""
    # The only approximate instructions begin the noise's square root, which what follows rounds correctly, and the
    # quotient of a Bernoulli's slope, which a step of Newton's method follows.
    approximate = compiled.count(r"\S*\.(?:ftz|approx)\S*")
    draws = compiled.name.startswith(("sampling.", "log_prob_sampling.", "standard_normal."))
    allowed = {"rsqrt.approx.ftz.f32" if draws else "rcp.approx.ftz.f32"}
    # An exponential of half types is one.
    allowed |= {"ex2.approx.ftz.f32"} if half else set()
    assert set(approximate) <= allowed, approximate
    assert compiled.count(r"(?:mul|add|sub)\.f(?:32|64)") == {}, "operations that the assembler may fuse"
    assert compiled.count(r"(?:atom|red)\.\S*[bf](?:16|32|64)\S*") == {}
    used = compiled.resources()
    assert used["STACK"] == used["LOCAL"] == 0, f"registers are spilled: {used}"
    return compiled


def reads_and_writes(compiled):
    """A kernel's pointers that are read, and written, column by column: their names, and places in a tuple."""
    c = compiled.constants
    if compiled.name == "density.density":
        *operands, upstream = c["MODES"]
        modes = {("operands", k): mode for k, mode in enumerate(operands)} | {("upstream",): upstream}
        kinds = {("gradients", k): kind for k, kind in enumerate(c["KINDS"])}
        if c["KEPT"]:
            # Scaled, they are read and written; made anew, written.
            written = [name for name, kind in kinds.items() if kind == layout.EACH]
            return [name for name, mode in modes.items() if mode == walk.COLUMNS] + written, written * 2
    else:
        operands, gradients = SAMPLERS[compiled.name.removesuffix("_of_more")]
        modes = {(name,): mode for name, mode in zip(operands, c.get("MODES", ()), strict=True)}
        kinds = {(name,): kind for name, kind in zip(gradients, c.get("KINDS", [layout.EACH]), strict=True)}
        if modes.get(("dkl",)) == walk.ABSENT:
            # z's gradient does not depend on μ.
            del modes[("mu",)]
    read = [name for name, mode in modes.items() if mode == walk.COLUMNS]
    return read, [name for name, kind in kinds.items() if kind == layout.EACH]


def accesses(compiled):
    """How many accesses of 16 bytes a thread has to make to read, and to write, a tile's columns."""
    c = compiled.constants
    tile = c["BLOCK_ROWS"] * c["BLOCK_COLUMNS"] if "BLOCK_ROWS" in c else c["BLOCK"]

    def sized(pointers):
        return sum(tile * compiled.pointers[name].itemsize // (16 * THREADS) for name in pointers)

    return tuple(sized(pointers) for pointers in reads_and_writes(compiled))


OF_BOTH = ("mu", "logvar", "prior_mu", "prior_logvar")
# Their operands and their results.
SAMPLERS = {
    "sampling.forward": ((*OF_BOTH, "noise"), ("z",)),
    "sampling.backward": ((*OF_BOTH, "noise", "dz", "dkl"), tuple(f"d{name}" for name in OF_BOTH)),
    "log_prob_sampling.forward": ((*OF_BOTH, "noise"), ("z",)),
    "log_prob_sampling.backward": (
        (*OF_BOTH, "noise", "dz", "dlog_q", "dlog_p"),
        tuple(f"d{name}" for name in OF_BOTH),
    ),
    "standard_normal._kernel": ((), ("out",)),
}


def check_case(monkeypatch, capability, case):
    make, name, dtype, options = case
    shape = SHAPES[name]
    given = operand(options, shape, dtype)
    kept = given.pop("kept", False)
    call = make(shape, dtype, **given)
    function, args = of_kept(call) if kept else call
    first, *rest = compile_call(monkeypatch, capability, function, *args)
    for compiled in (first, *rest):
        check(compiled, dtype.itemsize == torch.float16.itemsize)
    if (
        name != "odd"
        and dtype != torch.float64
        and "offset" not in options
        and shape[1] % (16 // dtype.itemsize) == 0
    ):
        read, written = accesses(first)
        assert (first.wide("ld"), first.wide("st")) == (read, written), (first.narrow("ld"), first.narrow("st"))
    if first.name == "standard_normal._kernel":
        # Of a pair of normals (csrc/noise.h): 2 words to numbers, 9 of the logarithm, 4 of either polynomial of the
        # angle, 2 of the square root.
        roots = first.count(r"rsqrt\.approx\.ftz\.f32").total()
        # The newest GPUs have instructions of two.
        fused = first.count(r"fma\S*")
        assert roots and fused["fma.rn.f32"] + 2 * fused["fma.rn.f32x2"] == (2 + 9 + 4 + 4 + 2) * roots
        assert {*fused} <= {"fma.rn.f32", "fma.rn.f32x2"}
        assert first.count(r"(?:div|sqrt)\.\S*f(?:32|64)") == {}
        # Both halves of a product are one multiplication; of a pair's eight Triton 3.6 takes one apart at most.
        apart = first.count(r"mul\.hi\S*").total()
        assert apart <= (roots if triton.__version__.startswith("3.6.") else 0)


OF_KEPT = [
    (make, shape, torch.bfloat16, {"reduction": SUM, "backward": True, "kept": True, **options})
    for make, kinds in KEPT.items()
    for options in kinds
    for shape in SHAPES
]


@pytest.mark.parametrize("case", [c for c in OF_KEPT if c[0] in (bernoulli, kl) and c[1] == "rows"], ids=key)
def test_kept(monkeypatch, case):
    check_case(monkeypatch, 90, case)


@pytest.mark.triton
@pytest.mark.parametrize("case", OF_KEPT, ids=key)
def test_every_of_kept(monkeypatch, case):
    """Each for one of three GPUs."""
    check_case(monkeypatch, (80, 90, 100)[OF_KEPT.index(case) % 3], case)


@pytest.mark.parametrize("case", [*filter(_representative, EVERY)], ids=key)
def test_representative(monkeypatch, case):
    check_case(monkeypatch, 90, case)


def _pairs():
    """(capability, case): a fifth of all, in which every option meets every shape, every dtype and every GPU."""
    for g, capability in enumerate((80, 90, 100)):
        for case in EVERY:
            make, shape, dtype, options = case
            place = OPTIONS[make].index(options) + list(SHAPES).index(shape) + 2 * FLOATS.index(dtype) + g
            if place % 5 == 0:
                yield capability, case


def _id(value):
    return key(value) if isinstance(value, tuple) else None


@pytest.mark.triton
@pytest.mark.parametrize(("capability", "case"), list(_pairs()), ids=_id)
def test_every(monkeypatch, capability, case):
    check_case(monkeypatch, capability, case)


# Of data, components and dims: a tile of several of each, of all dims that it may have, and chunks of them.
SIZES = ((64, 50, 2), (512, 500, 40), (64, 50, 300))
# Of pixels, channels and components.
OF_PIXELS = ((64, 1, 5), (512, 3, 10), (70, 4, 30))
PAIRS = [
    *(
        (mixture, sizes, dtype, {"backward": backward, "own": own, "per_dim": per_dim})
        for sizes in SIZES
        for dtype in (torch.float32, torch.float64)
        for own in ("", "weights", "components")
        for per_dim in BOTH
        for backward in BOTH
    ),
    *(
        (mmd, sizes, dtype, {"exponential": exponential, "gradients": gradients})
        for sizes in SIZES
        for dtype in (torch.float32, torch.float64)
        for exponential in BOTH
        for gradients in BOTH
    ),
    *(
        (logistics, sizes, dtype, {"gradients": gradients, "coefficients": coefficients, "first": first})
        for sizes in OF_PIXELS
        for dtype in (torch.float32, torch.float64)
        for gradients in BOTH
        for coefficients in BOTH
        for first in BOTH
    ),
]


def pairs_key(case):
    make, sizes, dtype, options = case
    words = [name if value is True else value for name, value in options.items() if value]
    return "-".join((make.__name__, "x".join(map(str, sizes)), str(dtype)[6:], *words))


def check_pairs(monkeypatch, capability, case):
    make, sizes, dtype, options = case
    function, args = make(sizes, dtype, **options)
    for compiled in compile_call(monkeypatch, capability, function, *args):
        check(compiled)


@pytest.mark.parametrize(
    "case",
    (
        (mixture, SIZES[1], torch.float32, {"backward": True, "per_dim": True}),
        (mmd, SIZES[1], torch.float32, {}),
        (logistics, OF_PIXELS[1], torch.float32, {"gradients": True, "first": True}),
    ),
    ids=pairs_key,
)
def test_representative_of_pairs(monkeypatch, case):
    check_pairs(monkeypatch, 90, case)


@pytest.mark.triton
@pytest.mark.parametrize("case", PAIRS, ids=pairs_key)
def test_every_of_pairs(monkeypatch, case):
    """Each of one size for one of three GPUs; of the three sizes for all."""
    turn = PAIRS.index(case) + (OF_PIXELS if case[0] is logistics else SIZES).index(case[1])
    check_pairs(monkeypatch, (80, 90, 100)[turn % 3], case)


class Driver:
    """As much of a GPU's driver as Triton asks before it launches."""

    def get_current_target(self):
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self):
        return 0

    def get_current_stream(self, device=None):
        return 0


@pytest.fixture
def launches(monkeypatch):
    """Launches as Triton makes them, up to the GPU: (kernel, how many variants of it are compiled by then)."""
    found = []

    def run(kernel, programs, device, args, constants, registers=launch.ALL_REGISTERS):
        kernel.warmup(*args, grid=(programs,), **constants, **launch.options(registers, True))
        found.append((kernel, len(kernel.device_caches[0][0])))

    monkeypatch.setattr(launch, "run", run)
    monkeypatch.setattr(driver, "_active", Driver())
    yield found
    for kernel, _ in found:
        kernel.device_caches.clear()


@pytest.mark.parametrize(
    ("make", "options", "columns"),
    (
        (bernoulli, {"reduction": SUM}, 784),
        (bernoulli, {"reduction": NONE}, 784),
        (bernoulli, {"reduction": NONE, "backward": True}, 784),
        (gaussian, {"reduction": NONE}, 3072),
        (sample, {}, 20),
        (sample, {"backward": True}, 20),
        (normal, {}, 64),
    ),
)
def test_a_shape_class_is_compiled_once(launches, make, options, columns):
    """Neither another batch size, nor another seed, nor an epoch's last batch compiles anew."""
    # Of rows that are longer than a tile so few would be cut.
    for rows in (512, 600, 1031) if columns == 3072 else (512, 100, 37, 16, 129):
        function, args = make((rows, columns), torch.float32, **options)
        function(*args)
    assert {variants for _, variants in launches} == {1}
