"""What became of every linear layer: no fallback goes unsaid."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from ros_vla_accel.quantization import kernels
from ros_vla_accel.quantization.api import state_of
from ros_vla_accel.quantization.config import WIDTHS
from ros_vla_accel.quantization.linear import W4AXLinear

ROWS = (1, 8, 32, 128, 512)


@dataclass(frozen=True)
class LayerSummary:
    """One layer. kernels: (bits, least rows, kernel); bits: widths it runs at, empty when kept;
    note: why it was kept, or why a kernel is not the fast one."""

    name: str
    shape: tuple[int, int] | None
    group_size: int | None
    bits: tuple[int, ...]
    kernels: tuple[tuple[int, int, str], ...]
    bytes_before: int
    bytes_after: int
    note: str


@dataclass(frozen=True)
class Summary:
    """All layers, and totals over the whole model in bytes (what is no linear layer included)."""

    layers: tuple[LayerSummary, ...]
    bytes_before: int
    bytes_after: int

    def __str__(self) -> str:
        lines = []
        for layer in self.layers:
            shape = "x".join(map(str, layer.shape)) if layer.shape else ""
            used = ", ".join(f"{b} bits from {r} rows: {name}" for b, r, name in layer.kernels)
            size = f"{layer.bytes_before:,} -> {layer.bytes_after:,} B"
            text = f"{layer.name}  {shape}  {size}  {used or 'not packed'}"
            lines.append(text + (f"  [{layer.note}]" if layer.note else ""))
        share = self.bytes_after / max(self.bytes_before, 1)
        lines.append(f"whole model {self.bytes_before:,} -> {self.bytes_after:,} B ({share:.1%})")
        return "\n".join(lines)


def summary(model: nn.Module) -> Summary:
    """Per layer, in the model's order. ValueError for a model that is not quantized."""
    kept = state_of(model).kept
    rows: list[LayerSummary] = []
    for name, module in model.named_modules():
        if isinstance(module, W4AXLinear):
            device = module.packed.device.type
            table = kernels.table(device)
            entries = [(bits, *entry) for bits in WIDTHS for entry in table[bits]]
            notes = dict.fromkeys(kernel.fallback for *_, kernel in entries if kernel.fallback)
            rows.append(
                LayerSummary(
                    name,
                    (module.out_features, module.in_features),
                    module.group_size,
                    tuple(table),
                    tuple((bits, least, kernel.name) for bits, least, kernel in entries),
                    module.bytes_before,
                    module.bytes_after,
                    "; ".join(notes),
                )
            )
        elif name in kept:
            own = sum(p.numel() * p.element_size() for p in module.parameters(recurse=False))
            shape = (
                (module.out_features, module.in_features)
                if isinstance(module, nn.Linear)
                else None
            )
            rows.append(LayerSummary(name, shape, None, (), (), own, own, kept[name]))
    tensors = {id(t): t for t in (*model.parameters(), *model.buffers())}
    after = sum(t.numel() * t.element_size() for t in tensors.values())
    saved = sum(row.bytes_before - row.bytes_after for row in rows)
    return Summary(tuple(rows), after + saved, after)
