"""A call on a GPU as it is timed there: captured many times over in one CUDA graph, each time on other tensors.

The tensors together are larger than three times the second-level cache, so that every call reads memory; a replay
launches all of them at once, so that what is timed is the device and not Python.
"""

import math

import torch

# Calls in a graph, at least and at most: small tensors do not fill the cache however many there are.
FEWEST, MOST = 10, 400


def cache_bytes(device="cuda"):
    return torch.cuda.get_device_properties(device).L2_cache_size


def calls_of(moved, cache):
    """How many calls that move so many bytes go over three caches' worth."""
    return max(FEWEST, min(MOST, math.ceil(3 * cache / max(moved, 1))))


def captured(call, warm):
    """A graph of what ``call()`` launches, and what it gave; before it, call(*w) for each of ``warm`` aside."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for arguments in warm:
            call(*arguments)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outs = call()
    torch.cuda.synchronize()
    return graph, outs


class Replay:
    """``call(*prepare(k))`` for k = 0, 1, … in one graph. Calling it replays the graph and waits for it."""

    def __init__(self, call, prepare, count):
        self.count = count
        self.kept = [prepare(k) for k in range(count)]

        def calls(which=range(count)):
            return [call(*self.kept[k]) for k in which]

        self.graph, self.outs = captured(calls, [(range(3),)])

    def __call__(self):
        self.graph.replay()
        torch.cuda.synchronize()


def launches(call):
    """How many kernels a call launches, memory sets and copies included."""
    call()
    torch.cuda.synchronize()
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities, acc_events=True) as profile:
        call()
        torch.cuda.synchronize()
    return sum(e.device_type == torch.profiler.DeviceType.CUDA for e in profile.events())
