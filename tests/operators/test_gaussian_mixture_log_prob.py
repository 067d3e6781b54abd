"""A mixture's log-density and the total correlation: values and gradients against the plain cube in float64."""

import math
import random

import pytest
import torch
from torch.testing import assert_close

import vae_fast as vf
from helpers.behaviour import on_threads
from helpers.calls import same_bits

BACKENDS = [
    name for name, b in vf.backends().items() if b.available and b.serves("gaussian_mixture_log_prob", "cpu")
]
each = pytest.mark.parametrize("backend", BACKENDS)
EPS = {torch.float32: 2.0**-24, torch.float64: 2.0**-53}
# (data, components, dims): fewer than a panel of 16, several, one; more than are summed at a time; more dims.
SHAPES = ((7, 5, 3), (33, 70, 17), (1, 1, 1), (3, 16, 2), (5, 1100, 4), (40, 33, 130))


def cube(mu, logvar, z, log_weight=None):
    """(joint, Σ marginals) from the table of all terms."""
    terms = -0.5 * ((z.unsqueeze(-2) - mu) ** 2 * torch.exp(-logvar) + logvar + math.log(2 * math.pi))
    n = mu.shape[-2]
    w = terms.new_full((n,), -math.log(n)) if log_weight is None else log_weight
    joint = torch.logsumexp(terms.sum(-1) + w, -1)
    return joint, torch.logsumexp(terms + w.unsqueeze(-1), -2).sum(-1)


def leaves(shape, dtype, own=False, weights=None, spread=1.0):
    n, k, d = shape
    components = (n, k, d) if own else (k, d)
    made = [torch.randn(components), torch.randn(components) * 0.5, torch.randn(n, d) * spread]
    if weights is not None:
        made.append(torch.log_softmax(torch.randn((n, k) if weights == "own" else (k,)), -1))
    return [t.to(dtype).requires_grad_() for t in made]


def gradients(outs, tensors):
    upstream = [torch.randn(out.shape, generator=torch.Generator().manual_seed(3)).to(out.dtype) for out in outs]
    return torch.autograd.grad(outs, tensors, upstream)


def both(tensors, **options):
    mu, logvar, z, *w = tensors
    return vf.gaussian_mixture_log_prob(mu, logvar, z, log_weight=w[0] if w else None, per_dim=True, **options)


def close(got, want, factor=1.0, dtype=None):
    """Within what a result of such sizes loses by rounding each of its terms a few times."""
    eps = EPS[dtype or got.dtype]
    assert got.shape == want.shape
    error = (got.double() - want.double()).abs().max() / want.double().abs().max().clamp(min=1.0)
    assert error <= 64 * factor * eps, f"{error / eps} roundings"


@each
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("own", (False, True), ids=("shared", "own"))
@pytest.mark.parametrize("weights", (None, "shared", "own"))
@pytest.mark.parametrize("dtype", EPS, ids=str)
def test_values_and_gradients(backend, shape, own, weights, dtype):
    tensors = leaves(shape, dtype, own, weights)
    exact = [t.detach().double().requires_grad_() for t in tensors]
    outs, truth = both(tensors, backend=backend), cube(*exact)
    for got, want in zip(outs, truth, strict=True):
        close(got, want, dtype=dtype)
    # A share of a component is as far off as its logarithm, which is a sum over the dims.
    for got, want in zip(gradients(outs, tensors), gradients(truth, exact), strict=True):
        close(got, want, factor=shape[-1] ** 0.5 * 8, dtype=dtype)


@each
def test_random_calls(backend):
    """Sizes on both sides of every tile's, operands that need gradients or do not, components of no weight."""
    rng = random.Random(5)
    # In Triton's interpreter each takes seconds.
    for _ in range(3 if backend == "triton" else 30):
        shape = (
            rng.choice((1, 2, 31, 64, 65, 90)),
            rng.choice((1, 3, 16, 33, 64, 100)),
            rng.choice((1, 2, 16, 17, 33)),
        )
        own, weights = rng.random() < 0.3, rng.choice((None, "shared", "own"))
        dtype = rng.choice(tuple(EPS))
        tensors = leaves(shape, dtype, own, weights)
        if weights and shape[1] > 1:
            with torch.no_grad():
                tensors[3][..., 0] = -math.inf
        wanted = [k for k in range(len(tensors)) if rng.random() < 0.7] or [2]
        for k, t in enumerate(tensors):
            t.requires_grad_(k in wanted)
        exact = [t.detach().double().requires_grad_(t.requires_grad) for t in tensors]
        outs, truth = both(tensors, backend=backend), cube(*exact)
        got, want = (gradients(o, [t[k] for k in wanted]) for o, t in ((outs, tensors), (truth, exact)))
        for a, b in zip((*outs, *got), (*truth, *want), strict=True):
            close(a, b, factor=shape[2] ** 0.5 * 8, dtype=dtype)


