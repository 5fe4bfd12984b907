"""Widths in closed loop: what the player asks for, and what the motion asks of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ros_vla_accel.contracts import (
    ActionChunk,
    InferenceRequest,
    Observation,
    PolicySpec,
    executed_width,
)
from ros_vla_accel.experiments.closed_loop import Condition, run_task
from ros_vla_accel.experiments.execution import ChunkPlayer
from ros_vla_accel.experiments.width import MotionWidth, SimMotion, Width, WidthChoice
from ros_vla_accel.precision import Calibration, CalibrationError, PrecisionConfig
from ros_vla_accel.sim.env import ARM_JOINTS, STEP_S, JointSample, SawyerEnv

SPEC = PolicySpec(
    "straight",
    (),
    ARM_JOINTS,
    ("vx", "vy", "vz", "gripper"),
    16,
    0.05,
    "cartesian_velocity",
    widths=(4, 8, 16),
)


class Straight:
    """Moves along x: ``fast`` rows at 0.1 m/s after the observation's stamp, then rests."""

    spec = SPEC

    def __init__(self, fast_until_s: float = 1e9) -> None:
        self.fast_until_s = fast_until_s
        self.asked: list[InferenceRequest] = []

    def infer(self, requests: list[InferenceRequest]) -> list[ActionChunk]:
        self.asked += requests
        return [self._chunk(request) for request in requests]

    def _chunk(self, request: InferenceRequest) -> ActionChunk:
        stamp_ns = request.observation.stamp_ns
        at_s = stamp_ns * 1e-9 + 0.05 * np.arange(16)
        actions = np.zeros((16, 4), np.float32)
        actions[:, 1] = np.where(at_s < self.fast_until_s, 0.1, 0.0)
        bits = executed_width(request.activation_bits, self.spec.widths)
        ids = request.request_id, request.episode_id
        return ActionChunk(actions, 0.05, stamp_ns, *ids, "edge", bits)

    def reset(self, episode_id: int) -> None:
        pass


def calibration(tmp_path: Path, **settings: object) -> str:
    """Transit at 4 bits, rest at 16; mu95 5 mm per period, as fast as ``Straight``."""
    values = {"lambda": 1.0, "mu95": 0.005, "nu95": 1.0, "table": [[0.5, 4]], "fall_steps": 2}
    precision = PrecisionConfig.from_dict({**values, **settings})
    path = tmp_path / "calibration.yaml"
    Calibration("straight", SPEC.identity, "fk", precision).save(path)
    return str(path)


def run(choice: WidthChoice, policy: Straight, steps: int = 60) -> tuple[ChunkPlayer, SawyerEnv]:
    env = SawyerEnv("drawer-open", cameras=())
    player = ChunkPlayer(policy, 0.0, choice.make(policy.spec))
    player.reset(0, 0)
    player.width.reset(JointSample(env.time_s, *env.joints()))
    for step in range(steps):
        row = player.act(step, lambda ns: Observation({}, np.zeros(7, np.float32), "go", ns))
        env.step(row.action)
        player.moved(env.samples, row.action, step)
    return player, env


def test_a_fixed_width_is_that_of_every_request() -> None:
    policy = Straight()
    player, _ = run(WidthChoice(8), policy, 20)
    assert {request.activation_bits for request in policy.asked} == {8}
    assert player.bits == [8] * len(policy.asked)
    assert player.early == 0


@pytest.mark.parametrize("source", ["fk", "action", "joint"])
def test_every_source_measures_one_increment_per_control_period(source: str) -> None:
    env, motion = SawyerEnv("drawer-open", cameras=()), SimMotion(source, STEP_S)
    action = np.array([0.0, 0.1, 0.0, -1.0])
    if source != "action":
        motion.update([JointSample(env.time_s, *env.joints())], action)
    found = []
    for _ in range(30):
        env.step(action)
        found.append(motion.update(env.samples, action))
    assert [len(increments) for increments in found] == [1] * 30
    if source != "joint":  # 0.1 m/s for 50 ms, once the arm has come up to speed.
        np.testing.assert_allclose(found[-1][0].a_xyz, [0.0, 0.005, 0.0], atol=5e-4)


def test_transit_runs_at_few_bits_and_rest_at_16(tmp_path: Path) -> None:
    player, _ = run(WidthChoice(calibration=calibration(tmp_path)), Straight(fast_until_s=2.0))
    assert player.bits[0] == 16  # Windows are not full yet.
    assert 4 in player.bits
    assert player.width.bits == 16
    assert player.bits[-1] == 16


