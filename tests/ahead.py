"""Triton kernels compiled ahead of time, for a GPU that need not be there: what a call launches, as PTX and cubin.

Launchers run on CPU tensors; what they would launch is compiled for a target instead.
"""

import re
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from vae_fast.triton_kernels import launch

TYPES = {
    torch.float32: "*fp32",
    torch.float64: "*fp64",
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.uint8: "*u8",
    torch.bool: "*i1",
    torch.int32: "*i32",
    torch.int64: "*i64",
}
CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
THREADS = 32 * launch.WARPS


@dataclass(frozen=True)
class Compiled:
    """A kernel as it would be launched: its name, its compile-time constants, PTX and cubin."""

    name: str
    constants: dict
    pointers: dict
    ptx: str
    cubin: bytes

    def count(self, pattern):
        """How many instructions of the PTX match, by the instruction."""
        return Counter(re.findall(rf"^\s+(?:@!?%p\d+ )?({pattern})[\s;]", self.ptx, re.MULTILINE))

    def wide(self, kind):
        """How many global accesses of 16 bytes there are; ``kind`` is ld or st."""
        return sum(self.count(rf"{kind}\.global\S*\.(?:v4\.[bfu]32|v2\.[bfu]64)").values())

    def narrow(self, kind):
        """The global accesses of fewer bytes."""
        return self.count(rf"{kind}\.global\S*") - self.count(rf"{kind}\.global\S*\.(?:v4\.[bfu]32|v2\.[bfu]64)")

    def resources(self):
        """Registers, stack and local memory of the machine code."""
        with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
            Path(file.name).write_bytes(self.cubin)
            text = subprocess.run(
                [CUOBJDUMP, "--dump-resource-usage", file.name], check=True, capture_output=True, text=True
            ).stdout
        return {name: int(n) for name, n in re.findall(r"(REG|STACK|LOCAL):(\d+)", text)}


def _typed(value, param):
    """An argument's type as the compiler names it."""
    if isinstance(value, torch.Tensor):
        return TYPES[value.dtype]
    if isinstance(value, tuple):
        return tuple(_typed(v, param) for v in value)
    if value is None:
        return "constexpr"
    assert param.annotation_type in ("i64", "fp64"), f"{param.name} has no type of its own"
    assert param.do_not_specialize or param.annotation_type == "fp64", f"{param.name} is specialised"
    return param.annotation_type


def _places(value, place):
    """An argument and its place; of a tuple every element and its own."""
    if isinstance(value, tuple):
        return [found for k, v in enumerate(value) for found in _places(v, (*place, k))]
    return [(place, value)]


def compile_call(monkeypatch, capability, function, *args):
    """What ``function(*args)`` would launch, in order."""
    found = []

    def run(kernel, programs, device, args, constants, registers=launch.ALL_REGISTERS):
        assert programs > 0 and len(args) + len(constants) == len(kernel.params)
        signature, known, attributes, pointers = {}, {}, {}, {}
        for index, (param, value) in enumerate(zip(kernel.params, args, strict=False)):
            signature[param.name] = _typed(value, param)
            for place, leaf in _places(value, (index,)):
                if isinstance(leaf, torch.Tensor):
                    pointers[(param.name, *place[1:])] = leaf.dtype
                    if leaf.data_ptr() % 16 == 0:
                        attributes[place] = [["tt.divisibility", 16]]
                elif leaf is None:
                    known[place] = None
        signature |= dict.fromkeys(constants, "constexpr")
        compiled = triton.compile(
            ASTSource(kernel, signature, {**known, **constants}, attributes),
            target=GPUTarget("cuda", capability, 32),
            options=launch.options(registers, capability // 10 == 9),
        )
        name = f"{kernel.__module__.rpartition('.')[2]}.{kernel.__name__}"
        found.append(Compiled(name, constants, pointers, compiled.asm["ptx"], compiled.asm["cubin"]))

    with monkeypatch.context() as patch:
        patch.setattr(launch, "run", run)
        function(*args)
    return found
