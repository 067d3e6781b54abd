"""What docs/versions.md promises of names, options, keys and columns: all of promised.json is there as it was.

More may come. `python tests/package/test_promised.py` writes promised.json anew, when a version is made: what has
come since is then promised too.
"""

import argparse
import ast
import inspect
import json
import re
from dataclasses import fields
from pathlib import Path

import pytest

import vae_fast
from vae_fast.cli.config import TrainConfig
from vae_fast.cli.info import collect
from vae_fast.cli.parser import build_parser
from vae_fast.cli.report import COLUMNS

ROOT = Path(__file__).parents[2]
HELD = Path(__file__).with_name("promised.json")


def shown(default):
    """A class by its name: where its library keeps it is the library's."""
    return default.__qualname__ if inspect.isclass(default) else repr(default)


def named(name):
    found = vae_fast
    for part in name.split("."):
        found = getattr(found, part)
    return found


def parameters(name):
    """Of each parameter its name, how it is given, and its default, if it has one."""
    return [
        [p.name, p.kind.name, *([] if p.default is p.empty else [shown(p.default)])]
        for p in inspect.signature(named(name)).parameters.values()
    ]


def written(path):
    """The parameters of the public functions and classes of a file that imports what need not be installed."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = {"posonlyargs": "POSITIONAL_ONLY", "args": "POSITIONAL_OR_KEYWORD", "kwonlyargs": "KEYWORD_ONLY"}
    found = {}
    for node in tree.body:
        function = node
        if isinstance(node, ast.ClassDef):
            (function,) = [f for f in node.body if getattr(f, "name", "") == "__init__"] or [None]
        if not isinstance(function, ast.FunctionDef):
            continue
        given = function.args
        rows = [[a.arg, kinds[kind]] for kind in kinds for a in getattr(given, kind)]
        early = rows[: len(rows) - len(given.kwonlyargs)]
        behind = [*zip(early[len(early) - len(given.defaults) :], given.defaults, strict=True)]
        behind += zip(rows[len(early) :], given.kw_defaults, strict=True)
        for row, default in behind:
            row += [] if default is None else [ast.unparse(default)]
        found[node.name] = [row for row in rows if row[0] != "self"]
    return found


def of_integrations():
    """Of what other libraries' code calls, by the names of the site's page; others inherit what is promised."""
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    names = re.findall(r"vae_fast\.(integrations\.(\w+)\.(\w+))", page)
    folder = Path(vae_fast.__file__).with_name("integrations")
    found = {module: written(folder / f"{module}.py") for _, module, _ in names}
    return {name: found[module][what] for name, module, what in names if what in found[module]}


def methods(name):
    """The public methods of a class that are the package's own."""
    if not inspect.isclass(named(name)):
        return []
    found = inspect.getmembers(named(name), inspect.isroutine)
    own = [method for method, f in found if (getattr(f, "__module__", None) or "").startswith("vae_fast")]
    return [f"{name}.{method}" for method in own if not method.startswith("_")]


def options():
    (commands,) = (a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    return {
        name: sorted(text for action in command._actions for text in action.option_strings)
        for name, command in commands.choices.items()
    }


def face():
    names = [name for name in vae_fast.__all__ if callable(getattr(vae_fast, name))]
    names += [f"distributions.{name}" for name in vae_fast.distributions.__all__]
    names += [method for name in names for method in methods(name)]
    return {
        "names": sorted(vae_fast.__all__),
        "parameters": {name: parameters(name) for name in sorted(names)} | of_integrations(),
        "options": options(),
        "info": sorted(collect()),
        "config": sorted(field.name for field in fields(TrainConfig)),
        "columns": list(COLUMNS),
    }


PROMISED = json.loads(HELD.read_text(encoding="utf-8")) if HELD.is_file() else face()


@pytest.mark.parametrize("name", PROMISED["parameters"])
def test_a_call_that_worked_works(name):
    """Those by position in their order, and first; all with their defaults; a new one has a default."""
    now = of_integrations()[name] if name.startswith("integrations.") else parameters(name)
    then = PROMISED["parameters"][name]
    by_position = [p for p in then if p[1] == "POSITIONAL_OR_KEYWORD"]
    assert now[: len(by_position)] == by_position
    assert all(p in now for p in then)
    assert all(len(p) == 3 or p[1].startswith("VAR_") for p in now if p not in then)


def test_names_options_keys_and_columns_stay():
    now = face()
    for what in ("names", "info", "config"):
        assert set(PROMISED[what]) <= set(now[what])
    for command, said in PROMISED["options"].items():
        assert set(said) <= set(now["options"][command])
    assert now["columns"][: len(PROMISED["columns"])] == PROMISED["columns"]


@pytest.mark.parametrize("change", ["renamed", "moved", "default"])
def test_a_broken_promise_is_noticed(monkeypatch, change):
    then = [list(p) for p in PROMISED["parameters"]["gaussian_kl"]]
    if change == "moved":
        then[0], then[1] = then[1], then[0]
    else:
        then[-1][0 if change == "renamed" else 2] = "another"
    monkeypatch.setitem(PROMISED["parameters"], "gaussian_kl", then)
    with pytest.raises(AssertionError):
        test_a_call_that_worked_works("gaussian_kl")


if __name__ == "__main__":
    # A line for each function, so that a change shows as one.
    held = face()
    functions = held.pop("parameters").items()
    rows = ",\n".join(f"  {json.dumps(name)}: {json.dumps(found)}" for name, found in functions)
    rest = json.dumps(held)[1:-1].replace('], "', '],\n "').replace('}, "', '},\n "')
    HELD.write_text(f'{{"parameters": {{\n{rows}\n }},\n {rest}}}\n', encoding="utf-8")
