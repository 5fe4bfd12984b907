"""Begins denoising at the chunk in play instead of at noise.

Consecutive inferences of a robot see nearly the same scene, so the rows of the chunk in play that
are still to come are nearly those of the next one. MoECa does not do this; it is after the idea of
editing by a partial diffusion (SDEdit, arXiv:2108.01073).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ros_vla_accel.contracts import InferenceRequest
from ros_vla_accel.policies.normalization import Normalization


@dataclass(frozen=True)
class WarmStart:
    """start: share of the way from noise to action that is skipped; 0 is off. drift: mean
    distance, in normalized units, between the rows that the chunk in play had left and the same
    rows of the new chunk, beyond which that one is thrown away and made from noise: the scene
    has changed, or errors have been handed on from chunk to chunk.
    """

    start: float = 0.0
    drift: float = 0.25

    def __post_init__(self) -> None:
        if not 0.0 <= self.start < 1.0:
            raise ValueError(f"warm_start {self.start} must lie in 0..1, 1 excluded (0: off)")

    def guess(self, request: InferenceRequest, normalization: Normalization) -> np.ndarray | None:
        """(H, A) normalized: the rows left in play, the last one repeated; None when there are
        fewer than half, and then the chunk is made from noise."""
        previous, executed = request.previous, request.executed_rows
        if not self.start or previous is None or previous.episode_id != request.episode_id:
            return None
        left = previous.horizon - executed
        if not executed > 0 or left * 2 < previous.horizon:
            return None
        rows = np.concatenate(
            [previous.actions[executed:], np.repeat(previous.actions[-1:], executed, axis=0)]
        )
        return normalization.normalize(rows) if np.isfinite(rows).all() else None

    def holds(self, chunk: np.ndarray, guess: np.ndarray, executed: int) -> bool:
        """Whether a chunk (H, A), normalized, that began at a guess is near enough to it."""
        left = len(guess) - executed
        return bool(np.abs(chunk[:left] - guess[:left]).mean() <= self.drift)
