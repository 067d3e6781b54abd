"""Whole bounds and whole training steps."""

import pytest

from . import measure, providers, steps, truth

# torch.compile looks at .grad of the networks' outputs, and PyTorch warns of that.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")


def test_step(request, model, part, provider, device, run):
    functions, whole = providers.provider(provider), steps.make(model, device)
    group = f"{part} of {whole.name}"
    for op, tensors in steps.operands(whole):
        why = truth.wrong(op, functions, tensors, truth.of(op, tensors))
        if why:
            pytest.fail(truth.refuse(run, group, provider, f"{op}: {why}"))
    call = (steps.PARTS | steps.GPU_PARTS)[part](whole, functions)

    def step():
        call()
        measure.synchronise(device)

    step()
    benchmark = request.getfixturevalue("benchmark")
    benchmark.group = group
    benchmark.extra_info |= {"provider": provider, "model": whole.name, "part": part}
    benchmark.extra_info["peak_bytes"] = measure.peak_memory(step, device)
    benchmark(step)
