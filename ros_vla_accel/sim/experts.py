"""Scripted experts, for demonstrations and as the ceiling that success is measured against."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
from metaworld.policies import ENV_POLICY_MAP

Expert = Callable[[np.ndarray], np.ndarray]
"""Meta-World observation (39,) -> action (4,) in [-1, 1], which may overshoot."""


def expert(task: str) -> Expert:
    """The expert of a Meta-World task. It keeps no state, so it can take over at any time."""
    policy = ENV_POLICY_MAP[task]()

    def act(obs: np.ndarray) -> np.ndarray:
        with warnings.catch_warnings():  # they clip on purpose, and say so at each call
            warnings.simplefilter("ignore")
            return policy.get_action(obs.copy())

    return act
