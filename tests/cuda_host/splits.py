"""Every way in which csrc/cuda splits its work, against the reference in float64; prints a digest of all bits.

Run with the package of build.py on the path; with "large", of more elements too; with "even", only the kernels for
even chunks, against the general ones. The digest is the same under every schedule, or a barrier is missing.
"""

import hashlib
import itertools
import math
import sys

import torch

import vae_fast as vf

# (rows, columns): groups of 1 to 256 threads, the last block part full, rows in segments, several blocks' totals.
SHAPES = ((1, 1), (3, 5), (37, 20), (2, 130), (9, 784), (40, 300), (600, 3), (2, 5001))
# Elements before the first: 1 is no multiple of 16 bytes.
OFFSETS = (0, 1)
DTYPES = (torch.float32, torch.float64, torch.bfloat16)

HALVES = (torch.bfloat16, torch.float16)
# What terms of half types, and their gradients before they are rounded, are off by (csrc/light.h).
LIGHT = 1e-5

torch.manual_seed(0)
torch.set_num_threads(1)
digest = hashlib.sha256()


def placed(value, offset, dtype):
    memory = torch.full((value.numel() + offset,), torch.nan if dtype.is_floating_point else 77, dtype=dtype)
    return memory[offset:].view(value.shape).copy_(value)


def check(name, got, want, terms, summed, of=None):
    """Within 3ε a term and what float32 sums add; half results rounded once more. ``of``: the operands' dtype."""
    digest.update(got.reshape(-1).view(torch.uint8).numpy().tobytes())
    compute = torch.float64 if got.dtype == torch.float64 else torch.float32
    info, half = torch.finfo(got.dtype), got.dtype in (torch.bfloat16, torch.float16)
    # Of a half type's numbers below the normal ones, what lies between two of them.
    own = info.eps * want.abs().clamp(min=info.smallest_normal) if half else 1e-30
    error = torch.finfo(compute).eps * (7 + math.log2(summed))
    bound = (max(error, LIGHT) if of in HALVES else error) * terms + own
    wrong = ~((got.double() - want).abs() <= bound)
    assert not wrong.any(), f"{name}: {got[wrong][:3]} instead of {want[wrong][:3]}"


def density(shape, offset, dtype):
    rows, columns = shape
    logits, x = torch.randn(shape, dtype=torch.float64), torch.rand(shape, dtype=torch.float64)
    logits, x = placed(logits, offset, dtype), placed(x, 0, dtype)
    per_feature = placed(torch.randn(columns, dtype=torch.float64), offset, dtype)
    per_row = placed(torch.randn(rows, 1, dtype=torch.float64), 0, dtype)
    for logvar, reduction in itertools.product(
        (logits * 0.3, per_feature, per_row, per_feature[:1]), ("none", "sum")
    ):
        mean, raw, data = (t.detach().requires_grad_() for t in (logits, logvar, x))
        out = vf.gaussian_log_prob(mean, raw, data, reduction=reduction, backend="native")
        upstream = torch.randn(out.shape, dtype=torch.float64).to(out.dtype)
        grads = torch.autograd.grad(out, (mean, raw, data), upstream)
        m, r, t, g = (v.detach().double() for v in (mean, raw, data, upstream))
        square, slope = (t - m) ** 2 * torch.exp(-r) / 2, (t - m) * torch.exp(-r)
        terms, g = -(square + r / 2 + math.log(2 * math.pi) / 2), g.reshape(-1, 1)
        sizes = square + r.abs() / 2 + 1
        over = 1 if reduction == "none" else (0, 1)
        name = f"{shape} {offset} {dtype} {tuple(raw.shape)} {reduction}"
        check(name, out.detach(), terms.sum(over), sizes.sum(over), rows * columns, dtype)
        check(f"{name} dmean", grads[0], g * slope, (g * slope).abs(), 1)
        check(f"{name} dx", grads[2], -g * slope, (g * slope).abs(), 1)
        draw, sizes = g * (square - 0.5), (g * (square + 0.5)).abs()
        want, sizes = draw.sum_to_size(raw.shape), sizes.expand(shape).sum_to_size(raw.shape)
        check(f"{name} dlogvar", grads[1], want, sizes, rows * columns)
    if dtype == torch.float32:
        out = vf.bernoulli_log_prob(logits, (x > 0.5), backend="native")
        wrong = torch.where(logits > 0, 1 - (x > 0.5).double(), (x > 0.5).double())
        want = -(logits.double().abs() * wrong + torch.log1p(torch.exp(-logits.double().abs())))
        check(f"{shape} bernoulli", out, want.sum(1), -want.sum(1), columns)
    p, data = torch.sigmoid(logits).requires_grad_(), x.detach().requires_grad_()
    out = vf.bernoulli_log_prob(p, data, reduction="sum", param="probs", backend="native")
    grads = torch.autograd.grad(out, (p, data))
    q, t = p.detach().double(), data.detach().double()
    logs = [log.clamp(min=-100) for log in (torch.log(q), torch.log1p(-q))]
    want = (t * logs[0] + (1 - t) * logs[1]).sum()
    check(f"{shape} {offset} {dtype} probs", out.detach(), want, -want, rows * columns)
    slope = (t - q) / (q * (1 - q)).clamp(min=1e-12)
    check(f"{shape} {offset} {dtype} dp", grads[0], slope, slope.abs(), 1)
    check(f"{shape} {offset} {dtype} dt", grads[1], logs[0] - logs[1], -logs[0] - logs[1], 1)


