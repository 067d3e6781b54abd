"""The compiled front on a CUDA GPU against the Python functions: bits, seeds, graphs, streams, several devices."""

import pytest
import torch

import vae_fast as vf
from helpers.calls import BERNOULLI, KL, RSAMPLE_KL, same_bits
from helpers.cases import each_case
from helpers.fronts import both_ways, by_front
from helpers.marks import each_density
from vae_fast import backends, front

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(front.CUDA_REASON != "", reason=f"no front: {front.CUDA_REASON}"),
    pytest.mark.usefixtures("native_calls"),
]


def draw(call, shape):
    return [t.detach().cuda().requires_grad_() for t in call.draw(shape)]


@each_case()
def test_the_same_bits(case):
    tensors = [t.detach().float().cuda() for t in case.inputs()]
    for i in case.call.argnums:
        tensors[i].requires_grad_()

    def results():
        outs = case(*tensors)
        leaves = [t for t in tensors if t.requires_grad]
        upstream = [torch.linspace(-1, 2, out.numel(), device="cuda").reshape(out.shape) for out in outs]
        return *(out.detach() for out in outs), *torch.autograd.grad(outs, leaves, upstream)

    assert same_bits(*both_ways(results))


@each_density
@pytest.mark.parametrize("factor", [1.0, -0.25, float("inf")])
def test_gradients_of_the_forward_pass_are_scaled_on_the_device(call, factor):
    tensors = draw(call, (64, 33))

    def results():
        out = call(*tensors, reduction="sum")[0]
        assert by_front([out]) == front.state.on
        return torch.autograd.grad(out, call.wanted(tensors), torch.tensor(factor, device="cuda"))

    assert same_bits(*both_ways(results))


def test_no_call_waits():
    tensors, targets = draw(RSAMPLE_KL, (100, 20)), draw(BERNOULLI, (100, 784))
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        z, kl = RSAMPLE_KL(*tensors, seed=None)
        loss = z.sum() + kl.sum() - BERNOULLI(*targets, reduction="sum")[0]
        torch.autograd.grad(loss, [*tensors, *BERNOULLI.wanted(targets)])
    finally:
        torch.cuda.set_sync_debug_mode("default")


class TestSeeds:
    @pytest.mark.parametrize("own", [False, True], ids=["default", "own"])
    def test_are_drawn_as_python_draws_them(self, own):
        generator = torch.Generator("cuda") if own else torch.cuda.default_generators[0]
        mu, logvar = draw(RSAMPLE_KL, (9, 7))

        def results():
            generator.manual_seed(5)
            option = {"generator": generator} if own else {}
            drawn = [vf.rsample(mu, logvar, **option).detach() for _ in range(3)]
            return *drawn, torch.tensor(generator.get_offset())

        assert same_bits(*both_ways(results))

    def test_of_the_cpu_are_refused(self):
        with pytest.raises(ValueError, match="generator is for cpu"):
            vf.rsample(*draw(RSAMPLE_KL, (9, 7)), generator=torch.Generator())

    def test_each_replay_of_a_graph_draws_anew(self):
        mu, logvar = (t.detach() for t in draw(RSAMPLE_KL, (9, 7)))
        vf.rsample(mu, logvar)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            z = vf.rsample(mu, logvar)
        graph.replay()
        first = z.clone()
        graph.replay()
        assert not torch.equal(first, z)

    def test_in_a_tensor(self):
        mu, logvar = draw(RSAMPLE_KL, (9, 7))
        seed = torch.tensor([77], device="cuda")
        assert same_bits(*both_ways(lambda: RSAMPLE_KL.with_grads(mu, logvar, seed=seed)))


class TestWhatIsNotItsOwn:
    def test_tensors_of_two_kinds_of_device(self):
        with pytest.raises(ValueError, match="device"):
            vf.gaussian_kl(torch.zeros(3, device="cuda"), torch.zeros(3))

    def test_numbers_and_parameters_without_dims(self):
        """A 0-d parameter on the CPU gets its gradient there, by the Python function."""
        mu, logvar = torch.randn(5, 4, device="cuda"), torch.tensor(0.5, requires_grad=True)
        vf.gaussian_kl(mu, logvar, reduction="sum").backward()
        assert logvar.grad.device.type == "cpu"
        assert same_bits(*both_ways(lambda: [vf.gaussian_kl(mu, 0.5)]))

    def test_what_another_backend_is_better_at(self):
        below = backends.native_below("gaussian_kl")
        if below < 0:
            pytest.skip("there is no other backend")
        with vf.use_backend("auto"):
            mu = torch.zeros(1, device="cuda").expand(below)
            assert front.run(front.FUNCTIONS["gaussian_kl"], mu, mu) is None


def test_on_another_stream():
    tensors = draw(KL, (512, 784))
    expected = KL.with_grads(*tensors, reduction="sum")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        found = KL.with_grads(*tensors, reduction="sum")
    torch.cuda.synchronize()
    assert same_bits(found, expected)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_on_another_device():
    tensors = [t.detach().to("cuda:1").requires_grad_() for t in draw(RSAMPLE_KL, (33, 7))]
    found, expected = both_ways(lambda: RSAMPLE_KL.with_grads(*tensors))
    assert same_bits(found, expected) and found[0].device.index == 1
