"""Who is watching: compilers, traces and dispatch modes, which have to see each operation of a result."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch._subclasses.functional_tensor import FunctionalTensor
from torch.overrides import handle_torch_function

# Tensors that kernels and compilers take as they are; FakeTensors and FunctionalTensors are a trace's own.
PLAIN = (Tensor, torch.nn.Parameter, FakeTensor, FunctionalTensor)

# By names of their own: looking them up would take longer than the calls.
_compiling = torch.compiler.is_compiling
_modes = torch._C._len_torch_dispatch_stack
_included = torch._C._dispatch_tls_is_dispatch_key_included
_PRE_DISPATCH = torch._C.DispatchKey.PreDispatch


def traced() -> bool:
    """Whether a compiler, a trace or a dispatch mode (FakeTensorMode, make_fx, counters …) sees every operation.

    What is not PyTorch's operation, as a seed that is drawn on the host, would be a constant to it.
    """
    return _compiling() or _modes() > 0 or _included(_PRE_DISPATCH)


def graph() -> bool:
    """Whether a graph is made of the operations themselves, which has to carry their gradients.

    torch.compile's has them apart, in the autograd.Functions that it traces.
    """
    if torch.compiler.is_compiling():
        return torch.compiler.is_exporting()
    return torch.fx.experimental.proxy_tensor.get_proxy_mode() is not None


def to_onnx() -> bool:
    """Whether torch.onnx.export is at work. ONNX has no form of an operator of ours."""
    if _compiling() and not torch.compiler.is_exporting():
        return False
    # By its flag as well, since torch._dynamo takes the public function for False. Importing it takes tens of
    # milliseconds: not before it is asked for.
    from torch.onnx._internal.exporter import _flags

    return _flags._is_onnx_exporting or torch.onnx.is_in_onnx_export()


_F = TypeVar("_F", bound=Callable[..., Any])
# What arguments of a public function mostly are, by their very type: they ask for nothing.
_USUAL = frozenset({Tensor, torch.nn.Parameter, int, float, str, bool, type(None), torch.Generator})


def _of(kind: Callable[[Any], bool], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """The arguments of a kind, those in sequences too."""
    found = []
    for arg in (*args, *kwargs.values()):
        entries = arg if isinstance(arg, (tuple, list)) else (arg,)
        found += [entry for entry in entries if kind(entry)]
    return found


def _is_proxy(value: Any) -> bool:
    return hasattr(type(value), "__torch_function__") and not isinstance(value, Tensor)


def _elsewhere(function: Callable[..., Any], leaf: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    if proxies := _of(_is_proxy, args, kwargs):
        return handle_torch_function(leaf, proxies, *args, **kwargs)
    fakes = _of(lambda value: isinstance(value, FakeTensor), args, kwargs)
    if fakes and torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.FAKE) is None:
        with fakes[0].fake_mode:
            return function(*args, **kwargs)
    return function(*args, **kwargs)


def public(function: _F, runs: Sequence[Callable[..., Any]] = ()) -> _F:
    """A public function: a leaf where torch.fx, or what else is no tensor, traces it by ``__torch_function__``.

    Tensor subclasses go in as they are, and fake tensors in their own mode, where numbers and seeds are fake too.
    ``runs`` are the compiled front's: each makes the results of a common call, and returns None for any other.
    """

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if runs and not _compiling():
            for run in runs:
                results = run(*args, **kwargs)
                if results is not None:
                    return results
        for arg in args:
            if type(arg) not in _USUAL:
                return _elsewhere(function, call, args, kwargs)
        for arg in kwargs.values():
            if type(arg) not in _USUAL:
                return _elsewhere(function, call, args, kwargs)
        return function(*args, **kwargs)

    return cast(_F, call)
