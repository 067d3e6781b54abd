"""A VAE and its operators in the settings that training code has, on every backend and device there is.

What holds of the operators whatever the backend (torch.func, higher derivatives, grad modes) is in
test_transforms.py, CUDA graphs are in test_gpu.py, several processes in test_distributed.py.
"""

import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.func import functional_call, grad, jacrev, jvp, vmap
from torch.utils.checkpoint import checkpoint

import vae_fast as vf
from helpers import accuracy
from helpers.calls import same_bits
from helpers.marks import each_backend, each_call, each_density

pytestmark = each_backend

KINDS = {
    "bernoulli": lambda: vf.VAE(vf.GaussianMLP(9, 4, 16), vf.BernoulliMLP(4, 9, 16)),
    "gaussian": lambda: vf.VAE(vf.GaussianMLP(9, 4, 16), vf.GaussianMLP(4, 9, 16), beta=0.5),
}
each_kind = pytest.mark.parametrize("kind", KINDS)
each_half = pytest.mark.parametrize("half", [torch.bfloat16, torch.float16], ids=str)
# The same operators in another grouping: float32 roundings of sums of tens of terms.
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


@pytest.fixture
def vae(kind):
    return KINDS[kind]()


def device():
    return torch.get_default_device().type


def data(n):
    return torch.rand(n, 9)


def gradients(loss, module):
    return torch.autograd.grad(loss, list(module.parameters()))


@pytest.fixture
def counter():
    """A compiler that counts the graphs it gets and differentiates them as inductor would, without fusing."""
    torch._dynamo.reset()
    yield CompileCounterWithBackend("aot_eager")
    torch._dynamo.reset()


class TestCompile:
    @pytest.mark.compiles
    @each_call
    def test_operators_recompile_once(self, call, counter):
        """For the second batch size and seed, which makes both variables; never again."""
        compiled = torch.compile(call, backend=counter, fullgraph=True)
        for step, n in enumerate((5, 8, 3)):
            tensors = call.draw((n, 4))
            options = {"seed": 1000 + step} if not call.density else {"reduction": "mean", "scale": -1.0}
            ours, theirs = compiled(*tensors, **options), call(*tensors, **options)
            torch.testing.assert_close(ours, theirs, **CLOSE)
            wanted = call.wanted(tensors)
            grads = [torch.autograd.grad([o.sum() for o in outs], wanted) for outs in (ours, theirs)]
            torch.testing.assert_close(*grads, **CLOSE)
            assert counter.frame_count == min(step + 1, 2)

    @pytest.mark.parametrize(("kind", "seeded"), [("bernoulli", True), ("gaussian", False)])
    def test_steps_recompile_once(self, vae, seeded, counter):
        """Batches of several sizes, a new seed a step, β on its way up: two graphs, and eager's gradients."""
        compiled = torch.compile(vae, backend=counter, fullgraph=True)
        for step, n in enumerate((5, 8, 3, 30)):
            x, options = data(n), {"seed": 1000 + step} if seeded else {}
            vae.beta = 0.1 * (step + 1)
            found = []
            for function in (compiled, vae):
                torch.manual_seed(step)
                out = function(x, **options)
                found.append((*out, *gradients(out.loss, vae)))
            torch.testing.assert_close(*found, **CLOSE)
            assert counter.frame_count == min(step + 1, 2)

    def test_by_inductor(self):
        """The real compiler, forward and backward, any batch size."""
        vae = vf.VAE(vf.GaussianMLP(9, 4, ()), vf.BernoulliMLP(4, 9, ()))
        torch._dynamo.reset()
        compiled = torch.compile(vae, fullgraph=True, dynamic=True)
        for seed, n in ((1001, 5), (1002, 8)):
            x = data(n)
            found = [(*out, *gradients(out.loss, vae)) for out in (compiled(x, seed=seed), vae(x, seed=seed))]
            torch.testing.assert_close(*found, **CLOSE)


class TestExport:
    @each_kind
    def test_a_step(self, vae):
        """Values and gradients of any batch."""

        class Loss(nn.Module):
            def __init__(self):
                super().__init__()
                self.vae = vae

            def forward(self, x):
                return self.vae(x, seed=7).loss

        batch = torch.export.Dim("batch", min=2)
        program = torch.export.export(Loss(), (data(5),), dynamic_shapes={"x": {0: batch}}).module()
        for n in (5, 8, 30):
            x = data(n)
            ours, theirs = program(x), vae(x, seed=7).loss
            torch.testing.assert_close(ours, theirs, **CLOSE)
            torch.testing.assert_close(gradients(ours, program), gradients(theirs, vae), **CLOSE)


class Probe:
    """Keeps what the encoder and the decoder of a VAE return."""

    def __init__(self, vae):
        self.seen = {}
        for name in ("encoder", "decoder"):
            getattr(vae, name).register_forward_hook(lambda m, i, out, name=name: self.seen.update({name: out}))


