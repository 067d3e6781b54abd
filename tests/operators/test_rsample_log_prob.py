"""rsample_log_prob: rsample's z, bit for bit, both log-densities at it, and the gradients of all three together."""

import pytest
import torch
from torch.distributions import Independent, Normal
from torch.testing import assert_close

import vae_fast as vf
from helpers.behaviour import with_grads
from helpers.calls import RSAMPLE_LOG_PROB_PRIOR, same_bits
from helpers.marks import each_backend
from helpers.published import compiled
from helpers.raw_calls import arguments
from vae_fast import reference

pytestmark = each_backend

NOISE = {"seed": 11, "offset": 5, "first_sample": 2, "stream": 3}
SHAPE = (4, 2, 3)
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
PARAMS = ("logvar", "logstd", "std", "var", "softplus")
# Of the prior's mean and its scale: full, a feature, a datum, other dims left out, one.
SHAPES = [(SHAPE, SHAPE), ((3,), (3,)), ((4, 1, 1), (4, 1, 1)), ((2, 1), (1, 3)), ((), ())]

CASES = {
    "one": {},
    "samples": {"sample_shape": (2, 2)},
    "many": {"sample_shape": 37},
    "elementwise": {"event_ndim": 0, "sample_shape": 2},
    "all_event_dims": {"event_ndim": 3, "sample_shape": (3,)},
    "bounds": {"bounds": (-0.5, 0.7), "sample_shape": 2},
    **{p: {"param": p, "sample_shape": 2} for p in PARAMS},
    **{p + "_eps": {"param": p, "param_eps": 0.2, "bounds": (None, 1.2)} for p in PARAMS},
    "of_another_form": {"param": "softplus", "prior_param": "logvar", "prior_bounds": (-1.0, 1.0)},
}
each_case = pytest.mark.parametrize("case", CASES)
each_q_grad = pytest.mark.parametrize("q_grad", ["total", "path"])


def fused(case, q_grad="total"):
    def f(mu, r, prior_mu=None, prior_r=None):
        return vf.rsample_log_prob(
            mu, r, prior_mu=prior_mu, prior_logvar=prior_r, q_grad=q_grad, **NOISE, **CASES[case]
        )

    return f


def sigma_of(r, param="logvar", eps=0.0, bounds=None):
    r = r if bounds is None else r.clamp(*bounds)
    if param == "var":
        return (r + eps).sqrt()
    made = {"logvar": lambda: (r / 2).exp(), "logstd": r.exp, "std": lambda: r}
    return made.get(param, lambda: torch.nn.functional.softplus(r))() + eps


def apart(case, q_grad="total"):
    """By torch.distributions, of the same noise."""
    options = CASES[case]
    samples, event_ndim = options.get("sample_shape", ()), options.get("event_ndim", 1)
    form = (options.get("param", "logvar"), options.get("param_eps", 0.0), options.get("bounds"))
    prior_form = (options["prior_param"], 0.0, options["prior_bounds"]) if "prior_param" in options else form

    def f(mu, r, prior_mu=None, prior_r=None):
        sigma = sigma_of(r, *form)
        z = mu + sigma * vf.rsample(torch.zeros_like(mu), 0.0, samples, **NOISE)
        q = Normal(mu, sigma) if q_grad == "total" else Normal(mu.detach(), sigma.detach())
        mean = torch.zeros_like(mu) if prior_mu is None else prior_mu.expand(mu.shape)
        scale = torch.ones_like(mu) if prior_r is None else sigma_of(prior_r, *prior_form).expand(mu.shape)
        p = Normal(mean, scale)
        return z, Independent(q, event_ndim).log_prob(z), Independent(p, event_ndim).log_prob(z)

    return f


def inputs(case, dtype=torch.float64, prior_shapes=(SHAPE, SHAPE), shape=SHAPE):
    mu, r, prior_mu, prior_r = (torch.randn(s, dtype=torch.float64) for s in (shape, shape, *prior_shapes))
    if case.startswith(("std", "var")):
        r, prior_r = 0.3 + r.abs(), 0.3 + prior_r.abs()
    return [t.to(dtype) for t in (mu, r, prior_mu, prior_r)]


