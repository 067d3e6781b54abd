"""What the check hands back: rows of a table, and for a row that fails the smallest case found and its numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vae_fast.checking.cases import Case

if TYPE_CHECKING:
    from vae_fast.checking.pairs import PairsCase


@dataclass(frozen=True)
class Failure:
    """One element that is not what it should be.

    ``result`` names the output or gradient ("z", "kl", "dlogvar", …), ``index`` the element of it that is
    furthest off, ``operands`` the operands' values there (the first of those added up to it), ``error`` the
    distance from ``wanted`` in the table's units and ``bar`` how many were allowed. ``got`` is the message where
    the call raised, and the dtype where that is wrong. ``command`` runs exactly ``case``.
    """

    case: Case | PairsCase
    result: str
    index: tuple[int, ...]
    operands: dict[str, float]
    got: float | str
    wanted: float | str
    error: float
    bar: float
    command: str


@dataclass(frozen=True)
class Row:
    """The verdict on one operator on one backend and device in one dtype.

    ``kind`` is what was run: "cases", and under ``thorough`` "derivatives" (against differences of values),
    "every float32" and "random cases". Errors are the worst of ``cases`` cases in units of ε·Σ|terms|, of values
    (``forward``) and of gradients; ``torch_forward`` and ``torch_gradient`` are those of the formulas users write
    in PyTorch. None: not measured. ``failure`` is None where ``ok``.
    """

    op: str
    backend: str
    device: str
    dtype: str
    kind: str
    cases: int
    forward: float | None
    gradient: float | None
    torch_forward: float | None
    torch_gradient: float | None
    failure: Failure | None

    @property
    def ok(self) -> bool:
        return self.failure is None

    def as_dict(self) -> dict[str, Any]:
        """The row in numbers, strings and None, for JSON."""
        names = ("op", "backend", "device", "dtype", "kind", "cases")
        errors = ("forward", "gradient", "torch_forward", "torch_gradient")
        content = {name: getattr(self, name) for name in names} | {
            name: _plain(getattr(self, name)) for name in errors
        }
        failure = self.failure
        return content | {
            "ok": self.ok,
            "failure": failure
            and {
                "result": failure.result,
                "index": list(failure.index),
                "operands": {name: _plain(value) for name, value in failure.operands.items()},
                "got": _plain(failure.got),
                "wanted": _plain(failure.wanted),
                "error": _plain(failure.error),
                "bar": failure.bar,
                "command": failure.command,
            },
        }


def _plain(value: Any) -> Any:
    """JSON has no infinity and no NaN: they become strings."""
    return str(value) if isinstance(value, float) and value - value != 0 else value