def samples(shape, offset, dtype):
    mu, raw = (placed(torch.randn(shape, dtype=torch.float64), offset, dtype).requires_grad_() for _ in range(2))
    for count, index in ((), 0), ((5,), 3):
        z, kl = vf.rsample_kl(mu, raw, count, seed=3, offset=index, backend="native")
        dz = torch.randn(z.shape, dtype=torch.float64).to(z.dtype)
        dkl = torch.randn(kl.shape, dtype=torch.float64).to(kl.dtype)
        grads = torch.autograd.grad((z, kl), (mu, raw), (dz, dkl))
        eps = vf.noise.normals(count, shape, 3, None, index, 0, mu.device).double()
        m, r, g, h = (t.detach().double() for t in (mu, raw, dz, dkl))
        sigma, h = torch.exp(r / 2), h.reshape(-1, 1)
        name = f"{shape} {offset} {dtype} {count}"
        check(f"{name} z", z.detach(), m + sigma * eps, m.abs() + (sigma * eps).abs(), 1)
        spread = (torch.expm1(r) - r) / 2
        want = (m * m / 2 + spread).sum(1)
        check(f"{name} kl", kl.detach(), want, want + 1e-3, shape[1], dtype)
        over = [0] if count else []
        total, terms = (g.sum(over), g.abs().sum(over)) if count else (g, g.abs())
        noisy = (g * eps).sum(over) if count else g * eps
        noisy_terms = (g * eps).abs().sum(over) if count else (g * eps).abs()
        check(f"{name} dmu", grads[0], total + h * m, terms + (h * m).abs(), 5)
        growth = h * torch.expm1(r) / 2
        check(
            f"{name} dlogvar",
            grads[1],
            sigma / 2 * noisy + growth,
            sigma / 2 * noisy_terms + growth.abs() + 1e-7,
            5,
        )


