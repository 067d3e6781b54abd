"""What the code of the package looks like: options come as records, and nothing takes a dozen arguments."""

import ast
import inspect
from pathlib import Path

import pytest

import vae_fast

FOLDER = Path(vae_fast.__file__).parent
FILES = sorted(FOLDER.rglob("*.py"))
MOST = 8
# What comes in the order of a raw operator's arguments.
IN_ORDER = {"args", "grads", "needs", "operands", "options", "tensors", "upstream"}


def names(path):
    return str(path.relative_to(FOLDER))


def is_kernel(function):
    """In Triton, whose kernels have nothing but parameters."""
    decorators = [ast.unparse(decorator) for decorator in function.decorator_list]
    return any(name in ("kernel", "triton.jit") for name in decorators)


def public(function, path):
    """A class, or a function that ``vae_fast`` has from this file: its options are keywords."""
    if function.name == "__init__":
        return True
    found = inspect.unwrap(getattr(vae_fast, function.name, None))
    return inspect.isfunction(found) and inspect.getsourcefile(found) == str(path)


@pytest.mark.parametrize("path", FILES, ids=names)
def test_few_parameters(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, (ast.FunctionDef, ast.Lambda)):
            continue
        if isinstance(node, ast.FunctionDef) and is_kernel(node):
            continue
        by_position = len(node.args.posonlyargs) + len(node.args.args)
        exempt = isinstance(node, ast.FunctionDef) and public(node, path)
        by_name = 0 if exempt else len(node.args.kwonlyargs)
        assert by_position + by_name <= MOST, f"{path}:{node.lineno}"


@pytest.mark.parametrize("path", FILES, ids=names)
def test_arguments_are_not_cut_by_number(path):
    """A slice with a number in it would say where an option stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Slice):
            ends = [end for end in (node.slice.lower, node.slice.upper) if end is not None]
            numbers = [n for end in ends for n in ast.walk(end) if isinstance(n, ast.Constant)]
            of = ast.unparse(node.value).split(".")[-1]
            assert not numbers or of not in IN_ORDER, f"{path}:{node.lineno}"
