"""vf.check: passes on every backend there is; fails where a fault is planted, with the case that shows it."""

import importlib
import json
import shlex

import numpy as np
import pytest
import torch

import vae_fast as vf
from helpers.faults import as_if_contiguous, on_argument, on_named, on_result, plant, without_tail
from vae_fast.checking import cases, choice, run, thorough, words
from vae_fast.cli.main import main
from vae_fast.operators import FORMS, OPERATORS

pytestmark = pytest.mark.usefixtures("one_thread")

backends = importlib.import_module("vae_fast.backends")

AVAILABLE = [name for name, b in vf.backends().items() if b.available]


def replay(failure):
    """Runs a failure's command line in this process: its exit status."""
    words = shlex.split(failure.command)
    assert words[:4] == ["python", "-m", "vae_fast", "check"]
    return main(words[3:])


class TestPasses:
    @pytest.mark.parametrize("op", words.OPS)
    def test_every_operator(self, op, capsys):
        """In float32 and bfloat16; the other dtypes are the default command's (test_cli_check.py)."""
        for dtype in (torch.float32, "bfloat16"):
            rows = vf.check(op, dtype=dtype)
            assert [r.backend for r in rows if r.device == "cpu"] == AVAILABLE
            for row in rows:
                assert row.ok, row.failure
                assert row.op == op and row.kind == "cases" and row.cases >= 9
                assert row.forward < 5 and (row.gradient is None or row.gradient < 9)
        assert capsys.readouterr() == ("", "")

    def test_nothing_is_drawn_from_the_generators(self):
        state = torch.get_rng_state()
        vf.check("rsample", shape=(3, 4))
        assert torch.equal(state, torch.get_rng_state())

    def test_the_same_rows_every_time(self):
        first, again, other = (vf.check("rsample", dtype="float32", seed=s) for s in (0, 0, 1))
        assert first == again != other

    def test_cases_are_many_and_exist(self):
        for op in words.OPS:
            found = choice.variants(choice.Choice(), op)
            assert len(found) == len(set(found)) and all(case.exists for case in found)
            if op == "standard_normal":
                continue
            layouts = {case.layout for case in found}
            absent = {"number"} if words.OPS[op].operands[1] == "x" else set()
            absent |= set() if OPERATORS[op].counted else {"csr"}
            assert layouts == set(cases.LAYOUTS) - absent
            assert {word for case in found for word in case.options} == set(words.OPS[op].words)
            assert {case.inputs for case in found} == {"ordinary", "extreme"}

    def test_layouts_are_what_they_say(self):
        def strides(layout, shape=(4, 6), op="gaussian_log_prob"):
            case = cases.Case(op, "reference", "cpu", "float32", shape, layout)
            return [t.stride() for t in run.draw(case).tensors.values()]

        assert strides("contiguous") == [(6, 1)] * 3
        assert strides("transposed") == [(1, 4)] * 3
        assert strides("packed") == [(18, 1)] * 3
        assert strides("step") == [(12, 2)] * 3
        assert strides("expanded") == [(0, 1), (1, 0), (0, 1)]
        assert strides("per_feature") == [(6, 1), (1,), (6, 1)]
        assert strides("channels_last", (2, 3, 4, 5)) == [(60, 1, 15, 3)] * 3
        case = cases.Case("poisson_log_prob", "native", "cpu", "float32", (4, 6), "csr")
        operands = run.draw(case)
        (_, x), _ = case.arguments(operands.tensors, operands.factors)
        assert x.layout is torch.sparse_csr and torch.equal(x.to_dense(), operands.tensors["x"])


