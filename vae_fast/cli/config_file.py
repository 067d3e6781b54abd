"""config.toml: the options of `train` as a file, which --config reads and each run leaves in its directory."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vae_fast.cli.config import DOMAINS, THREADS, TrainConfig
from vae_fast.cli.domains import Text
from vae_fast.cli.errors import CommandError, os_reason, require
from vae_fast.cli.reading import open_regular
from vae_fast.cli.record import Settings

CONFIG = "config.toml"
_READER = "tomllib" if sys.version_info >= (3, 11) else "tomli"
# Which device and which backend there are is found out where they are chosen.
_DOMAINS = {**DOMAINS, "device": Text(200), "backend": Text(200), "threads": THREADS}
_NAMES = {name.replace("_", "-"): name for name in _DOMAINS}
_MOST_BYTES = 1 << 20


def read_config(path: Path) -> dict[str, Any]:
    """The options that a TOML file has, each checked by itself. CommandError, with file and key, of a bad one."""
    try:
        with open_regular(path) as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise CommandError(f"cannot read {path}: {os_reason(error)}") from error
    if len(content) > _MOST_BYTES:
        raise CommandError(f"{path} has more than {_MOST_BYTES:,} bytes: it is no file of options")
    try:
        table = require(_READER).loads(content.decode())
    except RecursionError as error:
        raise CommandError(f"{path} is nested too deeply") from error
    except ValueError as error:  # TOMLDecodeError is one; others are of numbers and of bytes that are no text
        raise CommandError(f"{path} is not TOML: {error}") from error
    options = {}
    for key, value in table.items():
        if key not in _NAMES:
            raise CommandError(f"{path}: {key!r} is not known: use {', '.join(_NAMES)}")
        try:
            options[_NAMES[key]] = _DOMAINS[_NAMES[key]].check(value)
        except ValueError as error:
            raise CommandError(f"{path}: {key} cannot be so: {error}") from error
    return options


def fill_in(args: argparse.Namespace) -> frozenset[str]:
    """Give `args` what --config has and the command line has not; the names of these options."""
    if args.config is None:
        return frozenset()
    options = {n: v for n, v in read_config(Path(args.config)).items() if getattr(args, n) is None}
    vars(args).update(options)
    return frozenset(options)


@contextmanager
def naming(path: str | None, names: frozenset[str]) -> Iterator[None]:
    """Within: an error about an option that a file has says which file."""
    try:
        yield
    except CommandError as error:
        flags = {name.replace("-", "_") for name in re.findall("--([a-z][a-z-]*)", str(error))}
        if not flags & names:
            raise
        raise CommandError(f"{path}: {error}", error.status) from error


def config_toml(config: TrainConfig, settings: Settings) -> bytes:
    """A file of which --config makes the same run. What has no value is left out."""
    lines = ["# The options of this run: python -m vae_fast train --config config.toml --out DIR makes it again."]
    for key, value in (config.to_json() | vars(settings)).items():
        if value is not None:
            lines.append(_line(key.replace("_", "-"), value))
    return "".join(f"{line}\n" for line in lines).encode()


def _line(key: str, value: Any) -> str:
    # JSON's text is TOML's, but for one character that TOML escapes; its numbers and lists are TOML's.
    text = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    try:
        text.encode()
    except UnicodeEncodeError:
        return f"# {key}: the name of a file that is no Unicode, which no TOML can hold: say --{key}"
    return f"{key} = {text}"
