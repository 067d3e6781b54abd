"""The negative binomial log-likelihood of counts, zero-inflated or not, and its gradients."""

from __future__ import annotations

from torch import Tensor

from vae_fast.backends import choose
from vae_fast.operators import MEAN_PARAMS, OPERATORS, THETA_PARAMS
from vae_fast.ops import arguments, counts
from vae_fast.ops.arguments import MeanParam, Reduction, ThetaParam
from vae_fast.ops.autograd import density
from vae_fast.ops.public import operator

_OP = "negative_binomial_log_prob"
_Options = OPERATORS[_OP].Options


@operator
def negative_binomial_log_prob(
    mean: Tensor,
    theta: Tensor | float,
    x: Tensor,
    *,
    zero_logits: Tensor | float | None = None,
    log_library: Tensor | float | None = None,
    param: MeanParam = "mean",
    theta_param: ThetaParam = "theta",
    eps: float = 0.0,
    event_ndim: int = 1,
    weight: Tensor | float | None = None,
    reduction: Reduction = "none",
    scale: float = 1.0,
    validate: bool = False,
    backend: str | None = None,
) -> Tensor:
    """log p(x | μ, θ) of counts with mean μ and variance μ + μ²/θ, in nats.

    Σ x·log μ − (x + θ)·log(1 + μ/θ) + Σ_{k<x} log(1 + k/θ) − log x! over the event dims, which is
    log Γ(x + θ) − log Γ(θ) − log x! + θ·log(θ/(θ + μ)) + x·log(μ/(θ + μ)) in a form of which no part cancels within
    itself: for every θ, up to ∞, where it is Poisson's.

    With ``zero_logits`` π the count is 0 with probability σ(π) besides: log(σ(π) + σ(−π)·p(0)) of x = 0, and
    log σ(−π) + log p(x) of all others.

    With ``param="softmax"`` the mean is a share of a library: μ = e^ℓ·softmax(mean), over the event dims together,
    ℓ being ``log_library``. But for Triton, neither the shares nor μ become a tensor.

    Args:
        mean: μ > 0, a tensor of any floating dtype; with ``param="log_mean"`` its logarithm; with
            ``param="softmax"`` the logits of its shares.
        theta: the inverse dispersion θ > 0, or ``theta_param="log_theta"`` its logarithm: for every element, every
            feature ([G]), every datum ([B, 1]), a 0-d tensor or a number. Its gradient has its own shape.
        x: counts, broadcast against the others and they against it: floats, bool, or integers (uint8, int16,
            int32, int64); or a CSR matrix [B, G], PyTorch's or SciPy's, of which kernels on a CPU read what is not
            0, and all others make a dense copy. A constant, without a gradient. Where they differ in their number
            of dims, one of the two must have the shape of both.
        zero_logits: π, of the same shapes. None: no zeros besides.
        log_library: ℓ, for ``param="softmax"`` only: one value a datum ([B, 1]), or any other such shape; 0 where
            it is None.
        param: what ``mean`` is: "mean" μ, "log_mean" log μ, or "softmax", the logits of shares of a library.
        theta_param: what ``theta`` is: "theta" θ, or "log_theta" log θ.
        eps: ε, what the published formula of single-cell models has inside its logarithms, log(θ + ε), log(μ + ε)
            and log(θ + μ + ε): 1e-8 makes its values.
        event_ndim: how many trailing dims of the broadcast shape make one datum; 0 for elementwise.
        weight: w, a tensor of a floating dtype, uint8 or bool, or a number, broadcast against the elements (of
            shape [B, 1] for one weight a datum): Σ w·log p. An element of weight 0 contributes 0 and gets gradient
            0 whatever its value. Its own gradient is the element's log p; at weight 0 too, where it is that of the
            operands as they are. None: 1.
        reduction: "none" gives one number a datum, "sum" and "mean" run over all data.
        scale: a number that multiplies the result; −1 makes it a loss.
        validate: raises ValueError where x is no count, or a mean or θ not positive, at the cost of a pass over
            each and, on a GPU, a synchronisation. Without it the formula goes on for fractions, by log Γ.
        backend: "reference", "native", "triton" or "auto"; None is what ``use_backend`` says.

    Returns:
        The data dims ("none") or a 0-d tensor; float64 where the parameters promote to it, else float32.

    Raises:
        TypeError: mean, theta, zero_logits or log_library of a complex, integer, quantised, sparse or nested kind;
            x of another kind than those above; an option that is no number; DTensors mixed with plain tensors.
        ValueError: ``log_library`` without ``param="softmax"``, or that with ``event_ndim=0``; shapes that do not
            broadcast, or whose numbers of dims differ and that would make a table larger than both; an
            ``event_ndim`` larger than the number of dims, tensors on different devices, an unknown ``param``,
            ``theta_param`` or ``reduction``; what ``validate`` finds.
        RuntimeError: a named backend that cannot serve the call.

    Example:
        >>> mean, counts = torch.ones(3, 2), torch.zeros(3, 2, dtype=torch.int64)
        >>> vae_fast.negative_binomial_log_prob(mean, 1.0, counts)
        tensor([-1.3863, -1.3863, -1.3863])

    Source: Lopez et al., "Deep generative modeling for single-cell transcriptomics" (2018), its Methods.
    """
    x = counts.table(_OP, x, backend, mean, theta, zero_logits, log_library, weight)
    values = (mean, theta, zero_logits, log_library, x, weight)
    operands, shape, composite, arithmetic = arguments.operands(_OP, *values)
    arguments.event_dims(event_ndim, shape, "mean, theta, zero_logits, log_library, x and weight")
    code = arguments.code_of("param", MEAN_PARAMS, param)
    theta_code = arguments.code_of("theta_param", THETA_PARAMS, theta_param)
    if log_library is not None and code != MEAN_PARAMS["softmax"]:
        raise ValueError(f"log_library is for param='softmax', not for param={param!r}")
    if code == MEAN_PARAMS["softmax"] and event_ndim == 0:
        raise ValueError("param='softmax' is over the event dims, of which event_ndim=0 has none")
    if code == MEAN_PARAMS["softmax"] or counts.is_sparse(operands[4]):
        operands = counts.of_shape(operands, shape)
    if validate:
        counts.whole(operands[4])
        if code == MEAN_PARAMS["mean"]:
            counts.positive("mean", operands[0])
        if theta_code == THETA_PARAMS["theta"]:
            counts.positive("theta", operands[1])
    name = choose(_OP, operands[0].device, backend, operands[0].numel())
    options = _Options(
        event_ndim=event_ndim,
        reduction=arguments.reduction_code(reduction),
        scale=arguments.number("scale", scale),
        param=code,
        theta_param=theta_code,
        eps=arguments.number("eps", eps),
    )
    log_prob: Tensor = density(_OP, name, operands, options, composite, arithmetic)
    return log_prob