@each
@pytest.mark.parametrize("param", ("logvar", "logstd", "std", "var", "softplus"))
def test_forms(backend, param):
    mu, raw, z = leaves((9, 40, 5), torch.float64)
    given = (raw.detach().exp() if param in ("std", "var") else raw.detach()).requires_grad_()
    out = vf.gaussian_mixture_log_prob(mu, given, z, param=param, param_eps=0.1, bounds=(0.3, 1.5), backend=backend)
    r = given.clamp(0.3, 1.5)
    sigma = {
        "logvar": lambda: torch.exp(r / 2) + 0.1,
        "logstd": lambda: torch.exp(r) + 0.1,
        "std": lambda: r + 0.1,
        "var": lambda: torch.sqrt(r + 0.1),
        "softplus": lambda: torch.nn.functional.softplus(r) + 0.1,
    }[param]()
    want, _ = cube(mu, 2 * sigma.log(), z)
    close(out, want)
    for a, b in zip(gradients((out,), (mu, given, z)), gradients((want,), (mu, given, z)), strict=True):
        close(a, b, factor=8)


@each
def test_small_sigmas_keep_their_digits(backend):
    """The expanded square of a matrix product is 50 nats off here."""
    mu = torch.randn(50, 8) * 3
    z = mu[:20] + 0.001 * torch.randn(20, 8)
    got = vf.gaussian_mixture_log_prob(mu, -2 * math.log(1000.0), z, backend=backend)
    want, _ = cube(mu.double(), torch.full((), -2 * math.log(1000.0), dtype=torch.float64), z.double())
    # The differences are exact; a logarithm in float32 is what is left.
    assert ((got - want).abs() <= 64 * EPS[torch.float32] * want.abs().max()).all()


@each
@pytest.mark.parametrize("dtype", EPS, ids=str)
def test_far_and_certain(backend, dtype):
    """Nothing but the nearest component counts, components of no weight do not, and all may be too far."""
    mu = torch.tensor([[0.0, 0.0], [1e4, 1e4], [5.0, -5.0]], dtype=dtype).requires_grad_()
    z = torch.tensor([[1.0, 1.0], [1e4, 1e4 - 1]], dtype=dtype).requires_grad_()
    weights = torch.tensor([0.0, 0.0, -math.inf], dtype=dtype)
    outs = both((mu, torch.zeros((), dtype=dtype), z, weights), backend=backend)
    want, _ = cube(mu, torch.zeros_like(mu), z, weights)
    assert_close(outs[0], want)
    dmu, dz = torch.autograd.grad(outs[0].sum(), (mu, z))
    assert_close(dmu, torch.tensor([[1.0, 1.0], [0.0, -1.0], [0.0, 0.0]], dtype=dtype))
    assert_close(dz, torch.tensor([[-1.0, -1.0], [0.0, 1.0]], dtype=dtype))
    far = torch.full((1, 2), torch.finfo(dtype).max, dtype=dtype).requires_grad_()
    (out,) = (vf.gaussian_mixture_log_prob(mu.detach(), 0.0, far, backend=backend),)
    assert out.item() == -math.inf
    assert torch.autograd.grad(out, far)[0].eq(0).all()


@each
def test_nan_stays_with_its_datum(backend):
    mu, logvar, z = (t.detach() for t in leaves((6, 20, 3), torch.float32))
    clean = both((mu, logvar, z), backend=backend)
    z[2, 1] = math.nan
    for out, before in zip(both((mu, logvar, z), backend=backend), clean, strict=True):
        assert out[2].isnan() and same_bits([out[[0, 1, 3, 4, 5]]], [before[[0, 1, 3, 4, 5]]])


