"""What a machine can do, what a call takes beside time, and the conditions of a run."""

import datetime
import gc
import os
import platform
import random
import re
import subprocess
import time
from pathlib import Path

import torch

import vae_fast as vf
from vae_fast.cli import info


def timed(calls, rounds):
    """Seconds of each call, by its name; the k-th of all were neighbours."""
    found = {name: [] for name in calls}
    for name in in_turns(calls, rounds):
        start = time.perf_counter()
        calls[name]()
        found[name].append(time.perf_counter() - start)
    return found


def in_turns(ways, rounds):
    """Each way once a round, in a new order every time, while Python collects no garbage."""
    order, turns = random.Random(0), list(ways)
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            order.shuffle(turns)
            yield from turns
    finally:
        gc.enable()


def synchronise(device):
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


def _seconds(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _device_seconds(call):
    """By the GPU's clock: the host's would count the launch as well."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    call()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1e3


def copy_bandwidth(device="cpu"):
    """Bytes read and written a second by a large copy_: the best of several."""
    a = torch.zeros(1 << 26, device=device)
    b = torch.empty_like(a)
    times = [_device_seconds(lambda: b.copy_(a)) if a.is_cuda else _seconds(lambda: b.copy_(a)) for _ in range(7)]
    return 2 * a.numel() * a.element_size() / min(times)


def peak_memory(call, device="cpu"):
    """Bytes that PyTorch's allocator holds at most during a call beyond those before it."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    # On a CPU the allocator keeps no count; the profiler sees each allocation and release.
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        call()
    held = most = 0
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


def conditions(device="cpu"):
    """Under what a run was made: device, versions, threads, date, commit."""
    content = info.collect()
    versions = {k: content["versions"][k] for k in ("vae_fast", "python", "torch", "numpy", "cuda")}
    versions["triton"] = content["versions"]["triton"]["version"]
    name = next(d for d in content["devices"] if d["device"].startswith(torch.device(device).type))
    return {
        "device": f"{name['name']}, {name['capability']}",
        "cpu_flags": _flags(),
        "threads": content["threads"]["torch"],
        "cpus": content["threads"]["cpus"],
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY"),
        "instruction_set": content["instruction_set"],
        "versions": versions,
        "backends": [b.name for b in vf.backends().values() if b.available],
        "system": platform.system(),
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _commit(),
    }


def slug(conditions):
    """The name of a machine's folder: its device and how many threads ran."""
    name = re.sub(r"\(r\)|\(tm\)|processor|cpu", " ", conditions["device"].lower())
    return re.sub(r"[^a-z0-9]+", "-", f"{name} {conditions['threads']} threads").strip("-")


def _flags():
    """The vector instructions of the CPU, as Linux names them."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return []
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    words = found.group(1).split() if found else []
    return sorted(w for w in words if re.match(r"avx|fma|amx|sse4|sve|asimd", w))


def _commit():
    def git(*arguments):
        done = subprocess.run(("git", "-C", str(Path(__file__).parent), *arguments), capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        commit = git("rev-parse", "--short=10", "HEAD")
        return commit + ("+changes" if commit and git("status", "--porcelain", "--untracked-files=no") else "")
    except OSError:
        return ""
