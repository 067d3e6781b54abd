"""Issue slots an element of each operator's hot loop, by pass and dtype, for sm_90: counted, and held to ceilings.

A kernel that has more instructions than fit under the time of its bytes is bound by them, and no GPU is needed to
count them: they are read from the machine code, of the CUDA kernels and of Triton's, on the way that ordinary
numbers take (machine_code.py), for contiguous operands of one dtype without weights. ceilings.csv has for each what
is allowed, five hundredths above what was counted when it was last set. Of the operators on pairs an element is a
dim of a pair. All loads of a chunk are to be issued before any of its numbers is used, so that memory is waited for
once.

    python tests/cuda_build/budget.py FILE...         the library, or cubins; without any, Triton's alone
    python tests/cuda_build/budget.py --set FILE...   sets the ceilings to what is counted
"""

import csv
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from machine_code import kernels

CEILINGS = Path(__file__).with_name("ceilings.csv")
COLUMNS = ("backend", "operator", "pass", "dtype", "slots")
SLACK = 1.05
TARGET = "sm_90"
# log σ² without eps and bounds.
FORM = "SigmaForm<float, true>"
# What is read and written of an element in each pass, in operands: (name of the pass, its reads, its writes).
DENSITIES = {
    # operator: (its class, operands, gradients, whether there are kernels of even chunks)
    "bernoulli_log_prob": ("BernoulliDensity<float, false>", 2, 1, True),
    "gaussian_kl": (r"KLDensity<float, SigmaForm<float, true>, StandardPrior>", 2, 2, True),
    "gaussian_log_prob": (r"GaussianDensity<float, SigmaForm<float, true>>", 3, 2, True),
    "laplace_log_prob": (r"LaplaceDensity<float>", 3, 2, True),
    "student_t_log_prob": (r"StudentTDensity<float>", 4, 3, True),
    "continuous_bernoulli_log_prob": (r"ContinuousBernoulliDensity<float>", 2, 1, True),
    "poisson_log_prob": (r"PoissonDensity<float>", 2, 1, True),
    "negative_binomial_log_prob": (r"NegativeBinomialDensity<float, false>", 3, 2, True),
    "zero-inflated negative_binomial_log_prob": (r"NegativeBinomialDensity<float, true>", 4, 3, True),
}
# Of pairs and dims, in float32: what the terms of pairs take, and a gradient's sums beside them.
PAIRS = (
    # (operator, pass, kernel, 16-byte loads of shared memory and fused multiply-adds of a turn, its elements)
    ("gaussian_mixture_log_prob", "terms", "joint_kernel<float>", 12, 64, 64),
    ("gaussian_mixture_log_prob", "data", "data_kernel<float, false>", 6, 0, 16),
    ("gaussian_mixture_log_prob", "components", "components_kernel<float, false>", 5, 0, 16),
    ("mmd", "terms", "mmd_kernel<float>", 8, 64, 64),
    ("mmd", "points", "mmd_kernel<float>", 5, 0, 16),
)
# Of pixels, a channel's term of a component, in float32: (pass, kernel, loads and stores of a turn).
LOGISTICS = (
    ("value", "logistic_mixture_kernel<float, false>", {"LDG": 3, "STG": 0}),
    ("gradients", "logistic_mixture_kernel<float, true>", {"LDG": 3, "STG": 2}),
)
# storage: (its name in C++, elements of a chunk of 16 bytes, additions of float64 that a chunk's sum ends with)
STORAGES = {"float32": ("float", 4, 1), "bfloat16": ("BFloat16", 8, 2)}


@dataclass(frozen=True)
class Row:
    backend: str
    operator: str
    of: str  # the pass
    dtype: str
    slots: float
    late: tuple = ()  # the loads that are

    @property
    def key(self):
        return self.backend, self.operator, self.of, self.dtype


def late(kernel, code):
    """The loads of a turn that something waits before: for a number that another load of their chunk has read.

    A chunk is what one loop reads at one offset from its addresses. The turn's loads may stand at its end, for the
    next one: it is gone round from any of them, and begins where fewest are late.
    """
    chunks = defaultdict(list)
    for place, instruction in enumerate(code):
        if instruction.is_load:
            chunks[kernel.innermost(instruction), instruction.offset].append(place)
    found = []
    for places in chunks.values():
        waits = [_first_use(code, place) for place in places]
        found += min((_after_a_use(places, waits, begin, len(code)) for begin in places), key=len)
    return tuple(code[place] for place in found)


def _first_use(code, load):
    """How many instructions after a load, going round, the first is that reads what it loads."""
    registers = {*code[load].written}
    ahead = range(1, len(code))
    return next((n for n in ahead if code[(load + n) % len(code)].read & registers), len(code))


