"""Each operator, forward, backward and both: one group a case, one row a provider."""

import functools
import time

import pytest
import torch

from . import cases, measure, providers, truth

# A backward pass needs a graph of its own, so it is timed call by call; this many seconds at most, or calls.
_SECONDS, _ROUNDS = 0.4, 300


def results_of(out):
    """A call's results: a density's sum, z, or z and the KL's sum."""
    return out if isinstance(out, tuple) else (out,)


def upstream_of(results):
    """What a training step brings back to each: to z a gradient of its size, to a sum that enters the loss 1."""
    return [torch.randn_like(out) if out.ndim else None for out in results]


@functools.lru_cache(maxsize=1)
def expected(op, shape, dtype, device):
    """The truth, which all passes and providers of a case share; at the largest sizes it takes seconds."""
    return truth.of(op, cases.Case(op, shape, dtype, "both").operands(device))


def test_op(request, case, provider, device, run):
    if provider == "reference" and case.size > providers.REFERENCE_MOST:
        pytest.skip(f"reference: more than {providers.REFERENCE_MOST} elements")
    functions, tensors = providers.provider(provider), case.operands(device)
    leaves = [t for t in tensors if t.requires_grad]
    why = truth.wrong(case.op, functions, tensors, expected(case.op, case.shape, case.dtype, device))
    if why:
        message = truth.refuse(run, case.group, provider, why)
        (pytest.fail if provider in providers.BACKENDS else pytest.skip)(message)
    benchmark = request.getfixturevalue("benchmark")
    function = getattr(functions, case.op)
    upstream = upstream_of(results_of(function(*tensors)))

    def forward():
        results = results_of(function(*tensors))
        measure.synchronise(device)
        return results

    def backward(results):
        torch.autograd.backward(results, upstream)
        for leaf in leaves:
            leaf.grad = None
        measure.synchronise(device)

    def both():
        backward(results_of(function(*tensors)))

    benchmark.group = case.group
    benchmark.extra_info |= case.row(provider, tensors)
    both() if leaves else forward()
    if case.passing == "both":
        benchmark.extra_info["peak_bytes"] = measure.peak_memory(both, device)
        benchmark(both)
    elif case.passing == "forward":
        if not leaves:
            benchmark.extra_info["peak_bytes"] = measure.peak_memory(forward, device)
        benchmark(forward)
    else:
        results = forward()
        start = time.perf_counter()
        backward(results)
        rounds = max(5, min(_ROUNDS, int(_SECONDS / (time.perf_counter() - start))))
        benchmark.pedantic(backward, setup=lambda: ((forward(),), {}), rounds=rounds, warmup_rounds=2)
