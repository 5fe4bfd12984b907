"""What a GPU can compute in, by its compute capability.

Sources: NVIDIA's support matrices of TensorRT 10
(https://docs.nvidia.com/deeplearning/tensorrt/latest/getting-started/support-matrix.html) and of
TensorRT for RTX (https://docs.nvidia.com/deeplearning/tensorrt-rtx/latest/getting-started/
support-matrix.html); for Orin also TensorRT Edge-LLM's, "FP16, INT8, and INT4 only"
(https://nvidia.github.io/TensorRT-Edge-LLM/latest/user_guide/getting_started/support-matrix.html).
"""

from __future__ import annotations

from dataclasses import dataclass

from ros_vla_accel.engines.errors import EngineError


@dataclass(frozen=True)
class Capability:
    """int4_weights: INT4 weights that are widened before the product. int4_compute: INT4 tensor
    cores, which TensorRT uses nowhere: its INT4 is weight-only, so w4a8 cannot run on it."""

    devices: str
    bf16: bool
    int8: bool
    int4_weights: bool
    fp8: bool
    int4_compute: bool


_AMPERE = (True, True, True, False, True)
_LATER = (True, True, True, True, False)
CAPABILITIES = {
    "7.5": Capability("Turing", False, True, False, False, True),
    "8.0": Capability("A100", *_AMPERE),
    "8.6": Capability("RTX 30, A10", *_AMPERE),
    "8.7": Capability("Jetson Orin", *_AMPERE),
    "8.9": Capability("Ada: RTX 40, L4", True, True, True, True, True),
    "9.0": Capability("Hopper", *_LATER),
    "10.0": Capability("Blackwell B200", *_LATER),
    "11.0": Capability("Jetson Thor", *_LATER),
    "12.0": Capability("RTX 50", *_LATER),
    "12.1": Capability("GB10", *_LATER),
}
_NEEDS = {"bf16": "bf16", "w4a16": "int4_weights", "w8a8": "int8", "fp8": "fp8"}


def check(precision: str, capability: str) -> None:
    """EngineError when a GPU of this compute capability cannot run the precision."""
    found = CAPABILITIES.get(capability)
    if found is None:
        raise EngineError(
            f"compute capability '{capability}' is unknown; choose from {', '.join(CAPABILITIES)}"
        )
    if precision == "w4a8":
        raise EngineError(
            "w4a8 cannot run on TensorRT, whose INT4 is weight-only; export w4a16 or w8a8"
        )
    needed = _NEEDS.get(precision)
    if needed and not getattr(found, needed):
        able = [name for name, c in CAPABILITIES.items() if getattr(c, needed)]
        raise EngineError(
            f"{precision} cannot run on compute capability {capability} ({found.devices}): it "
            f"needs {needed}, which {', '.join(able)} have"
        )