def test_the_plan_s_end_of_transit_asks_for_a_new_chunk_before_it(tmp_path: Path) -> None:
    class Surprise(Straight):
        """Its chunks tell of the end only from 1.2 s on."""

        def _chunk(self, request: InferenceRequest) -> ActionChunk:
            self.fast_until_s = 1.4 if request.observation.stamp_ns > 1.15e9 else 1e9
            return super()._chunk(request)

    found = {}
    for look_ahead in (True, False):
        policy = Surprise()
        path = calibration(tmp_path, macro_window=2)
        choice = WidthChoice(calibration=path, look_ahead=look_ahead)
        player, _ = run(choice, policy)
        assert player.early == 1
        found[look_ahead] = first_wide_s(policy)
    assert found[True] < 1.4 < found[False]


def first_wide_s(policy: Straight) -> float:
    """When the first chunk at 16 bits after the cold start was asked for."""
    stamps = [r.observation.stamp_ns for r in policy.asked if r.activation_bits == 16]
    return min(stamp for stamp in stamps if stamp > 1e9) * 1e-9


def test_what_the_next_chunk_brings_in_time_costs_no_inference_more(tmp_path: Path) -> None:
    # Over ten periods, the score rises so late after 1.5 s that the chunk of 1.6 s is in time.
    policy = Straight(fast_until_s=1.5)
    player, _ = run(WidthChoice(calibration=calibration(tmp_path)), policy)
    assert player.early == 0
    assert first_wide_s(policy) == pytest.approx(1.6)


def test_a_chunk_is_replaced_early_only_once(tmp_path: Path) -> None:
    class Stubborn(Straight):
        """Answers at 4 bits whatever is asked."""

        def _chunk(self, request: InferenceRequest) -> ActionChunk:
            return super()._chunk(replace(request, activation_bits=4))

    policy = Stubborn()
    player, _ = run(WidthChoice(calibration=calibration(tmp_path, mu95=1.0)), policy, 40)
    assert {r.activation_bits for r in policy.asked} == {16}
    assert player.early == len(policy.asked) - 1  # Each chunk once: no inference per step.
    assert len(policy.asked) <= 41
    assert isinstance(player.width, MotionWidth)


def test_a_calibration_of_another_policy_is_refused(tmp_path: Path) -> None:
    choice = WidthChoice(calibration=calibration(tmp_path))
    with pytest.raises(CalibrationError, match="was made for policy straight"):
        choice.make(replace(SPEC, checkpoint_hash="other"))


def test_a_width_that_does_not_exist_is_named() -> None:
    with pytest.raises(ValueError, match="bits 3 are unknown"):
        WidthChoice(3)


def test_the_width_executed_is_the_next_wider_one() -> None:
    assert [executed_width(bits, (4, 16)) for bits in (2, 4, 8, 16)] == [4, 4, 16, 16]
    assert executed_width(16, (8,)) == 8
    assert not Width(16).rose_above(ActionChunk(np.zeros((0, 4)), 0.05, 0, 0, 0, "edge", 2), 0)


def test_results_tell_the_bits_of_each_inference() -> None:
    condition = Condition(width=WidthChoice(8), expert=False)
    result = run_task(Straight(), "drawer-open", [0], condition)
    row = result.row()
    assert row["inferences_by_bits"] == {"8": row["inferences"]}
    assert result.expert_successes == []


def test_an_episode_goes_on_from_a_snapshot_as_it_did() -> None:
    env = SawyerEnv("pick-place", cameras=())
    rng = np.random.default_rng(0)
    actions = rng.uniform(-0.2, 0.2, (30, 4)) * [1, 1, 1, 5]
    for action in actions[:15]:
        env.step(action)
    snapshot = env.snapshot()
    ends = []
    for _ in range(2):
        env.restore(snapshot)
        for action in actions[15:]:
            env.step(action)
        ends.append((env.time_s, *map(np.copy, env.joints())))
    np.testing.assert_array_equal(ends[0][1], ends[1][1])
    assert ends[0][0] == ends[1][0] == 30 * STEP_S
    env.reset(1)
    with pytest.raises(ValueError, match="snapshot is of scene 0, the env is in 1"):
        env.restore(snapshot)
