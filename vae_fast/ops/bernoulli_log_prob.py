"""The Bernoulli log-likelihood of data under logits or probabilities, and its gradients."""

from __future__ import annotations

from torch import Tensor

from vae_fast.backends import choose
from vae_fast.operators import OPERATORS
from vae_fast.ops import arguments
from vae_fast.ops.arguments import BernoulliParam, Reduction
from vae_fast.ops.autograd import density
from vae_fast.ops.public import operator
from vae_fast.reference.bernoulli_log_prob import PROBS

_Options = OPERATORS["bernoulli_log_prob"].Options


def _within(name: str, values: Tensor) -> None:
    if not bool(((values >= 0) & (values <= 1)).all()):
        raise ValueError(f"{name} has values outside [0, 1]")


@operator
def bernoulli_log_prob(
    logits: Tensor,
    x: Tensor,
    *,
    x_scale: float = 1.0,
    pos_weight: Tensor | float | None = None,
    event_ndim: int = 1,
    weight: Tensor | float | None = None,
    reduction: Reduction = "none",
    scale: float = 1.0,
    param: BernoulliParam = "logits",
    validate: bool = False,
    backend: str | None = None,
) -> Tensor:
    """log p(x|z) of independent Bernoulli variables given by their logits y or their probabilities p, in nats.

    Σ t·log σ(y) + (1 − t)·log(1 − σ(y)) over the event dims, t = x·x_scale, σ the logistic function; evaluated
    without cancellation, so that neither value nor gradient (t − σ(y)) is lost for large |y|.

    With ``param="probs"``, Σ t·max(log p, −100) + (1 − t)·max(log(1 − p), −100), as F.binary_cross_entropy has it,
    and its gradient by p, (t − p)/max(p(1 − p), 1e-12); that by t is the difference of the two clamped logarithms.
    A float p holds far less of a small 1 − p than logits do: prefer these where there is a choice.

    Args:
        logits: y, a tensor of any floating dtype; with ``param="probs"`` p.
        x: targets, broadcast against ``logits`` and they against it: floats in [0, 1], bool, or uint8. Where they
            differ in their number of dims, one of the two must have the shape of both together.
        x_scale: multiplies x: 1/255 for bytes of 0 to 255.
        pos_weight: p, which multiplies t·log σ(y) alone, broadcast against the elements, a tensor or a number: that
            of F.binary_cross_entropy_with_logits. A constant, without a gradient. The result then is no normalised
            density, and none of an evidence lower bound. For logits only. None: 1.
        event_ndim: how many trailing dims of the broadcast shape make one datum; 0 for elementwise.
        weight: w, a tensor of a floating dtype, uint8 or bool, or a number, broadcast against the elements (of
            shape [B, 1] for one weight a datum): Σ w·log p. An element of weight 0 contributes 0 and gets gradient
            0 whatever its value. Its own gradient is the element's log p; at weight 0 too, where it is that of the
            operands as they are. None: 1.
        reduction: "none" gives one number a datum, "sum" and "mean" run over all data.
        scale: a number that multiplies the result; −1 makes it a loss.
        param: what the first operand is: "logits" or "probs".
        validate: raises ValueError where t, or p, is outside [0, 1] or NaN, at the cost of a pass over x (and p)
            and, on a GPU, a synchronisation. Without it the formula is continued for t outside, and the value is
            NaN for p outside.
        backend: "reference", "native", "triton" or "auto"; None is what ``use_backend`` says.

    Returns:
        The data dims ("none") or a 0-d tensor; float64 for float64 logits, else float32. Logits of ±∞ give 0
        with the matching target and −∞ with the other; a p of 0 or 1 gives 0 and −100.

    Raises:
        TypeError: logits of a complex, integer, quantised, sparse or nested kind; x of int8 to int64; an option
            that is no number; DTensors mixed with plain tensors.
        ValueError: ``pos_weight`` with ``param="probs"``; shapes that do not broadcast, or whose numbers of dims
            differ and that would make a table larger than both; an ``event_ndim`` larger than the number of dims,
            tensors on different devices, an unknown ``param`` or ``reduction``; what ``validate`` finds.
        RuntimeError: a named backend that cannot serve the call.

    Example:
        >>> x = torch.tensor([[0.0, 1.0], [1.0, 1.0]])
        >>> vae_fast.bernoulli_log_prob(torch.zeros(2, 2), x)
        tensor([-1.3863, -1.3863])

    Source: Kingma and Welling, "Auto-Encoding Variational Bayes" (2014), eq. 11 in appendix C.
    """
    positive = pos_weight.detach() if isinstance(pos_weight, Tensor) else pos_weight
    operands, shape, composite, arithmetic = arguments.operands("bernoulli_log_prob", logits, x, positive, weight)
    arguments.event_dims(event_ndim, shape, "logits, x, pos_weight and weight")
    x_scale, code = arguments.number("x_scale", x_scale), arguments.bernoulli_code(param)
    if pos_weight is not None and code == PROBS:
        raise ValueError('pos_weight is for logits: there is none with param="probs"')
    if validate:
        _within("x * x_scale", x.detach().double() * x_scale)
        if code == PROBS:
            _within("logits, given as probabilities,", logits.detach())
    name = choose("bernoulli_log_prob", logits.device, backend, logits.numel())
    options = _Options(
        event_ndim=event_ndim,
        reduction=arguments.reduction_code(reduction),
        scale=arguments.number("scale", scale),
        x_scale=x_scale,
        param=code,
    )
    log_prob: Tensor = density("bernoulli_log_prob", name, operands, options, composite, arithmetic)
    return log_prob
