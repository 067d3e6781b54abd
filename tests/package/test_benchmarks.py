"""The benchmarks: what is wrong is not timed, a user's own shape, the report's files, and two runs compared."""

import contextlib
import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
if not (ROOT / "benchmarks").is_dir():
    pytest.skip("needs the source tree: benchmarks is missing", allow_module_level=True)
sys.path.insert(0, str(ROOT))

from benchmarks import cases, providers, replay, steps, test_replay, truth  # noqa: E402
from benchmarks import report as results  # noqa: E402

# pytest-benchmark measures nothing where it takes itself for a part of a distributed run.
LEFT_OUT = ("OMP_WAIT_POLICY", "VAE_FAST_BACKEND", "PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT")
# Fewer and shorter rounds than a benchmark needs: here only what is written counts.
BRIEF = ("--benchmark-max-time", "0.01", "--benchmark-min-rounds", "3", "--benchmark-warmup", "off")
# A package vae_fast whose Bernoulli kernel is wrong in a way that a caller may choose; then the benchmarks.
PLANTED = """
import sys
from types import SimpleNamespace
import importlib
from benchmarks import __main__, formulas, providers
from vae_fast import front
from vae_fast.operators import COMMON

backends = importlib.import_module("vae_fast.backends")
if sys.argv[1] == "value of eager":
    right = formulas.EAGER.bernoulli_log_prob
    formulas.EAGER.bernoulli_log_prob = lambda y, x: right(y, x) * 1.001
elif sys.argv[1] == "gradient of native":
    reference = backends._KERNELS["reference"]
    kernels = dict(vars(reference))

    def fwd(*args):
        log_prob, *grads = reference.bernoulli_log_prob_fwd(*args)
        return log_prob, *(log_prob.new_empty(0) if g is None else -g for g in grads)

    kernels["bernoulli_log_prob_fwd"] = fwd
    kernels["bernoulli_log_prob_fwd_common"] = COMMON["bernoulli_log_prob_fwd_common"].lengthened(fwd)
    backends._TABLE["native"] = backends.Backend("native", True, "", ("*",), backends.OPS)
    front.state.on = False
    backends._KERNELS["native"] = SimpleNamespace(**kernels)
    providers._MAKE["native"] = lambda: providers._ours("native")
    providers.PROVIDERS = tuple(providers._MAKE)
    providers.BACKENDS = ("reference", "native")
sys.exit(__main__.main(sys.argv[2:]))
"""


def run(*arguments, code=("-m", "benchmarks")):
    environment = {k: v for k, v in os.environ.items() if k not in LEFT_OUT}
    command = (sys.executable, *code, *arguments)
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=250)


def lines_of(done, provider):
    """The provider's lines of the table."""
    return [line for line in done.stdout.splitlines() if line.startswith("bernoulli") and f" {provider} " in line]


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A run on a shape of one's own."""
    path = tmp_path_factory.mktemp("run") / "run.json"
    done = run("--shape", "6x40", "--dtype", "float32", "--dtype", "bfloat16-uint8", "--op", "gaussian_log_prob",
               "--op", "rsample_kl", "--provider", "eager", "--provider", "native", "--provider", "reference",
               "--benchmark-json", str(path), *BRIEF)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done, path


class TestOwnShape:
    def test_ends_on_one_sentence_an_operator_and_dtype(self, own):
        sentences = [line for line in own[0].stdout.splitlines() if "forward and backward:" in line]
        starts = [s.partition(",")[0] for s in sentences]
        assert starts == [
            "vf.gaussian_log_prob at 6x40 float32",
            "vf.gaussian_log_prob at 6x40 bfloat16-uint8",
            "vf.rsample_kl at 6x40 float32",
        ]
        assert all("times as fast as" in s for s in sentences)

    def test_json_says_under_what(self, own):
        content = json.loads(own[1].read_text())
        conditions = content["vae_fast"]["conditions"]
        for key in ("device", "threads", "cpu_flags", "versions", "date", "commit", "copy_bandwidth"):
            assert conditions[key] not in (None, ""), key
        extra = content["benchmarks"][0]["extra_info"]
        assert extra["shape"] == "6x40" and extra["elements"] == 240

    @pytest.mark.parametrize(
        "arguments", [("--shape", "6xtwo"), ("--shape", "0x3"), ("--op", "softmax")], ids=" ".join
    )
    def test_bad_arguments(self, arguments):
        done = run(*arguments)
        assert done.returncode == 4 and arguments[0] in done.stderr


