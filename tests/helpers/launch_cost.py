"""What calls of Triton's launchers cost the host; there need be no GPU.

Run as `PYTHONPATH=.:tests python -m helpers.launch_cost`. Triton's launcher is real, and ends in a driver that does
nothing (fake_cuda.c), so what the driver and the GPU's own allocator take comes on top. Microseconds of processor
time, the least of many rounds: a raw operator's whole call, with its results made on the CPU, and its launch; as
Triton makes launches, and with kept kernels.
"""

import tempfile
import time
from pathlib import Path

import pytest
import torch

from helpers.fake_cuda import fake_gpus
from helpers.launched_calls import NONE, SUM, bernoulli, gaussian, kl, normal, sample
from vae_fast.triton_kernels import kept, launch

ROUNDS, CALLS = 60, 100
MOMENTS, IMAGES = (128, 20), (128, 784)
F32 = torch.float32
CASES = {
    "gaussian_kl, forward": kl(MOMENTS, F32, NONE),
    "gaussian_kl, backward": kl(MOMENTS, F32, NONE, True),
    "bernoulli_log_prob, both in one": bernoulli(IMAGES, F32, SUM),
    "bernoulli_log_prob, forward": bernoulli(IMAGES, F32, NONE),
    "bernoulli_log_prob, backward": bernoulli(IMAGES, F32, NONE, True),
    "gaussian_log_prob, both in one": gaussian(IMAGES, F32, SUM),
    "rsample_kl, forward": sample(MOMENTS, F32),
    "rsample_kl, backward": sample(MOMENTS, F32, True),
    "standard_normal": normal(MOMENTS, F32),
}


def microseconds(function):
    for _ in range(3):
        function()
    least = float("inf")
    for _ in range(ROUNDS):
        start = time.thread_time()
        for _ in range(CALLS):
            function()
        least = min(least, time.thread_time() - start)
    return 1e6 * least / CALLS


def launches_of(function, args):
    """What is launched, with its arguments."""
    found, call = [], launch.Launch.__call__
    launch.Launch.__call__ = lambda one, *more: found.append((one, more)) or call(one, *more)
    try:
        function(*args)
    finally:
        launch.Launch.__call__ = call
    return found


def row(function, args):
    """Calls and launches as Triton makes them, and kept ones."""
    ((one, given),) = launches_of(function, args)
    found = []
    for keeps in (False, True):
        kept.KEEPS = keeps
        found += microseconds(lambda: function(*args)), microseconds(lambda: one(*given))
    return found


def main():
    print(f"{'microseconds':34} {'call':>8} {'launch':>8} {'kept: call':>11} {'launch':>8}")
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        with fake_gpus(Path(folder), patch) as fake:
            fake.record(False)
            for name, (function, args) in CASES.items():
                call, launched, kept_call, kept_launch = row(function, args)
                print(f"{name:34} {call:8.1f} {launched:8.1f} {kept_call:11.1f} {kept_launch:8.1f}")


if __name__ == "__main__":
    main()
