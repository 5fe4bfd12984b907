import pickle

import numpy as np
import pytest

from ros_vla_accel.precision import PrecisionConfig, PrecisionController, PrecisionDecision

PERIOD = 50_000_000
FAST = np.array([0.010, 0.0, 0.0])  # As fast as mu95: fineness 0.
REST = np.zeros(3)


class Robot:
    """Feeds increments at the control period."""

    def __init__(self, **settings: object) -> None:
        self.controller = PrecisionController(PrecisionConfig.from_dict(settings))
        self.stamp_ns = 0

    def move(
        self, a_xyz: np.ndarray, steps: int = 1, a_rot: np.ndarray = REST
    ) -> PrecisionDecision:
        for _ in range(steps):
            self.stamp_ns += PERIOD
            decision = self.controller.update(a_xyz, a_rot, self.stamp_ns)
        return decision


def test_cold_start_is_full_precision_until_the_windows_are_full() -> None:
    robot = Robot(fall_steps=1)
    decision = robot.move(FAST, 9)
    assert (decision.bits, decision.reason) == (16, "cold start, 1 periods to go")
    assert robot.move(FAST).bits == 2


def test_score_is_the_paper_s() -> None:
    robot = Robot(**{"lambda": 0.7, "mu95": 0.01, "nu95": 0.02})
    turn = np.array([0.0, 0.01, 0.0])
    for step in range(12):
        decision = robot.move(np.array([0.0, 0.004, 0.0]), 1, turn * (step % 2))
    assert decision.fineness == pytest.approx(0.6)
    assert decision.jerk == pytest.approx(0.5)
    assert decision.sensitivity == pytest.approx(0.7 * 0.6 + 0.3 * 0.5)


def test_score_is_never_negative() -> None:
    assert Robot().move(10 * FAST, 20).sensitivity == 0.0


def test_rest_is_full_precision_and_transit_is_not() -> None:
    assert Robot().move(REST, 40).bits == 16
    assert Robot().move(FAST, 40).bits == 2


def test_rise_is_immediate() -> None:
    robot = Robot(macro_window=1, micro_window=1)
    assert robot.move(FAST, 20).bits == 2
    decision = robot.move(REST)
    assert (decision.bits, decision.reason) == (16, "rise")


def test_fall_needs_consecutive_steps_and_goes_to_the_most_they_asked_for() -> None:
    robot = Robot(macro_window=1, micro_window=1, fall_steps=3)
    assert robot.move(REST, 3).bits == 16
    assert robot.move(FAST).reason == "hold 1/3"
    assert robot.move(FAST * 0.3).bits == 16  # S = 0.42 asks for 8.
    decision = robot.move(FAST)
    assert (decision.bits, decision.reason) == (8, "fall")


def test_a_single_step_that_needs_the_bits_restarts_the_fall() -> None:
    robot = Robot(macro_window=1, micro_window=1, fall_steps=3)
    robot.move(REST, 3)
    robot.move(FAST, 2)
    robot.move(REST)
    assert robot.move(FAST, 2).bits == 16
    assert robot.move(FAST).bits == 2


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_increment_that_is_no_number_is_full_precision_and_a_cold_start(bad: float) -> None:
    robot = Robot()
    assert robot.move(FAST, 40).bits == 2
    decision = robot.move(np.array([bad, 0, 0]))
    assert (decision.bits, decision.reason) == (16, "increment is not finite")
    assert robot.move(FAST).reason == "cold start, 9 periods to go"


@pytest.mark.parametrize("jump_ns", [4 * PERIOD, -10 * PERIOD, -PERIOD])
def test_gap_in_the_stamps_is_a_cold_start(jump_ns: int) -> None:
    robot = Robot()
    assert robot.move(FAST, 40).bits == 2
    robot.stamp_ns += jump_ns
    assert robot.move(FAST).bits == 16


def test_no_samples_is_full_precision_with_a_reason() -> None:
    robot = Robot()
    first = robot.controller.stale(0)
    assert first is not None
    assert (first.bits, first.reason) == (16, "no joint states")
    robot.move(FAST, 40)
    assert robot.controller.stale(robot.stamp_ns + 2 * PERIOD) is None
    late = robot.controller.stale(robot.stamp_ns + 20 * PERIOD)
    assert late is not None
    assert (late.bits, late.reason) == (16, "joint states are 1.00 s old")
    assert robot.controller.bits == 16


def test_state_stays_below_64_kb_with_the_largest_windows() -> None:
    robot = Robot(macro_window=1000, micro_window=1000)
    robot.move(np.full(3, 0.123456789), 2000)
    assert len(pickle.dumps(robot.controller)) < 65536


def test_unknown_setting_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown precision setting 'thete_fp'; known: lambda_"):
        PrecisionConfig.from_dict({"thete_fp": 0.5})


