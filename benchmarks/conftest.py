"""pytest's side of the benchmarks: their options, what goes into the JSON, and the table that ends a run."""

import pytest

from . import cases, measure, report, steps
from .providers import PROVIDERS


def pytest_addoption(parser):
    group = parser.getgroup("vae_fast benchmarks")
    group.addoption("--level", choices=tuple(cases.LEVELS), default="default", help="how much is timed")
    group.addoption("--shape", type=_shape, help="a shape of your own, 256x12288: only it is timed, in every way")
    group.addoption("--dtype", action="append", choices=cases.DTYPES, help="of --shape; float32 by default")
    group.addoption("--op", action="append", choices=cases.OPS, help="only this operator; may be given again")
    group.addoption("--provider", action="append", choices=PROVIDERS, help="only this one; may be given again")
    group.addoption("--device", default="cpu", help="where the tensors are: cpu, or cuda")


def _shape(text):
    sizes = tuple(int(size) for size in text.split("x"))
    if not sizes or min(sizes) < 1:
        raise ValueError(text)
    return sizes


def pytest_ignore_collect(collection_path, config):
    """Whole steps have shapes of their own: with a chosen shape, operator or dtype they are left out.

    Graphs are a GPU's.
    """
    options = config.option
    if collection_path.name == "test_replay.py":
        return options.device == "cpu" or None
    return collection_path.name == "test_steps.py" and bool(options.shape or options.op or options.dtype) or None


def _wanted(option, value):
    return not option or value in option


def pytest_generate_tests(metafunc):
    options = metafunc.config.option
    if "case" in metafunc.fixturenames:
        if options.shape:
            chosen = cases.own(options.shape, options.dtype or ["float32"], options.op or cases.TERMS)
        else:
            chosen = cases.LEVELS[options.level]()
        chosen = [(c, p) for c, p in chosen if _wanted(options.op, c.op) and _wanted(options.provider, p)]
        if not options.shape and options.dtype:
            chosen = [(c, p) for c, p in chosen if c.dtype in options.dtype]
        metafunc.parametrize(("case", "provider"), chosen, ids=[f"{c.group} {p}" for c, p in chosen])
    elif "part" in metafunc.fixturenames:
        models = tuple(steps.MODELS)[:1] if options.level == "quick" else steps.MODELS
        # torch.compile takes minutes for the terms of all models.
        few = [p for p in PROVIDERS if p != "functional" and (p != "compile" or options.level != "quick")]
        parts = steps.PARTS if options.device == "cpu" else steps.PARTS | steps.GPU_PARTS
        chosen = [(m, part, p) for m in models for part in parts for p in few if _wanted(options.provider, p)]
        metafunc.parametrize(("model", "part", "provider"), chosen, ids=[" ".join(c) for c in chosen])


@pytest.fixture(scope="session")
def device(pytestconfig):
    return pytestconfig.option.device


@pytest.fixture(scope="session", autouse=True)
def run(pytestconfig):
    """What the whole run shares: its conditions, and the cases that were wrong and are not timed."""
    device = pytestconfig.option.device
    pytestconfig.vae_fast_run = {
        "conditions": measure.conditions(device) | {"copy_bandwidth": measure.copy_bandwidth(device)},
        "wrong": [],
    }
    return pytestconfig.vae_fast_run


@pytest.hookimpl
def pytest_benchmark_update_json(config, benchmarks, output_json):
    output_json["vae_fast"] = config.vae_fast_run


def pytest_terminal_summary(terminalreporter, config):
    session = getattr(config, "_benchmarksession", None)
    benches = [bench for bench in (session.benchmarks if session else ()) if bench.stats.rounds]
    if not benches or not hasattr(config, "vae_fast_run"):
        return
    rows = report.rows_of(
        [report.row(b.group, b.extra_info, b.stats.median, b.stats.iqr, b.stats.rounds) for b in benches],
        config.vae_fast_run["conditions"]["copy_bandwidth"],
    )
    terminalreporter.write_line("")
    for line in report.text(rows, config.vae_fast_run):
        terminalreporter.write_line(line)
    if config.option.shape:
        terminalreporter.write_line("")
        for sentence in report.advice(rows):
            terminalreporter.write_line(sentence)
