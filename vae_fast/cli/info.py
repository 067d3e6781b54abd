"""`info`: versions, devices, threads, and which backends work here or why not."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

import torch

import vae_fast as vf
from vae_fast import native
from vae_fast.cli.errors import CommandError

_EXTRAS = ("safetensors", "tqdm", "matplotlib", "mlxtend", "scikit-learn")
if sys.version_info < (3, 11):
    _EXTRAS += ("tomli",)


def run(args: argparse.Namespace) -> int:
    """The `info` command."""
    content = collect()
    if args.json:
        print(json.dumps(content, indent=1))
    else:
        print("\n".join(_lines(content)))
    return 0


def collect() -> dict[str, Any]:
    """All that `info` tells, ready for JSON."""
    return {
        "versions": {
            "vae_fast": _vae_fast_version(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": importlib.metadata.version("numpy"),
            "triton": _triton(),
            "cuda": torch.version.cuda,
            "platform": platform.platform(),
        },
        "devices": _devices(),
        "threads": {
            "torch": torch.get_num_threads(),
            "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
        },
        "backends": {
            name: {"available": backend.available, "reason": None if backend.available else backend.reason}
            for name, backend in vf.backends().items()
        },
        "instruction_set": _instruction_set(),
        "front": vf.backends()["native"].front,
        "VAE_FAST_BACKEND": os.environ.get("VAE_FAST_BACKEND"),
        "train_extra": {name: _installed(name) for name in _EXTRAS},
    }


def _instruction_set() -> str | None:
    try:
        return native.instruction_set() or None
    except ValueError as error:
        raise CommandError(str(error)) from error


def _vae_fast_version() -> str | None:
    return getattr(vf, "__version__", None) or _installed("vae_fast")


def _installed(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _triton() -> dict[str, str | None]:
    try:
        return {"version": importlib.import_module("triton").__version__, "reason": None}
    except Exception as error:  # a broken installation fails in more ways than ImportError
        return {"version": None, "reason": str(error) or type(error).__name__}


def _devices() -> list[dict[str, Any]]:
    devices: list[dict[str, Any]] = [
        {"device": "cpu", "name": _cpu_name(), "capability": torch.backends.cpu.get_cpu_capability()}
    ]
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        properties = torch.cuda.get_device_properties(index)
        devices.append(
            {
                "device": f"cuda:{index}",
                "name": properties.name,
                "capability": f"{properties.major}.{properties.minor}",
                "memory_gib": round(properties.total_memory / 2**30, 1),
            }
        )
    return devices


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _lines(content: dict[str, Any]) -> list[str]:
    versions, threads = content["versions"], content["threads"]
    triton = versions["triton"]
    absent = f"absent ({triton['reason']})"
    cuda = f"CUDA {versions['cuda']}" if versions["cuda"] else "built without CUDA"
    lines = [
        f"vae_fast   {versions['vae_fast']}",
        f"python     {versions['python']} on {versions['platform']}",
        f"torch      {versions['torch']}, {cuda}",
        f"numpy      {versions['numpy']}",
        f"triton     {triton['version'] or absent}",
        "",
    ]
    for device in content["devices"]:
        memory = f", {device['memory_gib']} GiB" if "memory_gib" in device else ""
        lines.append(f"device     {device['device']}: {device['name']}, {device['capability']}{memory}")
    omp = threads["OMP_NUM_THREADS"]
    lines.append(
        f"threads    {threads['torch']} of {threads['cpus']} CPUs" + (f" (OMP_NUM_THREADS={omp})" if omp else "")
    )
    lines.append("")
    for name, backend in content["backends"].items():
        state = "available" if backend["available"] else "no, " + backend["reason"]
        if name == "native" and backend["available"]:
            calls = content["front"] if content["front"] == "compiled" else f"in Python, {content['front']}"
            state += f", instruction set {content['instruction_set']}\n           calls: {calls}"
        lines.append(f"backend    {name}: {state}")
    if content["VAE_FAST_BACKEND"]:
        lines.append(f"           VAE_FAST_BACKEND={content['VAE_FAST_BACKEND']}")
    missing = [name for name, version in content["train_extra"].items() if version is None]
    state = f'without {", ".join(missing)}: pip install "vae_fast[train]"' if missing else "complete"
    lines += ["", f"[train]    {state}"]
    return lines