class TestThorough:
    def test_derivatives(self):
        rows = vf.check(
            "gaussian_log_prob", dtype="float64", options="softplus,eps", thorough=True, every=0, cases=0
        )
        assert [r.kind for r in rows] == ["cases"] * len(AVAILABLE) + ["derivatives"] * len(AVAILABLE)
        assert all(r.ok for r in rows)

    def test_every_float32(self):
        told = []
        for op in ("bernoulli_log_prob", "gaussian_kl", "rsample"):
            options = {"thorough": True, "every": 1 << 14, "cases": 0, "progress": told.append}
            rows = [r for r in vf.check(op, dtype="float32", **options) if r.kind == "every float32"]
            assert len(rows) == len(AVAILABLE) and all(r.ok for r in rows), rows
            probabilities = 2 * (1 + (0x3F800000 >> 14))
            assert rows[0].cases == ((2 << 18) + probabilities if op == "bernoulli_log_prob" else 1 << 18)
        assert any("every float32 through rsample" in line for line in told)

    def test_random_cases(self):
        told = []
        rows = vf.check(thorough=True, dtype="float32", shape=(3, 5), every=0, cases=150, progress=told.append)
        rows = [r for r in rows if r.kind == "random cases"]
        assert all(r.ok for r in rows), [r.failure for r in rows]
        assert sum(r.cases for r in rows) == 150 * len(AVAILABLE)
        assert "random cases: 0 of 150" in told

    def test_a_wrong_derivative(self, monkeypatch):
        # Early gradients are given by the forward operator: both are wrong.
        change = on_result(0, lambda v: 1.01 * v)
        plant(monkeypatch, gaussian_kl_bwd=change)
        options = {"dtype": "float64", "options": "plain", "shape": (2, 3)}
        row = vf.check("gaussian_kl", "native", **options, thorough=True, every=0, cases=0)[-1]
        assert not row.ok and row.kind == "derivatives" and "Jacobian" in row.failure.got
        assert replay(row.failure) == 1

    def test_one_float32_in_all(self, monkeypatch):
        """One wrong number among 2¹⁸ is found, and alone in the case that shows it."""
        change = on_argument(0, lambda y: torch.where(y == 2.0, 2.001, y))
        plant(monkeypatch, bernoulli_log_prob_fwd=change)
        options = {"thorough": True, "every": 1 << 14, "cases": 0, "shape": (2, 3), "dtype": "float32"}
        (row,) = [r for r in vf.check("bernoulli_log_prob", "native", **options) if r.kind == "every float32"]
        assert not row.ok and row.failure.result == "log_prob" and row.failure.operands["logits"] == 2.0
        assert row.failure.case.shape == (1,) and "bits:0x40000000:1:0" in row.failure.command
        assert replay(row.failure) == 1

    def test_random_shapes(self):
        """Shapes of 0 to 3 dims (4 for images), every layout, and every option word."""
        drawn = [
            thorough._any_case(np.random.default_rng(k), choice.Choice(), "gaussian_kl", "cpu", k)
            for k in range(800)
        ]
        assert all(case.exists for case in drawn)
        assert {len(case.shape) for case in drawn} == {0, 1, 2, 3, 4}
        assert {case.layout for case in drawn} == set(cases.LAYOUTS) - {"csr"}
        assert {word for case in drawn for word in case.options} == set(words.OPS["gaussian_kl"].words)


def on_positive(original):
    """Multiplies the gradients by pos_weight, and not the positive's part of them alone."""

    def kernel(dlog_prob, y, x, positive, *others):
        grads = original(dlog_prob, y, x, None, *others)
        return grads if positive is None else tuple(g * positive if g.shape == y.shape else g for g in grads)

    return kernel


def like_own(code):
    """A prior's parametrisation of one kind taken for that of the posterior."""
    names = [argument.name for argument in torch.ops.vae_fast.gaussian_kl_fwd.default._schema.arguments]
    own, of_prior = names.index("param"), names.index("prior_param")

    def fault(original):
        def kernel(*args):
            args = list(args)
            if args[of_prior] == code:
                args[of_prior] = args[own]
            return original(*args)

        return kernel

    return fault


