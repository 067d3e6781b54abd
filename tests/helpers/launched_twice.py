"""Launches of kept kernels, each made once more as Triton makes it, and compared where they reach the driver."""

import torch

from vae_fast.triton_kernels import kept, launch


class Both:
    """Launches as they are kept, each followed by the same one as Triton makes it."""

    def __init__(self, patch, gpus):
        self.found, self.gpus, self.call = [], gpus, launch.Launch.__call__
        patch.setattr(launch.Launch, "__call__", lambda one, pointers, numbers: self(one, pointers, numbers))

    def __call__(self, one, pointers, numbers):
        self.call(one, pointers, numbers)
        ours = self.gpus.last
        launch.run(one.kernel, one.programs, one.device, (*pointers, *numbers), one.constants, one.registers)
        assert ours == self.gpus.last
        self.found.append((one.kernel, one.constants, ours, numbers, self.tensors(pointers)))

    def tensors(self, pointers):
        flat = [p for group in pointers for p in (group if isinstance(group, tuple) else (group,))]
        return [p for p in flat if p is not None]


def tensors_of(args):
    return {a.data_ptr() for a in args if isinstance(a, torch.Tensor) and a.numel()}


def facts(found, args):
    """What two launches of one call must share: all but the addresses of what is made anew."""
    given = tensors_of(args)
    for kernel, constants, reached, numbers, tensors in found:
        places = [t.data_ptr() if t.data_ptr() in given else (t.dtype, t.shape, t.stride()) for t in tensors]
        yield kernel, constants, reached.grid, reached.function, numbers, places


def attempt(function, args):
    try:
        function(*args)
    except (ValueError, TypeError) as refused:
        return str(refused)
    return None


def compare(monkeypatch, gpus, calls):
    """Of every call: what is kept launches what Triton does, and so do classes that other calls have made.

    Returns how many launches there were of what was kept.
    """
    with monkeypatch.context() as patch:
        both = Both(patch, gpus)

        def launched(function, args):
            both.found.clear()
            return attempt(function, args), list(facts(both.found, args))

        first = [launched(*call) for call in calls]
        again = [launched(*call) for call in calls]
        assert first == again
        for call, found in zip(calls, first, strict=True):
            kept.forget()
            assert launched(*call) == found
    return sum(len(found) for _, found in again)