def weighted(shape, offset, dtype, kind):
    """Operands of several dtypes, a weight of any shape: its gradient is of what the operands are, all else 0 at 0.

    Where the first row's weights are 0, its upstream gradients are infinite; targets are bools of any byte.
    """
    rows, columns = shape
    logits = placed(torch.randn(shape, dtype=torch.float64), offset, dtype).requires_grad_()
    mean = placed(torch.randn(shape, dtype=torch.float64), offset, dtype).requires_grad_()
    raw = placed(torch.randn(shape, dtype=torch.float64), offset, torch.float32).requires_grad_()
    x = placed(torch.randint(0, 3, shape) * 127, offset, torch.uint8).view(torch.bool)
    shapes = (shape, (rows, 1), (columns,), ())
    for own, density in itertools.product(shapes, (vf.bernoulli_log_prob, vf.gaussian_kl)):
        weight = torch.rand(own, dtype=torch.float64) + 0.5
        if len(own) == 2:
            weight[0] = 0
        # One of no dims does not make arithmetic float64.
        weight = placed(weight, offset, kind if own else dtype).requires_grad_()
        operands = (logits, x) if density is vf.bernoulli_log_prob else (mean, raw)
        leaves = [t for t in (*operands, weight) if t.is_floating_point()]
        out = density(*operands, weight=weight, backend="native")
        upstream = torch.randn(out.shape, dtype=torch.float64).to(out.dtype)
        infinite = upstream.clone()
        if len(own) == 2:
            infinite[0] = torch.inf
        grads = torch.autograd.grad(out, leaves, upstream, retain_graph=True)
        masked = torch.autograd.grad(out, leaves, infinite)
        with torch.no_grad():
            values = [logits.double(), (x.view(torch.uint8) != 0).double(), mean.double(), raw.double()]
            y, t, m, r = values
            if density is vf.bernoulli_log_prob:
                wrong = torch.where(y > 0, 1 - t, t)
                each = -(y.abs() * wrong + torch.log1p(torch.exp(-y.abs())))
                slopes = [t - torch.sigmoid(y)]
            else:
                each, slopes = (m * m + torch.expm1(r) - r) / 2, [m, torch.expm1(r) / 2]
            w, g = weight.double().expand(shape), upstream.double().reshape(-1, 1)
            sizes = each.abs() + (0 if density is vf.bernoulli_log_prob else r.abs() + 1)
        name = f"weighted {density.__name__} {shape} {offset} {dtype} {kind} {own}"
        assert [t.dtype for t in grads] == [t.dtype for t in leaves], name
        check(name, out.detach(), (each * w).sum(1), (sizes * w).sum(1), columns, dtype)
        for got, slope in zip(grads, slopes, strict=False):
            check(f"{name} slope", got, g * w * slope, (g * w).abs() * (slope.abs() + 1), 1)
        want, terms = (g * each).sum_to_size(own), (g.abs() * sizes).sum_to_size(own)
        check(f"{name} dweight", grads[-1], want, terms, rows * columns, dtype)
        for got, finite in zip(masked[:-1], grads, strict=False):
            assert torch.equal(got, finite), f"{name}: an infinite upstream gradient at a weight of 0"


def even(shape, dtype, form):
    """Kernels for even chunks, and the general ones on the same numbers an element further on: the same bits.

    Of sums, what their order makes of them.
    """
    values = [torch.randn(shape, dtype=torch.float64) for _ in range(4)]
    mu, raw, prior_raw, x = values[0], values[1] * 0.5, values[2] * 0.5, torch.rand(shape, dtype=torch.float64)
    pixels, floored = (x * 255).to(torch.uint8), {"free_bits": 0.3, **form}
    # 1/σ² that is no ordinary number, in one chunk of many.
    extreme = raw.clone()
    extreme.view(-1)[::1000] = 100
    mean, counts = torch.exp(values[2]), torch.poisson(torch.exp(values[2])).clamp(max=200)
    df, one = 2 + values[3].abs(), torch.full((), 1.5, dtype=torch.float64)
    calls = [
        (vf.bernoulli_log_prob, (mu,), x.to(dtype), {}),
        (vf.bernoulli_log_prob, (mu,), x.float(), {}),
        (vf.bernoulli_log_prob, (mu,), pixels, {"x_scale": 1 / 255}),
        (vf.bernoulli_log_prob, (mu,), x > 0.5, {}),
        (vf.bernoulli_log_prob, (torch.sigmoid(mu),), x.to(dtype), {"param": "probs"}),
        (vf.gaussian_log_prob, (mu, raw), x.to(dtype), form),
        (vf.gaussian_log_prob, (mu, one), x.to(dtype), form),
        (vf.gaussian_log_prob, (mu, raw), pixels, {"x_scale": 1 / 255, **form}),
        (vf.gaussian_kl, (mu, raw), None, form),
        (vf.gaussian_kl, (mu, raw), None, floored),
        (vf.gaussian_kl, (mu, raw, values[3], prior_raw), None, form),
        (vf.gaussian_kl, (mu, raw, values[3], prior_raw), None, floored),
        (vf.rsample, (mu, raw), None, {"seed": 5, **form}),
        (vf.rsample, (mu, raw), None, {"seed": 5, "temperature": 0.7, **form}),
        (vf.rsample_kl, (mu, raw), None, {"seed": 5, **form}),
        (vf.rsample_kl, (mu, raw), None, {"seed": 5, **floored}),
    ]
    if not form:
        calls += [
            (vf.gaussian_log_prob, (mu, extreme), x.to(dtype), form),
            (vf.continuous_bernoulli_log_prob, (mu,), x.to(dtype), {}),
            (vf.laplace_log_prob, (mu, raw), x.to(dtype), {"param": "log_scale"}),
            (vf.laplace_log_prob, (mu, one), x.to(dtype), {}),
            (vf.student_t_log_prob, (mu, mean, df), x.to(dtype), {}),
            (vf.student_t_log_prob, (mu, one, one * 3), x.to(dtype), {}),
            (vf.poisson_log_prob, (mean,), counts.to(dtype), {}),
            (vf.negative_binomial_log_prob, (mean, df), counts.to(dtype), {}),
            (vf.negative_binomial_log_prob, (mean, df[0]), counts.float(), {}),
            (vf.negative_binomial_log_prob, (mean, one), counts.to(dtype), {"zero_logits": mu}),
            (vf.negative_binomial_log_prob, (mean, df), counts.to(dtype), {"zero_logits": mu}),
        ]
    for function, operands, data, options in calls:
        samples = function in (vf.rsample, vf.rsample_kl)
        for reduction, wanted in itertools.product(("none",) if samples else ("none", "sum"), (False, True)):
            results = []
            for offset in OFFSETS:
                leaves = [
                    (placed(t, offset, dtype) if t.ndim else t.to(dtype)).requires_grad_(wanted) for t in operands
                ]
                own = [] if data is None else [placed(data, offset, data.dtype)]
                more = {} if samples else {"reduction": reduction}
                options = {
                    k: placed(v, offset, dtype) if isinstance(v, torch.Tensor) else v for k, v in options.items()
                }
                outs = function(*leaves, *own, backend="native", **options, **more)
                outs = outs if isinstance(outs, tuple) else (outs,)
                upstream = [torch.cos(torch.arange(float(o.numel()))).view(o.shape).to(o.dtype) for o in outs]
                results.append([*outs, *(torch.autograd.grad(outs, leaves, upstream) if wanted else ())])
            name = f"even {function.__name__} {shape} {dtype} {options} {reduction} {wanted}"
            for n, (one, other) in enumerate(zip(*results, strict=True)):
                if one.shape == shape:
                    assert torch.equal(one, other), name
                    continue
                if n >= len(outs):  # a gradient that is a sum
                    close = 2e-2 if dtype in (torch.bfloat16, torch.float16) else 1e-4
                    torch.testing.assert_close(one, other, rtol=close, atol=close * math.sqrt(mu.numel()), msg=name)
                    continue
                density = vf.gaussian_kl if samples else function
                own_options = {k: v for k, v in options.items() if k not in ("seed", "temperature")}
                each = density(*leaves, *own, backend="reference", event_ndim=0, **own_options).detach().double()
                terms = each.abs().sum(1 if one.ndim else (0, 1))
                check(name, one.detach(), other.detach().double(), 2 * terms, mu.numel())


