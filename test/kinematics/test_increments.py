import math

import numpy as np
import pytest

from ros_vla_accel.kinematics.fk import ForwardKinematics
from ros_vla_accel.kinematics.increments import Increment, IncrementSource, rotation_vector
from ros_vla_accel.kinematics.joints import JointSample

MS = 1_000_000
SPEED = np.array([0.1, -0.2, 0.3, 0.4, 0.5, -0.6, 0.7])


def at(stamp_ns: int, speed: np.ndarray = SPEED) -> JointSample:
    return JointSample(stamp_ns, speed * stamp_ns * 1e-9, speed)


def run(source: IncrementSource, stamps_ms: list[float]) -> list[Increment]:
    return [item for ms in stamps_ms for item in source.update(at(round(ms * MS)))]


@pytest.mark.parametrize(
    "stamps_ms",
    [
        list(range(0, 501, 10)),
        list(range(0, 501, 2)),
        [0, 3, 4, 41, 60, 61, 99, 170, 171, 260, 300, 377, 420, 444, 501],
        [0, 120, 240, 360, 480, 500],
    ],
)
def test_uniform_motion_gives_equal_increments_at_any_rate(stamps_ms: list[float]) -> None:
    increments = run(IncrementSource(), stamps_ms)
    assert [item.stamp_ns for item in increments] == [50 * MS * (k + 1) for k in range(10)]
    for item in increments:
        np.testing.assert_allclose(item.a_rot, SPEED[4:] * 0.05, atol=1e-12)
        assert np.linalg.norm(item.a_xyz) == pytest.approx(np.linalg.norm(SPEED[:4]) * 0.05)


def test_increment_comes_with_the_first_sample_at_or_after_its_end() -> None:
    source = IncrementSource()
    assert run(source, [0, 20, 49]) == []
    assert len(run(source, [50])) == 1


@pytest.mark.parametrize("stamp_ms", [700, -2000, 100])
def test_gap_or_backward_or_repeated_stamp_starts_a_new_grid(stamp_ms: int) -> None:
    source = IncrementSource()
    run(source, [0, 50, 100])
    assert run(source, [stamp_ms]) == []
    assert source.restarts == 1
    assert [item.stamp_ns for item in run(source, [stamp_ms + 50])] == [(stamp_ms + 50) * MS]


def test_gripper_joints_are_left_out_of_the_arm() -> None:
    source = IncrementSource(arm_joints=6)
    item = run(source, [0, 50])[0]
    np.testing.assert_allclose(item.a_xyz, SPEED[:3] * 0.05)
    np.testing.assert_allclose(item.a_rot, SPEED[3:6] * 0.05)


def test_short_arms_have_no_wrist() -> None:
    source = IncrementSource(arm_joints=2)
    item = run(source, [0, 50])[0]
    np.testing.assert_allclose(item.a_xyz, [0.005, -0.01, 0])
    assert not item.a_rot.any()


def test_fk_increments_are_translation_and_rotation_of_the_frame() -> None:
    pytest.importorskip("pinocchio")
    urdf = """<robot name="arm"><link name="base"/><link name="tool"/><link name="tip"/>
      <joint name="j" type="revolute"><parent link="base"/><child link="tool"/>
      <axis xyz="0 0 1"/><limit lower="-9" upper="9" effort="1" velocity="1"/></joint>
      <joint name="m" type="fixed"><parent link="tool"/><child link="tip"/>
      <origin xyz="2 0 0"/></joint></robot>"""
    source = IncrementSource(source="fk", fk=ForwardKinematics(urdf, ["j"]))
    speed = np.array([0.4])
    source.update(at(0, speed))
    item = source.update(at(50 * MS, speed))[0]
    np.testing.assert_allclose(item.a_rot, [0, 0, 0.02], atol=1e-12)
    np.testing.assert_allclose(
        item.a_xyz, [2 * math.cos(0.02) - 2, 2 * math.sin(0.02), 0], atol=1e-12
    )


def test_source_fk_without_a_description_names_the_way_out() -> None:
    with pytest.raises(ValueError, match="robot_description"):
        IncrementSource(source="fk")
    with pytest.raises(ValueError, match="choose from fk, joint"):
        IncrementSource(source="imu")


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-4, 0.5, 2.0, math.pi - 1e-7, math.pi])
@pytest.mark.parametrize("axis", [[1, 0, 0], [0, -1, 0], [0.6, 0.0, 0.8], [-0.48, 0.64, 0.6]])
def test_rotation_vector_inverts_the_exponential(axis: list[float], angle: float) -> None:
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    rotation = np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross
    found = rotation_vector(rotation)
    expected = angle * np.array(axis)
    if angle > math.pi - 1e-6 and found @ expected < 0:
        found = -found  # Half a turn either way is the same rotation.
    np.testing.assert_allclose(found, expected, atol=1e-6)
