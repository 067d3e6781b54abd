"""Several processes, each with its part of a batch: a user's script, FSDP2, and DTensors, on two ranks of gloo.

One torchrun for all: the ranks run every check of two_ranks.py and say what came of each.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import pages

SCRIPT = Path(__file__).with_name("two_ranks.py")
CHECKS = (
    "the_readme_script",
    "ddp",
    "fully_shard",
    "fully_shard_of_a_parameter",
    "densities_of_dtensors",
    "samples_of_dtensors",
    "disagreeing_ranks",
)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """What both ranks say of each check: "" or a traceback."""
    directory = tmp_path_factory.mktemp("two_ranks")
    (readme,) = [block for block in pages.blocks(pages.page("in_your_code/distributed")) if pages.elsewhere(block)]
    (directory / "readme.py").write_text(readme, encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        SCRIPT,
        directory,
    ]
    path = os.pathsep.join([str(SCRIPT.parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": path}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return [json.loads((directory / f"{rank}.json").read_text(encoding="utf-8")) for rank in range(2)]


@pytest.mark.parametrize("check", CHECKS)
def test_on_two_ranks(check, outcomes):
    for outcome in outcomes:
        assert set(outcome) == set(CHECKS)
        assert outcome[check] == ""
