"""One table of kernels, by device, activation bits and rows."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from ros_vla_accel.quantization import native, torch_kernels
from ros_vla_accel.quantization.latch import check_width

if TYPE_CHECKING:
    from ros_vla_accel.quantization.linear import W4AXLinear


@dataclass(frozen=True)
class Kernel:
    """name: what summary and benchmarks print. fallback: why it is not the fast one, or empty.

    run: (layer, x (M, K) contiguous, bits) -> (M, N) of the type of x.
    """

    name: str
    run: Callable[[W4AXLinear, Tensor, int], Tensor]
    fallback: str = ""


def _native(path: str) -> Kernel:
    loaded = native.library()
    assert loaded is not None

    def run(layer: W4AXLinear, x: Tensor, bits: int) -> Tensor:
        return loaded.linear(layer.native(), x, layer.out_features, bits, path)

    slow = "" if loaded.threaded else "torch's OpenMP was not found, so it runs on one thread"
    if path == "plain":
        slow = "the processor has neither AVX2 nor AVX-512 VNNI"
    return Kernel(path, run, slow)


@functools.cache
def table(device: str) -> dict[int, tuple[tuple[int, Kernel], ...]]:
    """Bits -> (rows from which on, kernel), rising. device: "cpu" or "cuda"."""
    if device == "cuda":
        integer = ((1, Kernel("torch._int_mm", torch_kernels.integer)),)
        half = ((1, Kernel("torch BF16 panels", torch_kernels.bf16)),)
        return {2: integer, 4: integer, 8: integer, 16: half}
    if device != "cpu":
        raise ValueError(f"device '{device}' has no W4AX kernels; move the model to cpu or cuda")
    loaded = native.library()
    if loaded is None:
        why = native.why_missing()
        integer = ((1, Kernel("torch._int_mm", torch_kernels.integer, why)),)
        half = ((1, Kernel("torch BF16 panels", torch_kernels.bf16, why)),)
        return {2: integer, 4: integer, 8: integer, 16: half}
    best = _native(loaded.paths[-1])
    if best.name == "amx":
        # A tile product costs the same for 1 row as for 16, and one row is bound by unpacking.
        integer = ((1, _native("avx512")), (2, best))
        return {2: integer, 4: integer, 8: integer, 16: ((1, best),)}
    why = "width 16 is compiled for AMX only; here it dequantizes panels with torch"
    integer, half = ((1, best),), ((1, Kernel("torch BF16 panels", torch_kernels.bf16, why)),)
    return {2: integer, 4: integer, 8: integer, 16: half}


@functools.cache
def choose(device: str, bits: int, rows: int) -> Kernel:
    """The kernel of a product with ``rows`` rows of activations."""
    entries = table(device)[check_width(bits)]
    return next((kernel for least, kernel in reversed(entries) if rows >= least), entries[0][1])