class TestAutocast:
    @each_half
    @each_kind
    def test_a_step(self, vae, half, backend):
        """The networks' outputs are half, the densities float32: those of the same numbers, widened."""
        probe = Probe(vae)
        x = data(8)
        with torch.autocast(device(), half):
            out = vae(x, seed=3)
        grads = gradients(out.loss, vae)
        mu, logvar = probe.seen["encoder"]
        decoded = probe.seen["decoder"]
        decoded = decoded if isinstance(decoded, tuple) else (decoded,)
        assert {t.dtype for t in (mu, logvar, *decoded, out.z)} == {half}
        assert {t.dtype for t in (out.elbo, out.log_likelihood, out.kl, out.loss, *grads)} == {torch.float32}
        z, kl = vf.rsample_kl(mu.float(), logvar.float(), seed=3)
        density = vf.bernoulli_log_prob if len(decoded) == 1 else vf.gaussian_log_prob
        log_likelihood = density(*(t.float() for t in decoded), x)
        if accuracy.is_light(mu, backend=backend):
            eps = torch.finfo(half).eps
            torch.testing.assert_close(out.z, z.to(half), rtol=eps, atol=eps)
            torch.testing.assert_close(out.kl, kl, rtol=accuracy.LIGHT, atol=accuracy.LIGHT)
            torch.testing.assert_close(out.log_likelihood, log_likelihood, rtol=accuracy.LIGHT, atol=accuracy.LIGHT)
        else:
            assert same_bits((out.z, out.kl, out.log_likelihood), (z.to(half), kl, log_likelihood))
        # 8 or 11 bits of precision through four layers, against float32 throughout.
        full = vae(x, seed=3)
        eps = torch.finfo(half).eps
        torch.testing.assert_close(out.elbo, full.elbo, rtol=8 * eps, atol=8 * eps)
        for ours, theirs in zip(grads, gradients(full.loss, vae), strict=True):
            assert torch.linalg.vector_norm(ours - theirs) <= 8 * eps * torch.linalg.vector_norm(theirs)

    @each_call
    @each_half
    def test_operators(self, call, half):
        """Autocast changes nothing: not the dtype of the results, and not a bit of them or of the gradients."""
        for operands in (call.draw((3, 4)), call.draw((3, 4), half)):
            plain = call.with_grads(*operands)
            with torch.autocast(device(), half):
                assert same_bits(call.with_grads(*operands), plain)


class TestGradScaler:
    @each_density
    def test_a_power_of_two_is_undone_exactly(self, call):
        """The gradients that a reduction's forward pass leaves are scaled like any other."""
        tensors = call.draw((5, 4))
        plain = call.with_grads(*tensors, reduction="mean", scale=-1.0)[1:]
        scaler = torch.amp.GradScaler(device(), init_scale=2.0**16)
        wanted = call.wanted(tensors)
        optimizer = torch.optim.SGD(wanted, lr=0.0)
        scaler.scale(call(*tensors, reduction="mean", scale=-1.0)[0]).backward()
        scaler.unscale_(optimizer)
        assert same_bits([t.grad for t in wanted], plain)

    @each_kind
    def test_steps_in_fp16(self, vae):
        """With autocast: an overflow skips its step and halves the scale, later steps are those without a scale."""
        x, other = data(8), copy.deepcopy(vae)
        scaler = torch.amp.GradScaler(device(), init_scale=2.0**26)
        optimizer = torch.optim.SGD(vae.parameters(), lr=0.1)
        skipped = 0
        while skipped < 26:
            before = [p.detach().clone() for p in vae.parameters()]
            with torch.autocast(device(), torch.float16):
                loss = vae(x, seed=3).loss
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            if not same_bits(before, list(vae.parameters())):
                break
            skipped += 1
            assert scaler.get_scale() == 2.0 ** (26 - skipped)
        assert 2 < skipped < 26
        with torch.autocast(device(), torch.float16):
            plain = gradients(other(x, seed=3).loss, other)
        for p, q, g in zip(vae.parameters(), other.parameters(), plain, strict=True):
            # Half gradients, rounded with the scale and without, where the small ones are subnormal.
            assert torch.linalg.vector_norm(p - (q - 0.1 * g)) <= 2e-3 * torch.linalg.vector_norm(0.1 * g)


class TestCheckpoint:
    @each_kind
    @pytest.mark.parametrize("use_reentrant", [True, False])
    @pytest.mark.parametrize("options", [{}, {"seed": 7}], ids=str)
    def test_the_recomputation_draws_the_same_noise(self, vae, use_reentrant, options):
        x = data(5).requires_grad_()

        def run(through):
            torch.manual_seed(8)
            loss = through(x)
            # What is drawn in between must have no part in it.
            torch.randn(3)
            loss.backward()
            found = [loss.detach(), x.grad, *(p.grad for p in vae.parameters())]
            vae.zero_grad()
            x.grad = None
            return found

        def loss(x):
            return vae(x, **options).loss

        ours = run(lambda x: checkpoint(loss, x, use_reentrant=use_reentrant))
        assert same_bits(ours, run(loss))
        # The random state is what it takes, unless there is a seed.
        ours = run(lambda x: checkpoint(loss, x, use_reentrant=use_reentrant, preserve_rng_state=False))
        assert same_bits(ours, run(loss)) == ("seed" in options)


