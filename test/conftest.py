"""Chooses the middleware for all tests, and keeps DDS on this machine."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import pytest

os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # two cores, and most tests are small

from ros_vla_accel import middleware

middleware.install()


@pytest.fixture
def prepacked_bf16() -> None:
    """Skips where oneDNN cannot prepack BF16, which is the baseline of benchmarks."""
    import torch

    try:
        torch.ops.mkldnn._reorder_linear_weight(torch.zeros(16, 16, dtype=torch.bfloat16), 1)
    except RuntimeError as error:
        pytest.skip(str(error))


@pytest.fixture
def exact_int8() -> None:
    """Skips on x86 without VNNI: ONNX Runtime adds products in pairs there, in 16 bits that
    saturate (docs/engines.md)."""
    cpuinfo = Path("/proc/cpuinfo")
    if platform.machine() == "x86_64" and cpuinfo.exists() and "vnni" not in cpuinfo.read_text():
        pytest.skip("ONNX Runtime's INT8 products saturate on x86 without VNNI")
