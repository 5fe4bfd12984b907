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
        self._struct: tuple[list[int], native.LayerStruct] | None = None

    def forward(self, x: Tensor) -> Tensor:
        if x.requires_grad and torch.is_grad_enabled():
            raise RuntimeError(
                "a W4AX layer has no backward pass; run the model under torch.inference_mode(), "
                "or dequantize_ it before training"
            )
        shape, dtype = x.shape, x.dtype
        if shape[-1] != self.in_features:
            raise ValueError(
                f"input {tuple(shape)} must have {self.in_features} features in its last dimension"
            )
        # A small product takes 1 us: each operation of torch's that is skipped here shows.
        rows = x if len(shape) == 2 else x.reshape(-1, self.in_features)
        if not rows.is_contiguous():
            rows = rows.contiguous()
        if dtype not in native.TYPES:
            rows = rows.float()
        bits = self.latch.current
        kernel = kernels.choose("cpu" if x.is_cpu else x.device.type, bits, rows.shape[0])
        out = kernel.run(self, rows, bits)
        if out.dtype != dtype:
            out = out.to(dtype)
        return out if len(shape) == 2 else out.view(*shape[:-1], self.out_features)

    def native(self) -> native.LayerStruct:
        """What the compiled kernels read; made again when a buffer has moved."""
        # Not by attribute, which nn.Module looks up in Python; the order is LayerStruct's.
        where = [0 if t is None else t.data_ptr() for t in self._buffers.values()]
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
