"""The kernels in torch's own operations: CUDA, and processors without the compiled ones.

On CUDA they are written to the interface of ``torch._int_mm`` and have not been run there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from ros_vla_accel.quantization import packing

if TYPE_CHECKING:
    from ros_vla_accel.quantization.linear import W4AXLinear

_PANELS = 16
"""Unpacked at a time: 512 channels, whose int8 or BF16 copy stays in a cache."""
_CUDA_ROWS = 32
"""torch._int_mm on CUDA wants more than 16 rows, and a multiple of 8."""


def quantize_rows(x: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Per-token symmetric: x (M, K) -> int8 (M, K) of n bits and scale (M,) float32.

    A row that is not finite gets the scale NaN and integers of 0, so that its outputs are NaN.
    """
    limit = (1 << (bits - 1)) - 1
    values = x.float()
    largest = values.abs().amax(-1) if x.shape[-1] else values.new_zeros(len(x))
    finite = torch.isfinite(largest)
    limits = torch.full_like(largest, limit)
    factor = limits / largest  # A number over a tensor would round twice.
    usable = (finite & torch.isfinite(factor))[:, None]
    rounded = torch.where(usable, (values * factor[:, None]).round(), 0.0)
    scale = torch.where(finite, largest / limits, torch.nan)
    return rounded.to(torch.int8), scale


def accumulate(layer: W4AXLinear, quantized: Tensor) -> Tensor:
    """Integer sums (M, N) int32 of int8 activations (M, K)."""
    rows, depth = len(quantized), layer.packed.shape[1] * packing.BLOCK
    least = _CUDA_ROWS if quantized.is_cuda else 1
    more = max(least, packing.padded(rows, 8) if quantized.is_cuda else rows) - rows
    a = functional.pad(quantized, (0, depth - quantized.shape[1], 0, more))
    sums = [torch._int_mm(a, w.T)[:rows] for w in _panels(layer)]
    return torch.cat(sums, 1)[:, : layer.out_features]


def integer(layer: W4AXLinear, x: Tensor, bits: int) -> Tensor:
    """x (M, K) -> (M, N) of its type, by integer products."""
    quantized, scale = quantize_rows(x, bits)
    sums = accumulate(layer, quantized).float()
    out = sums * layer.channel_scale[: layer.out_features] * scale[:, None]
    return (out if layer.bias is None else out + layer.bias).to(x.dtype)


def bf16(layer: W4AXLinear, x: Tensor, bits: int) -> Tensor:
    """x (M, K) -> (M, N) of its type, by BF16 products with panels of dequantized weights."""
    depth = layer.packed.shape[1] * packing.BLOCK
    a = functional.pad(x.to(torch.bfloat16), (0, depth - x.shape[1]))
    parts = [functional.linear(a, w.to(torch.bfloat16)).float() for w in _panels(layer)]
    out = torch.cat(parts, 1)[:, : layer.out_features]
    out = out * layer.channel_scale[: layer.out_features]
    return (out if layer.bias is None else out + layer.bias).to(x.dtype)


def _panels(layer: W4AXLinear) -> Iterator[Tensor]:
    return (
        packing.integers(
            layer.packed, layer.group_scale, layer.group_size, slice(first, first + _PANELS)
        )
        for first in range(0, len(layer.packed), _PANELS)
    )
