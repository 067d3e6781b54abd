"""Is it right here? Values and gradients of every operator and backend against float64, on this machine.

``check`` and ``check_module`` are the face; what they need is imported when they are called.

    cases.py     what a case is; words.py: its options by name; defaults.py: the cases tried by default
    choice.py    what is to be checked
    operands.py  a case's tensors, from its seed
    formulas.py  what an element should be, in float64 or more, and the terms that rounding errors go with;
                 forms.py: σ of each parametrisation
    truth.py     a case's results and gradients: elements weighted and summed
    common.py    the same results by the formulas that users write in PyTorch
    measure.py   errors in units, and how many are allowed
    run.py       one case: run, measured, made smaller
    tally.py     many cases to a row; rows.py: what a row holds
    thorough.py  derivatives against differences, every float32, random cases
    module.py    the gradients of a module
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from vae_fast.checking.module import ParameterRow
    from vae_fast.checking.rows import Row


def check(
    op: str | None = None,
    backend: str | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | str | None = None,
    shape: int | Sequence[int] | str | None = None,
    layout: str | None = None,
    inputs: str | None = None,
    options: str | Sequence[str] | None = None,
    *,
    seed: int = 0,
    thorough: bool = False,
    cases: int = 1_000_000,
    every: int = 1,
    progress: Callable[[str], None] | None = None,
) -> tuple[Row, ...]:
    """Checks values and gradients of the operators against float64 on this machine; prints nothing.

    Every operator but those on pairs, on every backend available, every device and dtype, in every memory layout
    and with every option, on ordinary inputs and on extreme ones. Each error is |result − truth| / (ε·Σ|terms|):
    truth is the textbook's formula in float64 on the same operands and noise, ε the spacing of the result's dtype
    at 1, and Σ|terms| the sum of the absolute values of what is added up. Up to 3 are allowed, 2 for z, 4 for
    densities of counts (6 by logarithms, whose exponentials are rounded), and 1 + log2 n more for a sum of n; twice
    that for float64, whose truth is no better; roundings on the way to σ and
    factors of a gradient add what they cost (``measure.bar``). The noise is compared bit by bit.

    Args:
        op, backend, device, dtype, layout, inputs, options: leave out all others; by name. ``options`` is "plain"
            or words such as "prior,weight,sum" (words.py). A backend that is named serves or raises.
        shape: the operands' broadcast shape in every case; ints, or text such as "8x20".
        seed: decides the operands and the noise; nothing is drawn from PyTorch's generators.
        thorough: also derivatives against differences of values (torch.autograd.gradcheck), every float32
            through the formulas of one argument, and random cases. Hours.
        cases: how many random cases. 0: none.
        every: takes each ``every``-th float32. 0: none.
        progress: called with a line of text now and then.

    Returns:
        One ``Row`` for each operator, backend, device and dtype: ``row.ok``, the worst errors of values and of
        gradients, those of the formulas users write in PyTorch, and ``row.failure``: the smallest failing case
        found, with the result's name, index and operands and the command line that runs it alone.

    Raises:
        ValueError: an unknown name, with the list of those there are; a choice that leaves no case.
        RuntimeError: a named backend that is not available, or does not serve the operator or device.
    """
    from vae_fast.checking.choice import checked
    from vae_fast.checking.runner import run_check

    where = {"op": op, "backend": backend, "device": device, "dtype": dtype}
    choice = checked(seed, **where, shape=shape, layout=layout, inputs=inputs, options=options)
    return run_check(choice, thorough, cases, every, progress)


def check_module(
    module: nn.Module, x: Any, *, loss: Callable[[Any, Any], Tensor] | None = None, seed: int = 0
) -> tuple[ParameterRow, ...]:
    """Compares the gradients of a module's parameters: current backend, reference, and the reference in float64.

    Three copies of the module run on the same noise: as it is under the current backend, as it is under the
    reference, and in float64 under the reference, which is the truth. An error is max |gradient − truth| / max
    |truth| of a parameter; it may be 4 times the reference's own, or 16 ε of the parameter's dtype.

    Args:
        module: a ``vae_fast.VAE``, or any module whose ``loss`` is given. It stays as it is: parameters,
            gradients, buffers, training mode, and PyTorch's generators.
        x: what the loss is taken of: a tensor, or tensors in tuples, lists and dicts. Floating ones are widened
            for the truth.
        loss: ``loss(module, x)``, a 0-d tensor; by default a VAE's own. It must reach parameters through the
            module it is given, which is a copy.
        seed: of PyTorch's generators, before each run. Draws of other operations (dropout) differ between
            dtypes: call ``eval()`` first.

    Returns:
        One ``ParameterRow`` for each parameter: name, shape, ``error``, ``reference_error``, ``ok``; both errors
        are None for a parameter that gets no gradient, in any of the runs.

    Raises:
        TypeError: no ``loss`` for a module that is not a VAE; a loss that is not a 0-d tensor.
    """
    from vae_fast.checking.module import parameter_rows

    return parameter_rows(module, x, loss, seed)