def wide():
    """One value a feature of more features than one row of blocks takes at a time."""
    mean, x = torch.randn(9, 17_000), torch.rand(9, 17_000)
    raw = torch.randn(17_000, requires_grad=True)
    (grad,) = torch.autograd.grad(vf.gaussian_log_prob(mean, raw, x, reduction="sum", backend="native"), raw)
    square = (x.double() - mean.double()) ** 2 * torch.exp(-raw.detach().double()) / 2
    check("wide dlogvar", grad, (square - 0.5).sum(0), (square + 0.5).sum(0), 9)


def options(shape, offset, dtype):
    """What the calls above leave at its default, against the reference in float64: results and every gradient."""
    rows, columns = shape
    calls = []
    for form, event_ndim in itertools.product(({}, {"bounds": (-0.5, 0.5)}, {"param": "softplus"}), (0, 1)):
        for own in (shape, (columns,), (rows, 1)):
            for count in ((), (3,), (2, 3)):
                noise = {"seed": 7, "offset": 4 * offset, "first_sample": 1, "stream": 1, **form}
                noise["sample_shape"] = count
                calls.append((vf.rsample_kl, (shape, own), {**noise, "event_ndim": event_ndim, "free_bits": 0.1}))
                if event_ndim:
                    calls.append((vf.rsample, (shape, own), noise))
                q_grad = "path" if count else "total"
                densities = {**noise, "event_ndim": event_ndim, "q_grad": q_grad}
                calls.append((vf.rsample_log_prob, (shape, own), densities))
        for own in ((3, *shape), shape, (columns,), (3, 1, columns), (3, rows, 1), (3, 1, 1)):
            scaled = {"scale": -0.5, "event_ndim": event_ndim, **form}
            calls.append((vf.gaussian_kl, ((3, *shape), own), {**scaled, "free_bits": 0.1}))
            calls.append((vf.gaussian_log_prob, ((3, *shape), own, shape), scaled))
    for function, shapes, given in calls:
        drawn = [placed(torch.randn(s, dtype=torch.float64), offset, dtype) for s in shapes]
        like_the_reference(f"{function.__name__} {shapes} {offset} {dtype}", function, drawn, given)


