"""CONTRIBUTING's recipe, followed word for word in a copy of the package: a density that is there on every backend.

What it takes is in tests/recipe: new files at their places, and here the lines that go into files that are there.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import vae_fast as vf

ROOT = Path(__file__).parents[2]
if not (ROOT / "benchmarks").is_dir():
    pytest.skip("needs the source tree: benchmarks is missing", allow_module_level=True)
RECIPE = ROOT / "tests" / "recipe"
OP = "double_exponential_log_prob"
# The most that a density may cost.
LINES, FILES = 170, 12

# What goes into files that are there: the file, before what, the lines.
INSERTIONS = (
    (
        "vae_fast/operators.py",
        ")\n\nOPERATORS = {",
        """    Operator(
        "double_exponential_log_prob",
        operands=(Operand("mean", "loc"), Operand("log_b", "scale"), Operand("x", "value", DATA), _WEIGHT),
        options=_SUM,
        results=("log_prob",),
    ),
""",
    ),
    (
        "vae_fast/__init__.py",
        "from vae_fast.ops.rsample import",
        "from vae_fast.ops.double_exponential_log_prob import double_exponential_log_prob\n",
    ),
    ("vae_fast/__init__.py", '    "rsample",', '    "double_exponential_log_prob",\n'),
    (
        "vae_fast/checking/formulas.py",
        "# The operators that sum terms:",
        """def double_exponential(mean: Array, log_b: Array, x: Array, f: Any = np) -> Element:
    difference, inverse = x - mean, f.exp(-log_b)
    size, log_2 = abs(difference) * inverse, f.log(2.0)
    slope = f.where(difference > 0, inverse, f.where(difference < 0, -inverse, 0.0))
    slopes = {"mean": (slope, inverse), "log_b": (size - 1, size + 1), "x": (-slope, inverse)}
    return Element((-(size + log_b + log_2), size + abs(log_b) + log_2), slopes, (difference,))


""",
    ),
    (
        "vae_fast/checking/formulas.py",
        '    "gaussian_log_prob": gaussian,',
        '    "double_exponential_log_prob": double_exponential,\n',
    ),
    (
        "benchmarks/formulas.py",
        "EAGER = ",
        """def double_exponential_log_prob(mean, log_b, x):
    return torch.distributions.Laplace(mean, log_b.exp()).log_prob(_as(x, mean)).sum()


""",
    ),
    (
        "csrc/densities.h",
        "}  // namespace VF_ISA",
        """// mean, log b, x.
struct DoubleExponentialDensity {
  static constexpr int kInputs = 3;

  VF_INLINE static constexpr bool always(int) { return true; }
  template <class T>
  VF_INLINE void operator()(const T (&in)[kInputs], T g, T& term, T (&d)[kInputs]) const {
    using E = Element<T>;
    const T difference = in[2] - in[0], inverse = exp(-in[1]), size = abs(difference) * inverse, zero = splat<T>(0);
    term = -(size + in[1] + splat<T>(static_cast<E>(0.69314718055994530942)));
    d[0] = g * select(difference < zero, -inverse, select(difference > zero, inverse, zero));
    d[1] = g * (size - splat<T>(1));
    d[2] = -d[0];
  }
};

""",
    ),
    (
        "csrc/kernels.h",
        "// mu, logvar, prior_mu, prior_logvar.\nstruct KLArgs",
        "// mean, log b, x.\nstruct DoubleExponentialArgs : DensityArgs<3, 2> {};\n\n",
    ),
    (
        "csrc/kernels.h",
        "kernel(gaussian_log_prob, GaussianArgs)",
        "kernel(double_exponential_log_prob, DoubleExponentialArgs) ",
    ),
    (
        "csrc/ops.h",
        "// ---- gaussian_kl --",
        """// ---- double_exponential_log_prob ---------------------------------------------------------

inline std::array<Tensor, 5> double_exponential(DensityTensors<3>&& tensors, const DensityOptions& options) {
  DoubleExponentialArgs args;
  return run_density(kernels().double_exponential_log_prob, args, tensors, options);
}