def _after_a_use(places, waits, begin, turn):
    """Those of a chunk's loads that come after the first use of one, where the turn is begun at ``begin``."""
    since = [(place - begin) % turn for place in places]
    used = min(n + wait for n, wait in zip(since, waits, strict=True))
    return [place for place, n in zip(places, since, strict=True) if n > used]


def named(library):
    """name in C++, without namespaces → Kernel."""
    found = kernels(library, TARGET)
    names = subprocess.run(["c++filt"], input="\n".join(found), capture_output=True, text=True, check=True).stdout
    plain = [
        re.sub(r"vae_fast::|cuda::|\(anonymous namespace\)::|^void | (?=>)", "", n) for n in names.splitlines()
    ]
    return dict(zip(plain, found.values(), strict=True))


def passes():
    """Of every pass (operator, pass, dtype, pattern of its CUDA kernel's name, what a turn has, elements)."""
    for dtype, (storage, n, joins) in STORAGES.items():
        for operator, (density, reads, writes, even) in DENSITIES.items():
            kernel = rf"^density_kernel<DensityOp<float, {density}, .*, \d>, {'Half' if n == 8 else storage}, "
            if even:
                kernel = rf"^even_density_kernel<EvenOp<(\w+<)*{density}.*, \d>, {storage}, "
            yield operator, "value", dtype, kernel + "true, ", {"LDG_E_128": reads, "STG": 0, "DADD": joins}, n
            # Not those that a forward pass kept, which are scaled in another loop.
            made = {"LDG_E_128": reads, "STG_E_128": writes, "DADD": 0, "HMUL2_BF16": 0}
            yield operator, "gradients", dtype, kernel, made, n
            both = {"LDG_E_128": reads, "STG_E_128": writes, "DADD": joins}
            yield operator, "both", dtype, kernel + "true, true", both, n
        # Of a pair of normals a root.
        roots = {"MUFU_RSQ": n // 2}
        stored = "Half" if n == 8 else storage
        yield "standard_normal", "forward", dtype, f"normal_kernel<{stored}, HostKeys, true>", roots, n
        # Of half types the light ones.
        form, own = ("LightForm", "LightKL<NoPrior>") if n == 8 else (FORM, f"KLDensity<float, {FORM}, NoPrior>")
        for operator, kl in (("rsample", "NoKL"), ("rsample_kl", own)):
            params = rf"<{storage}, SampleParams<{form}, {kl}, HostKeys>>"
            forward = roots | {"LDG_E_128": 2, "DADD": 0 if kl == "NoKL" else joins}
            yield operator, "forward", dtype, "even_sample_fwd_kernel" + params, forward, n
            backward = roots | {"LDG_E_128": 2 if kl == "NoKL" else 3, "STG_E_128": 2}
            yield operator, "backward", dtype, "even_sample_bwd_kernel" + params, backward, n
        # It has no kernels of even chunks.
        params = rf"<{stored}, LogProbParams<SigmaForm<float, true>, PriorDensity<NoPrior>, HostKeys>>"
        forward = roots | {"LDG_E_128": 2, "STG_E_128": 1}
        yield "rsample_log_prob", "forward", dtype, "log_prob_fwd_kernel" + params, forward, n
        backward = roots | {"LDG_E_128": 3, "STG_E_128": 2}
        yield "rsample_log_prob", "backward", dtype, "log_prob_bwd_kernel" + params, backward, n


def native(libraries):
    """A row for each pass of the CUDA kernels that the libraries hold."""
    found = {name: kernel for library in libraries for name, kernel in named(library).items()}
    for operator, of, dtype, pattern, has, elements in passes():
        chosen = [kernel for name, kernel in found.items() if re.search(pattern, name)]
        # Half types alone: operands that are read as float32, or written so, take two accesses of 16 bytes.
        without = r"E\.128 .*\+0x10\]" if elements == 8 else None
        ways = [(way, kernel) for kernel in chosen if (way := kernel.turn(without, **has))]
        assert ways, f"{operator}, {of}, {dtype}: of {len(chosen)} kernels none has a loop with {has}"
        way, kernel = min(ways, key=lambda of: len(of[0]))
        yield Row("native", operator, of, dtype, round(len(way) / elements, 1), late(kernel, way))
    for operator, of, pattern, loads, products, count in PAIRS:
        (kernel,) = (kernel for name, kernel in found.items() if name.startswith(pattern))
        way = kernel.turn(LDS_128=loads, FFMA=products)
        assert way, f"{operator}, {of}: no loop of {loads} loads and {products} fused multiply-adds"
        yield Row("native", operator, of, "float32", round(len(way) / count, 1), late(kernel, way))
    for of, pattern, has in LOGISTICS:
        (kernel,) = (kernel for name, kernel in found.items() if name.startswith(pattern))
        way = kernel.turn(**has)
        assert way, f"logistic_mixture_log_prob, {of}: no loop with {has}"
        yield Row("native", "logistic_mixture_log_prob", of, "float32", round(len(way), 1), late(kernel, way))


def triton():
    """A row for each pass of Triton's kernels, compiled here."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    import pytest
    import torch

    from helpers import launched_calls as calls
    from helpers.ahead import THREADS, compile_call

    def zero_inflated(shape, dtype, **options):
        return calls.negative_binomial(shape, dtype, zero_logits=torch.empty(shape, dtype=dtype), **options)

    made = {
        "bernoulli_log_prob": calls.bernoulli,
        "gaussian_kl": calls.kl,
        "gaussian_log_prob": calls.gaussian,
        "laplace_log_prob": calls.laplace,
        "student_t_log_prob": calls.student_t,
        "continuous_bernoulli_log_prob": calls.continuous_bernoulli,
        "poisson_log_prob": calls.poisson,
        "negative_binomial_log_prob": calls.negative_binomial,
        "zero-inflated negative_binomial_log_prob": zero_inflated,
    }
    each = [
        (
            operator,
            of,
            make,
            {"reduction": calls.SUM if of == "both" else calls.NONE, "backward": of == "gradients"},
        )
        for operator, make in made.items()
        for of in ("value", "gradients", "both")
    ]
    each.append(("standard_normal", "forward", calls.normal, {}))
    each += [
        (operator, of, calls.sample, {"with_kl": operator == "rsample_kl", "backward": of == "backward"})
        for operator in ("rsample", "rsample_kl")
        for of in ("forward", "backward")
    ]
    each += [
        ("rsample_log_prob", of, calls.sample_log_prob, {"backward": of == "backward"})
        for of in ("forward", "backward")
    ]
    patch = pytest.MonkeyPatch()
    for operator, of, make, options in each:
        for dtype in (torch.float32, torch.bfloat16):
            function, args = make((512, 1024), dtype, **options)
            compiled, *_ = compile_call(patch, 90, function, *args)
            constants = compiled.constants
            tile = (
                constants["BLOCK_ROWS"] * constants["BLOCK_COLUMNS"]
                if "BLOCK_ROWS" in constants
                else constants["BLOCK"]
            )
            with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
                file.write(compiled.cubin)
                file.flush()
                (kernel,) = kernels(file.name, TARGET).values()
            # What it reads and writes by columns: all its accesses of so many bits, in a loop or once.
            bits = 128 if any(i.op.startswith("LDG.E.128") for i in kernel.code) or make is calls.normal else 64
            has = {
                f"{op}_E_{bits}": sum(i.op.startswith(f"{op}.E.{bits}") for i in kernel.code)
                for op in ("LDG", "STG")
            }
            if make is calls.sample_log_prob:
                # Of its two loops, over samples and tiles, a cheaper way round goes by the noise.
                has["MUFU_RSQ"] = sum(i.op.startswith("MUFU.RSQ") for i in kernel.code)
            way = kernel.turn(**has) or kernel.once(**has)
            assert way and any(has.values()), f"{operator}, {of}, {dtype}: no way with {has}"
            slots = round(len(way) * THREADS / tile, 1)
            yield Row("triton", operator, of, str(dtype)[6:], slots, late(kernel, way))


def read():
    with CEILINGS.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {(r["backend"], r["operator"], r["pass"], r["dtype"]): float(r["slots"]) for r in rows}


def write(rows):
    with CEILINGS.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        for row in rows:
            table.writerow((*row.key, f"{row.slots * SLACK:.1f}"))


def over(rows, ceilings):
    """What is wrong, a line each: a pass above its ceiling or without one, and loads that come late."""
    said = []
    for row in rows:
        allowed = ceilings.get(row.key, 0.0)
        if row.slots > allowed:
            said.append(f"{', '.join(row.key)}: {row.slots} issue slots an element, {allowed} are allowed")
        said += [
            f"{', '.join(row.key)}: {load.op} {load.args.strip()} at {load.at:#x} comes after a use of its chunk"
            for load in row.late
        ]
    counted = {row.key for row in rows}
    return said + [
        f"{', '.join(key)}: it has a ceiling, and was not counted" for key in ceilings if key not in counted
    ]


def main(arguments):
    libraries = [argument for argument in arguments if argument != "--set"]
    rows = [*(native(libraries) if libraries else ()), *triton()]
    for row in rows:
        said = ", loads come late" if row.late else ""
        print(f"{row.backend:7}{row.operator:42}{row.of:10}{row.dtype:9}{row.slots:7.1f}{said}")
    if "--set" in arguments:
        write(rows)
        return 0
    ceilings = {key: value for key, value in read().items() if libraries or key[0] != "native"}
    wrong = over(rows, ceilings)
    print("\n".join(wrong) or f"{len(rows)} passes are within their ceilings")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
