"""The table that ends a run: each provider's time over eager's of the same run, and its share of copy bandwidth."""

import time

import pytest
import torch


def copy_bandwidth():
    """Bytes read and written a second by a large copy_: the best of several."""
    a = torch.zeros(1 << 26)
    b = torch.empty_like(a)
    times = []
    for _ in range(7):
        start = time.perf_counter()
        b.copy_(a)
        times.append(time.perf_counter() - start)
    return 2 * a.numel() * a.element_size() / min(times)


@pytest.fixture(scope="session", autouse=True)
def bandwidth(pytestconfig):
    pytestconfig.copy_bandwidth = copy_bandwidth()


def pytest_terminal_summary(terminalreporter, config):
    session = getattr(config, "_benchmarksession", None)
    groups = {}
    for bench in session.benchmarks if session else ():
        if bench.stats.rounds:
            groups.setdefault(bench.group, {})[bench.extra_info["provider"]] = bench
    if not groups or not hasattr(config, "copy_bandwidth"):
        return
    write = terminalreporter.write_line
    write("")
    copy = f"{config.copy_bandwidth / 1e9:.1f} GB/s"
    write(f"medians of one run, {torch.get_num_threads()} threads, copy bandwidth {copy}")
    write(f"{'case':42} {'provider':10} {'µs':>10} {'× eager':>8} {'GB/s':>7} {'of copy':>7}")
    for group, providers in groups.items():
        eager = providers["eager"].stats.median if "eager" in providers else float("nan")
        for name, bench in providers.items():
            speed = bench.extra_info["bytes"] / bench.stats.median
            write(
                f"{group:42} {name:10} {bench.stats.median * 1e6:10.1f} {eager / bench.stats.median:8.2f}"
                f" {speed / 1e9:7.2f} {speed / config.copy_bandwidth:7.0%}"
            )