@pytest.mark.parametrize(
    "settings",
    [
        {"lambda": 1.5},
        {"mu95": 0.0},
        {"macro_window": 0},
        {"table": [[0.1, 3]]},
        {"table": [[0.3, 2], [0.1, 4]]},
        {"table": [[0.1, 8], [0.3, 4]]},
    ],
)
def test_senseless_setting_is_an_error(settings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"lambda|mu95|macro_window|table"):
        PrecisionConfig.from_dict(settings)


def plan_of(*speeds: float) -> np.ndarray:
    """Increments of rows that move along x, in m per period."""
    rows = np.zeros((len(speeds), 2, 3))
    rows[:, 0, 0] = speeds
    return rows


def ahead(plan: np.ndarray, turns: bool = False, **settings: object) -> PrecisionDecision:
    robot = Robot(**{"macro_window": 2, "micro_window": 1, "fall_steps": 1, **settings})
    robot.move(FAST, 10)
    return robot.controller.update(FAST, REST, robot.stamp_ns + PERIOD, plan, turns)


def test_a_plan_that_slows_down_raises_the_width_before_the_arm_does() -> None:
    # The window of two rows is half at rest in the third row, which needs 8 bits, and at rest
    # in the fourth, which needs 16.
    decision = ahead(plan_of(0.01, 0.01, 0.0, 0.0, 0.01))
    assert (decision.bits, decision.reason) == (16, "rise, needed in 3 rows")
    assert decision.needed_ns == 11 * PERIOD + 3 * PERIOD
    assert decision.sensitivity == 0.0  # The score is still that of the motion.
    assert ahead(plan_of(0.01, 0.01, 0.01)).bits == 2
    assert ahead(plan_of(0.01, 0.01, 0.0, 0.0), look_ahead=3).bits == 8
    assert ahead(plan_of(0.0, 0.0), look_ahead=0).bits == 2


def test_a_plan_whose_rotation_is_not_known_leaves_jerk_as_it_is() -> None:
    plan = plan_of(0.01, 0.01)
    plan[1, 1] = (0.0, 0.02, 0.0)
    assert ahead(plan, turns=True).bits == 16
    assert ahead(plan, turns=False).bits == 2


def test_a_plan_that_is_not_finite_counts_as_none() -> None:
    assert ahead(plan_of(0.01, np.nan)).bits == 2
    assert ahead(plan_of()).bits == 2


def test_a_plan_gives_the_scores_that_its_motion_will_give() -> None:
    rng = np.random.default_rng(0)
    robot = Robot(macro_window=4, micro_window=3, fall_steps=1, table=[(0.9, 4), (1.5, 8)])
    robot.controller.config = PrecisionConfig(
        macro_window=4, micro_window=3, fall_steps=1, theta_fp=9.0, table=((0.6, 4), (0.9, 8))
    )
    for _ in range(200):
        plan = rng.uniform(0, 0.012, (5, 2, 3))
        most, row = robot.controller._look_ahead(plan, True) if robot.stamp_ns else (0, 0)
        executed = [robot.move(xyz, 1, rot) for xyz, rot in plan]
        if most and not any("cold" in decision.reason for decision in executed):
            asked = [robot.controller._look_up(decision.sensitivity) for decision in executed]
            assert (most, row) == (max(asked), asked.index(max(asked)) + 1)


def test_the_instant_from_which_bits_are_needed_stays_while_the_plan_comes_nearer() -> None:
    robot = Robot(macro_window=2, micro_window=1, fall_steps=1, theta_fp=0.9)
    robot.controller.config = PrecisionConfig(
        macro_window=2, micro_window=1, fall_steps=1, theta_fp=0.4, table=((0.1, 2),)
    )
    assert robot.move(FAST, 10).needed_ns < robot.stamp_ns
    plan = plan_of(0.01, 0.0, 0.0, 0.0)
    decision = robot.controller.update(FAST, REST, robot.stamp_ns + PERIOD, plan, False)
    needed_ns = robot.stamp_ns + PERIOD + 2 * PERIOD
    assert (decision.bits, decision.needed_ns) == (16, needed_ns)
    robot.stamp_ns += PERIOD
    # Asked for again a period later, by a plan that has come nearer: it is the same instant.
    decision = robot.controller.update(FAST, REST, robot.stamp_ns + PERIOD, plan[1:], False)
    assert (decision.reason, decision.needed_ns) == ("steady", needed_ns)
    robot.stamp_ns += PERIOD
    decision = robot.move(REST, 2)
    assert (decision.reason, decision.needed_ns) == ("steady", needed_ns)
    assert needed_ns < robot.stamp_ns
    assert robot.controller.unknown("late").needed_ns == 0
