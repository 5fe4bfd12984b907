"""The simulator: one scene per seed, motion as commanded, and images a policy can use."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from ros_vla_accel.sim.env import JOINT_NAMES, STEP_S, TASKS, SawyerEnv, full_task_name


@pytest.fixture(scope="module")
def env():
    env = SawyerEnv("drawer-open", image_size=64)
    yield env
    env.close()


def hand(env: SawyerEnv) -> np.ndarray:
    return env.privileged()["hand"]


@pytest.mark.parametrize("task", TASKS)
def test_a_seed_gives_the_same_scene_whatever_came_before(task: str) -> None:
    fresh, used = SawyerEnv(task, seed=7), SawyerEnv(task, seed=1)
    for _ in range(30):
        used.step(used.expert_action())
    used.reset(7)
    for _ in range(10):
        fresh.step(fresh.expert_action())
        used.step(used.expert_action())
    np.testing.assert_array_equal(fresh.data.qpos, used.data.qpos)


def test_another_seed_gives_another_scene(env: SawyerEnv) -> None:
    env.reset(1)
    first = env.privileged()["object"]
    env.reset(2)
    assert np.abs(env.privileged()["object"] - first).max() > 1e-3


def test_the_hand_follows_a_velocity_in_metres_per_second(env: SawyerEnv) -> None:
    env.reset(0)
    env.step(np.array([0.1, 0.0, 0.0, -1.0]))  # let it get up to speed
    start = hand(env)
    for _ in range(10):
        env.step(np.array([0.1, 0.0, 0.0, -1.0]))
    moved = hand(env) - start
    assert moved[0] == pytest.approx(0.1 * 10 * STEP_S, abs=0.005)
    assert np.abs(moved[1:]).max() < 0.005


def test_a_held_hand_does_not_wind_the_command_up(env: SawyerEnv) -> None:
    env.reset(0)
    for _ in range(40):
        env.step(np.array([0.0, 0.0, -0.2, 1.0]))  # into the table
    low = hand(env)
    for _ in range(12):
        env.step(np.array([0.0, 0.0, 0.2, 1.0]))
    assert hand(env)[2] > low[2] + 0.03


def test_joint_samples_come_at_100_hz_inside_a_step(env: SawyerEnv) -> None:
    env.reset(0)
    env.step(env.expert_action())
    env.step(env.expert_action())
    assert [round(s.time_s, 3) for s in env.samples] == [0.06, 0.07, 0.08, 0.09, 0.1]
    assert all(s.position.shape == (9,) for s in env.samples)
    np.testing.assert_array_equal(env.samples[-1].position, env.joints()[0])


def test_state_is_the_joint_positions_by_name(env: SawyerEnv) -> None:
    env.reset(0)
    assert env.state_names == JOINT_NAMES
    assert env.state().dtype == np.float32
    expected = [env.data.joint(name).qpos[0] for name in JOINT_NAMES]
    np.testing.assert_allclose(env.state(), expected, rtol=1e-6)


def test_effort_shows_contact() -> None:
    env = SawyerEnv("drawer-open", seed=3)
    changes, touching = [], []
    previous = None
    while not env.success:
        env.step(env.expert_action())
        for sample in env.samples:
            if previous is not None:
                changes.append(np.linalg.norm(sample.effort[:7] - previous))
            previous = sample.effort[:7]
    touching = np.sort(changes)[-3:]
    assert touching.mean() > 5 * np.median(changes)


def test_success_stays_once_reached(env: SawyerEnv) -> None:
    env.reset(0)
    while not env.success:
        env.step(env.expert_action())
    for _ in range(60):
        env.step(np.array([0.0, 0.2, 0.0, -1.0]))  # pushes the drawer in again
    assert env.success
    env.reset(0)
    assert not env.success


def test_an_episode_can_outlast_meta_worlds_limit(env: SawyerEnv) -> None:
    env.reset(0)
    for _ in range(520):
        env.step(np.zeros(4))


def test_images_show_what_moves(env: SawyerEnv) -> None:
    env.reset(0)
    for camera in env.cameras:
        before = env.render(camera)
        assert before.shape == (64, 64, 3)
        assert before.dtype == np.uint8
        for _ in range(15):
            env.step(env.expert_action())
        change = np.abs(env.render(camera).astype(int) - before).max(axis=2)
        assert (change > 40).sum() > 20


def test_a_large_image_shrunk_by_area_is_the_small_image() -> None:
    small, large = (
        SawyerEnv("drawer-open", image_size=64),
        SawyerEnv("drawer-open", image_size=128),
    )
    shrunk = cv2.resize(large.render("corner2"), (64, 64), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(small.render("corner2"), shrunk)
    small.close()
    large.close()


def test_an_image_is_not_overwritten_by_the_next(env: SawyerEnv) -> None:
    env.reset(0)
    first = env.render("corner2")
    copy = first.copy()
    env.render("gripperPOV")
    np.testing.assert_array_equal(first, copy)


def test_a_command_that_is_not_finite_is_refused(env: SawyerEnv) -> None:
    with pytest.raises(ValueError, match="not finite"):
        env.step(np.array([np.nan, 0.0, 0.0, 0.0]))


def test_an_unknown_task_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="drawer-open"):
        full_task_name("make-coffee")


def test_an_unknown_camera_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="corner2"):
        SawyerEnv("drawer-open", cameras=("wrist",))


def test_the_experts_plan_is_what_it_does_next() -> None:
    env = SawyerEnv("pick-place")
    env.reset(5)
    for _ in range(12):
        env.step(env.expert_action())
    plan, done = env.expert_plan(16), []
    for _ in range(16):
        done.append(env.expert_action())
        env.step(done[-1])
    env.close()
    np.testing.assert_array_equal(plan, done)


def test_planning_leaves_the_episode_as_it_was() -> None:
    env = SawyerEnv("door-open")

    def run(plans: bool) -> list[np.ndarray]:
        env.reset(5)
        seen = []
        for _ in range(40):
            if plans:
                env.expert_plan(4)
            env.step(env.expert_action())
            seen.append(np.concatenate([*env.joints(), [env.time_s, len(env.samples)]]))
        return seen

    np.testing.assert_array_equal(run(plans=False), run(plans=True))
    env.close()
