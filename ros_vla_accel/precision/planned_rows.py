"""The rows of the plan that are still to come, as motion."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ros_vla_accel.kinematics.action_motion import ActionMotion
from ros_vla_accel.kinematics.joints import FloatArray

KEPT_CHUNKS = 4
"""A chunk comes into play within a few control periods after it was published, or never."""
MOST_ROWS = 128
"""The executor plays chunks of at most 5 s."""


class PlannedRows:
    """The rows of the chunk in play after the one that executes, as increments per period.

    A chunk counts once the executor says that it plays it, whoever made it. No clocks are
    compared: executor_state names chunk and row, and ``coming`` is asked once per control period,
    so that a state which is not renewed for ``stale_s`` is noticed by counting.

    motion: meaning of the columns. period_s: control period; chunks of another are no plan here,
    the executor does not play them either. Not thread-safe.
    """

    def __init__(self, motion: ActionMotion, period_s: float, stale_s: float) -> None:
        self._motion = motion
        self._period_s = period_s
        self._stale_periods = max(1, round(stale_s / period_s))
        self._chunks: dict[int, FloatArray] = {}
        self._playing: tuple[int, int] | None = None  # request id, row
        self._asked = 0

    def take_chunk(self, request_id: int, actions: ArrayLike, period_s: float) -> None:
        """Any action_chunk: (H, A) rows. What cannot be played is not kept."""
        rows = np.asarray(actions, dtype=np.float64)[:MOST_ROWS]
        fits = rows.ndim == 2 and len(rows) and rows.shape[1] >= self._motion.width
        if not fits or abs(period_s - self._period_s) > 1e-9 or not np.isfinite(rows).all():
            return
        self._chunks[request_id] = self._motion.increments(rows)
        while len(self._chunks) > KEPT_CHUNKS:
            del self._chunks[next(iter(self._chunks))]

    def take_state(self, playing: bool, request_id: int, row: int) -> None:
        """The newest executor_state: whether ``row`` of the chunk ``request_id`` executes."""
        self._playing = (request_id, row) if playing else None
        self._asked = 0

    def coming(self) -> FloatArray | None:
        """(n, 2, 3) translation and rotation of each row to come; None if none is known.

        To be called once per control period.
        """
        self._asked += 1
        if self._playing is None or self._asked > self._stale_periods:
            return None
        request_id, row = self._playing
        chunk = self._chunks.get(request_id)
        return None if chunk is None or row + 1 >= len(chunk) else chunk[row + 1 :]
