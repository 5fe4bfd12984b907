"""The reference policy at the static precisions that W4AX is compared with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ros_vla_accel.policies.quantized import packable
from ros_vla_accel.policies.reference_policy import ReferencePolicy
from ros_vla_accel.quantization.api import replace_module
from ros_vla_accel.quantization.torch_kernels import quantize_rows

_ROWS = 16
"""Tokens that a layer sees at a time; decides the layout that oneDNN packs for."""


class PrepackedBF16(nn.Module):
    """BF16 layer whose weights lie in oneDNN's own layout: (..., K) -> (..., N) of its type."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.data.bfloat16(), _ROWS)
        self.bias = None if layer.bias is None else layer.bias.data.bfloat16()

    def forward(self, x: Tensor) -> Tensor:
        out = torch.ops.mkldnn._linear_pointwise(
            x.bfloat16(), self.weight, self.bias, "none", [], ""
        )
        return out.to(x.dtype)


class W8A8(nn.Module):
    """INT8 layer, one scale per output channel and per token: (..., K) -> (..., N).

    Integer products by ``torch._int_mm``; activations are quantized as W4AX quantizes them.
    """

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        weight, scale = quantize_rows(layer.weight.data, 8)
        self.weight, self.scale = weight.T, scale
        self.bias = None if layer.bias is None else layer.bias.data

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        integers, scale = quantize_rows(rows, 8)
        out = torch._int_mm(integers, self.weight).float() * self.scale * scale[:, None]
        if self.bias is not None:
            out += self.bias
        return out.view(*x.shape[:-1], -1).to(x.dtype)


def _with_layers(make: Callable[[nn.Linear], nn.Module], **arguments: Any) -> ReferencePolicy:
    policy = ReferencePolicy(**arguments)
    chosen = [(n, m) for n, m in policy.model.named_modules() if packable(m, n)]
    with torch.no_grad():
        for name, layer in chosen:
            assert isinstance(layer, nn.Linear)
            replace_module(policy.model, name, make(layer))
    return policy


def bf16(**arguments: Any) -> ReferencePolicy:
    """Factory: the layers that W4AX packs in prepacked BF16, the others as W4AX leaves them."""
    return _with_layers(PrepackedBF16, **arguments)


def w8a8(**arguments: Any) -> ReferencePolicy:
    """Factory: the same layers with INT8 weights and activations."""
    return _with_layers(W8A8, **arguments)
