"""Recorded episodes without a simulator."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from ros_vla_accel.experiments.collect import Episode


def make_episode(task: str = "drawer-open-v3", steps: int = 30, seed: int = 0) -> Episode:
    rng = np.random.default_rng(seed)
    return Episode(
        task,
        seed,
        rng.integers(0, 255, (steps, 2, 64, 64, 3), dtype=np.uint8),
        rng.standard_normal((steps, 9)).astype(np.float32),
        rng.uniform(-0.2, 0.2, (steps, 16, 4)).astype(np.float32),
        np.ones(steps, bool),
        rng.standard_normal((steps, 15)).astype(np.float32),
    )


@pytest.fixture
def episode() -> Callable[..., Episode]:
    """Task, steps and seed -> an episode of random content."""
    return make_episode
