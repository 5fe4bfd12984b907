"""The scripted experts solve their tasks at 50 ms per action."""

from __future__ import annotations

import numpy as np
import pytest

from ros_vla_accel.sim.env import MAX_STEPS, TASKS, SawyerEnv

TARGETS = {
    "drawer-open-v3": 0.95,
    "button-press-topdown-v3": 0.95,
    "button-press-red-v3": 0.95,
    "button-press-blue-v3": 0.95,
    "door-open-v3": 0.90,
    "window-open-v3": 0.95,
    "pick-place-v3": 0.95,
    "peg-insert-side-v3": 0.85,
}


def solves(env: SawyerEnv, seed: int, noise: np.ndarray | None = None) -> bool:
    env.reset(seed)
    for step in range(MAX_STEPS):
        action = env.expert_action()
        env.step(action if noise is None or step >= len(noise) else noise[step])
        if env.success:
            return True
    return False


@pytest.mark.parametrize("task", TASKS)
def test_the_expert_solves_its_task(task: str) -> None:
    env = SawyerEnv(task)
    assert sum(solves(env, seed) for seed in range(5)) == 5


@pytest.mark.parametrize("task", TASKS)
def test_the_expert_takes_over_from_a_bad_pilot(task: str) -> None:
    env = SawyerEnv(task)
    rng = np.random.default_rng(0)
    solved = 0
    for seed in range(4):
        noise = np.repeat(rng.uniform(-0.2, 0.2, (4, 4)), 5, axis=0)
        solved += solves(env, seed, noise)
    assert solved >= 3


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_the_expert_reaches_its_target_on_100_seeds(task: str) -> None:
    env = SawyerEnv(task)
    assert sum(solves(env, seed) for seed in range(100)) >= 100 * TARGETS[task]