@each
def test_a_weight_of_0_hides_anything(backend):
    mu, logvar, z = leaves((6, 20, 3), torch.float32)
    with torch.no_grad():
        z[2] = math.nan
    weight = torch.tensor([1.0, 2.0, 0.0, 1.0, 0.5, 1.0])
    outs = both((mu, logvar, z), weight=weight, reduction="sum", backend=backend)
    keep = [0, 1, 3, 4, 5]
    want = both((mu, logvar, z[keep]), weight=weight[keep], reduction="sum", backend=backend)
    assert_close(outs, want)
    for a, b in zip(gradients(outs, (mu, logvar)), gradients(want, (mu, logvar)), strict=True):
        assert_close(a, b)
    assert torch.autograd.grad(both((mu, logvar, z), weight=weight, backend=backend)[0].sum(), z)[0][2].eq(0).all()


@each
def test_reductions_and_shapes(backend):
    mu, logvar, z = (t.detach() for t in leaves((24, 20, 3), torch.float32))
    flat = vf.gaussian_mixture_log_prob(mu, logvar, z, backend=backend)
    assert flat.shape == (24,) and flat.dtype == torch.float32
    shaped = vf.gaussian_mixture_log_prob(mu, logvar, z.view(2, 3, 4, 3), backend=backend)
    assert same_bits([shaped], [flat.view(2, 3, 4)])
    for reduction, want in (("sum", flat.double().sum()), ("mean", flat.double().mean())):
        got = vf.gaussian_mixture_log_prob(mu, logvar, z, reduction=reduction, scale=-0.5, backend=backend)
        assert_close(got.double(), -0.5 * want)
    own = mu.expand(24, 20, 3)
    assert_close(vf.gaussian_mixture_log_prob(own, logvar, z, backend=backend), flat)
    strided = torch.randn(3, 24).T.contiguous().T.T
    assert_close(
        vf.gaussian_mixture_log_prob(mu.T.contiguous().T, logvar, strided, backend=backend),
        vf.gaussian_mixture_log_prob(mu, logvar, strided.contiguous(), backend=backend),
    )
    for empty in (z[:0], z.view(2, 3, 4, 3)[:, :0]):
        assert vf.gaussian_mixture_log_prob(mu, logvar, empty, backend=backend).shape == empty.shape[:-1]


@each
@pytest.mark.parametrize("dtype", (torch.bfloat16, torch.float16), ids=str)
def test_half_types_are_computed_in_float32(backend, dtype):
    mu, logvar, z = leaves((9, 20, 3), dtype)
    outs = both((mu, logvar, z), backend=backend)
    wide = [t.detach().float().requires_grad_() for t in (mu, logvar, z)]
    want = both(wide, backend=backend)
    assert same_bits(outs, want) and outs[0].dtype == torch.float32
    for got, w in zip(gradients(outs, (mu, logvar, z)), gradients(want, wide), strict=True):
        assert got.dtype == dtype and same_bits([got], [w.to(dtype)])


@each
def test_derivatives(backend):
    tensors = leaves((3, 4, 2), torch.float64, weights="shared")
    assert torch.autograd.gradcheck(lambda *t: both(t, backend=backend), tensors)
    assert torch.autograd.gradgradcheck(lambda *t: both(t, backend=backend), tensors)


@each
def test_one_upstream_gradient_alone(backend):
    tensors = leaves((5, 30, 3), torch.float64)
    exact = [t.detach().requires_grad_() for t in tensors]
    outs, truth = both(tensors, backend=backend), cube(*exact)
    for k in (0, 1):
        got = torch.autograd.grad(outs[k].sum(), tensors, retain_graph=True)
        want = torch.autograd.grad(truth[k].sum(), exact, retain_graph=True)
        for a, b in zip(got, want, strict=True):
            close(a, b, factor=8)


