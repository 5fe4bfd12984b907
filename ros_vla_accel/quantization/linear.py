"""The layer that takes the place of ``nn.Linear``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ros_vla_accel.quantization import kernels, native, packing
from ros_vla_accel.quantization.latch import ActivationBits


class W4AXLinear(nn.Module):
    """(..., K) -> (..., N) of the input's type, with INT4 weights; for inference only.

    Buffers are those of ``packing.PackedWeight``; bias (N,) float32 or None. ``model.to(dtype)``
    moves them between devices and leaves their types as they are.
    """

    packed: Tensor
    group_scale: Tensor
    channel_scale: Tensor
    row_sum: Tensor
    bias: Tensor | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        group_size: int,
        latch: ActivationBits,
        weight: packing.PackedWeight,
        bias: Tensor | None,
        bytes_before: int,
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.group_size, self.latch, self.bytes_before = group_size, latch, bytes_before
        self.training = False
        for name in ("packed", "group_scale", "channel_scale", "row_sum"):
            self.register_buffer(name, getattr(weight, name))
        self.register_buffer("bias", None if bias is None else bias.detach().float().clone())
        self._struct: tuple[tuple[int, ...], native.LayerStruct] | None = None

    def forward(self, x: Tensor) -> Tensor:
        if x.requires_grad and torch.is_grad_enabled():
            raise RuntimeError(
                "a W4AX layer has no backward pass; run the model under torch.inference_mode(), "
                "or dequantize_ it before training"
            )
        shape = x.shape
        if shape[-1] != self.in_features:
            raise ValueError(
                f"input {tuple(shape)} must have {self.in_features} features in its last dimension"
            )
        rows = x.reshape(-1, self.in_features).contiguous()
        if rows.dtype not in (torch.float32, torch.bfloat16):
            rows = rows.float()
        kernel = kernels.choose(x.device.type, self.latch.current, len(rows))
        out = kernel.run(self, rows, self.latch.current)
        return out.view(*shape[:-1], self.out_features).to(x.dtype)

    def native(self) -> native.LayerStruct:
        """What the compiled kernels read; made again when a buffer has moved."""
        tensors = (self.packed, self.group_scale, self.channel_scale, self.row_sum)
        where = tuple(t.data_ptr() for t in tensors)
        where += (0 if self.bias is None else self.bias.data_ptr(),)
        if self._struct is None or self._struct[0] != where:
            struct = native.LayerStruct(
                self.out_features, self.in_features, self.group_size, *where
            )
            self._struct = (where, struct)
        return self._struct[1]

    def dequantized(self) -> Tensor:
        """The weight (N, K) float32 that the integers stand for."""
        whole = packing.integers(self.packed, self.group_scale, self.group_size)
        exact = whole[: self.out_features, : self.in_features].float()
        return exact * self.channel_scale[: self.out_features, None]

    @property
    def bytes_after(self) -> int:
        return sum(t.numel() * t.element_size() for t in self.buffers())

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> W4AXLinear:
        kept = {n: t for n, t in self._buffers.items() if t is not None and t.is_floating_point()}
        super()._apply(fn, recurse)
        for name, tensor in kept.items():
            moved = self._buffers[name]
            if moved is not None and moved.dtype != tensor.dtype:
                self._buffers[name] = tensor.to(moved.device)
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_struct": None}  # Pointers do not outlive a copy.

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, group_size={self.group_size}"
