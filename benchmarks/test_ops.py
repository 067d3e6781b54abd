"""Each operator, forward, backward and both: one group a case, one row a provider."""

import time

import pytest
import torch

from . import measure, providers, truth

# A backward pass needs a graph of its own, so it is timed call by call; this many seconds at most, or calls.
_SECONDS, _ROUNDS = 0.4, 300


def differentiated(out):
    """A number: a density, the sum of z, or both together, as a training step differentiates them."""
    if isinstance(out, tuple):
        return out[0].sum() + out[1]
    return out.sum() if out.requires_grad and out.ndim else out


def check(case, provider, functions, tensors, run):
    """Raises or skips, and writes it down, where results are wrong: what is wrong is not timed."""
    why = truth.wrong(case.op, functions, tensors)
    if why:
        run["wrong"].append({"group": case.group, "provider": provider, "why": why})
        message = f"{provider} is wrong here and not timed: {why}"
        (pytest.fail if provider in providers.BACKENDS else pytest.skip)(message)


def test_op(request, case, provider, device, run):
    if provider == "reference" and case.size > providers.REFERENCE_MOST:
        pytest.skip(f"reference: more than {providers.REFERENCE_MOST} elements")
    functions, tensors = providers.provider(provider), case.operands(device)
    leaves = [t for t in tensors if t.requires_grad]
    check(case, provider, functions, tensors, run)
    benchmark = request.getfixturevalue("benchmark")
    function = getattr(functions, case.op)

    def forward():
        out = differentiated(function(*tensors))
        measure.synchronise(device)
        return out

    def backward(out):
        out.backward()
        for leaf in leaves:
            leaf.grad = None
        measure.synchronise(device)

    def both():
        backward(differentiated(function(*tensors)))

    benchmark.group = case.group
    benchmark.extra_info |= {
        "provider": provider,
        "op": case.op,
        "shape": "x".join(map(str, case.shape)),
        "dtype": case.dtype,
        "pass": case.passing,
        "elements": case.size,
        "bytes": case.bytes(tensors),
    }
    with torch.enable_grad():
        both() if leaves else forward()
        if case.passing == "both":
            benchmark.extra_info["peak_bytes"] = measure.peak_memory(both, device)
            benchmark(both)
        elif case.passing == "forward":
            if not leaves:
                benchmark.extra_info["peak_bytes"] = measure.peak_memory(forward, device)
            benchmark(forward)
        else:
            out = forward()
            start = time.perf_counter()
            backward(out)
            rounds = max(5, min(_ROUNDS, int(_SECONDS / (time.perf_counter() - start))))
            benchmark.pedantic(backward, setup=lambda: ((forward(),), {}), rounds=rounds, warmup_rounds=2)
