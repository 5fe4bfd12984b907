"""The robot without ROS: a clock that only rises, commands that go stale, images when due."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from ros_vla_accel.sim.env import SawyerEnv
from ros_vla_accel.sim.loop import TICK_NS, SimConfig, SimLoop, Tick


@pytest.fixture
def loop() -> Iterator[SimLoop]:
    loop = SimLoop(SimConfig(task="drawer-open", seed=3, image_size=64, image_rate_hz=10.0))
    yield loop
    loop.close()


def ticks(loop: SimLoop, count: int) -> list[Tick]:
    return [loop.tick() for _ in range(count)]


def speed(tick: Tick) -> float:
    return float(np.abs(tick.joints.velocity[:7]).max())


def test_joint_states_come_at_100_hz_and_images_at_their_rate(loop: SimLoop) -> None:
    run = ticks(loop, 40)
    assert np.diff([tick.stamp_ns for tick in run]).tolist() == [TICK_NS] * 39
    drawn = [tick.stamp_ns for tick in run if tick.images]
    assert np.diff(drawn).tolist() == [100_000_000] * 3
    assert all(sorted(tick.images) == ["corner2", "gripperPOV"] for tick in run if tick.images)


def test_the_clock_rises_across_a_reset(loop: SimLoop) -> None:
    before = ticks(loop, 3)[-1].stamp_ns
    loop.reset()
    assert before < loop.tick().stamp_ns <= before + 2 * TICK_NS


def test_a_reset_takes_the_next_seed_unless_told(loop: SimLoop) -> None:
    loop.reset()
    assert (loop.seed, loop.episode) == (4, 1)
    loop.reset(seed=17)
    assert (loop.seed, loop.episode) == (17, 2)


def test_a_reset_can_change_the_task(loop: SimLoop) -> None:
    loop.reset(task="button-press-topdown")
    assert loop.task == "button-press-topdown"
    assert len([tick for tick in ticks(loop, 10) if tick.images]) == 1


def test_an_unknown_task_leaves_the_episode_as_it_is(loop: SimLoop) -> None:
    with pytest.raises(ValueError, match="unknown task"):
        loop.reset(task="make-coffee")
    assert (loop.task, loop.seed, loop.episode) == ("drawer-open", 3, 0)


def test_a_velocity_moves_the_arm_until_it_is_stale(loop: SimLoop) -> None:
    loop.tick()
    loop.command_velocity(np.array([0.15, 0.0, 0.0]), loop.now_ns)
    run = ticks(loop, 120)
    assert speed(run[15]) > 0.05
    assert speed(run[-1]) < 0.02


def test_a_velocity_that_arrives_stale_moves_nothing(loop: SimLoop) -> None:
    ticks(loop, 30)
    loop.command_velocity(np.array([0.2, 0.2, 0.0]), TICK_NS)
    assert max(speed(tick) for tick in ticks(loop, 10)) < 0.02


def test_a_velocity_for_the_last_episode_moves_nothing_in_the_next(loop: SimLoop) -> None:
    ticks(loop, 3)
    stamp_ns = loop.now_ns
    loop.reset()
    loop.command_velocity(np.array([0.2, 0.2, 0.0]), stamp_ns)
    still = [speed(tick) for tick in ticks(loop, 10)]
    loop.reset(seed=loop.seed)
    assert still == [speed(tick) for tick in ticks(loop, 10)]


def test_a_velocity_without_a_stamp_counts_from_its_arrival(loop: SimLoop) -> None:
    ticks(loop, 30)
    loop.command_velocity(np.array([0.15, 0.0, 0.0]))
    assert speed(ticks(loop, 15)[-1]) > 0.05


def test_the_gripper_keeps_its_command(loop: SimLoop) -> None:
    loop.command_gripper(1.0)
    closed = ticks(loop, 60)[-1].joints.position[7:]
    assert np.abs(closed).min() > 0.02


@pytest.mark.parametrize("velocity", [[np.nan, 0, 0], [np.inf, 0, 0], [0, 0]])
def test_a_velocity_that_is_not_three_finite_numbers_is_refused(
    loop: SimLoop, velocity: list[float]
) -> None:
    with pytest.raises(ValueError, match="finite"):
        loop.command_velocity(np.array(velocity))


def test_a_gripper_command_that_is_not_finite_is_refused(loop: SimLoop) -> None:
    with pytest.raises(ValueError, match="not finite"):
        loop.command_gripper(float("nan"))


def test_the_loop_moves_like_the_environment_that_policies_learn_in(loop: SimLoop) -> None:
    env = SawyerEnv("drawer-open", seed=3)
    while not env.success:
        action = env.expert_action()
        env.step(action)
        loop.command_velocity(action[:3], loop.now_ns)
        loop.command_gripper(float(action[3]))
        last = ticks(loop, 5)[-1]
    np.testing.assert_allclose(last.joints.position, env.joints()[0], atol=1e-3)
    assert loop.success


@pytest.mark.parametrize("rate_hz", [0.0, -1.0, 200.0])
def test_an_image_rate_out_of_range_is_refused(rate_hz: float) -> None:
    with pytest.raises(ValueError, match="image_rate_hz"):
        SimConfig(image_rate_hz=rate_hz)
