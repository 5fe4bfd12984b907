"""Sizes of the reference VLA, and what its samplers may be asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

OBJECTIVES = ("flow", "ddpm")
RANDOM_SIZES: dict[str, dict[str, int]] = {
    "large": {
        "width": 512,
        "heads": 8,
        "backbone_layers": 4,
        "blocks": 6,
        "expert_hidden": 1024,
    }
}
"""Sizes that nobody trained, for benchmarks of time and memory: about 100 M parameters."""


@dataclass(frozen=True)
class ModelConfig:
    """Shape of the network; everything needed to build it before its weights are read.

    state_features counts the proprioceptive numbers (three per joint), action_dim the entries of
    one action row; ``words`` is the length of the tokenized instruction and ``vocabulary`` its
    number of ids.
    """

    cameras: int = 2
    image_size: int = 64
    state_features: int = 27
    action_dim: int = 4
    horizon: int = 16
    vocabulary: int = 64
    words: int = 12
    width: int = 192
    heads: int = 6
    backbone_layers: int = 3
    blocks: int = 6
    experts: int = 8
    experts_per_token: int = 2
    expert_hidden: int = 384
    objective: str = "flow"

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise ValueError(f"objective '{self.objective}' is unknown; choose from {OBJECTIVES}")
        if self.width % (2 * self.heads):
            raise ValueError(f"width {self.width} must be an even multiple of heads {self.heads}")
        if not 1 <= self.experts_per_token <= self.experts:
            raise ValueError(
                f"experts_per_token {self.experts_per_token} must lie in 1..{self.experts}"
            )
        if self.image_size % 16:
            raise ValueError(f"image_size {self.image_size} must be a multiple of 16")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelConfig:
        """Builds the configuration of a manifest; an unknown key is an error."""
        unknown = sorted(set(values) - {f.name for f in fields(cls)})
        if unknown:
            raise ValueError(f"model configuration has unknown keys {unknown}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)