@each
def test_transforms(backend):
    mu, logvar, z = (t.detach() for t in leaves((5, 6, 3), torch.float64))

    def one(mu, logvar, z):
        return vf.gaussian_mixture_log_prob(mu, logvar, z, backend=backend)

    want = one(mu, logvar, z)
    assert_close(torch.func.vmap(one, in_dims=(None, None, 0))(mu, logvar, z), want)
    dmu = torch.func.grad(lambda m: one(m, logvar, z).sum())(mu)
    leaf = mu.clone().requires_grad_()
    assert_close(dmu, torch.autograd.grad(one(leaf, logvar, z).sum(), leaf)[0])
    _, tangent = torch.func.jvp(one, (mu, logvar, z), (torch.ones_like(mu), logvar, z))
    assert tangent.shape == want.shape and tangent.isfinite().all()
    batched = torch.autograd.grad(one(leaf, logvar, z), leaf, torch.eye(5, dtype=mu.dtype), is_grads_batched=True)
    assert_close(batched[0].sum(0), dmu)


@each
@pytest.mark.parametrize("compiler", ("aot_eager", "inductor"))
def test_compiled(backend, compiler):
    tensors = leaves((5, 30, 3), torch.float32)

    def step(*tensors):
        joint, marginals = both(tensors, backend=backend)
        return (joint - 0.5 * marginals).sum()

    want = step(*tensors)
    got = torch.compile(step, backend=compiler, fullgraph=True)(*tensors)
    assert_close(got, want)
    for a, b in zip(torch.autograd.grad(got, tensors), torch.autograd.grad(want, tensors), strict=True):
        assert_close(a, b)


@each
def test_compiled_of_the_joint_alone(backend):
    mu, logvar, z = leaves((5, 30, 3), torch.float32)
    compiled = torch.compile(vf.gaussian_mixture_log_prob, backend="aot_eager", fullgraph=True)
    got, want = (f(mu, logvar, z, backend=backend).sum() for f in (compiled, vf.gaussian_mixture_log_prob))
    assert_close(got, want)
    assert_close(torch.autograd.grad(got, (mu, z)), torch.autograd.grad(want, (mu, z)))


@each
def test_exported(backend):
    class Module(torch.nn.Module):
        def forward(self, mu, logvar, z):
            return vf.gaussian_mixture_log_prob(mu, logvar, z, backend=backend)

    tensors = tuple(t.detach() for t in leaves((5, 6, 3), torch.float32))
    program = torch.export.export(Module(), tensors)
    assert_close(program.module()(*tensors), Module()(*tensors))


@pytest.mark.skipif("native" not in BACKENDS, reason="the compiled kernels are not there")
class TestNative:
    def test_threads_change_no_bit(self):
        tensors = leaves((300, 700, 9), torch.float32, weights="shared")

        def made():
            outs = both(tensors, backend="native")
            return [*outs, *gradients(outs, tensors)]

        assert same_bits(on_threads(1, made), on_threads(3, made))

    def test_nothing_of_data_times_components_is_kept(self):
        from torch.profiler import ProfilerActivity, profile

        tensors = leaves((256, 256, 10), torch.float32)
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
            outs = both(tensors, backend="native")
            torch.autograd.grad([o.sum() for o in outs], tensors)
        largest = max(event.cpu_memory_usage for event in watched.events())
        assert largest <= 8 * 4 * 256 * 10, "more than a few tables of the operands' size"

    def test_the_raw_operator_checks_what_it_reads(self):
        op = torch.ops.vae_fast.gaussian_mixture_log_prob_fwd
        z, components, weights = torch.zeros(4, 3), [torch.zeros(5, 3) for _ in range(3)], torch.zeros(5)
        op(z, *components, weights, True)
        for wrong in (
            (z[:, :2], *components, weights),
            (z, components[0], torch.zeros(5, 3, dtype=torch.float64), components[2], weights),
            (z, *components, weights[:4]),
            (z, torch.zeros(3, 5, 3), *components[1:], weights),
            (z.half(), *components, weights),
            (z[0], *components, weights),
        ):
            with pytest.raises((RuntimeError, ValueError)):
                op(*wrong, True)


