"""The docstrings of the public face: each says by itself what every argument is, and its examples run."""

import ast
import builtins
import dataclasses
import doctest
import importlib.util
import inspect
import io
import re
import sys
import types
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

import vae_fast
from helpers import pages

# On a page of their own, or in a list of names that have one each.
DIRECTIVE = re.compile(r"^(?:\.\. auto(?:function|class)::|  ) vae_fast\.(\S+)$", re.M)
LISTED = [name for page in pages.PAGES for name in DIRECTIVE.findall(pages.text(page))]
INTEGRATIONS = Path(vae_fast.integrations.__file__).parent
# What has no formula, and so no source: settings, and what looks at them.
NO_FORMULA = ("vae_fast.backends", "vae_fast.checking", "vae_fast.ops.early")


class Documented(NamedTuple):
    """A public name: its parameters in their order, its docstring, and itself where it can be imported here."""

    name: str
    parameters: list[str]
    text: str
    itself: Any = None

    @property
    def is_class(self):
        return self.name.rpartition(".")[2][0].isupper()

    @property
    def is_record(self):
        """A tuple or a dataclass with names: it checks nothing and computes nothing."""
        return hasattr(self.itself, "_fields") or dataclasses.is_dataclass(self.itself)

    @property
    def has_formula(self):
        module = getattr(self.itself, "__module__", "vae_fast.integrations")
        return not self.is_record and module not in NO_FORMULA


def parameters(function):
    return [name for name in inspect.signature(function).parameters if name not in ("self", "cls")]


def imported(name):
    found = vae_fast
    for part in name.split("."):
        found = getattr(found, part)
    return Documented(name, parameters(found), inspect.cleandoc(found.__doc__ or ""), found)


def source(library):
    return ast.parse((INTEGRATIONS / f"{library}.py").read_text(encoding="utf-8"))


def exported(library):
    """The ``__all__`` of a module."""
    found = [
        node.value for node in source(library).body if isinstance(node, ast.Assign) and said(node) == "__all__"
    ]
    return [name for value in found for name in ast.literal_eval(value)]


def said(assignment):
    return ast.unparse(assignment.targets[0])


def read(name):
    """A name of a module whose library is not here, from its source. A class without __init__ has its base's."""
    _, library, own = name.split(".")
    (node,) = (n for n in source(library).body if getattr(n, "name", None) == own)
    init = node
    if isinstance(node, ast.ClassDef):
        init = next((n for n in node.body if getattr(n, "name", None) == "__init__"), None)
    if init is None:
        names = imported(ast.unparse(node.bases[0])).parameters
    else:
        names = [arg.arg for arg in (*init.args.posonlyargs, *init.args.args, *init.args.kwonlyargs)]
    return Documented(name, [n for n in names if n != "self"], ast.get_docstring(node) or "")


def ours():
    """``vae_fast.__all__``, and that of its distributions."""
    names = [name for name in vae_fast.__all__ if callable(getattr(vae_fast, name))]
    return names + [f"distributions.{name}" for name in vae_fast.distributions.__all__]


def face():
    """What a user can name: ours, what the pages document, and the forms for other libraries."""
    libraries = [f"integrations.{lib}.{name}" for lib in vae_fast.integrations.__all__ for name in exported(lib)]
    names = sorted({*ours(), *libraries, *LISTED})
    return [read(name) if name.startswith("integrations.") else imported(name) for name in names]


def methods(documented):
    """The public methods of a class that have a docstring of our own."""
    if not inspect.isclass(documented.itself):
        return
    for name, found in inspect.getmembers(documented.itself, inspect.isfunction):
        if not name.startswith("_") and found.__module__.startswith("vae_fast") and found.__doc__:
            text = inspect.cleandoc(found.__doc__)
            yield Documented(f"{documented.name}.{name}", parameters(found), text, found)


FACE = face()
METHODS = [method for documented in FACE for method in methods(documented)]
NAMES = {documented.name.rpartition(".")[2] for documented in FACE}
ELSEWHERE = re.compile(
    rf"\bas (?:of |in |with )?``(?:\w+\.)*(?:{'|'.join(sorted(NAMES))})\b(?!\()|\botherwise as\b"
)

every = pytest.mark.parametrize("documented", FACE, ids=lambda documented: documented.name)
every_method = pytest.mark.parametrize("documented", METHODS, ids=lambda documented: documented.name)


def section(text, title):
    """The lines of a section, or None where there is none."""
    found = re.search(rf"^{title}:\n((?:    .*\n|\n)+)", text + "\n", re.M)
    return found and found.group(1)