class TestWrongIsNotTimed:
    @pytest.mark.parametrize(
        ("plant", "provider", "status"),
        [("value of eager", "eager", 0), ("gradient of native", "native", 1)],
    )
    def test_planted(self, plant, provider, status, tmp_path):
        arguments = (
            "--shape",
            "6x40",
            "--op",
            "bernoulli_log_prob",
            "--provider",
            provider,
            "--provider",
            "reference",
        )
        path = tmp_path / "run.json"
        done = run(plant, *arguments, "--benchmark-json", str(path), *BRIEF, code=("-c", PLANTED))
        assert done.returncode == status, done.stdout + done.stderr
        assert f"WRONG, not timed: {provider} at bernoulli_log_prob 6x40 float32 both" in done.stdout
        assert not lines_of(done, provider) and len(lines_of(done, "reference")) == 3
        content = json.loads(path.read_text())
        assert {b["extra_info"]["provider"] for b in content["benchmarks"]} == {"reference"}
        assert {w["provider"] for w in content["vae_fast"]["wrong"]} == {provider}
        found = report("--out", str(tmp_path), str(path))
        assert found.returncode == status
        assert "WRONG, not timed" in next(tmp_path.glob("*/results.md")).read_text()


def report(*arguments):
    """python -m benchmarks.report, in this process."""
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        try:
            status = results.main(arguments)
        except SystemExit as end:
            status = end.code
    return subprocess.CompletedProcess(arguments, status, out.getvalue(), errors.getvalue())


@pytest.fixture(scope="module")
def folder(own, tmp_path_factory):
    """The report of that run."""
    out = tmp_path_factory.mktemp("results")
    done = report(str(own[1]), "--out", str(out), "--command", "the command")
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.strip())
    assert folder.parent == out
    return folder


