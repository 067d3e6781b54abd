"""Is it right here? Values and gradients of every operator and backend against float64, on this machine.

``check`` and ``check_module`` are the face; what they need is imported when they are called.

    cases.py     what a case is; words.py: its options by name; defaults.py: the cases tried by default
    choice.py    what is to be checked
    operands.py  a case's tensors, from its seed
    pairs.py     cases, truth and rows of the operators on pairs, each of which has a module: gaussian_pairs.py,
                 logistic_pairs.py, mmd_pairs.py; normals.py: what operands are drawn from
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

    Every operator, on every backend available, every device and dtype, in every memory layout and with every
    option, on ordinary inputs and on extreme ones. Each error is |result − truth| / (ε·Σ|terms|):
    truth is the textbook's formula in float64 on the same operands and noise, ε the spacing of the result's dtype
    at 1, and Σ|terms| the sum of the absolute values of what is added up. Up to 3 are allowed, 2 for z, 4 for
    densities of counts (6 by logarithms, whose exponentials are rounded), and 1 + log2 n more for a sum of n; twice
    that for float64, whose truth is no better; roundings on the way to σ and
    factors of a gradient add what they cost (``measure.bar``). The noise is compared bit by bit.

    Args:
        op: the operator's name, such as "gaussian_kl". None: all.
        backend: "reference", "native", "triton" or "auto"; one that is named serves or raises. None: all that are
            available.
        device: such as "cuda:0". None: the CPU, and a GPU where there is one.
        dtype: a floating dtype or its name, such as "bfloat16". None: float32, float64, bfloat16 and float16.
        shape: the operands' broadcast shape in every case; ints, or text such as "8x20". Of operators on pairs the
            sizes of both sides and of the dims, where one is named. None: each case's own.
        layout: how the operands lie in memory, such as "transposed" or "per_feature". None: every way.
        inputs: "ordinary" or "extreme". None: both.
        options: "plain" or words such as "prior,weight,sum" (words.py), or a sequence of them. None: every option.
        seed: decides the operands and the noise, an int from 0 to 2⁶³ − 1; nothing is drawn from PyTorch's
            generators.
        thorough: also derivatives against differences of values (torch.autograd.gradcheck), every float32
            through the formulas of one argument, and random cases, but of operators on pairs. Hours.
        cases: how many random cases ``thorough`` tries. 0: none.
        every: of all float32 ``thorough`` takes each ``every``-th one. 0: none.
        progress: called with a line of text now and then. None: nothing is told.

    Returns:
        One ``Row`` for each operator, backend, device and dtype: ``row.ok``, the worst errors of values and of
        gradients, those of the formulas users write in PyTorch, and ``row.failure``: the smallest failing case
        found, with the result's name, index and operands and the command line that runs it alone.

    Raises:
        ValueError: an unknown name, with the list of those there are; a choice that leaves no case; a seed out of
            its range.
        RuntimeError: a named backend that is not available, or does not serve the operator or device.

    Example:
        >>> rows = vae_fast.check("rsample", device="cpu", dtype="float32", shape=(4, 3), layout="contiguous")
        >>> all(row.ok for row in rows)
        True
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
        loss: ``loss(module, x)``, a 0-d tensor; None: a VAE's own. It must reach parameters through the
            module it is given, which is a copy.
        seed: of PyTorch's generators, before each run. Draws of other operations (dropout) differ between
            dtypes: call ``eval()`` first.

    Returns:
        One ``ParameterRow`` for each parameter: name, shape, ``error``, ``reference_error``, ``ok``; both errors
        are None for a parameter that gets no gradient, in any of the runs.

    Raises:
        TypeError: no ``loss`` for a module that is not a VAE; a loss that is not a 0-d tensor.

    Example:
        >>> vae = vae_fast.VAE(vae_fast.GaussianMLP(6, 2, (4,)), vae_fast.BernoulliMLP(2, 6, (4,)))
        >>> all(row.ok for row in vae_fast.check_module(vae, torch.rand(8, 6)))
        True
    """
    from vae_fast.checking.module import parameter_rows

    return parameter_rows(module, x, loss, seed)