def like_the_reference(name, function, drawn, given):
    """Results and every gradient, against the reference in float64."""
    narrow = [t.detach().requires_grad_() for t in drawn]
    exact = [t.detach().double().requires_grad_() for t in drawn]
    outs, wanted = (
        function(*operands, backend=b, **given) for operands, b in ((narrow, "native"), (exact, "reference"))
    )
    outs, wanted = ((t,) if isinstance(t, torch.Tensor) else t for t in (outs, wanted))
    upstream = [torch.randn(t.shape, dtype=torch.float64).to(t.dtype) for t in outs]
    got = (*outs, *torch.autograd.grad(outs, narrow, upstream))
    want = (*wanted, *torch.autograd.grad(wanted, exact, [g.double() for g in upstream]))
    close = 1e-2 if drawn[0].dtype == torch.bfloat16 else 1e-4
    for k, (a, b) in enumerate(zip(got, want, strict=True)):
        digest.update(a.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        far = ~((a.double() - b).abs() <= close * b.abs().max())
        assert not far.any(), f"{name} {given}, {k}: {a[far][:3]}, {b[far][:3]}"


def counts(shape, offset, dtype):
    """A parameter a feature and one a datum; a mean given, and as a softmax's share of a library."""
    rows, columns = shape
    x = torch.poisson(torch.rand(shape) * 3)

    def likelihood(mean, theta, zero_logits, library, *, param, backend):
        mean, more = (mean.exp(), {}) if param == "mean" else (mean, {"log_library": library})
        return vf.negative_binomial_log_prob(
            mean, theta.exp(), x, zero_logits=zero_logits, param=param, backend=backend, **more
        ) + (library.sum() * 0 if param == "mean" else 0)

    shapes = (shape, (columns,), shape, (rows, 1))
    drawn = [placed(torch.randn(s, dtype=torch.float64), offset, dtype) for s in shapes]
    for param in ("mean", "softmax"):
        like_the_reference(f"counts {shape} {offset} {dtype}", likelihood, drawn, {"param": param})


def mixture(shape, dtype, own, weights):
    """Components for all data or each datum's own, and weights so too: all dims together, and each alone."""
    rows, components, dims = shape
    of = (rows, components) if own else (components,)

    def likelihood(mu, logvar, z, log_weight=None, *, backend):
        return vf.gaussian_mixture_log_prob(mu, logvar, z, log_weight=log_weight, per_dim=True, backend=backend)

    drawn = [torch.randn((*of, dims)), torch.randn((*of, dims)) * 0.3, torch.randn(rows, dims)]
    if weights:
        drawn.append(torch.randn((rows, components) if weights == "own" else (components,)))
    like_the_reference(f"mixture {shape} {dtype} {own} {weights}", likelihood, [t.to(dtype) for t in drawn], {})


def discrepancy(n, m, dims, dtype):
    """More constants than one launch takes, which is a sum of two; and the kernel without any."""
    drawn = [t.to(dtype) for t in (torch.randn(n, dims), torch.randn(m, dims) * 1.3 + 0.2)]
    for given in ({"scales": [0.1 * k for k in range(1, 19)]}, {"kernel": "rbf", "unbiased": False}):
        like_the_reference(f"mmd {n} {m} {dims} {dtype}", vf.mmd, drawn, given)


def logistics(pixels, channels, components, dtype, first):
    """Of several blocks, the last not full; a network's channels last, and first."""
    pairs = channels * (channels - 1) // 2
    x = torch.randint(0, 256, (2, pixels, channels), dtype=torch.uint8)
    parts = [components * n for n in (1, channels, channels, pairs)]

    def likelihood(h, *, backend):
        logits, *others = (h.movedim(1, 2) if first else h).split(parts, 2)
        of = zip(others, (channels, channels, pairs), strict=True)
        mean, log_scale, coefficients = (t.unflatten(2, (n, components)) for t, n in of)
        return vf.logistic_mixture_log_prob(
            logits, mean, log_scale - 2, x, coefficients=coefficients, backend=backend
        )

    h = torch.randn((2, sum(parts), pixels) if first else (2, pixels, sum(parts)))
    like_the_reference(f"logistics {pixels} {channels} {dtype} {first}", likelihood, [h.to(dtype)], {})


def cancelling():
    """Sums over samples of which those that cancel are in one group: what float32 loses of them is kept."""
    mu = torch.zeros(2, 8, requires_grad=True)
    dz = torch.randn(200, 2, 8)
    dz[0], dz[2] = 3e8, -3e8
    (grad,) = torch.autograd.grad(vf.rsample(mu, 0.0, 200, seed=7, backend="native"), mu, dz)
    torch.testing.assert_close(grad.double(), dz.double().sum(0), rtol=2**-22, atol=1e-5)


def rescaled():
    """Gradients of any dtypes by one factor; those of 0 stay so, whatever it is."""
    for dtypes, n, offset, factor in itertools.product(
        itertools.product(DTYPES[:2], repeat=3), (1, 3, 300, 5001), OFFSETS, (1.0, 2.5, 1 / 3, math.inf, math.nan)
    ):
        grads = [
            placed(torch.randn(size, dtype=torch.float64), offset, d)
            for d, size in zip(dtypes, (n, 1), strict=False)
        ]
        grads[0][n // 2 :: 3] = 0
        by = torch.tensor(factor, dtype=dtypes[2])
        wanted = [torch.where(g == 0, 0.0, g.double() * by.double()).to(g.dtype) for g in grads]
        torch.ops.vae_fast.rescale_(by, None, grads[0], None, grads[1])
        for got, want in zip(grads, wanted, strict=True):
            assert torch.equal(got.nan_to_num(7.0), want.nan_to_num(7.0)), f"rescale {dtypes} {n} {offset} {factor}"
            digest.update(got.view(torch.uint8).numpy().tobytes())


def many_blocks():
    """More pieces of work than there are blocks in a sum of everything."""
    logits = torch.randn(1 << 23) * 3 + 1
    x = (torch.rand(logits.shape) < 0.5).to(torch.uint8)
    out = vf.bernoulli_log_prob(logits, x, reduction="sum", backend="native")
    want = -torch.nn.functional.binary_cross_entropy_with_logits(logits.double(), x.double(), reduction="sum")
    check("many blocks", out, want, want.abs(), logits.numel())


if "even" in sys.argv[1:]:
    softplus = {"param": "softplus", "param_eps": 0.1, "bounds": (-0.5, 0.5)}
    dtypes = (*DTYPES, torch.float16)
    for case in itertools.product(((37, 24), (37, 20), (9, 784), (1, 6000)), dtypes, ({}, softplus)):
        even(*case)
    sys.exit()
wide()
cancelling()
rescaled()
if "large" in sys.argv[1:]:
    many_blocks()
# Where one dtype's memory begins aligned the next one's does not, so that each shape has both.
for case in ((s, (k + j) % 2, d) for k, s in enumerate(SHAPES) for j, d in enumerate((*DTYPES, torch.float32))):
    density(*case)
    samples(*case)
    if case[0] in SHAPES[1:5]:
        for kind in (*DTYPES, torch.float16):
            weighted(*case, kind)
for shape, dtype in itertools.product(((3, 5), (9, 784), (2, 5001)), (torch.float32, torch.float64)):
    counts(shape, 0, dtype)
for case in itertools.product(((5, 12), (3, 7)), OFFSETS, (torch.float32, torch.bfloat16)):
    options(*case)
# Tiles that are not full, of one chunk of dims and of several; a part of several tiles; few data, whose components
# are in parts.
for shape, dtype in (((70, 90, 18), torch.float32), ((600, 780, 3), torch.float64), ((3, 300, 5), torch.float32)):
    for weights in (None, "shared", "own"):
        mixture(shape, dtype, False, weights)
for shape, dtype in (((5, 40, 33), torch.float32), ((4, 300, 1), torch.float64)):
    mixture(shape, dtype, True, "own")
for sizes in ((70, 140, 18, torch.float32), (600, 780, 3, torch.float64)):
    discrepancy(*sizes)
for sizes in ((300, 3, 4, torch.float32), (700, 1, 3, torch.float32), (130, 4, 2, torch.float64)):
    for first in (False, True):
        logistics(*sizes, first)
print(digest.hexdigest())
