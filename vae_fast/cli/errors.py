"""What ends a command early: an error the user can act on, a missing extra, a signal."""

from __future__ import annotations

import importlib
import signal
from types import ModuleType

_MOST_CHARACTERS = 2000
# Where the package is not named like the module, and where it is in another extra than [train].
_PACKAGES = {"sklearn": "scikit-learn", "torch.utils.tensorboard": "tensorboard"}
_EXTRAS = {"tensorboard": "tensorboard"}


class CommandError(Exception):
    """Becomes one line on stderr, `vae_fast: error: ...`, and the exit status (2: the call was wrong)."""

    def __init__(self, message: str, status: int = 2) -> None:
        super().__init__(_one_line(message))
        self.status = status


def _one_line(message: str) -> str:
    """A line without control characters, which a file's content may have brought, and of a length to be read."""
    text = " ".join(message.split())
    if len(text) > _MOST_CHARACTERS:
        text = f"{text[:_MOST_CHARACTERS]} .."
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class Interrupted(BaseException):
    """SIGINT or SIGTERM arrived. Not an Exception, so that no library on the way swallows it."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum
        self.note = ""

    def __str__(self) -> str:
        return f"stopped by {signal.Signals(self.signum).name}{self.note}"


def require(module: str) -> ModuleType:
    """Import a module of an extra, or say in one line how to get it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        name = module.split(".")[0]
        package = _PACKAGES.get(module, _PACKAGES.get(name, name))
        extra = _EXTRAS.get(package, "train")
        raise CommandError(f'{package} is needed here ({error}): pip install "vae_fast[{extra}]"') from error


def os_reason(error: OSError) -> str:
    """`No space left on device` rather than `[Errno 28] No space left on device: '/a/b'`."""
    return error.strerror or str(error) or type(error).__name__
