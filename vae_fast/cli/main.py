"""The way in: parse, run the command, and turn what ends it early into one line and an exit status.

0: done. 1: training broke down (NaN), or a check failed. 2: the call or its files were wrong.
130, 143: SIGINT, SIGTERM.
"""

from __future__ import annotations

import importlib
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import torch

from vae_fast.cli.errors import CommandError, Interrupted
from vae_fast.cli.parser import build_parser
from vae_fast.cli.ranks import launched
from vae_fast.cli.terminal import discard, usable_streams

# PyTorch's words where the CPU's memory is too small, or a size overflows: it has no exception for them.
_NO_MEMORY = ("can't allocate memory", "not enough memory", "Storage size calculation overflowed")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (default sys.argv) and return the exit status. --help leaves by SystemExit."""
    with usable_streams():
        return _main(argv)


def _main(argv: Sequence[str] | None) -> int:
    threads = torch.get_num_threads()
    try:
        args = build_parser().parse_args(argv)
        with _signals_raise():
            status = importlib.import_module(f"vae_fast.cli.{args.command}").run(args)
            if sys.stdout is not None:
                sys.stdout.flush()
            return status
    except CommandError as error:
        return _say(f"error: {error}", error.status)
    except Interrupted as stop:
        return _say(str(stop), 128 + stop.signum)
    except torch.OutOfMemoryError as error:
        return _say(f"error: out of memory: {str(error).splitlines()[0]}", 1)
    except MemoryError:
        return _say("error: out of memory", 1)
    except RuntimeError as error:
        if not any(words in str(error) for words in _NO_MEMORY):
            raise
        return _say("error: out of memory: a smaller --hidden, --latent or --batch-size may help", 1)
    except OSError as error:
        # What a command reads and writes it answers for itself. This is stdout: its reader left, its disk is full.
        discard(sys.stdout)
        if isinstance(error, BrokenPipeError):
            return 128 + signal.SIGPIPE
        return _say(f"error: {error}", 1)
    finally:
        torch.set_num_threads(threads)


def _say(line: str, status: int) -> int:
    ranks = launched()
    who = f"vae_fast: rank {ranks.rank}" if ranks.world > 1 else "vae_fast"
    print(f"{who}: {line}", file=sys.stderr, flush=True)
    return status


@contextmanager
def _signals_raise() -> Iterator[None]:
    """Within: the first SIGINT or SIGTERM raises Interrupted, later ones are ignored while it unwinds."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(signum: int, frame: FrameType | None) -> None:
        for number in before:
            signal.signal(number, signal.SIG_IGN)
        raise Interrupted(signum)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
