"""The Triton backend where there is no GPU: what it says, how calls are laid out, and its kernels interpreted."""

import importlib
import importlib.metadata
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import vae_fast as vf
from vae_fast import triton_kernels

INTERPRETED = pytest.mark.skipif(triton_kernels.INTERPRETED, reason="this is the interpreter's own run")
needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")


class TestReasons:
    def test_not_installed(self, monkeypatch):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        assert triton_kernels._missing() == "triton is not installed (pip install triton)"

    @needs_triton
    def test_no_gpu(self, monkeypatch):
        monkeypatch.setattr(triton_kernels, "INTERPRETED", False)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
        assert "no CUDA GPU" in triton_kernels._missing()

    @needs_triton
    def test_too_old(self, monkeypatch):
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        monkeypatch.setattr(importlib.metadata, "version", lambda name: "3.5.1")
        assert triton_kernels._missing() == "it needs triton 3.6, this is 3.5.1"

    @needs_triton
    def test_none_where_there_is_all(self, monkeypatch):
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        for version in ("3.6.0", "3.10.0", "4.0.0+git1"):
            monkeypatch.setattr(importlib.metadata, "version", lambda name, version=version: version)
            assert triton_kernels._missing() == ""

    @INTERPRETED
    def test_a_named_backend_says_why(self):
        if vf.backends()["triton"].available:
            with pytest.raises(RuntimeError, match="'triton' does not serve cpu tensors"):
                vf.standard_normal(3, seed=1, device="cpu", backend="triton")
        else:
            with pytest.raises(RuntimeError, match="'triton' is not available: "):
                vf.standard_normal(3, seed=1, backend="triton")


@needs_triton
class TestLayout:
    """What calls become. That the kernels then do the right thing is what the interpreter's tests show."""

    def layout(self, *tensors, gradients=(), event_ndim=1, rows=False, everything=False, as_anchor=0):
        from vae_fast.triton_kernels import layout
        from vae_fast.triton_kernels.operands import spec_of

        cpu = torch.device("cpu")
        return layout.layout(
            layout.Request(
                operands=tuple(spec_of(t, cpu) for t in tensors),
                gradients=tuple(spec_of(g, cpu) for g in gradients),
                out=None,
                value=layout.ROW if rows else layout.ALL if everything else layout.NONE,
                event_ndim=event_ndim,
                walk_as_anchor=as_anchor,
                itemsize=tensors[0].element_size(),
                arithmetic=max(tensors[0].element_size(), 4),
                tile_bytes=layout.TILE_BYTES,
            )
        )

    def test_dense_tensors_are_one_row(self):
        y = torch.empty(512, 784)
        plan = self.layout(y, y, everything=True)
        assert (plan.rows, plan.columns, plan.vec) == (1, 512 * 784, 4)
        plan = self.layout(y.T, y.T, everything=True)
        assert (plan.rows, plan.columns) == (1, 512 * 784)

    def test_packed_moments_are_read_in_place(self):
        mu, logvar = torch.empty(100, 40).chunk(2, -1)
        plan = self.layout(mu, logvar, rows=True, as_anchor=1)
        assert (plan.rows, plan.columns) == (100, 20)
        assert [v.copy for v in plan.operands] == [None, None]
        assert [v.datum for v in plan.operands] == [40, 40]

    def test_channels_last_images_are_read_in_place(self):
        x = torch.empty(2, 3, 8, 8).contiguous(memory_format=torch.channels_last)
        plan = self.layout(x, x, event_ndim=3, rows=True, as_anchor=1)
        assert [v.copy for v in plan.operands] == [None, None]

    def test_samples_share_a_target_that_is_not_copied(self):
        y, x = torch.empty(5, 100, 784), torch.empty(100, 784)
        plan = self.layout(y, x, rows=True, as_anchor=2)
        assert [v.copy for v in plan.operands] == [None, None]
        assert plan.constants["SAMPLES"] and plan.operands[1].sample == 0

    def test_only_what_does_not_fit_is_copied(self):
        y, x = torch.empty(100, 784), torch.empty(100, 784, 2)[..., 0]
        plan = self.layout(y, x, rows=True, as_anchor=1)
        assert [v.copy for v in plan.operands] == [None, (100, 784)]

    def test_a_channel_s_scale_is_not_spread_over_the_batch(self):
        m, r = torch.empty(16, 3, 8, 8), torch.empty(3, 1, 1)
        plan = self.layout(m, r, event_ndim=3, rows=True, as_anchor=1)
        assert plan.operands[1].copy == (1, 3, 8, 8)

    def test_more_than_2_to_the_31(self):
        y = torch.empty(1, device="meta").expand(2**20, 2**13)
        plan = self.layout(y, torch.empty(2**20, 2**13, device="meta"), everything=True)
        assert plan.rows * plan.columns == 2**33
        assert plan.programs <= 4096

    def test_a_layout_is_made_once(self):
        from vae_fast.triton_kernels import layout

        y = torch.empty(7, 11)
        self.layout(y, y)
        before = layout.layout.cache_info().misses
        self.layout(y, torch.empty(7, 11))
        assert layout.layout.cache_info().misses == before


@INTERPRETED
@needs_triton
@pytest.mark.timeout(600)
def test_every_branch_interpreted():
    """An eighth of tests/interpreted, in a process of its own, for Triton decides so at its import."""
    root = Path(__file__).parents[1]
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": str(root), "VAE_FAST_TEST_SHARE": "8"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "interpreted"]
    run = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-5000:]
    assert " passed" in run.stdout and "skipped" not in run.stdout
