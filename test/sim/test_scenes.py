"""Two tasks in one and the same scene: only the instruction can tell them apart."""

from __future__ import annotations

import numpy as np
import pytest

from ros_vla_accel.sim.env import MAX_STEPS, SawyerEnv

COLOURS = ("red", "blue")


@pytest.fixture(scope="module")
def envs() -> dict[str, SawyerEnv]:
    return {colour: SawyerEnv(f"button-press-{colour}", image_size=32) for colour in COLOURS}


def test_no_camera_and_no_joint_tells_which_button_is_meant(envs: dict[str, SawyerEnv]) -> None:
    for seed in range(4):
        for env in envs.values():
            env.reset(seed)
        for camera in envs["red"].cameras:
            np.testing.assert_array_equal(*(env.render(camera) for env in envs.values()))
        np.testing.assert_array_equal(*(env.state() for env in envs.values()))


def test_each_colour_is_on_either_side_and_never_where_the_other_is(
    envs: dict[str, SawyerEnv],
) -> None:
    sides = []
    for seed in range(12):
        for env in envs.values():
            env.reset(seed)
        red, blue = (env.privileged()["object"][0] for env in envs.values())
        assert red * blue < 0
        sides.append(red > 0)
    assert 2 < sum(sides) < 10


def test_pressing_the_other_button_fails_whatever_comes_after(envs: dict[str, SawyerEnv]) -> None:
    wanted, other = envs["red"], envs["blue"]
    for env in envs.values():
        env.reset(3)
    for _ in range(MAX_STEPS):
        if other.success:
            break
        action = other.expert_action()
        other.step(action)
        wanted.step(action)
    assert other.success
    assert not wanted.success
    before = wanted.privileged()["object"][2]
    for _ in range(MAX_STEPS):
        wanted.step(wanted.expert_action())
    assert before - wanted.privileged()["object"][2] > 0.04  # the right one was pressed at last
    assert not wanted.success
