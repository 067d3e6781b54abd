"""What the build writes of the table of operators for csrc; it reads the table without the package and torch.

signatures.inc has every operator's signature, as schemas.cpp defines it; common.inc, for ops.cpp, the functions of
common calls, each of which is the long one with the other arguments' defaults.
"""

import math
import runpy
from pathlib import Path

TABLE = Path(__file__).parent / "vae_fast" / "operators.py"
_TYPES = {"Tensor": "Tensor", "Tensor?": "OptionalTensor", "float": "double", "bool": "bool"}
_TYPES |= dict.fromkeys(("int", "SymInt"), "int64_t")


def _literal(value):
    if value is None or value == ():
        return "{}"
    if isinstance(value, float) and math.isinf(value):
        return f"{'-' if value < 0 else ''}INFINITY"
    return str(value).lower()


def _function(short):
    names, types = short.signature.names, short.signature.types
    taken = ", ".join(f"{_TYPES[kind]} {name}" for kind, name in zip(types, names, strict=True))
    passed = [
        _literal(*place) if isinstance(place, tuple) else f"std::move({names[place]})" for place in short.arguments
    ]
    made = f"{short.long.name}({', '.join(passed)})"
    if len(short.results) < len(short.long.results):
        made = f"chosen<{', '.join(map(str, short.results))}>({made})"
    return f"inline auto {short.signature.name}({taken}) {{\n  return {made};\n}}\n"


def write(folder):
    """Writes both into ``folder``."""
    table = runpy.run_path(str(TABLE))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "signatures.inc").write_text("".join(f'"{definition}",\n' for definition in table["DEFINITIONS"]))
    (folder / "common.inc").write_text("\n".join(map(_function, table["COMMON"].values())))
