"""Compiled Triton kernels that are kept: that they are launched again just as Triton itself would launch them.

There is no GPU: what reaches the driver is compared (helpers/fake_cuda.py). Whether results are the same on one is
tests/backends/test_gpu.py's.
"""

import os
import threading
import types

import pytest
import torch

pytest.importorskip("triton", reason="triton is not installed")
if os.environ.get("TRITON_INTERPRET"):
    pytest.skip("the interpreter has no compiled kernels", allow_module_level=True)
if torch.cuda.is_available():
    pytest.skip("with a GPU the driver is the machine's: test_gpu.py", allow_module_level=True)

from triton import knobs
from triton.backends.nvidia.driver import CudaLauncher
from triton.runtime.jit import JITFunction

from helpers.fake_cuda import fake_gpus
from helpers.launched_calls import MEAN, NONE, SUM, bernoulli, gaussian, kl, normal, sample, sample_log_prob
from helpers.launched_twice import Both, compare
from helpers.random_calls import random_calls
from vae_fast.triton_kernels import kept, launch
from vae_fast.triton_kernels.early import rescale

F32 = torch.float32
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def gpus(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch, fake_gpus(tmp_path_factory.mktemp("cuda"), patch) as fake:
        yield fake


@pytest.fixture(autouse=True)
def begun_anew(gpus):
    kept.forget()


@pytest.fixture
def triton_s_own(monkeypatch):
    """How many launches have gone Triton's way."""
    made, run = [], launch.run
    monkeypatch.setattr(launch, "run", lambda *args: made.append(args[0]) or run(*args))
    return made


def calls_of(seeds):
    return [call for seed in seeds for call in random_calls(seed)]


class TestAsTritonLaunches:
    """Kernel, grid, device, stream, and every parameter that the driver gets."""

    def test_random_calls(self, monkeypatch, gpus):
        assert compare(monkeypatch, gpus, calls_of(range(25))) > 100

    @pytest.mark.triton
    @pytest.mark.parametrize("part", range(1, 41))
    def test_more_random_calls(self, monkeypatch, gpus, part):
        assert compare(monkeypatch, gpus, calls_of(range(100 * part, 100 * part + 40))) > 160

    @pytest.mark.parametrize("backward", (False, True))
    @pytest.mark.parametrize("make", (bernoulli, gaussian, kl, sample, sample_log_prob))
    def test_a_misaligned_address_takes_another_kernel(self, gpus, triton_s_own, make, backward):
        """An element of each operand in turn at no multiple of 16 bytes, and then all of them aligned again."""
        more = {} if make in (sample, sample_log_prob) else {"reduction": NONE}
        function, args = make((64, 32), F32, backward=backward, **more)
        function(*args)
        aligned, compiled = gpus.last.function, len(triton_s_own)
        places = [k for k, a in enumerate(args) if isinstance(a, torch.Tensor) and a.ndim == 2]
        for place in places:
            odd = torch.empty(64 * 32 + 1)[1:].view(64, 32)
            function(*args[:place], odd, *args[place + 1 :])
            other = gpus.last.function
            assert other != aligned
            function(*args[:place], odd, *args[place + 1 :])
            assert gpus.last.function == other
        assert len(triton_s_own) == compiled + len(places)
        function(*args)
        assert gpus.last.function == aligned and len(triton_s_own) == compiled + len(places)

    def test_rescaled_gradients(self, monkeypatch, gpus):
        """Of every dtype and size that follow each other."""
        both = Both(monkeypatch, gpus)
        for numel in (1, 16, 17, 1):
            for dtype in (F32, torch.float64, torch.bfloat16):
                for count in (1, 2, 4):
                    for upstream in (torch.ones(()), torch.ones(2)[1]):
                        rescale([torch.empty(numel, dtype=dtype) for _ in range(count)], upstream)
        assert len(both.found) == 4 * 3 * 3 * 2
        assert len({reached.function for _, _, reached, *_ in both.found}) == 3 * 3 * 2

    def test_what_is_a_call_s_own(self, gpus, triton_s_own):
        """Scale, seed, place in the noise and temperature are another one at every call, and are what is given."""
        function, args = bernoulli((64, 32), F32, SUM)
        options, scale = list(args), place(args, -1.0)
        for value in (2.0, 3.0, 0.5):
            options[scale] = value
            function(*options)
            assert value in floats(gpus.last.values)
        assert len(triton_s_own) == 1
        function, args = sample((64, 32), F32, temperature=0.5)
        options, seed, temperature = list(args), place(args, 7), place(args, 0.5)
        for k in range(3):
            options[seed], options[temperature], options[seed + 2], options[seed + 3] = -5 - k, 0.25 + k, 4 * k, k
            function(*options)
            assert {-5 - k, 4 * k, k} <= set(signed(gpus.last.values)) and 0.25 + k in floats(gpus.last.values)
        assert len(triton_s_own) == 2


def place(args, value):
    """Where an option is among them."""
    return next(k for k, a in enumerate(args) if type(a) is type(value) and a == value)


def signed(values):
    """64 bits as integers, as which they were given."""
    return [v - 2**64 if v >= 2**63 else v for v in values]


def floats(values):
    """The same as numbers."""
    return torch.tensor(signed(values)).view(torch.float64).tolist()


class TestWhatIsKept:
    def test_a_class_goes_triton_s_way_once(self, gpus, triton_s_own):
        for make, options in (
            (bernoulli, {"reduction": SUM}),
            (kl, {"reduction": NONE}),
            (sample, {}),
            (sample_log_prob, {}),
            (sample_log_prob, {"backward": True}),
            (normal, {}),
        ):
            triton_s_own.clear()
            for _ in range(5):
                function, args = make((64, 32), F32, **options)
                before = gpus.launches
                function(*args)
                assert gpus.launches > before
            assert len(triton_s_own) == 1

    def test_of_two_things_that_differ_each_has_its_own(self, gpus, triton_s_own):
        """Each of these is a class, though Triton may have one kernel for several of them."""
        x = torch.empty(64, 32, dtype=torch.bool)
        classes = [
            bernoulli((64, 32), F32, SUM),
            bernoulli((64, 32), F32, MEAN),
            bernoulli((64, 32), F32, NONE),
            bernoulli((64, 32), torch.bfloat16, SUM),
            bernoulli((64, 1), F32, SUM),
            bernoulli((1, 32), F32, SUM),
            bernoulli((64, 33), F32, SUM),
            bernoulli((64, 32), F32, SUM, x=x),
            bernoulli((64, 32), F32, SUM, x=torch.empty(32, 64).T),
            bernoulli((64, 32), F32, SUM, weight=torch.empty(64, 1)),
            bernoulli((64, 32), F32, SUM, probs=True),
            bernoulli((64, 32), F32, SUM, True),
            sample((64, 32), F32),
            sample((64, 32), F32, offset=1),
            sample((64, 32), F32, tensor=True),
            sample((64, 32), F32, samples=(2,)),
            sample((64, 32), F32, temperature=0.5),
            sample((64, 32), F32, free_bits=0.5),
            sample((64, 32), F32, form=(1, 0.0, -1.0, 1.0)),
            sample((64, 32), F32, with_kl=False),
            sample((64, 32), F32, noise="float32"),
            sample((64, 32), F32, prior=torch.empty(64, 32)),
            sample_log_prob((64, 32), F32),
            sample_log_prob((64, 32), F32, samples=(2,)),
            sample_log_prob((64, 32), F32, offset=1),
            sample_log_prob((64, 32), F32, noise="float32"),
            sample_log_prob((64, 32), F32, prior=torch.empty(64, 32)),
            sample_log_prob((64, 32), F32, form=(1, 0.0, -1.0, 1.0)),
            sample_log_prob((64, 32), F32, backward=True),
            sample_log_prob((64, 32), F32, backward=True, path=True),
        ]
        for function, args in classes:
            function(*args)
        first = len(triton_s_own)
        assert first == len(classes)
        for function, args in reversed(classes):
            function(*args)
        assert len(triton_s_own) == first

    def test_no_more_than_so_many(self):
        recent = kept.Recent(8)
        for key in range(100):
            recent.keep(key, str(key))
            recent.find(3)
            assert len(recent) <= 8
        assert recent.find(3) == "3" and recent.find(99) == "99" and recent.find(90) is None

    def test_what_is_used_stays(self):
        """As long as fewer than half of all come between."""
        recent = kept.Recent(8)
        for key in range(1000):
            recent.keep(key, key)
            assert all(recent.find(k) == k for k in range(max(0, key - 3), key + 1))

    def test_no_more_kernels_than_so_many(self, monkeypatch, gpus):
        monkeypatch.setattr(launch, "MOST_ALIGNMENTS", 1)
        function, args = normal((64, 32), F32)
        function(*args)
        (one,) = launches_kept()
        odd = torch.empty(65)[1:]
        for out in (odd, torch.empty(64), odd):
            one((out, None), (7, 0, 0, 16, 1))
        assert list(one._compiled) == [0]

    def test_a_kernel_lives_as_long_as_its_address_is_kept(self, gpus):
        """Whatever Triton forgets."""
        function, args = normal((64, 32), F32)
        function(*args)
        reached = gpus.last.function
        (one,) = launches_kept()
        one.kernel.device_caches.clear()
        ((compiled, *_),) = one._compiled.values()
        assert compiled.function == reached and compiled.module is not None


def launches_kept():
    """Those of the operators that have one for a class."""
    values = [value for recent in kept._all for value in recent.young.values()]
    return [value if isinstance(value, launch.Launch) else value.launch for value in values]


class TestTritonsWay:
    """Where somebody watches, and where this Triton is another one."""

    @pytest.fixture
    def call(self):
        function, args = bernoulli((64, 32), F32, SUM)
        function(*args)
        return lambda: function(*args)

    @pytest.mark.parametrize("name", ("launch_enter_hook", "launch_exit_hook"))
    def test_hooks(self, triton_s_own, call, name):
        seen, hook = [], getattr(knobs.runtime, name)
        call()
        before = len(triton_s_own)
        hook.add(seen.append)
        try:
            call()
            call()
        finally:
            hook.remove(seen.append)
        assert len(seen) == 2 and len(triton_s_own) == before + 2
        assert seen[0] is None or seen[0].get()["name"] == "density"
        call()
        assert len(seen) == 2 and len(triton_s_own) == before + 2

    @pytest.mark.parametrize("hook", (None, lambda metadata: None))
    def test_hooks_that_are_no_chains(self, monkeypatch, triton_s_own, call, hook):
        before = len(triton_s_own)
        monkeypatch.setattr(knobs.runtime, "launch_enter_hook", hook)
        call()
        assert len(triton_s_own) == before + 1

    def test_debugging(self, monkeypatch, gpus, triton_s_own, call):
        """It makes another kernel, which is not kept for calls without."""
        call()
        plain, before = gpus.last.function, len(triton_s_own)
        monkeypatch.setattr(knobs.runtime, "debug", True)
        call()
        assert gpus.last.function != plain and len(triton_s_own) == before + 1
        kept.forget()
        call()
        monkeypatch.undo()
        call()
        assert gpus.last.function == plain

    def test_settings_of_the_compiler(self, triton_s_own, call):
        call()
        before = len(triton_s_own)
        with knobs.compilation.scope():
            knobs.compilation.instrumentation_mode = ""
            call()
        assert len(triton_s_own) == before + 1
        call()
        assert len(triton_s_own) == before + 1

    def test_hooks_of_a_kernel(self, triton_s_own, call):
        seen = []
        kernel = triton_s_own[0]
        kernel.add_pre_run_hook(lambda *args, **more: seen.append(len(args)))
        try:
            call()
        finally:
            kernel.pre_run_hooks.clear()
        assert len(seen) == 1

    def test_this_version_is_known(self):
        assert kept.KEEPS and kept._are_known(JITFunction.run, CudaLauncher.__call__)

    def test_other_versions(self, monkeypatch, triton_s_own, call):
        def asks_for_more(self, *args, grid, warmup, **kwargs):
            return self.run(*args, something_new=grid)

        def takes_more(self, gridX, gridY, cluster, stream, function, *args):
            pass

        assert not kept._are_known(lambda self: self.something_new, CudaLauncher.__call__)
        assert kept._are_known(asks_for_more, CudaLauncher.__call__)
        assert not kept._are_known(JITFunction.run, takes_more)
        assert not kept._are_known(len, CudaLauncher.__call__)
        with monkeypatch.context() as patch:
            patch.setattr(knobs, "runtime", types.SimpleNamespace(launch_enter_hook=None, launch_exit_hook=None))
            assert not kept._are_known(JITFunction.run, CudaLauncher.__call__)
        monkeypatch.setattr(kept, "KEEPS", False)
        before = len(triton_s_own)
        call()
        call()
        assert len(triton_s_own) == before + 2


class TestPlaces:
    @pytest.fixture
    def one(self):
        """A launch on a device, as often as it is called."""
        return lambda device: launch.Launch(launch._join, 3, torch.device("cuda", device), CONSTANTS)

    def test_devices(self, gpus, triton_s_own, one):
        """Each has its own kernel, and the current one stays."""
        first, second = one(0), one(1)
        for _ in range(3):
            for device, this in enumerate((first, second)):
                this(POINTERS, NUMBERS)
                assert gpus.last.device == device and gpus.get_current_device() == 0
        assert len(triton_s_own) == 2
        gpus.set_current_device(1)
        try:
            first(POINTERS, NUMBERS)
            assert gpus.last.device == 0 and gpus.get_current_device() == 1
            second(POINTERS, NUMBERS)
            assert gpus.last.device == 1 and gpus.get_current_device() == 1
        finally:
            gpus.set_current_device(0)

    def test_streams(self, gpus, one):
        this, other = one(0), one(1)
        try:
            for stream in (5, 6, 0):
                gpus.set_stream(0, stream)
                gpus.set_stream(1, stream + 10)
                for _ in range(2):
                    this(POINTERS, NUMBERS)
                    assert gpus.last.stream == stream
                    other(POINTERS, NUMBERS)
                    assert gpus.last.stream == stream + 10
        finally:
            gpus.set_stream(0, 0)
            gpus.set_stream(1, 0)

    def test_threads(self, gpus):
        """Eight at once, each on a stream of its own, whose calls are of the same classes."""
        failed = []
        start = threading.Barrier(8)

        def work(stream):
            try:
                gpus.set_stream(0, stream)
                start.wait()
                for k in range(50):
                    function, args = bernoulli((64, 32 + k % 3), F32, NONE, True)
                    function(*args)
                    reached = gpus.last
                    assert reached.stream == stream and reached.values[0] == args[1].data_ptr()
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=work, args=(stream,)) for stream in range(1, 9)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed

    def test_a_forked_child(self, monkeypatch, gpus, one):
        """Where PyTorch refuses a GPU nothing is launched; here it would be the parent's memory."""
        this, parent = one(0), os.getpid()
        this(POINTERS, NUMBERS)
        this(POINTERS, NUMBERS)
        current = gpus.get_current_device

        def current_device():
            if os.getpid() != parent:
                raise RuntimeError("Cannot re-initialize CUDA in forked subprocess")
            return current()

        monkeypatch.setattr(gpus, "get_current_device", current_device)
        child = os.fork()
        if child == 0:
            before, code = gpus.launches, 1
            try:
                this(POINTERS, NUMBERS)
            except RuntimeError:
                code = 0 if gpus.launches == before else 2
            os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


CONSTANTS = {"BLOCK_N": 16, "BLOCK_COLUMNS": 64}
POINTERS = torch.empty(4, 64, dtype=torch.float64), torch.empty(64)
NUMBERS = (4, 64, 1.0)
