"""Objectives of several samples by blocks of data: the same results and gradients as of all data at once."""

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

import vae_fast as vf
from vae_fast import by_data

B, D, L = 7, 6, 3
OBJECTIVES = {"elbo": 4, "iwae": 4, "miwae": (2, 3), "dreg": 4, "stl": 4}
PRIORS = {"standard": lambda: None, "mixture": lambda: vf.MixturePrior(5, L)}
DECODERS = {
    "bernoulli": lambda: vf.BernoulliMLP(L, D, (5,)),
    "gaussian": lambda: vf.GaussianMLP(L, D, (5, 4), nn.SiLU),
    "linear": lambda: nn.Linear(L, D),
}
each_objective = pytest.mark.parametrize("objective", OBJECTIVES)


def model(objective="iwae", prior="standard", decoder="bernoulli"):
    torch.manual_seed(0)
    parts = vf.GaussianMLP(D, L, (8,)), DECODERS[decoder]()
    return vf.VAE(*parts, objective=objective, n_samples=OBJECTIVES[objective], prior=PRIORS[prior]()).double()


def data():
    return torch.rand(B, D, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def counted(monkeypatch):
    """How many blocks there were. One datum each, unless a test says otherwise."""
    monkeypatch.setitem(by_data._BLOCK_BYTES, "cpu", 1)
    sizes = []
    whole = by_data.Objective.of

    def of(self, x, *tensors):
        sizes.append(len(x))
        return whole(self, x, *tensors)

    monkeypatch.setattr(by_data.Objective, "of", of)
    return sizes


def results(vae, loss=lambda out: out.loss, **options):
    """The output's tensors and the gradients of every parameter."""
    out = vae(data(), seed=3)
    vae.zero_grad()
    loss(out).backward(**options)
    return [t.detach() for t in out] + [p.grad for p in vae.parameters()]


def at_once(vae, *args):
    with vf.early_gradients(False):
        return results(vae, *args)


class TestSameAsAtOnce:
    @pytest.mark.parametrize("decoder", DECODERS)
    @pytest.mark.parametrize("prior", PRIORS)
    @each_objective
    def test_loss(self, objective, prior, decoder, counted):
        vae = model(objective, prior, decoder)
        torch.testing.assert_close(results(vae), at_once(vae))
        # The estimate of "dreg" meets a prior with parameters by way of z, and has all data at once.
        assert counted == ([1] * B if (objective, prior) != ("dreg", "mixture") else [])

    @each_objective
    def test_any_other_use_of_the_terms(self, objective, counted):
        weights = torch.linspace(-1, 2, B, dtype=torch.float64)

        def loss(out):
            return (weights * (out.elbo + 3 * out.log_likelihood.square() - out.kl)).sum() + 2 * out.loss

        vae = model(objective)
        torch.testing.assert_close(results(vae, loss), at_once(vae, loss))
        assert len(counted) == 2 * B  # once more for such gradients

    def test_log_likelihood_alone(self):
        def loss(out):
            return out.log_likelihood.sum()

        vae = model("miwae")
        torch.testing.assert_close(results(vae, loss), at_once(vae, loss))

    def test_a_scaled_loss(self, counted):
        def loss(out):
            return -0.3 * out.loss

        vae = model()
        torch.testing.assert_close(results(vae, loss), at_once(vae, loss))
        assert len(counted) == B

    @pytest.mark.parametrize("size, blocks", [(1, 7), (2, 4), (7, 1), (100, 1)])
    def test_blocks(self, size, blocks, counted, monkeypatch):
        monkeypatch.setitem(by_data._BLOCK_BYTES, "cpu", size * 4 * D * 8)
        vae = model()
        torch.testing.assert_close(results(vae), at_once(vae))
        assert len(counted) == blocks

    @pytest.mark.parametrize("kind", [torch.uint8, torch.bool])
    def test_bytes_and_bools(self, kind):
        vae = model().float()
        x = torch.randint(0, 2, (B, D), generator=torch.Generator().manual_seed(2)).to(kind)
        vae(x, seed=0).loss.backward()
        found = [p.grad.clone() for p in vae.parameters()]
        vae.zero_grad()
        with vf.early_gradients(False):
            vae(x, seed=0).loss.backward()
        torch.testing.assert_close(found, [p.grad for p in vae.parameters()])

    def test_half_type_parameters(self):
        vae = model().bfloat16()
        x = data().bfloat16()
        vae(x, seed=0).loss.backward()
        found = [p.grad.clone() for p in vae.parameters()]
        vae.zero_grad()
        with vf.early_gradients(False):
            vae(x, seed=0).loss.backward()
        for grad, p in zip(found, vae.parameters(), strict=True):
            torch.testing.assert_close(grad, p.grad, rtol=0.05, atol=0.05 * float(p.grad.abs().max()))

    @pytest.mark.parametrize("use", ["loss", "terms"])
    def test_autocast(self, use, counted):
        vae = model().float()

        def grads():
            vae.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                out = vae(data().float(), seed=0)
            (out.loss if use == "loss" else out.elbo.square().sum()).backward()
            return [p.grad for p in vae.parameters()]

        found = grads()
        assert len(counted) == (B if use == "loss" else 2 * B)
        with vf.early_gradients(False):
            for a, b in zip(found, grads(), strict=True):
                torch.testing.assert_close(a, b, rtol=0.05, atol=0.05 * float(b.abs().max()))

    def test_frozen_parameters(self):
        vae = model()
        vae.decoder.logits.requires_grad_(False)
        found, expected = results(vae), at_once(vae)
        assert found[-1] is None
        torch.testing.assert_close([t for t in found if t is not None], [t for t in expected if t is not None])

    def test_a_frozen_encoder(self):
        vae = model()
        vae.encoder.requires_grad_(False)
        found, expected = results(vae), at_once(vae)
        torch.testing.assert_close([t for t in found if t is not None], [t for t in expected if t is not None])


class TestAutograd:
    @each_objective
    def test_a_second_backward_pass(self, objective, counted):
        vae = model(objective)
        out = vae(data(), seed=3)
        first = torch.autograd.grad(out.loss, list(vae.parameters()), retain_graph=True)
        second = torch.autograd.grad(out.loss, list(vae.parameters()))
        torch.testing.assert_close(second, first)
        assert len(counted) == 2 * B

    @pytest.mark.parametrize("objective", ["elbo", "iwae", "miwae", "stl"])
    def test_gradients_of_gradients(self, objective):
        def penalty():
            vae = model(objective)
            grads = torch.autograd.grad(vae(data(), seed=3).loss, list(vae.parameters()), create_graph=True)
            return torch.autograd.grad(sum(g.square().sum() for g in grads), list(vae.parameters()))

        found = penalty()
        with vf.early_gradients(False):
            torch.testing.assert_close(found, penalty())

    def test_create_graph_of_dreg(self):
        vae = model("dreg")
        first = torch.autograd.grad(vae(data(), seed=3).loss, list(vae.parameters()), create_graph=True)
        torch.testing.assert_close(list(first), at_once(vae)[5:])

    def test_a_parameter_changed_meanwhile(self):
        vae = model()
        loss = vae(data(), seed=3).loss
        with torch.no_grad():
            vae.decoder.logits.bias.add_(1.0)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()

    def test_hooks_of_parameters(self):
        vae = model()
        seen = []
        vae.decoder.logits.weight.register_post_accumulate_grad_hook(lambda p: seen.append(p.grad.clone()))
        *_, weight, _ = results(vae)
        assert len(seen) == 1
        assert torch.equal(seen[0], weight)

    @pytest.mark.parametrize("leaves", [True, False])
    @pytest.mark.parametrize("create_graph", [False, True])
    @pytest.mark.parametrize("use", ["loss", "terms"])
    def test_of_functional_call(self, use, create_graph, leaves):
        def loss(out):
            return out.loss if use == "loss" else out.elbo.square().sum()

        vae = model()
        doubled = {
            name: 2 * p if not leaves else (2 * p).detach().requires_grad_() for name, p in vae.named_parameters()
        }
        out = torch.func.functional_call(vae, doubled, (data(),), {"seed": 3})
        found = torch.autograd.grad(loss(out), list(doubled.values()), create_graph=create_graph)
        with torch.no_grad():
            for p in vae.parameters():
                p.mul_(2)
        torch.testing.assert_close(list(found), at_once(vae, loss)[5:])


class TestElsewhere:
    """Where all data go at once."""

    def test_who_watches_the_decoder(self, counted):
        vae = model()
        rows = []
        vae.decoder.hidden[0].register_forward_hook(lambda module, args, out: rows.append(len(out.flatten(0, -2))))
        results(vae)
        assert (counted, rows) == ([], [4 * B])

    def test_what_is_not_by_rows(self, counted):
        vae = model()
        vae.decoder = nn.Sequential(vae.decoder, nn.BatchNorm1d(D)).double()
        results(vae)
        assert counted == []

    def test_saved_tensor_hooks(self, counted):
        with torch.autograd.graph.save_on_cpu():
            results(model())
        assert counted == []

    def test_data_with_a_gradient(self, counted):
        x = data().requires_grad_()
        model()(x, seed=0).loss.backward()
        assert counted == []
        assert x.grad.abs().min() > 0

    def test_functorch(self, counted):
        vae = model()

        def loss(parameters):
            return torch.func.functional_call(vae, parameters, (data(),), {"seed": 3}).loss

        found = torch.func.grad(loss)(dict(vae.named_parameters()))
        assert counted == []
        torch.testing.assert_close(list(found.values()), at_once(vae)[5:])

    def test_no_data(self, counted):
        vae = model()
        out = vae(data()[:0], seed=0)
        assert (out.elbo.shape, counted) == ((0,), [])
        assert out.loss.isnan()


class TestWithoutAGraph:
    def test_the_same(self, monkeypatch):
        vae = model()
        with torch.no_grad():
            found = vae(data(), seed=3)
            monkeypatch.setattr(by_data, "by_rows", lambda decoder: False)
            torch.testing.assert_close(found, vae(data(), seed=3))

    def test_log_marginal(self):
        vae, x = model(), data()
        found = vae.log_marginal(x, 50, seed=0)
        vae.decoder = nn.Sequential(vae.decoder, nn.Dropout(0.0))
        torch.testing.assert_close(found, vae.log_marginal(x, 50, seed=0))

    def test_rows_with_a_wrong_shape(self):
        vae = model()
        vae.decoder = nn.Linear(L, D + 1).double()
        with pytest.raises(ValueError, match="the decoder's logits must have x's shape"):
            vae(data(), seed=0)


def test_memory(monkeypatch):
    """Less is held than one layer's output of all samples."""
    monkeypatch.setitem(by_data._BLOCK_BYTES, "cpu", 1 << 16)
    torch.manual_seed(0)
    vae = vf.VAE(vf.GaussianMLP(64, 4, (32,)), vf.BernoulliMLP(4, 64, (64,)), objective="iwae", n_samples=100)
    x = torch.rand(200, 64)
    table = 100 * 200 * 64 * 4

    def peak():
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
            vae(x, seed=0).loss.backward()
        held = most = 0
        for event in sorted(found.profiler.kineto_results.events(), key=lambda e: e.start_ns()):
            if event.name() == "[memory]":
                held += event.nbytes()
                most = max(most, held)
        return most

    assert peak() < table / 2
    with vf.early_gradients(False):
        assert peak() > 2 * table
