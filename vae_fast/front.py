"""The compiled front: common calls of the public functions, run in C++ from their arguments to their gradients.

It is a library for one version of Python and one of PyTorch (its own headers, of which it makes autograd nodes),
and another one for CUDA. A call that neither takes, of any other kind than dense tensors on one device outside of
transforms, traces and modes, goes to the Python function, which is the definition. Without them all calls do.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.machinery
import importlib.util
import inspect
import os
import sysconfig
from collections.abc import Callable, Iterator
from enum import IntEnum
from pathlib import Path
from typing import Any

import torch

from vae_fast import native
from vae_fast.operators import DATA, OPERATORS, PARAMETER, Operator, Option

VERSION = "_".join(torch.__version__.split(".")[:2])
_SUFFIX = f"{VERSION}{sysconfig.get_config_var('EXT_SUFFIX')}"
LIBRARY = native.FOLDER / f"_front_{_SUFFIX}"
CUDA_LIBRARY = native.FOLDER / f"_front_cuda_{_SUFFIX}"
# 0 leaves all calls to the Python functions.
ENVIRONMENT_VARIABLE = "VAE_FAST_FRONT"


class _Kind(IntEnum):
    """What a parameter of a public function says; csrc/front/operator.h has the same."""

    OPERAND = 0
    INTEGER = 1
    REAL = 2
    OPTIONAL_REAL = 3
    CODE = 4
    BOUNDS = 5
    SHAPE = 6
    SEED = 7
    GENERATOR = 8
    OFFSET = 9
    FIRST_SAMPLE = 10
    STREAM = 11
    NOISE = 12
    TEMPERATURE = 13
    PRIOR_FORM = 14
    PRIOR_REAL = 15
    PRIOR_BOUNDS = 16
    FLAG = 17
    BACKEND = 18
    DTYPE = 19
    DEVICE = 20


# Parameters that are no operand and no option of their name.
_OTHERS = {
    "seed": _Kind.SEED,
    "generator": _Kind.GENERATOR,
    "stream": _Kind.STREAM,
    "sample": _Kind.FIRST_SAMPLE,
    "noise": _Kind.NOISE,
    "validate": _Kind.FLAG,
    "backend": _Kind.BACKEND,
    "device": _Kind.DEVICE,
    "bounds": _Kind.BOUNDS,
    "prior_bounds": _Kind.PRIOR_BOUNDS,
}
# Options that have another meaning than their type's.
_SPECIAL = {
    "offset": _Kind.OFFSET,
    "first_sample": _Kind.FIRST_SAMPLE,
    "temperature": _Kind.TEMPERATURE,
    "prior_param": _Kind.PRIOR_FORM,
    "prior_param_eps": _Kind.PRIOR_REAL,
    "dtype": _Kind.DTYPE,
}
_OF_TYPE = {"int": _Kind.INTEGER, "float": _Kind.REAL, "float?": _Kind.OPTIONAL_REAL, "SymInt[]?": _Kind.SHAPE}


def _second(
    op: str, upstream: list[Any], tensors: list[Any], numbers: list[Any], shapes: list[Any], needs: list[bool]
) -> Any:
    """The gradients of a call of the front by a backward pass that is differentiated or transformed itself."""
    from vae_fast.ops import dispatch

    operator = OPERATORS[op]
    n = len(operator.operands)
    operands, others = tensors[:n], iter(tensors[n:])
    values, sizes = iter(numbers), iter(shapes)
    options = [
        next(others if option.type == "Tensor?" else sizes if _is_shape(option) else values)
        for option in operator.options
    ]
    grads = dispatch.backward_kernel("native", f"{op}_bwd", *upstream)(*upstream, *operands, *options, *needs)
    return [grads] if isinstance(grads, torch.Tensor) else list(grads)


def _is_shape(option: Option) -> bool:
    return option.type == "SymInt[]?"


def _load(path: Path, of: Path, missing: str, line: int) -> tuple[Any, str]:
    """The library that calls the kernels of another one, or why there is none: ``missing``, where those are."""
    if missing:
        return None, missing
    if os.environ.get(ENVIRONMENT_VARIABLE) == "0":
        return None, f"{ENVIRONMENT_VARIABLE} is 0"
    if not path.is_file():
        return None, native.missing(path, "the compiled front", line)
    if not native.whole(path):
        return None, f"{path.name} is not whole: install the package again"
    name = f"vae_fast.{path.name.partition('.')[0]}"
    loader = importlib.machinery.ExtensionFileLoader(name, str(path))
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec is not None
    kernels = ctypes.CDLL(str(of))
    if not hasattr(kernels, "vae_fast_kernels"):
        return None, f"{of.name} is of an earlier build"
    kernels.vae_fast_kernels.restype = ctypes.c_void_p
    kernels.vae_fast_layout.restype = ctypes.c_char_p
    table = kernels.vae_fast_kernels()
    if not table:
        return None, "VAE_FAST_CPU_ISA is no instruction set"
    try:
        library = importlib.util.module_from_spec(spec)
        loader.exec_module(library)
        library.load(table, kernels.vae_fast_layout().decode(), _second)
    except ImportError as error:
        return None, f"{path.name} does not load: {error}"
    return library, ""


_cpu, REASON = _load(LIBRARY, native.LIBRARY, native.REASON, 2)
_cuda, CUDA_REASON = _load(CUDA_LIBRARY, native.CUDA_LIBRARY, native.CUDA_REASON, 3)
_libraries = [library for library in (_cpu, _cuda) if library is not None]


class Chosen(IntEnum):
    """Which backend serves calls that name none; csrc/front/call.h has the same."""

    OTHER = 0
    NATIVE = 1
    AUTO = 2


class _State:
    """What the libraries run by, which are told of every change.

    ``on``: whether they take calls at all; ``backend``: which one is meant where none is named; ``early``: whether
    forward passes may make gradients, −1 where the environment has not been asked yet.
    """

    on: bool
    backend: Chosen
    early: int

    def __init__(self) -> None:
        self.__dict__.update(on=True, backend=Chosen.OTHER, early=-1)

    def __setattr__(self, name: str, value: int) -> None:
        self.__dict__[name] = value
        for library in _libraries:
            library.set(self.on, self.backend, self.early)


state = _State()
# What may run a call of an operator, or return None, by the operator's name: a function a device.
Functions = tuple[Callable[..., Any], ...]
FUNCTIONS: dict[str, Functions] = {}
# The same with (moments, dim) in the place of the first two operands, which are the halves.
PACKED: dict[str, Functions] = {}


@contextlib.contextmanager
def disabled() -> Iterator[None]:
    """In a ``with`` block all calls go to the Python functions: to compare the two, and to watch these."""
    before, state.on = state.on, False
    try:
        yield
    finally:
        state.on = before


def _parameter(operator: Operator, name: str, places: dict[str, int], shapes: list[str]) -> tuple[Any, ...]:
    """(name, kind, place of what it says, words)."""
    for k, operand in enumerate(operator.operands):
        if operand.name == name:
            return name, _Kind.OPERAND, k, None
    if name in _OTHERS:
        first = {"bounds": "low", "prior_bounds": "prior_low"}.get(name, "")
        return name, _OTHERS[name], places.get(first, 0), None
    option = next(option for option in operator.options if option.name == name)
    if _is_shape(option):
        return name, _Kind.SHAPE, shapes.index(name), None
    if name in _SPECIAL:
        return name, _SPECIAL[name], places[name], option.codes
    return name, _Kind.CODE if option.codes else _OF_TYPE[option.type], places[name], option.codes


def run(functions: Functions, *args: Any, **options: Any) -> Any:
    """What the first one to take a call makes of it; None where none does."""
    for function in functions:
        results = function(*args, **options)
        if results is not None:
            return results
    return None


def functions_of(op: str, signature: inspect.Signature, below_on_cuda: int) -> Functions:
    """What may run calls of an operator's public function: each returns None where that has to itself.

    Where no backend is named, on a GPU only those of fewer than ``below_on_cuda`` elements, if that is not
    negative.
    None at all where there is no front, or it was built without the operator.
    """
    if not _libraries:
        return ()
    operator = OPERATORS[op]
    numbers = [o for o in operator.options if o.type not in ("Tensor?", "SymInt[]?", "Device")]
    places = {option.name: k for k, option in enumerate(numbers)}
    shapes = [option.name for option in operator.options if _is_shape(option)]
    weight = operator.operands[-1].name if operator.density else ""
    facts = [
        (
            operand.optional,
            operand.differentiable,
            operand.name in operator.differentiable_in_forward,
            (operand.role != DATA and k > 0) or operand.name == weight,
            operand.role == DATA,
            operand.role == PARAMETER,
        )
        for k, operand in enumerate(operator.operands)
    ]
    positional = [p for p in signature.parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    known = {
        "name": op,
        "node": f"{operator.title}Backward",
        "density": operator.density,
        "results": len(operator.results),
        "shapes": len(shapes),
        "positional": len(positional),
        "softmax": operator.softmax,
        "operands": facts,
        "defaults": [
            option.default if isinstance(option.default, (int, float, type(None))) else 0 for option in numbers
        ],
        "places": places,
        "parameters": [_parameter(operator, name, places, shapes) for name in signature.parameters],
    }
    made = [library.define(known | {"below": below_on_cuda if library is _cuda else -1}) for library in _libraries]
    pairs = [pair for pair in made if pair is not None]
    FUNCTIONS[op] = tuple(call for call, _ in pairs)
    PACKED[op] = tuple(of_halves for _, of_halves in pairs) if operator.packed else ()
    return FUNCTIONS[op]
