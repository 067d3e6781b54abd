"""The table of operators: what follows from an operator's facts, and that it is read without torch."""

import inspect
import itertools
import subprocess
import sys

import pytest
import torch

import vae_fast as vf
from helpers.calls import CALLS
from helpers.faults import install
from vae_fast import operators, reference
from vae_fast.operators import DATA, WEIGHT, Operand, Operator, Option
from vae_fast.ops import autograd

COUNTS = Operator(
    "counts",
    operands=(
        Operand("rate", "rate"),
        Operand("spread", "scale", optional=True),
        Operand("x", "value", DATA, differentiable=False),
        Operand("weight", "weight", WEIGHT, optional=True),
    ),
    options=(Option("event_ndim", "int", 1), Option("floor", "float?", None)),
    results=("log_prob",),
)


def test_signatures_follow():
    common = "Tensor rate, Tensor? spread, Tensor x, Tensor? weight, int event_ndim, float? floor"
    assert COUNTS.forward.schema == (
        f"({common}, bool need_drate, bool need_dspread) -> (Tensor log_prob, Tensor drate, Tensor dspread)"
    )
    assert COUNTS.backward.schema == (
        f"(Tensor dlog_prob, {common}, bool need_drate, bool need_dspread, bool need_dweight)"
        " -> (Tensor drate, Tensor dspread, Tensor dweight)"
    )
    assert COUNTS.density and COUNTS.sums == ("log_prob",)


def test_arguments_become_records():
    tensors, options, wanted = COUNTS.backward.split((0, 1, 2, 3, 4, 2, 0.5, True, False, True))
    assert tensors == (0, 1, 2, 3, 4) and wanted == ((True, False, True), None, 0)
    assert options == COUNTS.Options(event_ndim=2, floor=0.5) and options.floor == 0.5
    assert COUNTS.Options() == (1, None)


@pytest.mark.parametrize("operator", operators.OPERATORS.values(), ids=lambda operator: operator.name)
def test_operands_come_in_the_order_of_their_roles(operator):
    roles = [list(operators.Role).index(operand.role) for operand in operator.operands]
    assert roles == sorted(roles)
    # Of several weights the last one multiplies terms.
    *others, last = [operand for operand in operator.operands if operand.role == WEIGHT] or [None]
    assert last is None or (last is operator.operands[-1] and last.name == "weight")
    assert all(operand.optional and not operand.differentiable for operand in others)


# torch.distributions' class for each operator that is one of its densities or divergences.
DISTRIBUTIONS = {
    "rsample": torch.distributions.Normal,
    "rsample_kl": torch.distributions.Normal,
    "gaussian_kl": torch.distributions.Normal,
    "gaussian_log_prob": torch.distributions.Normal,
    "bernoulli_log_prob": torch.distributions.Bernoulli,
    "continuous_bernoulli_log_prob": torch.distributions.ContinuousBernoulli,
    "laplace_log_prob": torch.distributions.Laplace,
    "student_t_log_prob": torch.distributions.StudentT,
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_torch_names_are_torch_s(name):
    for operand in operators.OPERATORS[name].operands:
        where = {DATA: DISTRIBUTIONS[name].log_prob, operators.PARAMETER: DISTRIBUTIONS[name].__init__}
        if operand.role in where:
            assert operand.torch_name in inspect.signature(where[operand.role]).parameters, operand


@pytest.mark.parametrize("call", [call for call in CALLS if operators.OPERATORS[call.op].density], ids=str)
def test_neutral_operands_have_finite_terms(call):
    """In every parametrisation, which is what the reference computes where a weight is 0."""
    neutral = {operand.name: operand.neutral for operand in call.operator.operands}
    given = [torch.tensor([[neutral[name]]], requires_grad=True) for name in call.operands]
    coded = [option for option in call.operator.options if option.name in ("param", "theta_param")]
    for codes in itertools.product(*(option.codes for option in coded)):
        params = {option.name: code for option, code in zip(coded, codes, strict=True)}
        results = call.with_grads(*given, **params, backend="reference")
        assert len(results) == 1 + len(call.wanted(given)) and all(v.isfinite().all() for v in results)


def test_every_operator_has_a_call():
    """By which it is in the tests of all of them."""
    assert {call.op for call in CALLS} == {
        name for name, operator in operators.OPERATORS.items() if operator.operands
    }


def test_read_without_torch():
    code = (
        "import runpy, sys; sys.modules['torch'] = None;"
        f"print(*runpy.run_path({operators.__file__!r})['DEFINITIONS'], sep='\\n')"
    )
    done = subprocess.run((sys.executable, "-c", code), capture_output=True, text=True, timeout=60, check=True)
    assert tuple(done.stdout.splitlines()) == operators.DEFINITIONS


@pytest.mark.parametrize("reduction", ["none", "sum"])
def test_an_operand_without_a_gradient(monkeypatch, reduction):
    """Kernels are not asked for it, and the gradients of the others are in their places."""
    asked = []

    def without_x(name):
        original = getattr(reference.KERNELS, name)

        def kernel(*args):
            n_needs = 2 if name.endswith("_fwd") else 3
            asked.append(args[-n_needs:])
            mean, logvar, *rest = args[-n_needs:]
            first, second, *grads = original(*args[:-n_needs], mean, logvar, False, *rest)
            made = [first, second, *grads]
            del made[3 if name.endswith("_fwd") else 2]
            return tuple(torch.empty(0) if v is None else v for v in made)

        return kernel

    mean, logvar, x, weight = (torch.rand(3, 4) for _ in range(4))

    def gradients(backend, *wanted):
        tensors = {"mean": mean, "logvar": logvar, "weight": weight}
        tensors = {name: t.clone().requires_grad_(name in wanted) for name, t in tensors.items()}
        options = {"reduction": reduction, "backend": backend}
        out = vf.gaussian_log_prob(tensors["mean"], tensors["logvar"], x, weight=tensors["weight"], **options)
        return torch.autograd.grad(out.sum(), [tensors[name] for name in wanted])

    cases = (("mean", "logvar"), ("mean", "logvar", "weight"), ("logvar",))
    want = [gradients("reference", *wanted) for wanted in cases]
    names = ("gaussian_log_prob_fwd", "gaussian_log_prob_bwd")
    install(monkeypatch, {name: without_x(name) for name in names}, ["gaussian_log_prob"])
    monkeypatch.setitem(autograd._DIFFERENTIABLE, "gaussian_log_prob", (True, True, False, True))
    monkeypatch.setitem(autograd._VALUE_ALONE, "gaussian_log_prob", (False, False))
    torch.testing.assert_close([gradients("native", *wanted) for wanted in cases], want)
    assert {len(needs) for needs in asked} == {2, 3}