# name: (operator, raw operators and what is wrong with them, results that may show it, other options of the check)
FAULTS = {
    "sign of dlogits": (
        "bernoulli_log_prob",
        {"bernoulli_log_prob_bwd": on_result(0, torch.neg)},
        {"dlogits"},
    ),
    "sign of a prior's gradient": (
        "gaussian_kl",
        {"gaussian_kl_bwd": on_result(3, torch.neg)},
        {"dprior_logvar"},
    ),
    "constant, 1e-4 off": (
        "gaussian_log_prob",
        {"gaussian_log_prob_fwd": on_result(0, lambda v: v * (1 + 1e-4))},
        {"log_prob"},
    ),
    "half log 2π forgotten": (
        "gaussian_log_prob",
        {"gaussian_log_prob_fwd": on_result(0, lambda v: v + 0.9189385)},
        {"log_prob"},
    ),
    "relative error of 1e-4 in a gradient": (
        "rsample",
        {"rsample_bwd": on_result(1, lambda v: v * (1 + 1e-4))},
        {"dlogvar"},
    ),
    "tail of a gradient": (
        "gaussian_kl",
        {"gaussian_kl_bwd": on_result(1, without_tail)},
        {"dlogvar"},
    ),
    "tail of z": ("rsample", {"rsample_fwd": on_result(0, without_tail)}, {"z"}),
    "strides of logits ignored": (
        "bernoulli_log_prob",
        {"bernoulli_log_prob_fwd": on_argument(0, as_if_contiguous)},
        {"log_prob"},
    ),
    "probabilities taken for logits": (
        "bernoulli_log_prob",
        on_named("bernoulli_log_prob_bwd", "param", lambda param: 0),
        {"dlogits", "dx"},
    ),
    "logarithm of p without its bound": (
        "bernoulli_log_prob",
        {"bernoulli_log_prob_fwd": on_result(0, lambda v: torch.where(v == -100, -torch.inf, v))},
        {"log_prob"},
    ),
    "denominator of dp without its bound": (
        "bernoulli_log_prob",
        {"bernoulli_log_prob_bwd": on_result(0, lambda v: torch.where(v.abs() > 9e11, torch.inf * v, v))},
        {"dlogits"},
    ),
    "theta taken for what its logarithm is": (
        "negative_binomial_log_prob",
        on_named("negative_binomial_log_prob_fwd", "theta_param", lambda code: 0),
        {"log_prob"},
    ),
    "relative error of 1e-5 in a gradient by theta": (
        "negative_binomial_log_prob",
        {"negative_binomial_log_prob_bwd": on_result(1, lambda v: v * (1 + 1e-5))},
        {"dtheta"},
    ),
    "sign of a gradient by the logits of 0": (
        "negative_binomial_log_prob",
        {"negative_binomial_log_prob_bwd": on_result(2, torch.neg)},
        {"dzero_logits"},
    ),
    "counts above 2": (
        "poisson_log_prob",
        on_named("poisson_log_prob_fwd", "x", lambda x: x.clamp(max=2)),
        {"log_prob"},
    ),
    "eps of a count forgotten in the backward pass": (
        "poisson_log_prob",
        on_named("poisson_log_prob_bwd", "eps", lambda eps: 0.0),
        {"drate"},
    ),
    "strides of mu ignored": (
        "rsample_kl",
        {"rsample_kl_fwd": on_argument(0, as_if_contiguous)},
        {"z", "kl"},
    ),
    "strides of an upstream gradient ignored": (
        "rsample",
        {"rsample_bwd": on_argument(0, as_if_contiguous)},
        {"dmu", "dlogvar"},
    ),
    "offset of the noise": (
        "rsample",
        on_named("rsample_fwd", "offset", lambda offset: offset + 4),
        {"z"},
    ),
    "offset of the noise in the backward pass": (
        "rsample_kl",
        on_named("rsample_kl_bwd", "offset", lambda offset: 0),
        {"dlogvar"},
    ),
    "offset of the noise by itself": (
        "standard_normal",
        on_named("standard_normal_fwd", "offset", lambda offset: offset + 1),
        {"eps"},
    ),
    "temperature forgotten": ("rsample", on_named("rsample_fwd", "temperature", lambda tau: 1.0), {"z"}),
    "temperature forgotten in the backward pass": (
        "rsample_kl",
        on_named("rsample_kl_bwd", "temperature", lambda tau: 1.0),
        {"dlogvar"},
    ),
    "noise of another sign": (
        "rsample",
        on_named("rsample_fwd", "noise", lambda noise: noise if noise is None else -noise),
        {"z"},
    ),
    "noise drawn, where it is given, in the backward pass": (
        "rsample_kl",
        on_named("rsample_kl_bwd", "noise", lambda noise: None),
        {"dlogvar"},
    ),
    "stream forgotten": ("rsample", on_named("rsample_fwd", "first_sample", lambda n: n % 2**32), {"z"}),
    "stream forgotten in the backward pass": (
        "rsample",
        on_named("rsample_bwd", "first_sample", lambda n: n % 2**32),
        {"dlogvar"},
    ),
    "highest bit of a stream": (
        "standard_normal",
        on_named("standard_normal_fwd", "first_sample", lambda n: n % 2**63),
        {"eps"},
    ),
    "bounds that pass no gradient": (
        "gaussian_log_prob",
        on_named("gaussian_log_prob_bwd", "bounds_grad", lambda code: 0),
        {"dlogvar"},
    ),
    "bounds that pass one unasked": (
        "rsample",
        on_named("rsample_bwd", "bounds_grad", lambda code: 1),
        {"dlogvar"},
    ),
    "a prior's bounds": (
        "rsample_kl",
        on_named("rsample_kl_fwd", "prior_low", lambda low: -torch.inf if low == -0.5 else low),
        {"kl"},
    ),
    "a prior's eps": (
        "gaussian_kl",
        on_named("gaussian_kl_bwd", "prior_param_eps", lambda eps: 0.0 if eps == 3e-3 else eps),
        {"dlogvar", "dprior_mu", "dprior_logvar", "dmu"},
    ),
    "a sample's prior forgotten": (
        "rsample_kl",
        on_named("rsample_kl_fwd", "prior_mu", lambda prior: None),
        {"kl"},
    ),
    "sign of a sample's prior's gradient": (
        "rsample_kl",
        {"rsample_kl_bwd": on_result(2, torch.neg)},
        {"dprior_mu"},
    ),
    "the score function kept": (
        "rsample_log_prob",
        on_named("rsample_log_prob_bwd", "q_grad", lambda code: 0),
        {"dmu", "dlogvar"},
    ),
    "sign of a log-density's prior's gradient": (
        "rsample_log_prob",
        {"rsample_log_prob_bwd": on_result(3, torch.neg)},
        {"dprior_logvar"},
    ),
    "prior forgotten in a log-density": (
        "rsample_log_prob",
        on_named("rsample_log_prob_fwd", "prior_logvar", lambda prior: None),
        {"log_p"},
    ),
    "pos_weight forgotten": (
        "bernoulli_log_prob",
        on_named("bernoulli_log_prob_fwd", "pos_weight", lambda p: None),
        {"log_prob"},
    ),
    "pos_weight of the negative too": (
        "bernoulli_log_prob",
        {"bernoulli_log_prob_bwd": on_positive},
        {"dlogits", "dx"},
    ),
    **{
        f"a prior's {param} taken for the posterior's form": (
            "gaussian_kl",
            {"gaussian_kl_fwd": like_own(code)},
            {"kl"},
        )
        for param, code in FORMS.items()
    },
    "dtype of the sum": (
        "gaussian_kl",
        {"gaussian_kl_fwd": on_result(0, torch.Tensor.double)},
        {"kl"},
    ),
}


