"""Which layers of the reference VLA are packed to INT4."""

from __future__ import annotations

from torch import nn

from ros_vla_accel.policies.model import ReferenceVLA
from ros_vla_accel.quantization import W4AX, ActivationBits, quantize_

CONFIG = W4AX(group_size=64)
"""The widths of the model are multiples of 64, not all of 128."""


def packable(module: nn.Module, name: str) -> bool:
    """Attention, perceptrons and modulations of backbone layers and head blocks.

    State and time encoders, embeddings, routers and the last modulation and projection stay:
    they are small, and an error in them reaches every action entry or sends tokens elsewhere.
    """
    inside = name.startswith(("backbone.layers.", "head.blocks."))
    return isinstance(module, nn.Linear) and inside and not name.endswith(".router")


def quantize_reference(model: ReferenceVLA) -> ActivationBits:
    """Packs the model in place; its latch sets the width of an inference."""
    return quantize_(model, CONFIG, packable)
