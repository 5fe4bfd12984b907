"""Policies that take a given time and compute nothing, for benchmarks of what lies around them."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from ros_vla_accel.contracts import ActionChunk, InferenceRequest, PolicySpec

HORIZON, ACTIONS, STATES = 50, 14, 14


class EmulatedPolicy:
    """Answers (50, 14) zeros after base_s + item_s per request of the batch, s.

    It sleeps meanwhile, as a process does whose accelerator computes.
    """

    def __init__(self, base_s: float, item_s: float):
        self._base_s, self._item_s = base_s, item_s
        self._actions = np.zeros((HORIZON, ACTIONS), np.float32)
        self.spec = PolicySpec(
            name="emulated",
            cameras=(),
            state_names=tuple(f"s{k}" for k in range(STATES)),
            action_names=tuple(f"a{k}" for k in range(ACTIONS)),
            horizon=HORIZON,
            period_s=0.02,
            action_kind="joint_position",
            stages=("backbone", "head"),
        )

    def infer(self, requests: Sequence[InferenceRequest]) -> list[ActionChunk]:
        duration_s = self._base_s + self._item_s * len(requests)
        if duration_s:
            time.sleep(duration_s)
        return [
            ActionChunk(
                actions=self._actions,
                period_s=self.spec.period_s,
                stamp_ns=request.observation.stamp_ns,
                request_id=request.request_id,
                episode_id=request.episode_id,
                source="edge",
            )
            for request in requests
        ]

    def reset(self, episode_id: int) -> None:
        """Nothing to forget."""


def noop() -> EmulatedPolicy:
    """Takes no time."""
    return EmulatedPolicy(0.0, 0.0)


def loaded() -> EmulatedPolicy:
    """10 ms and 0.5 ms per request."""
    return EmulatedPolicy(0.010, 0.0005)