class TestFails:
    @pytest.mark.parametrize("fault", FAULTS)
    def test_a_fault_is_found(self, fault, monkeypatch, capsys):
        """Found, named, made small; its command line fails with the fault and passes without it."""
        op, planted, results = FAULTS[fault]
        with monkeypatch.context() as context:
            plant(context, **planted)
            (row,) = vf.check(op, "native", dtype="float32")
            failure = row.failure
            assert not row.ok and row.op == op and failure.result in results
            assert all(n <= 16 for n in failure.case.shape)
            assert replay(failure) == 1
            assert "FAIL " + op in capsys.readouterr().out
            (same,) = vf.check(**as_arguments(failure))
            # As text, in which NaN is itself.
            assert str(same.failure) == str(failure) and same.cases == 1
        if vf.backends()["native"].available:
            assert replay(failure) == 0
        reference = failure.command.replace("--backend native", "--backend reference")
        assert main(shlex.split(reference)[3:]) == 0

    def test_no_other_operator_fails(self, monkeypatch):
        plant(monkeypatch, bernoulli_log_prob_bwd=on_result(0, torch.neg))
        rows = vf.check(dtype="float32", shape=(3, 5))
        assert {(r.op, r.backend) for r in rows if not r.ok} == {("bernoulli_log_prob", "native")}

    def test_the_smallest_case(self, monkeypatch):
        """A row is cut to the shortest that has a tail, batches to one datum."""
        plant(monkeypatch, gaussian_kl_bwd=on_result(1, without_tail))
        (row,) = vf.check("gaussian_kl", "native", dtype="float32", shape=(40, 37), layout="contiguous")
        assert row.failure.case.shape == (1, 9) and row.failure.index == (0, 8) and row.failure.got == 0

    def test_what_is_raised_is_a_failure(self, monkeypatch):
        def raises(original):
            def kernel(*args):
                raise RuntimeError("no such kernel")

            return kernel

        plant(monkeypatch, rsample_fwd=raises)
        (row,) = vf.check("rsample", "native", dtype="float32", options="plain", layout="contiguous")
        assert not row.ok and row.failure.got == "RuntimeError: no such kernel" and row.forward == float("inf")
        assert replay(row.failure) == 1

    def test_a_wrong_class(self, monkeypatch):
        """NaN where infinity is right."""
        change = on_result(0, lambda v: torch.where(v.isinf(), torch.nan, v))
        plant(monkeypatch, gaussian_kl_fwd=change)
        (row,) = vf.check("gaussian_kl", "native", dtype="float32", inputs="extreme", options="plain")
        assert not row.ok and row.failure.wanted > 3.4e38 and row.failure.error == float("inf")
        assert replay(row.failure) == 1

    def test_as_json(self, monkeypatch, capsys):
        plant(monkeypatch, rsample_bwd=on_result(1, torch.neg))
        assert main(["check", "--op", "rsample", "--backend", "native", "--dtype", "float32", "--json"]) == 1
        content = json.loads(capsys.readouterr().out)
        failure = content["rows"][0]["failure"]
        assert not content["ok"] and failure["result"] == "dlogvar" and failure["command"].startswith("python -m ")


