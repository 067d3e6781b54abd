"""NVIDIA's machine code, read with cuobjdump: a kernel's instructions, its control flow, a turn of its hot loop."""

import heapq
import importlib.util
import re
import shutil
import subprocess
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

_LINE = re.compile(r"/\*([0-9a-f]{4,})\*/\s+(?:@(!?U?P\w+)\s+)?([A-Z][\w.]+)\s*([^;]*)")
_REGISTER = re.compile(r"\bR(\d+)")
# What has no register that it writes, or writes to memory alone.
_WRITES_NONE = ("ST", "RED", "BAR", "BRA", "BRX", "CALL", "EXIT", "RET", "NOP", "WARPSYNC", "BSYNC", "MEMBAR")
# What ends a run of instructions that are all issued or none.
_JUMPS = {"BRA", "BRX", "CALL", "EXIT", "RET"}


def cuobjdump():
    """One on the path, or the one that Triton brings along with torch."""
    found = shutil.which("cuobjdump")
    triton = importlib.util.find_spec("triton")
    for folder in triton.submodule_search_locations if triton and not found else ():
        found = shutil.which("cuobjdump", path=str(Path(folder) / "backends" / "nvidia" / "bin"))
    assert found, "there is no cuobjdump"
    return found


def sections(text, start):
    """name → the lines of its code."""
    found, name = {}, None
    for line in text.splitlines():
        if begin := re.search(start, line):
            name = begin.group(1)
            found[name] = []
        elif name is not None:
            found[name].append(line)
    return found


@dataclass(frozen=True)
class Instruction:
    at: int
    predicate: str  # such as !P0; empty where it is always done
    op: str
    args: str

    @property
    def base(self):
        return self.op.partition(".")[0]

    @property
    def is_conditional(self):
        return bool(self.predicate) or ".DIV" in self.op or bool(re.match(r"!?U?P\d", self.args))

    @property
    def is_load(self):
        """Whether it reads a chunk of global memory; what is ordered with other threads' accesses is no chunk."""
        return bool(re.fullmatch(r"LDG\.E(\.64|\.128)?(\.CONSTANT)?", self.op))

    @property
    def written(self):
        """The registers that a load writes."""
        first, bits = int(_REGISTER.match(self.args)[1]), re.search(r"\.(64|128)", self.op)
        return range(first, first + (int(bits[1]) // 32 if bits else 1))

    @property
    def read(self):
        """The registers that are named among its sources; of numbers of several registers the first."""
        own = 0 if self.op.startswith(_WRITES_NONE) or not self.args.startswith("R") else 1
        return {int(register) for register in _REGISTER.findall(",".join(self.args.split(",")[own:]))}

    @property
    def offset(self):
        """What an access's address has beside its register."""
        found = re.search(r"\+(-?0x[0-9a-f]+)\]", self.args)
        return int(found[1], 16) if found else 0

    @property
    def target(self):
        """The address that a branch goes to; None where that is in a register."""
        found = re.findall(r"0x([0-9a-f]+)", self.args)
        return int(found[-1], 16) if found else None


@dataclass(frozen=True)
class Block:
    """Instructions that are issued one after the other, and the places of the blocks that may follow."""

    code: tuple
    follow: tuple

    @property
    def cost(self):
        """Its instructions; with a call so many that no other way is left where it is made."""
        return len(self.code) + 10_000 * (self.code[-1].base == "CALL")

    def having(self, wanted):
        """How many instructions there are of each kind, LDG_E_128 for those that begin with LDG.E.128."""
        return tuple(sum(i.op.startswith(kind.replace("_", ".")) for i in self.code) for kind in wanted)


@dataclass(frozen=True)
class Kernel:
    lines: tuple  # as cuobjdump prints them; read when they are asked for, since a library has a million

    @cached_property
    def code(self):
        found = (match for match in map(_LINE.search, self.lines) if match)
        return tuple(Instruction(int(m[1], 16), m[2] or "", m[3], m[4]) for m in found)

    @cached_property
    def blocks(self):
        """place → Block."""
        place = {instruction.at: n for n, instruction in enumerate(self.code)}
        starts = {0}
        for n, instruction in enumerate(self.code):
            if instruction.base in _JUMPS:
                starts.add(n + 1)
            if instruction.base == "BRA" and instruction.target is not None:
                starts.add(place[instruction.target])
        cuts = sorted(n for n in starts if n < len(self.code))
        found = {}
        for start, end in zip(cuts, [*cuts[1:], len(self.code)], strict=True):
            last, follow = self.code[end - 1], []
            if last.base == "BRA" and last.target is not None:
                follow.append(place[last.target])
            if last.base not in _JUMPS - {"CALL"} or last.is_conditional:
                follow.append(end)
            found[start] = Block(self.code[start:end], tuple(n for n in follow if n < len(self.code)))
        return found

    @cached_property
    def loops(self):
        """(place of a loop's head, place of the last instruction of a block that goes back there), each."""
        return tuple(
            (to, n + len(block.code) - 1) for n, block in self.blocks.items() for to in block.follow if to <= n
        )

    def innermost(self, instruction):
        """The shortest loop around an instruction; None outside of all."""
        ends = ((self.code[head].at, self.code[last].at) for head, last in self.loops)
        around = ((end - head, head) for head, end in ends if head <= instruction.at <= end)
        return min(around, default=None)

    def turn(self, without=None, **wanted):
        """The instructions of the cheapest way round a loop that has so many of each kind, or None.

        ``wanted``: of instructions that begin so (LDG_E_128 for LDG.E.128), how many; ``without``: a pattern that
        none matches. Rare branches make a way longer, and a call is the last resort, so that the cheapest is that
        of ordinary numbers. An instruction that is predicated off counts: it takes an issue slot all the same.
        """
        best = None
        for head in {head for head, _ in self.loops}:
            best = self._way(head, wanted, lambda block, head=head: head in block.follow, best, without) or best
        return best

    def once(self, **wanted):
        """The instructions of the cheapest way from a kernel's beginning to its end, with so many of each kind."""
        return self._way(0, wanted, lambda block: block.code[-1].base == "EXIT")

    def _way(self, start, wanted, ends, known=None, without=None):
        """The cheapest way from a block to one that ``ends``, if it is cheaper than the known one."""
        goal = tuple(wanted.values())
        ways, seen = [(self.blocks[start].cost, tuple(0 for _ in goal), start, ())], set()
        while ways:
            cost, had, n, way = heapq.heappop(ways)
            if known and cost >= len(known):
                break
            block = self.blocks[n]
            if without and any(re.search(without, f"{i.op} {i.args}") for i in block.code):
                continue
            had = tuple(a + b for a, b in zip(had, block.having(wanted), strict=True))
            if (n, had) in seen or any(a > b for a, b in zip(had, goal, strict=True)):
                continue
            seen.add((n, had))
            way = (*way, n)
            if had == goal and ends(block):
                return [instruction for place in way for instruction in self.blocks[place].code]
            for to in block.follow:
                if to != start:
                    heapq.heappush(ways, (cost + self.blocks[to].cost, had, to, way))
        return None


def kernels(library, target):
    """name → Kernel, of a library or a cubin; names as the compiler mangles them."""
    command = (cuobjdump(), "-sass", "-arch", target, str(library))
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = sections(text, r"Function : (\w+)")
    assert found, f"no code for {target}"
    return {name: Kernel(tuple(lines)) for name, lines in found.items()}


def counted(code):
    """How many there are of each instruction."""
    return Counter(instruction.op for instruction in code)
