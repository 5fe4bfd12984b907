import numpy as np
import pytest

from ros_vla_accel.kinematics.action_motion import ActionMotion, ActionSource
from ros_vla_accel.kinematics.increments import IncrementSource
from ros_vla_accel.kinematics.joints import JointSample

JOINTS = [f"j{i}" for i in range(6)]
COLUMNS = dict(enumerate(JOINTS))


def test_a_cartesian_velocity_moves_its_axes_for_one_period() -> None:
    motion = ActionMotion(
        "cartesian_velocity", {0: "linear.z", 1: "linear.x", 3: "angular.y"}, 0.1
    )
    moved = motion.increments([[0.2, 0.1, 9.0, 0.5]])
    assert motion.turns
    np.testing.assert_allclose(moved, [[[0.01, 0.0, 0.02], [0.0, 0.05, 0.0]]])


def test_without_angular_columns_rotation_is_said_to_be_unknown() -> None:
    assert not ActionMotion("cartesian_velocity", {0: "linear.x"}).turns
    assert ActionMotion("joint_velocity", COLUMNS, joints=JOINTS).turns


@pytest.mark.parametrize("kind", ["joint_velocity", "joint_position"])
def test_joint_actions_give_the_increments_of_the_joints_that_follow_them(kind: str) -> None:
    rng = np.random.default_rng(1)
    velocity = rng.normal(0, 0.3, (20, 6))
    position = np.vstack([np.zeros(6), np.cumsum(0.05 * velocity, axis=0)])
    measured = IncrementSource(0.05, "joint")
    expected = [
        (increment.a_xyz, increment.a_rot)
        for k, row in enumerate(position)
        for increment in measured.update(JointSample(k * 50_000_000, row, row))
    ]
    rows = velocity if kind == "joint_velocity" else position[1:]
    # The gripper's column comes first and moves nothing.
    rows = np.hstack([np.full((20, 1), 7.0), rows])
    motion = ActionMotion(kind, {k + 1: name for k, name in COLUMNS.items()}, joints=JOINTS)
    start = np.concatenate([[0.0], position[0]])
    np.testing.assert_allclose(motion.increments(rows, start), expected, atol=1e-12)
    source = ActionSource(motion)
    source.update(start, 0)
    for k, row in enumerate(rows):
        increment = source.update(row, k)
        np.testing.assert_allclose((increment.a_xyz, increment.a_rot), expected[k], atol=1e-12)


def test_the_first_position_moves_nothing() -> None:
    motion = ActionMotion("joint_position", COLUMNS, joints=JOINTS)
    assert not motion.increments([[1.0] * 6]).any()
    assert motion.increments(np.zeros((0, 6))).shape == (0, 2, 3)


def test_what_cannot_be_read_is_named() -> None:
    with pytest.raises(ValueError, match="'torque' has no motion"):
        ActionMotion("torque", {0: "linear.x"})
    with pytest.raises(ValueError, match="no action column moves the arm"):
        ActionMotion("cartesian_velocity", {0: "data"})