@pytest.mark.parametrize("n_tensors", [2, 3, 4], ids=["standard", "mean", "prior"])
@each_q_grad
@each_case
def test_is_what_torch_distributions_give(case, q_grad, n_tensors):
    tensors = inputs(case)[:n_tensors]
    upstream = [torch.randn_like(out) for out in fused(case)(*tensors)]
    got, want = (with_grads(f(case, q_grad), *tensors, upstream=upstream) for f in (fused, apart))
    assert_close(got, want, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", ["samples", "softplus_eps", "elementwise"])
def test_dtypes(case, dtype):
    """z is rsample's; what is wider than a half type is rounded once."""
    tensors = inputs(case, dtype)
    upstream = [torch.randn_like(out) for out in fused(case)(*tensors)]
    z, log_q, log_p, *grads = with_grads(fused(case, "path"), *tensors, upstream=upstream)
    sample = {k: v for k, v in CASES[case].items() if k != "event_ndim"}
    assert same_bits([z], [vf.rsample(*tensors[:2], **NOISE, **sample)])
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    assert z.dtype == dtype and log_q.dtype == log_p.dtype == wide
    assert all(g.dtype == dtype for g in grads)
    compute = [t.to(wide) for t in tensors]
    _, *want = with_grads(fused(case, "path"), *compute, upstream=[g.to(wide) for g in upstream])
    assert_close([log_q, log_p], want[:2], rtol=2e-6, atol=2e-6)
    eps = max(torch.finfo(dtype).eps, 1e-6)
    assert_close([g.to(wide) for g in grads], want[2:], rtol=eps, atol=eps)


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
@pytest.mark.parametrize("case", ["samples", "elementwise", "of_another_form"])
def test_priors_of_smaller_shapes(shapes, case):
    tensors = inputs(case, prior_shapes=shapes)
    got, want = (with_grads(f(case), *tensors) for f in (fused, apart))
    assert [g.shape for g in got[3:]] == [t.shape for t in tensors]
    assert_close(got, want, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("numbers", [(0.3, -0.2), (0.3, None), (None, -0.2), (1, 0)], ids=str)
def test_numbers(numbers):
    """Of one of them, and of the other none: 0 and σp = 1. They promote nothing."""
    mu, r, *_ = inputs("one", torch.float32)
    results = fused("one")(mu, r, *numbers)
    assert [t.dtype for t in results] == [torch.float32] * 3
    one = [torch.tensor(float(n or 0.0)) for n in numbers]
    assert_close(results, apart("one")(mu, r, *one))


@each_q_grad
@pytest.mark.parametrize("used", range(3))
def test_one_result_alone(used, q_grad):
    tensors = [t.requires_grad_() for t in inputs("samples")]
    outs = [f("samples", q_grad)(*tensors)[used] for f in (fused, apart)]
    g = torch.randn_like(outs[0])
    got, want = (torch.autograd.grad(out, tensors, g, allow_unused=True) for out in outs)
    # What a result does not depend on: autograd's own None, or zeros.
    none = [torch.zeros_like(t) for t in tensors]
    got, want = ([n if v is None else v for v, n in zip(values, none, strict=True)] for values in (got, want))
    assert_close(got, want, rtol=1e-9, atol=1e-9)


def test_a_prior_has_no_part_in_log_q():
    """The raw operator's gradients of one are 0, and not what a result's memory held."""
    operands = [torch.rand(4, 3) for _ in range(4)]
    args = arguments("rsample_log_prob_bwd", None, torch.ones(4), None, *operands, needs=(True,) * 4)
    *_, dprior_mu, dprior_logvar = reference.KERNELS.rsample_log_prob_bwd(*args)
    assert not dprior_mu.any() and not dprior_logvar.any()


@pytest.mark.parametrize("wanted", range(4))
def test_one_gradient_alone(wanted):
    """What is asked for does not change what comes."""
    tensors = inputs("softplus")
    everything = with_grads(fused("softplus", "path"), *tensors)
    leaves = [t.detach().requires_grad_(k == wanted) for k, t in enumerate(tensors)]
    outs = fused("softplus", "path")(*leaves)
    (alone,) = torch.autograd.grad(outs, leaves[wanted], [torch.ones_like(o) for o in outs])
    assert_close(alone, everything[3 + wanted])


def test_total_and_path_differ_by_the_score():
    """Of log q: −1/σ through z and parameters together, and through z alone −ε/σ for μ, −ε²/σ for σ."""
    mu, sigma = torch.randn(5, 3), 0.5 + torch.rand(5, 3)
    eps = vf.rsample(torch.zeros(5, 3), 0.0, seed=1)
    for q_grad, want in (("total", (0 * eps, -1 / sigma)), ("path", (-eps / sigma, -(eps**2) / sigma))):
        leaves = [t.clone().requires_grad_() for t in (mu, sigma)]
        _, log_q, _ = vf.rsample_log_prob(*leaves, seed=1, param="std", q_grad=q_grad)
        assert_close(torch.autograd.grad(log_q.sum(), leaves), want)


@pytest.mark.parametrize("raw", [-160.0, -80.0, -30.0, 40.0, 85.0])
@pytest.mark.parametrize("param", ["logvar", "softplus"])
def test_a_small_sigma_loses_no_digit_of_log_q(param, raw):
    """log q is made of ε, where (z − μ)/σ of a rounded z has no digit left."""
    mu, r = torch.full((2, 3), 1000.0), torch.full((2, 3), raw)
    _, log_q, _ = vf.rsample_log_prob(mu, r, seed=3, param=param)
    eps = vf.rsample(torch.zeros(2, 3, dtype=torch.float64), 0.0, seed=3)
    log_sigma = r.double() / 2 if param == "logvar" else torch.nn.functional.softplus(r.double()).log()
    assert_close(log_q.double(), Normal(0.0, 1.0).log_prob(eps).sum(-1) - log_sigma.sum(-1), rtol=3e-7, atol=1e-5)


def test_noise_is_not_saved():
    tensors = [t.requires_grad_() for t in RSAMPLE_LOG_PROB_PRIOR.draw((50, 4))]
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        vf.rsample_log_prob(*tensors[:2], 3, prior_mu=tensors[2], prior_logvar=tensors[3])
    assert sorted(t.numel() for t in saved) == [200] * 4


def test_rows_of_every_length():
    """Shorter than a tile, longer than it, and than what one thread takes."""
    for size in (1, 7, 33, 512, 700, 9000, 20000):
        mu, r, *_ = inputs("one", torch.float32, shape=(3, size))
        got, want = (with_grads(f("samples"), mu, r) for f in (fused, apart))
        assert_close(got, want, rtol=2e-5, atol=2e-4)


def test_wider_prior():
    """The densities are computed in float64, with nothing rounded; the sample is of its moments' dtype."""
    mu, r, *prior = [*inputs("one", torch.float32)[:2], *inputs("one", torch.float64)[2:]]
    z, log_q, log_p, *grads = with_grads(fused("one"), mu, r, *prior)
    assert z.dtype == torch.float32 and log_q.dtype == log_p.dtype == torch.float64
    wide = with_grads(fused("one"), mu.double(), r.double(), *prior)
    assert_close([log_q, log_p, *grads[2:]], [*wide[1:3], *wide[5:]])


def test_no_samples_and_no_data():
    for shape, samples in (((0, 3), 2), ((4, 3), 0), ((4, 0), 2)):
        mu, r = torch.zeros(shape, requires_grad=True), torch.zeros(shape)
        z, log_q, log_p = vf.rsample_log_prob(mu, r, samples)
        assert z.shape == (samples, *shape) and log_q.shape == log_p.shape == (samples, shape[0])
        assert not log_q.any() and not log_p.any()
        (log_q.sum() + log_p.sum() + z.sum()).backward()
        assert mu.grad.shape == shape and not mu.grad.any()


@each_q_grad
def test_compiled(q_grad):
    tensors = inputs("of_another_form", torch.float32)
    f = fused("of_another_form", q_grad)
    assert_close(with_grads(compiled(f), *tensors), with_grads(f, *tensors), rtol=2e-6, atol=2e-6)


@each_q_grad
@pytest.mark.parametrize("case", ["one", "samples", "bounds"])
def test_second_derivatives(case, q_grad):
    """Those of torch.distributions, in which what is detached stays so."""
    tensors = tuple(inputs(case, shape=(2, 2), prior_shapes=((2, 2), (2,))))

    def total(f):
        return lambda *tensors: sum((out**2).sum() for out in f(case, q_grad)(*tensors))

    got, want = (torch.autograd.functional.hessian(total(f), tensors) for f in (fused, apart))
    assert_close(got, want, rtol=1e-8, atol=1e-8)


@each_q_grad
def test_transforms(q_grad):
    """Under torch.func, by its own operations."""
    tensors = inputs("samples")

    def total(f):
        return lambda *tensors: sum(out.sin().sum() for out in f("samples", q_grad)(*tensors))

    for transform in (torch.func.grad, torch.func.jacrev):
        assert_close(*(transform(total(f), argnums=(0, 1, 2, 3))(*tensors) for f in (fused, apart)))
    tangents = tuple(torch.randn_like(t) for t in tensors)
    got, want = (torch.func.jvp(f("samples", q_grad), tuple(tensors), tangents) for f in (fused, apart))
    assert_close(got, want)


def test_wrong_words():
    with pytest.raises(ValueError, match="q_grad must be one of 'total', 'path', got 'score'"):
        vf.rsample_log_prob(torch.zeros(2), torch.zeros(2), q_grad="score")
    with pytest.raises(ValueError, match="the prior"):
        vf.rsample_log_prob(torch.zeros(3), torch.zeros(3), prior_mu=torch.zeros(2, 3))
