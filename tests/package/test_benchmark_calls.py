"""`python -m benchmarks calls`: its tables and JSON, that what is wrong is not timed, and its options."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from vae_fast import front

ROOT = Path(__file__).parents[2]
if not (ROOT / "benchmarks").is_dir():
    pytest.skip("needs the source tree: benchmarks is missing", allow_module_level=True)
sys.path.insert(0, str(ROOT))

from benchmarks import calls, paired, small_calls, steps  # noqa: E402

BRIEF = ("--rounds", "2", "--steps", "3")


@pytest.fixture(autouse=True)
def threads():
    """The command sets how many there are."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def planted(functions, op, factor):
    """The functions, with an operator whose last result is off, and its gradients with it."""
    right = getattr(functions, op)

    def off(*tensors):
        out = right(*tensors)
        return (*out[:-1], out[-1] * factor) if isinstance(out, tuple) else out * factor

    return SimpleNamespace(**vars(functions) | {op: off})


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A run in small, as a user starts it: (its output's lines, its JSON)."""
    path = tmp_path_factory.mktemp("calls") / "calls.json"
    command = (sys.executable, "-m", "benchmarks", "calls", *BRIEF, "--json", str(path))
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines(), json.loads(path.read_text())


class TestTables:
    def test_every_call_has_every_way(self, done):
        lines, content = done
        ways = [way.name for way in small_calls.ways()]
        assert ways == ["eager", *([] if front.REASON else ["vae_fast, Python functions"]), "vae_fast"]
        assert [row["way"] for row in content["calls"]] == ways * len(small_calls.CALLS)
        cases = list(dict.fromkeys(row["case"] for row in content["calls"]))
        assert cases == [
            "rsample_kl 100x20 forward",
            "rsample_kl 100x20 forward and backward",
            "rsample_kl 100x20 forward and backward, a KL a datum",
            "rsample 100x20 forward",
            "rsample 100x20 forward and backward",
            "gaussian_kl 100x20 forward",
            "gaussian_kl 100x20 forward and backward",
            "bernoulli_log_prob 100x784 forward and backward",
            "standard_normal 8x16 forward",
        ]
        assert [line for line in lines if line in cases] == cases

    def test_the_lines_are_the_json_s_figures(self, done):
        lines, content = done
        found = iter(line for line in lines if line.startswith("    ") and line.strip())
        for row in content["calls"]:
            cells = next(found).removeprefix(f"    {row['way']}").split()
            keys = [
                f"{place}_{what}" for place in ("hot", "cold") for what in ("p10_us", "median_us", "times_eager")
            ]
            assert [float(c) for c in cells] == pytest.approx([row[key] for key in keys], abs=0.051)
            assert all(row[key] > 0 for key in keys)
        assert "median us" in next(found)
        for row in content["steps"]:
            cells = (
                next(found)
                .removeprefix(f"    {row['way']}")
                .replace("[", " ")
                .strip(" ]")
                .replace(",", " ")
                .split()
            )
            values = [row[key] for key in ("percent", "low", "high")]
            assert [float(c) for c in cells[1:]] == pytest.approx(values, abs=0.0051)

    def test_ratios_are_eager_s_10th_percentile_over_the_row_s(self, done):
        for row in done[1]["calls"]:
            eager = next(r for r in done[1]["calls"] if (r["case"], r["way"]) == (row["case"], "eager"))
            for place in ("hot", "cold"):
                ratio = eager[f"{place}_p10_us"] / row[f"{place}_p10_us"]
                assert row[f"{place}_times_eager"] == pytest.approx(ratio)

    def test_steps(self, done):
        rows = done[1]["steps"]
        assert [r["way"] for r in rows] == ["eager", "torch.distributions", "vae_fast", "no loss terms"]
        assert (rows[0]["percent"], rows[0]["low"], rows[0]["high"]) == (0, 0, 0)
        assert all(r["low"] <= r["percent"] <= r["high"] for r in rows)

    def test_conditions(self, done):
        conditions = done[1]["conditions"]
        assert (conditions["threads"], conditions["rounds"], conditions["steps"]) == (1, 2, 3)
        assert conditions["load"] >= 0 and conditions["versions"]["torch"] == torch.__version__
        assert done[1]["wrong"] == []
        busy = conditions["load"] + 1 > conditions["cpus"]
        assert any(line.startswith("BUSY: ") for line in done[0]) == busy


class TestWrongIsNotTimed:
    @pytest.mark.parametrize(("way", "status"), [("EAGER", 0), ("OURS", 1)])
    def test_a_call(self, way, status, monkeypatch, capsys, tmp_path):
        monkeypatch.setattr(small_calls, way, planted(getattr(small_calls, way), "rsample_kl", 1.001))
        monkeypatch.setattr(small_calls, "CALLS", small_calls.CALLS[:1])
        path = tmp_path / "calls.json"
        assert calls.main(["--rounds", "1", "--steps", "0", "--json", str(path)]) == status
        content = json.loads(path.read_text())
        wrong = {w["way"] for w in content["wrong"]}
        assert wrong == {w.name for w in small_calls.ways() if (w.name == "eager") == (way == "EAGER")}
        assert not wrong & {row["way"] for row in content["calls"]} and content["calls"]
        out = capsys.readouterr().out
        assert all(f"WRONG, not timed: {w} at rsample_kl 100x20 forward: " in out for w in wrong)

    @pytest.mark.parametrize(("name", "status"), [("torch.distributions", 0), ("eager", 0), ("vae_fast", 1)])
    def test_a_step(self, name, status, monkeypatch, tmp_path):
        monkeypatch.setitem(paired.WAYS, name, planted(paired.WAYS[name], "bernoulli_log_prob", 1.001))
        monkeypatch.setattr(small_calls, "CALLS", ())
        path = tmp_path / "calls.json"
        assert calls.main(["--rounds", "1", "--steps", "1", "--json", str(path)]) == status
        content = json.loads(path.read_text())
        assert [w["way"] for w in content["wrong"]] == [name]
        assert [row["way"] for row in content["steps"]] == [way for way in paired.WAYS if way != name]
        assert all(("percent" in row) == (name != "eager") for row in content["steps"])

    def test_each_way_is_checked_as_it_is_timed(self):
        on = []
        functions = SimpleNamespace(
            gaussian_kl=lambda *m: (on.append(front.state.on), small_calls.EAGER.gaussian_kl(*m))[1]
        )
        way = small_calls.Way("vae_fast, Python functions", functions, front.disabled)
        step, call = small_calls.Step(), small_calls.Call("gaussian_kl", both=True)
        assert small_calls.wrong(step, call, way) == ""
        small_calls.timed(step, call, [way], 1)
        assert not any(on) and len(on) == 1 + 1 + small_calls.BEFORE_LOOP + small_calls.LOOP
        assert front.state.on

    def test_without_loss_terms_every_parameter_has_a_gradient(self, monkeypatch):
        model = steps.make("mlp")
        assert paired.wrong(model, "no loss terms") == ""
        monkeypatch.setattr(steps.NO_TERMS, "rsample_kl", lambda mu, logvar: (mu, mu.sum()))
        monkeypatch.setattr(steps.NO_TERMS, "bernoulli_log_prob", lambda y, x: 0 * y.sum())
        assert paired.wrong(model, "no loss terms") == "parameters without a gradient"


def test_all_steps_are_on_the_same_weights():
    model = steps.make("mlp")
    before = [p.detach().clone() for p in steps.parameters(model)]
    found = paired.timed(model, list(paired.WAYS), 2)
    assert {name: len(seconds) for name, seconds in found.items()} == dict.fromkeys(paired.WAYS, 2)
    assert all(torch.equal(p, b) for p, b in zip(steps.parameters(model), before, strict=True))


def test_the_difference_is_paired():
    """A slow round is slow for both: their difference is not its."""
    base = [1.0, 5.0, 1.0, 3.0, 2.0]
    assert paired.difference([b + 0.1 for b in base], base) == pytest.approx((5, 5, 5))
    median, low, high = paired.difference([b + d for b, d in zip(base, (0, 1, 2, 3, 4), strict=True)], base)
    assert median == pytest.approx(100) and low < median < high


@pytest.mark.parametrize(
    "arguments",
    [("--threads", "0"), ("--rounds", "0"), ("--steps", "-1"), ("--rounds", "many"), ("--json", "no/such")],
)
def test_bad_options(arguments, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        calls.main(list(arguments))
    assert stopped.value.code == 2 and arguments[0] in capsys.readouterr().err
