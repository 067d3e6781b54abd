"""Each operator on a GPU as a training step's graph runs it: replayed over tensors larger than the cache."""

import pytest
import torch

from . import providers, replay, truth
from .test_ops import expected, results_of, upstream_of


def test_replay(request, case, provider, device, run):
    functions, tensors = providers.provider(provider), case.operands(device)
    why = truth.wrong(case.op, functions, tensors, expected(case.op, case.shape, case.dtype, device))
    if why:
        message = truth.refuse(run, f"{case.group} graph", provider, why)
        (pytest.fail if provider in providers.BACKENDS else pytest.skip)(message)
    benchmark = request.getfixturevalue("benchmark")
    function = getattr(functions, case.op)
    wanted = [k for k, t in enumerate(tensors) if t.requires_grad]

    def operands(_):
        return [t.detach().clone().requires_grad_(t.requires_grad) for t in tensors]

    def forward(*own):
        return results_of(function(*own))

    def with_upstream(k):
        own = operands(k)
        return own, upstream_of(forward(*own))

    def both(own, upstream):
        return torch.autograd.grad(forward(*own), [own[k] for k in wanted], upstream)

    def with_graph(k):
        own, upstream = with_upstream(k)
        return forward(*own), [own[j] for j in wanted], upstream

    def backward(results, leaves, upstream):
        return torch.autograd.grad(results, leaves, upstream, retain_graph=True)

    call, prepare = {
        "forward": (forward, operands),
        "both": (both, with_upstream),
        "backward": (backward, with_graph),
    }[case.passing]
    count = replay.calls_of(case.bytes(tensors), replay.cache_bytes(device))
    graph = replay.Replay(call, prepare, count)
    own = prepare(0)
    benchmark.group = f"{case.group} graph"
    benchmark.extra_info |= case.row(provider, tensors) | {
        "calls": graph.count,
        "launches": replay.launches(lambda: call(*own)),
    }
    benchmark(graph)