class TestReport:
    def test_files(self, folder):
        assert sorted(p.name for p in folder.iterdir()) == [
            "conditions.json", "memory.png", "results.csv", "results.md", "speed.png"
        ]  # fmt: skip
        assert (folder / "speed.png").read_bytes().startswith(b"\x89PNG")
        assert json.loads((folder / "conditions.json").read_text())["command"] == "the command"

    def test_ratios_are_of_medians_of_one_group(self, folder, own):
        timed = {
            (b["group"], b["extra_info"]["provider"]): b["stats"]["median"]
            for b in json.loads(own[1].read_text())["benchmarks"]
        }
        with open(folder / "results.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        assert {(r["group"], r["provider"]) for r in rows} == set(timed)
        for r in rows:
            ratio = timed[r["group"], "eager"] / timed[r["group"], r["provider"]]
            assert float(r["times_eager"]) == pytest.approx(ratio, rel=1e-4)
            assert f"{ratio:.2f}" in (folder / "results.md").read_text()
            assert float(r["gb_per_s"]) == pytest.approx(float(r["bytes"]) / float(r["median_us"]) / 1e3, rel=1e-4)

    def test_not_a_run(self, tmp_path):
        (tmp_path / "other.json").write_text("{}")
        for path, words in ((tmp_path / "other.json", "not a run"), (tmp_path / "none.json", "none.json")):
            done = report(str(path), "--out", str(tmp_path))
            assert done.returncode == 2 and words in done.stderr


class TestCompare:
    def changed(self, own, tmp_path, provider, factor, iqr=0.01):
        """A copy of the run in which a provider takes ``factor`` as long; all with a narrow spread."""
        content = json.loads(own[1].read_text())
        for b in content["benchmarks"]:
            if b["extra_info"]["provider"] == provider:
                b["stats"]["median"] *= factor
            b["stats"]["iqr"] = iqr * b["stats"]["median"]
        path = tmp_path / f"{provider}-{factor}-{iqr}.json"
        path.write_text(json.dumps(content))
        return str(path)

    @pytest.mark.parametrize(
        ("provider", "factor", "iqr", "status"),
        [
            ("native", 1.0, 0.01, 0),
            ("native", 1.3, 0.01, 1),
            ("native", 0.5, 0.01, 0),
            ("native", 1.3, 0.5, 0),  # within what the rows of one run scatter
            ("eager", 0.5, 0.01, 1),  # ours against eager is what counts
            ("eager", 2.0, 0.01, 0),
        ],
    )
    def test_status(self, own, tmp_path, provider, factor, iqr, status):
        old = self.changed(own, tmp_path, provider, 1.0, iqr)
        new = self.changed(own, tmp_path, provider, factor, iqr)
        done = report("--compare", old, new)
        assert done.returncode == status, done.stdout + done.stderr
        assert done.stdout.count("±") == 18
        if provider == "native" and iqr == 0.01:
            ratios = [float(line.split()[-4]) for line in done.stdout.splitlines() if " native " in line]
            assert ratios == pytest.approx([factor] * 9)

    def test_csv(self, own, tmp_path):
        old = self.changed(own, tmp_path, "native", 1.0)
        folder = Path(report(old, "--out", str(tmp_path)).stdout.strip())
        assert report("--compare", str(folder / "results.csv"), old).returncode == 0

    def test_nothing_in_common(self, own, tmp_path):
        content = json.loads(own[1].read_text())
        content["benchmarks"] = []
        (tmp_path / "empty.json").write_text(json.dumps(content))
        assert report("--compare", str(own[1]), str(tmp_path / "empty.json")).returncode == 1


@pytest.mark.parametrize("op", cases.OPS)
def test_one_element(op):
    """Every operator that can be asked for has operands and a truth, of the smallest shape too."""
    case = cases.Case(op, cases.ONE, "float32", "both")
    tensors = case.operands()
    for name in ("eager", "native"):
        assert truth.wrong(op, providers.provider(name), tensors, truth.of(op, case.operands())) == ""


def test_whole_steps(tmp_path):
    path = tmp_path / "run.json"
    providers = ("--provider", "eager", "--provider", "native")
    done = run("--level", "quick", "-k", "test_step", *providers, "--benchmark-json", str(path), *BRIEF)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the ELBO's terms take" in done.stdout
    folder = Path(report(str(path), "--out", str(tmp_path)).stdout.strip())
    assert (folder / "steps.png").is_file()


def test_scvi_says_what_it_needs():
    """tests/integrations runs it."""
    without = "import sys; sys.modules['scvi'] = None; from benchmarks import __main__; __main__.main(['scvi'])"
    done = run(code=("-c", without))
    assert done.returncode == 1 and "needs scvi-tools" in done.stderr


class TestReplays:
    """The timing of a GPU's graphs, with a graph that runs its calls where there is no GPU."""

    @pytest.fixture(autouse=True)
    def no_gpu(self, monkeypatch):
        class Stream:
            def wait_stream(self, other):
                pass

        class Graph:
            replays = 0

            def replay(self):
                self.replays += 1

        for name, stand_in in {
            "Stream": Stream,
            "current_stream": Stream,
            "stream": lambda stream: contextlib.nullcontext(),
            "CUDAGraph": Graph,
            "graph": lambda graph: contextlib.nullcontext(),
            "synchronize": lambda: None,
        }.items():
            monkeypatch.setattr(torch.cuda, name, stand_in)

    def test_every_call_has_tensors_of_its_own(self):
        called = []
        graph = replay.Replay(lambda k: called.append(k), lambda k: (k,), 5)
        assert called == [0, 1, 2, 0, 1, 2, 3, 4]
        graph()
        assert graph.graph.replays == 1 and graph.count == 5

    def test_together_they_exceed_the_cache_threefold(self):
        assert replay.calls_of(10_000_000, 50_000_000) == 15
        assert replay.calls_of(10**12, 50_000_000) == replay.FEWEST
        assert replay.calls_of(8, 50_000_000) == replay.MOST

    def test_a_row_is_one_call_s(self):
        row = results.row("g", {"provider": "eager", "bytes": 8, "calls": 10, "launches": 2}, 1e-3, 1e-4, 7)
        assert (row["median_us"], row["iqr_us"], row["launches"]) == (pytest.approx(100), pytest.approx(10), 2)

    @pytest.mark.parametrize("passing", ("forward", "backward", "both"))
    def test_a_case(self, passing, monkeypatch):
        monkeypatch.setattr(replay, "cache_bytes", lambda device: 0)
        monkeypatch.setattr(replay, "launches", lambda call: (call(), 1)[1])
        timed = []

        class Benchmark:
            extra_info = {}

            def __call__(self, graph):
                timed.append(graph)

        class Request:
            def getfixturevalue(self, name):
                return Benchmark()

        case = cases.Case("bernoulli_log_prob", (5, 7), "float32", passing)
        test_replay.test_replay(Request(), case, "eager", "cpu", {"wrong": []})
        assert len(timed) == 1 and len(timed[0].outs) == replay.FEWEST
        if passing != "forward":
            assert all(grad.shape == (5, 7) for outs in timed[0].outs for grad in outs)

    def test_a_step(self):
        """Warmed up aside, captured once, and replayed by every call."""
        model = steps.make("mlp")
        before = model.encoder[0].weight.detach().clone()
        step = steps.replayed_step(model, providers.provider("eager"))
        moved = model.encoder[0].weight.detach().clone()
        assert not torch.equal(before, moved)
        assert step() is step() and torch.equal(model.encoder[0].weight, moved)


def test_a_step_under_autocast():
    """Networks in bfloat16, the loss and the weights in float32."""
    model, seen = steps.make("mlp"), []
    model.decoder.register_forward_hook(lambda module, inputs, out: seen.append(out.dtype))
    for name in ("eager", "native"):
        loss = steps.autocast_step(model, providers.provider(name))()
        assert loss.dtype == torch.float32 and loss.isfinite()
        assert {p.grad.dtype for p in steps.parameters(model)} == {torch.float32}
    assert seen == [torch.bfloat16] * 2