def described(text, title="Args"):
    """The names that a section describes, in order, and what it says of each."""
    lines = section(text, title) or ""
    items = re.findall(r"^    ([\w, ]+):((?: .*)?\n(?:     .*\n|\n)*)", lines, re.M)
    assert len(items) == len(re.findall(r"^    \S", lines, re.M)), "a line that describes nothing by name"
    return [(name, words.strip()) for names, words in items for name in names.split(", ")]


@every
def test_every_parameter_is_described(documented):
    found = described(documented.text)
    assert [name for name, _ in found] == documented.parameters
    assert all(words for _, words in found)


@every_method
def test_every_parameter_of_a_method_is_named(documented):
    if section(documented.text, "Args"):
        test_every_parameter_is_described(documented)
    else:
        assert all(f"``{name}" in documented.text for name in documented.parameters)


@pytest.mark.parametrize("documented", [*FACE, *METHODS], ids=lambda documented: documented.name)
def test_no_text_stands_elsewhere(documented):
    assert not ELSEWHERE.search(" ".join(documented.text.split()))


@every
def test_the_sections(documented):
    text = documented.text
    if documented.is_record:
        return
    errors = [name for name, _ in described(text, "Raises")]
    assert errors or not documented.parameters
    assert all(issubclass(getattr(builtins, name), Exception) for name in errors)
    if not documented.is_class:
        assert section(text, "Returns")
    if documented.has_formula:
        assert re.search(r"^Source: ", text, re.M)
    assert documented.itself is None or section(text, "Example")


def run(documented):
    """How many lines of the examples were run, and what was wrong."""
    names = {"torch": torch, "vae_fast": vae_fast}
    test = doctest.DocTestParser().get_doctest(documented.text, names, documented.name, None, 0)
    report, runner = io.StringIO(), doctest.DocTestRunner(verbose=False)
    runner.run(test, out=report.write)
    return len(test.examples), report.getvalue()


@pytest.mark.parametrize("documented", [d for d in (*FACE, *METHODS) if ">>>" in d.text], ids=lambda d: d.name)
def test_the_examples_run(documented):
    lines, wrong = run(documented)
    assert lines and not wrong, wrong


def test_the_pages_have_every_name_once():
    assert set(ours()) <= set(LISTED) and len(LISTED) == len(set(LISTED))


def test_the_face_is_found():
    names = {documented.name for documented in FACE}
    assert {
        "rsample",
        "distributions.Poisson",
        "integrations.pyro.GammaPoisson",
        "integrations.scvi.patch",
    } <= names
    assert len(METHODS) > 20


def test_what_is_read_is_what_there_is(monkeypatch):
    """Of Pyro's forms, which need one class of it: the signatures and docstrings that their objects have."""
    pyro = types.ModuleType("pyro.distributions.torch_distribution")
    pyro.TorchDistributionMixin = type("TorchDistributionMixin", (), {})
    for name in ("pyro", "pyro.distributions", pyro.__name__):
        monkeypatch.setitem(sys.modules, name, pyro)
    spec = importlib.util.spec_from_file_location("forms_for_pyro", INTEGRATIONS / "pyro.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for documented in FACE:
        if documented.name.startswith("integrations.pyro."):
            found = getattr(module, documented.name.rpartition(".")[2])
            assert (parameters(found), inspect.cleandoc(found.__doc__)) == (documented.parameters, documented.text)


def without(text, start):
    """A docstring less the line that begins with a word."""
    return "\n".join(line for line in text.split("\n") if not line.strip().startswith(start))


@pytest.mark.parametrize("start", ["free_bits:", "backend:", "prior_mu:"])
def test_a_line_less_is_noticed(start):
    whole = imported("gaussian_kl")
    with pytest.raises(AssertionError):
        test_every_parameter_is_described(whole._replace(text=without(whole.text, start)))


def test_a_wrong_example_is_noticed():
    whole = imported("gaussian_kl")
    assert "Expected" in run(whole._replace(text=whole.text.replace("tensor([10.,", "tensor([11.,")))[1]


@pytest.mark.parametrize(
    "words", ["as ``rsample``", "as\n    ``vae_fast.rsample``, for all", "otherwise as before"]
)
def test_a_text_that_stands_elsewhere_is_noticed(words):
    with pytest.raises(AssertionError):
        test_no_text_stands_elsewhere(Documented("f", [], f"Args:\n    mu: {words}."))