@pytest.mark.parametrize(
    ("change", "words"),
    (
        ({"z": torch.zeros(4, 2)}, "mu must be"),
        ({"mu": torch.zeros(3)}, "mu must be"),
        ({"mu": torch.zeros(0, 3)}, "needs a component"),
        ({"mu": torch.zeros(2, 5, 3)}, "mu must be"),
        ({"logvar": torch.zeros(4, 5, 3)}, "logvar"),
        ({"log_weight": torch.zeros(4)}, "log_weight must be"),
        ({"weight": torch.zeros(3)}, "do not broadcast"),
        ({"weight": torch.zeros(2, 4)}, "weight must broadcast"),
        ({"reduction": "max"}, "reduction must be"),
        ({"param": "sigma"}, "param must be"),
        ({"bounds": (1.0, 0.0)}, "low <= high"),
        ({"backend": "fast"}, "unknown backend"),
    ),
    ids=lambda v: v if isinstance(v, str) else "-".join(v),
)
def test_refusals(change, words):
    call = {"mu": torch.zeros(5, 3), "logvar": torch.zeros(5, 3), "z": torch.zeros(4, 3)} | change
    with pytest.raises(ValueError, match=words):
        vf.gaussian_mixture_log_prob(call.pop("mu"), call.pop("logvar"), call.pop("z"), **call)


@pytest.mark.parametrize("name", ("mu", "logvar", "z", "log_weight"))
def test_wrong_types(name):
    call = {"mu": torch.zeros(5, 3), "logvar": torch.zeros(5, 3), "z": torch.zeros(4, 3)}
    call[name] = torch.zeros(5, 3, dtype=torch.int64)
    with pytest.raises(TypeError, match=f"{name} must be"):
        vf.gaussian_mixture_log_prob(call.pop("mu"), call.pop("logvar"), call.pop("z"), **call)


def published(z, mu, logvar, n_data, stratified):
    """The minibatch estimates of rtqichen's beta-tcvae, with its matrix written out."""
    n = len(z)
    terms = -0.5 * ((z[:, None] - mu) ** 2 * torch.exp(-logvar) + logvar + math.log(2 * math.pi))
    if not stratified:
        shift = math.log(n * n_data)
        return torch.logsumexp(terms.sum(2), 1) - shift, (torch.logsumexp(terms, 1) - shift).sum(1)
    others = n - 1
    weights = torch.full((n * n,), 1 / others, dtype=z.dtype)
    weights[:: others + 1] = 1 / n_data
    weights[1 :: others + 1] = (n_data - others) / (n_data * others)
    weights = weights.view(n, n)
    weights[others - 1, 0] = (n_data - others) / (n_data * others)
    log_iw = weights.log()
    return torch.logsumexp(log_iw + terms.sum(2), 1), torch.logsumexp(log_iw[:, :, None] + terms, 1).sum(1)


@each
@pytest.mark.parametrize("estimator", ("mws", "mss"))
@pytest.mark.parametrize("dtype", EPS, ids=str)
def test_total_correlation_as_published(backend, estimator, dtype):
    tensors = leaves((50, 50, 6), dtype)
    exact = [t.detach().double().requires_grad_() for t in tensors]
    got = vf.total_correlation(*tensors, n_data=1000, estimator=estimator, backend=backend)
    joint, marginals = published(exact[2], exact[0], exact[1], 1000, estimator == "mss")
    want = joint - marginals
    assert got.shape == (50,)
    close(got, want, dtype=dtype)
    for a, b in zip(gradients((got,), tensors), gradients((want,), exact), strict=True):
        close(a, b, factor=32, dtype=dtype)


def test_total_correlation_refuses():
    mu = torch.zeros(5, 3)
    for kwargs, error, words in (
        ({"n_data": 4}, ValueError, "at least"),
        ({"n_data": 10.0}, TypeError, "n_data must be an int"),
        ({"n_data": 10, "estimator": "mc"}, ValueError, "estimator must be"),
    ):
        with pytest.raises(error, match=words):
            vf.total_correlation(mu, 0.0, mu, **kwargs)
    with pytest.raises(ValueError, match=r"both be \[B, D\]"):
        vf.total_correlation(mu, 0.0, mu[:2], n_data=10)
    with pytest.raises(ValueError, match="needs two data"):
        vf.total_correlation(mu[:1], 0.0, mu[:1], n_data=10, estimator="mss")
    assert vf.total_correlation(mu[:0], 0.0, mu[:0], n_data=10).shape == (0,)
