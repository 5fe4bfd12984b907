"""Units of the robot to numbers of the network, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

MAX_SCALE_DOWN = 1e-3
"""Smallest standard deviation that is divided by; a joint that never moved stays small."""


@dataclass(frozen=True)
class Normalization:
    """Mean and standard deviation per joint and per action entry, and the actions' limits.

    state_*: (D,) rad or m. action_*: (A,) in action units; rows are clipped to low..high.
    """

    state_mean: list[float]
    state_std: list[float]
    action_mean: list[float]
    action_std: list[float]
    action_low: list[float]
    action_high: list[float]

    @classmethod
    def fit(
        cls, state: np.ndarray, action: np.ndarray, low: list[float], high: list[float]
    ) -> Normalization:
        """Fits to states (N, D) and actions (N, A)."""

        def spread(x: np.ndarray) -> list[float]:
            return np.maximum(x.std(0), MAX_SCALE_DOWN).round(6).tolist()

        return cls(
            state.mean(0).round(6).tolist(),
            spread(state),
            action.mean(0).round(6).tolist(),
            spread(action),
            low,
            high,
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Normalization:
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def state_features(self, state: np.ndarray) -> np.ndarray:
        """Joint positions (..., D) -> (..., 3 D) float32: normalized, sine and cosine."""
        scaled = (state - np.asarray(self.state_mean)) / np.asarray(self.state_std)
        return np.concatenate([scaled, np.sin(state), np.cos(state)], -1).astype(np.float32)

    def normalize(self, action: np.ndarray) -> np.ndarray:
        """Actions (..., A) in their units -> float32 for the network."""
        scaled = (action - np.asarray(self.action_mean)) / np.asarray(self.action_std)
        return scaled.astype(np.float32)

    def unnormalize(self, action: np.ndarray) -> np.ndarray:
        """The inverse of ``normalize``, clipped to the actions' limits."""
        scaled = action * np.asarray(self.action_std) + np.asarray(self.action_mean)
        return np.clip(scaled, self.action_low, self.action_high).astype(np.float32)

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """The actions' limits, normalized."""
        return self.normalize(np.asarray(self.action_low)), self.normalize(
            np.asarray(self.action_high)
        )
