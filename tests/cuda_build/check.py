"""What a build of the CUDA kernels must hold, seen without a GPU: check.py LOG, with the package on the path.

LOG is the build's output with nvcc's -Xptxas=-v.
"""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import torch
from machine_code import counted, cuobjdump, kernels, sections

import vae_fast
from vae_fast import front, native, operators

TARGETS = ("sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")
# Kernels that draw noise and nothing else: of float32 and half types, with keys from the host and from the device,
# and of float64; each for even chunks and for any.
NOISE = 10
# Fused multiply-adds of a pair of normals (csrc/noise.h): 2 words to numbers, 9 of the logarithm, 4 of either
# polynomial of the angle, 2 of the square root.
FUSED = 2 + 9 + 4 + 4 + 2


def registered():
    assert not native.CUDA_REASON, native.CUDA_REASON
    names = (*operators.SCHEMAS, *operators.PAIRWISE_SCHEMAS)
    for name in (*names, "rescale_"):
        has = torch._C._dispatch_has_kernel_for_dispatch_key(f"vae_fast::{name}", "CUDA")
        assert has, f"{name} is not registered for CUDA"
    print(f"{len(names)} raw operators are registered for CUDA")


def fronts():
    """The compiled front of each device, which has every operator, and leaves what is not its own."""
    assert not front.REASON, front.REASON
    assert not front.CUDA_REASON, front.CUDA_REASON
    for op, functions in front.FUNCTIONS.items():
        assert len(functions) == 2, f"{op} is not in both fronts"
        _, on_cuda = functions
        assert on_cuda(torch.zeros(3), torch.zeros(3), torch.zeros(3)) is None
    print(f"{len(front.FUNCTIONS)} operators are in the front of the CPU and in that of CUDA")


def spills(log):
    """Every kernel for every target, and what it spills: nothing."""
    seen, where, registers, spilled = Counter(), None, Counter(), []
    for line in log.splitlines():
        if found := re.search(r"Compiling entry function '(\w+)' for '(sm_\w+)'", line):
            where = found.groups()
        elif found := re.search(
            r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line
        ):
            assert where is not None
            if found.groups() != ("0", "0", "0"):
                spilled.append(f"{where}: {line.strip()}")
            seen[where[1]] += 1
        elif found := re.search(r"Used (\d+) registers", line):
            registers[where[1]] = max(registers[where[1]], int(found.group(1)))
    assert not spilled, "\n".join(spilled)
    assert set(seen) == set(TARGETS) and len(set(seen.values())) == 1, seen
    print(f"{seen[TARGETS[0]]} kernels for each target, no spills; registers at most {dict(registers)}")


def a_normal(code):
    """Instructions of the loop that draws noise, for each normal of a turn; of two branches it has both."""
    loops = []
    for end in code:
        if end.op == "BRA" and end.target is not None and end.target < end.at:
            loops.append([i.op for i in code if end.target <= i.at <= end.at and i.op != "NOP"])
    drawing = [loop for loop in loops if "MUFU.RSQ" in loop]
    assert drawing, "no loop draws noise"
    hot = min(drawing, key=len)
    return len(hot) / (2 * hot.count("MUFU.RSQ"))


def instructions(library):
    for target in TARGETS:
        found = kernels(library, target)
        noise, cost = 0, {}
        for name, kernel in found.items():
            at, code = f"{name} for {target}", counted(kernel.code)
            atomics = [op for op in code if op.startswith(("ATOM", "RED"))]
            bad = [op for op in atomics if re.search(r"\.(F16|F32|F64|BF16)", op) or op.startswith("RED.E.ADD.F")]
            assert not bad, f"{at}: {bad}"
            local = [op for op in code if op.startswith(("LDL", "STL"))]
            assert not local, f"{at}: {local}"
            wide = re.search(r"\d(even_)?(density|sample_fwd|sample_bwd)_kernel", name)
            if wide and "3Sum" not in name:
                assert any(op.startswith("LDG.E") and "128" in op for op in code), f"{at}: no 128-bit loads"
                if not re.search(
                    "Lb1ELb0E(Lb0E)?EEv", name
                ):  # of the values alone there is nothing of full size to store
                    assert any(op.startswith("STG.E") and "128" in op for op in code), f"{at}: no 128-bit stores"
            if "normal_kernel" in name:
                noise += 1
                fused = sum(n * (1 + op.startswith("FFMA2")) for op, n in code.items() if op.startswith("FFMA"))
                roots = code["MUFU.RSQ"]
                assert roots and fused == FUSED * roots, f"{at}: {fused} fused multiply-adds, {roots} square roots"
                if drawn := re.search(r"normal_kernelI(f|NS0_4HalfE)NS0_\d+(Host|Device)KeysELb1E", name):
                    storage = "float32" if drawn.group(1) == "f" else "half"
                    cost[f"{storage}, {drawn.group(2).lower()}"] = round(a_normal(kernel.code), 1)
        assert noise == NOISE, noise
        assert len(cost) == 4, cost
        print(f"{target}: {len(found)} kernels, 128-bit loads and stores, no float atomics, no local memory")
        print(f"  instructions a normal, by storage type and where its seed is: {dict(sorted(cost.items()))}")


def intermediate_code(library):
    """The PTX of the noise: every operation rounded to nearest, and fused where the source says so."""
    done = subprocess.run((cuobjdump(), "-ptx", str(library)), capture_output=True, text=True, check=True)
    drawing = {n: "\n".join(c) for n, c in sections(done.stdout, r"\.entry (\w+)").items() if "normal_kernel" in n}
    assert len(drawing) == NOISE, sorted(drawing)
    for name, code in drawing.items():
        floats = Counter(
            re.findall(r"^\s*(?:@\S+\s+)?((?:add|sub|mul|div|sqrt|fma|mad|ex2|lg2|rcp|rsqrt)\.\S*f32)", code, re.M)
        )
        allowed = {"add.rn.f32", "sub.rn.f32", "mul.rn.f32", "fma.rn.f32", "rsqrt.approx.ftz.f32"}
        assert floats and set(floats) <= allowed, (name, floats)
        assert floats["fma.rn.f32"] == FUSED * floats["rsqrt.approx.ftz.f32"], (name, floats)
    print(f"the noise in PTX: {dict(floats)}")


if __name__ == "__main__":
    registered()
    fronts()
    spills(Path(sys.argv[1]).read_text())
    library = Path(vae_fast.__file__).parent / "_cuda.abi3.so"
    instructions(library)
    intermediate_code(library)
