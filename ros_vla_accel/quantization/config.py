"""What ``quantize_`` is asked for."""

from __future__ import annotations

from dataclasses import dataclass

WIDTHS = (2, 4, 8, 16)
"""Activation bits that every quantized layer has; 16 is BF16."""


@dataclass(frozen=True)
class W4AX:
    """INT4 weights in groups, activations of any width (DyQ-VLA, arXiv:2603.07904).

    group_size: inputs that share one integer group scale, a multiple of 64. The last group of a
    layer may be shorter, so any number of inputs fits. search: tries smaller group scales, which
    clip the largest weights, and keeps the one of the least squared error; packing takes about
    five times as long.
    """

    group_size: int = 128
    search: bool = True

    def __post_init__(self) -> None:
        if self.group_size < 64 or self.group_size % 64:
            raise ValueError(
                f"group_size {self.group_size} must be a multiple of 64 (the kernels look up 64 "
                "weights at a time); 128 is usual, 64 for narrow layers"
            )