def as_arguments(failure):
    """A failure's case as the arguments of vf.check."""
    case = failure.case
    names = ("op", "backend", "device", "dtype", "shape", "layout", "inputs", "seed")
    return {name: getattr(case, name) for name in names} | {"options": words.options_text(case.options)}


class TestWrongCalls:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"op": "kl"}, "unknown op 'kl'; there are standard_normal, rsample"),
            ({"op": ["rsample"]}, "unknown op"),
            ({"backend": "cuda"}, "backend: unknown backend 'cuda'; there are reference, native, triton and auto"),
            ({"dtype": "float8"}, "unknown dtype 'float8'; there are float32, float64, bfloat16, float16"),
            ({"dtype": torch.int8}, "unknown dtype 'torch.int8'"),
            ({"layout": "nhwc"}, "unknown layout 'nhwc'; there are contiguous, transposed"),
            ({"inputs": "hard"}, "unknown inputs 'hard'; there are ordinary, extreme"),
            ({"inputs": "bits:1:0:0"}, "unknown inputs"),
            ({"options": "prior,width"}, "unknown option 'width'; there are plain, biased, bool, bounds"),
            ({"shape": "3x-1"}, "'3x-1' is not a shape such as 8x20"),
            ({"shape": (3, -1)}, "negative size"),
            ({"device": "cpu:cpu"}, "device 'cpu:cpu' is not usable"),
            ({"seed": -1}, "seed must be an int"),
            ({"op": "gaussian_kl", "options": "prior_std"}, "no case of gaussian_kl with options prior_std"),
            ({"op": "rsample", "options": "noise,offset"}, "no case of rsample with options noise,offset"),
            ({"options": "bernoulli,probs"}, "unknown option 'bernoulli'"),
            ({"op": "rsample", "options": "prior"}, "there is no case of rsample with options prior"),
            ({"layout": "channels_last", "shape": (3, 4)}, "there is no case of any operator of shape 3x4"),
            ({"op": "bernoulli_log_prob", "layout": "number"}, "no case of bernoulli_log_prob"),
        ],
    )
    def test_named(self, arguments, message):
        with pytest.raises(ValueError, match=message.replace("(", r"\(")):
            vf.check(**arguments)

    def test_a_backend_that_is_not_here(self, monkeypatch):
        absent = backends.Backend("triton", False, "the reason why", (), ())
        monkeypatch.setitem(backends._TABLE, "triton", absent)
        with pytest.raises(RuntimeError, match="'triton' is not available: the reason why"):
            vf.check("rsample", "triton")

    def test_a_backend_without_the_operator(self, monkeypatch):
        few = backends.Backend("native", True, "", ("cpu",), ("rsample",))
        monkeypatch.setitem(backends._TABLE, "native", few)
        with pytest.raises(RuntimeError, match="'native' does not serve gaussian_kl"):
            vf.check("gaussian_kl", "native")

    def test_a_backend_without_the_device(self):
        if not vf.backends()["native"].available:
            pytest.skip("the native backend is not available: " + vf.backends()["native"].reason)
        with pytest.raises(RuntimeError, match="'native' does not serve meta tensors"):
            vf.check(backend="native", device="meta")

    def test_auto_is_what_serves(self):
        (row,) = vf.check("gaussian_kl", "auto", "cpu", "float32", (2, 3))
        assert row.backend == AVAILABLE[-1]
