"""The motion's source, the plan and the controller agree on units, and on what is not known."""

import math

import numpy as np
import pytest

from ros_vla_accel.kinematics.action_motion import ActionMotion
from ros_vla_accel.kinematics.joints import JointSample
from ros_vla_accel.precision import MotionPrecision, PrecisionConfig

PERIOD_NS = 50_000_000
JOINTS = ("j0", "j1", "j2", "wrist0", "wrist1", "wrist2")
CARTESIAN = ActionMotion("cartesian_velocity", {0: "linear.x"})
JOINT = ActionMotion("joint_velocity", dict(enumerate(JOINTS)), joints=JOINTS)
CONFIG = PrecisionConfig(mu95=0.02, nu95=0.02, fall_steps=2)
FAST = 0.38  # rad/s or m/s: 0.019 in a control period, close to mu95
URDF = """<robot name="arm"><link name="base"/><link name="tip"/><joint name="j0" type="prismatic">
<parent link="base"/><child link="tip"/><axis xyz="1 0 0"/>
<limit lower="-9" upper="9" effort="1" velocity="1"/></joint></robot>"""


def moving(precision: MotionPrecision, periods: int = 16, speed: float = FAST):
    """Joint states of an arm whose first joint moves; the decisions, and the next period's."""
    decided = []
    for index in range(periods * 5):
        position = np.zeros(len(JOINTS))
        position[0] = speed * index * 0.01
        decided += precision.on_sample(JointSample(index * PERIOD_NS // 5, position, position * 0))
    return decided


def test_fast_transit_lowers_the_width() -> None:
    precision = MotionPrecision(CONFIG, "joint")
    assert moving(precision)[-1][1].bits == 2


def slow_plan(precision: MotionPrecision, columns: int) -> None:
    """A chunk that moves on for two rows and then stands still, in play from its first row."""
    rows = np.zeros((16, columns))
    rows[:2, 0] = FAST
    precision.on_chunk(5, rows, 0.05)
    precision.on_executor_state(0, True, 5, 0, np.zeros(columns))


@pytest.mark.parametrize(
    ("source", "motion", "looks"),
    [("joint", JOINT, True), ("joint", CARTESIAN, False), ("fk", CARTESIAN, True)],
)
def test_the_plan_counts_only_in_the_unit_of_the_motion(
    source: str, motion: ActionMotion, looks: bool
) -> None:
    precision = MotionPrecision(CONFIG, source, motion)
    if source == "fk":
        pytest.importorskip("pinocchio")
        assert not precision.looks_ahead
        assert precision.describe(URDF, JOINTS) == ""
    assert precision.looks_ahead is looks
    decided = moving(precision)
    assert decided[-1][1].bits == 2
    slow_plan(precision, motion.width)
    position = np.zeros(len(JOINTS))
    position[0] = FAST * 16 * 0.05
    ((_, decision),) = precision.on_sample(JointSample(16 * PERIOD_NS, position, position))
    assert (decision.bits > 2) is looks
    assert ("needed in" in decision.reason) is looks


def test_without_look_ahead_the_plan_does_not_count() -> None:
    config = PrecisionConfig(mu95=0.02, nu95=0.02, look_ahead=0)
    assert not MotionPrecision(config, "joint", JOINT).looks_ahead


def test_fk_without_a_description_keeps_full_precision() -> None:
    precision = MotionPrecision(CONFIG, "fk", CARTESIAN)
    assert moving(precision) == []
    assert precision.source == "none"
    decision = precision.stale(0)
    assert decision is not None
    assert (decision.bits, decision.reason) == (16, "no robot_description for source fk")


def play(precision: MotionPrecision, commands, playing: bool = True, start: int = 0):
    return [
        precision.on_executor_state((start + k) * PERIOD_NS, playing, 5, k, row)[0][1]
        for k, row in enumerate(commands)
    ]


def test_commands_are_motion_too_and_look_ahead() -> None:
    precision = MotionPrecision(CONFIG, "action", CARTESIAN)
    assert moving(precision) == []
    decided = play(precision, [[FAST, 1.0]] * 16)
    assert decided[0].bits == 16
    assert decided[-1].bits == 2
    rows = np.zeros((32, 2))
    rows[:17, 0] = FAST
    precision.on_chunk(5, rows, 0.05)
    ((_, decision),) = precision.on_executor_state(16 * PERIOD_NS, True, 5, 16, [FAST, 1.0])
    assert decision.bits > 2
    assert "needed in" in decision.reason


def test_a_hold_and_what_is_no_command_mean_full_precision() -> None:
    precision = MotionPrecision(CONFIG, "action", CARTESIAN)
    assert play(precision, [[FAST]] * 16)[-1].bits == 2
    (held,) = play(precision, [[0.0]], playing=False, start=16)
    assert (held.bits, held.reason) == (16, "executor holds")
    assert precision.stale(17 * PERIOD_NS) is None, "a hold that is reported is not silence"
    silent = precision.stale(40 * PERIOD_NS)
    assert silent is not None
    assert silent.reason == "no executor_state"
    (again,) = play(precision, [[FAST]], start=17)
    assert again.bits == 16
    assert math.isnan(again.sensitivity), "a hold is a cold start"
    for command in ([], [math.nan]):
        (decision,) = play(precision, [command], start=18)
        assert decision.bits == 16


@pytest.mark.parametrize(("source", "motion"), [("eyes", JOINT), ("action", None)])
def test_a_source_that_cannot_be_had_is_an_error(source: str, motion) -> None:
    with pytest.raises(ValueError, match="source"):
        MotionPrecision(CONFIG, source, motion)
