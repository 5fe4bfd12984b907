"""Which engines are installed and what they can do on this machine, for ``doctor``."""

from __future__ import annotations

import importlib
import importlib.metadata

from ros_vla_accel.engines.errors import EngineError


def engines() -> list[tuple[str, bool, str]]:
    """Name, whether policies can run on it here, and what to know."""
    return [_torch(), _onnxruntime(), _tensorrt()]


def _torch() -> tuple[str, bool, str]:
    try:
        import torch
    except ImportError:
        return "torch", False, "not installed; pip install 'ros_vla_accel[policy]'"
    where = "CPU and GPU" if torch.cuda.is_available() else "CPU"
    return "torch", True, f"{torch.__version__} on {where}: all widths (the default)"


def _onnxruntime() -> tuple[str, bool, str]:
    try:
        onnxruntime = importlib.import_module("onnxruntime")
    except ImportError as error:
        return "onnxruntime", False, f"{error}; pip install 'ros_vla_accel[onnx]'"
    text = (
        f"{onnxruntime.__version__} on CPU: fp32, w4a16, w4a8, w8a8; fp16 and fp8 "
        "by casts to float32 around most operators; bf16 has no kernels"
    )
    try:
        importlib.metadata.version("onnxscript")
    except importlib.metadata.PackageNotFoundError:
        text += "; export needs onnx and onnxscript besides"
    return "onnxruntime", True, text


def _tensorrt() -> tuple[str, bool, str]:
    from ros_vla_accel.engines import tensorrt_build
    from ros_vla_accel.engines.capability import CAPABILITIES

    try:
        trt = tensorrt_build.library()
    except EngineError as error:
        return "tensorrt", False, str(error)
    name, here = trt.__name__.partition(".")[0], tensorrt_build.present_capability()
    text = f"{name} {trt.__version__}: "
    if here is None:
        can = [c for c in CAPABILITIES if _can_build(c)]
        builds = f"builds for {', '.join(can)}" if can else "builds nothing without a GPU"
        return "tensorrt", False, f"{text}{builds}, runs nowhere here: there is no GPU"
    found = CAPABILITIES.get(here)
    if found is None:
        return "tensorrt", False, f"{text}compute capability {here} is not known here"
    able = [
        precision
        for precision, can in (
            ("fp32, fp16", True),
            ("bf16", found.bf16),
            ("w8a8", found.int8),
            ("w4a16", found.int4_weights),
            ("fp8", found.fp8),
        )
        if can
    ]
    return "tensorrt", True, f"{text}{found.devices} ({here}): {', '.join(able)}; never run by us"


def _can_build(capability: str) -> bool:
    from ros_vla_accel.engines import tensorrt_build

    try:
        tensorrt_build.target(capability)
    except EngineError:
        return False
    return True