class TestTransforms:
    """The reference's formulas serve, whatever backend is named."""

    @each_kind
    def test_functional(self, vae):
        x = data(5)
        parameters = {name: p.detach() for name, p in vae.named_parameters()}

        def loss(parameters, x):
            return functional_call(vae, parameters, (x,), {"seed": 3}).loss

        expected = gradients(vae(x, seed=3).loss, vae)
        torch.testing.assert_close(tuple(grad(loss)(parameters, x).values()), expected, **CLOSE)
        torch.testing.assert_close(tuple(jacrev(loss)(parameters, x).values()), expected, **CLOSE)
        tangents = {name: torch.randn_like(p) for name, p in parameters.items()}
        moved = jvp(lambda p: loss(p, x), (parameters,), (tangents,))[1]
        along = sum((g * t).sum() for g, t in zip(expected, tangents.values(), strict=True))
        torch.testing.assert_close(moved, along, rtol=1e-4, atol=1e-5)

    @each_kind
    def test_per_example_gradients(self, vae):
        x = data(5)
        parameters = {name: p.detach() for name, p in vae.named_parameters()}

        def loss(parameters, x):
            return functional_call(vae, parameters, (x[None],), {"seed": 3}).loss

        rows = vmap(grad(loss), in_dims=(None, 0))(parameters, x)
        for i in range(5):
            expected = gradients(vae(x[i : i + 1], seed=3).loss, vae)
            torch.testing.assert_close(tuple(g[i] for g in rows.values()), expected, **CLOSE)

    @each_kind
    def test_double_backward(self, vae):
        """A gradient penalty, against the reference."""

        def penalty():
            x = data(5).requires_grad_()
            (dx,) = torch.autograd.grad(vae(x, seed=3).loss, x, create_graph=True)
            return gradients(dx.square().sum(), vae)

        torch.manual_seed(1)
        ours = penalty()
        torch.manual_seed(1)
        with vf.use_backend("reference"):
            torch.testing.assert_close(ours, penalty(), rtol=1e-4, atol=1e-6)


class TestModes:
    @each_kind
    def test_without_a_graph(self, vae):
        x = data(5)
        expected = vae(x, seed=3)
        for mode in (torch.no_grad, torch.inference_mode):
            with mode():
                out = vae(x, seed=3)
                assert vae.sample(2, seed=1).shape == (2, 9)
            assert same_bits(out, expected) and not any(t.requires_grad for t in out)
        assert out.loss.is_inference()


class TestModules:
    MODULES = {
        **KINDS,
        "encoder": lambda: vf.GaussianMLP(9, 4, 16),
        "decoder": lambda: vf.BernoulliMLP(9, 4, 16),
        "local": lambda: vf.LocalGaussian(5, 4),
        "unamortised": lambda: vf.VAE(vf.LocalGaussian(5, 4), vf.BernoulliMLP(4, 9, 16)),
    }

    @staticmethod
    def run(module, x):
        if isinstance(module, vf.VAE):
            index = torch.arange(5) if isinstance(module.encoder, vf.LocalGaussian) else None
            return module(x, seed=3, index=index)
        out = module() if isinstance(module, vf.LocalGaussian) else module(x)
        return out if isinstance(out, tuple) else (out,)

    @pytest.mark.parametrize("name", MODULES)
    def test_copies_and_files(self, name):
        """deepcopy, pickle, and a state_dict through a file that is loaded without pickle's freedom."""
        module, x = self.MODULES[name](), data(5)
        nn.init.normal_(next(module.parameters()))
        expected = self.run(module, x)
        buffer = io.BytesIO()
        torch.save(module.state_dict(), buffer)
        buffer.seek(0)
        fresh = self.MODULES[name]()
        assert not same_bits(self.run(fresh, x), expected)
        fresh.load_state_dict(torch.load(buffer, weights_only=True))
        for other in (fresh, copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
            assert same_bits(self.run(other, x), expected)
            assert {k for k, _ in other.named_parameters()} == {k for k, _ in module.named_parameters()}

    def test_a_training_state_goes_on(self):
        """Weights and optimiser through a file, loaded as weights only: the next steps are the unbroken run's."""

        def steps(vae, optimizer, seeds):
            for seed in seeds:
                optimizer.zero_grad()
                vae(x, seed=seed).loss.backward()
                optimizer.step()
            return list(vae.parameters())

        def make():
            vae = KINDS["bernoulli"]()
            return vae, torch.optim.Adam(vae.parameters())

        x = data(5)
        vae, optimizer = make()
        steps(vae, optimizer, range(3))
        buffer = io.BytesIO()
        torch.save([vae.state_dict(), optimizer.state_dict()], buffer)
        buffer.seek(0)
        other, other_optimizer = make()
        weights, state = torch.load(buffer, weights_only=True)
        other.load_state_dict(weights)
        other_optimizer.load_state_dict(state)
        assert same_bits(steps(other, other_optimizer, range(3, 6)), steps(vae, optimizer, range(3, 6)))