inline std::tuple<Tensor, Tensor, Tensor, Tensor> double_exponential_log_prob_fwd(
    Tensor mean, Tensor log_b, Tensor x, OptionalTensor weight, int64_t event_ndim, int64_t reduction, double scale,
    bool need_dmean, bool need_dlog_b, bool need_dx) {
  return forward(double_exponential({OnDevice(mean),
                                     {{"mean", mean}, {"log_b", log_b}, {"x", x}, {"weight", weight}},
                                     {},
                                     {need_dmean, need_dlog_b, need_dx}},
                                    {event_ndim, reduction, scale}));
}

inline std::tuple<Tensor, Tensor, Tensor, Tensor> double_exponential_log_prob_bwd(
    Tensor dlog_prob, Tensor mean, Tensor log_b, Tensor x, OptionalTensor weight, int64_t event_ndim,
    int64_t reduction, double scale, bool need_dmean, bool need_dlog_b, bool need_dx, bool need_dweight) {
  return backward(double_exponential({OnDevice(mean),
                                      {{"mean", mean}, {"log_b", log_b}, {"x", x}, {"weight", weight}},
                                      {"dlog_prob", dlog_prob},
                                      {need_dmean, need_dlog_b, need_dx, need_dweight}},
                                     {event_ndim, reduction, scale}));
}

""",
    ),
    ("csrc/ops.h", "each(gaussian_kl)", "each(double_exponential_log_prob) "),
)


def new_files(*folders):
    return [path.relative_to(RECIPE) for folder in folders for path in sorted((RECIPE / folder).rglob("*.*"))]


def follow(copy, *folders):
    """Puts the recipe's new files of some folders, and its lines, into a copy of the package."""
    for path in new_files(*folders):
        shutil.copy(RECIPE / path, copy / path)
    for name, before, lines in INSERTIONS:
        if not name.startswith("csrc") or "csrc" in folders:
            text = (copy / name).read_text()
            assert text.count(before) == 1, (name, before)
            (copy / name).write_text(text.replace(before, lines + before))


def check(copy, *backends, **environment):
    command = (sys.executable, str(RECIPE / "check.py"), *backends)
    done = subprocess.run(
        command,
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy), **environment},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(line.split(": ") for line in done.stdout.splitlines())


@pytest.fixture
def copy(tmp_path):
    """The package as it is here, with its compiled library."""
    for folder in ("vae_fast", "benchmarks"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__", "results"))
    return tmp_path


def test_one_backend_is_enough(copy):
    """An operator that only the reference has: named, the others refuse it, and "auto" goes on to the reference."""
    follow(copy, "vae_fast/reference", "vae_fast/ops")
    done = check(copy, "reference")
    refusing = {name for name, backend in vf.backends().items() if backend.available} - {"reference"}
    assert done == {"reference": "right", **dict.fromkeys(refusing, "refused")}


def test_a_backend_without_the_operator_imports(copy):
    pytest.importorskip("triton")
    follow(copy, "vae_fast/reference", "vae_fast/ops")
    assert check(copy, "reference", TRITON_INTERPRET="1")["triton"] == "refused"


def test_in_triton(copy):
    pytest.importorskip("triton")
    follow(copy, "vae_fast")
    assert check(copy, "reference", "triton", TRITON_INTERPRET="1")["triton"] == "right"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_on_every_backend(copy):
    """With a library that is built of the copy's sources, and kernels for a GPU that are compiled where nvcc is."""
    pytest.importorskip("triton")
    if not vf.backends()["native"].available:
        pytest.skip(vf.backends()["native"].reason)
    for name in ("setup.py", "setup_cuda.py", "setup_operators.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    shutil.copytree(ROOT / "csrc", copy / "csrc")
    follow(copy, "vae_fast", "csrc")
    environment = {**os.environ, "VAE_FAST_NATIVE": "1"}
    command = (sys.executable, "setup.py", "-q", "build_ext", "--inplace")
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stdout + done.stderr
    done = check(copy, "reference", "native", "triton", TRITON_INTERPRET="1")
    assert done == dict.fromkeys(("reference", "native", "triton"), "right")


def test_what_it_costs():
    new = new_files("vae_fast", "csrc")
    texts = [*((RECIPE / path).read_text() for path in new), *(lines for _, _, lines in INSERTIONS)]
    lines = sum(bool(line.strip()) for text in texts for line in text.splitlines())
    files = {*map(str, new), *(name for name, _, _ in INSERTIONS)}
    assert lines <= LINES and len(files) <= FILES, (lines, sorted(files))
