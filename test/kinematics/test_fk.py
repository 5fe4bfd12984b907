import math
import sys

import numpy as np
import pytest

from ros_vla_accel.kinematics.fk import ForwardKinematics

pytest.importorskip("pinocchio")

URDF = """<robot name="arm">
  <link name="base"/><link name="upper"/><link name="lower"/><link name="tool"/>
  <link name="finger"/>
  <joint name="shoulder" type="continuous">
    <parent link="base"/><child link="upper"/><axis xyz="0 0 1"/></joint>
  <joint name="elbow" type="revolute">
    <parent link="upper"/><child link="lower"/><axis xyz="0 0 1"/><origin xyz="1 0 0"/>
    <limit lower="-3" upper="3" effort="1" velocity="1"/></joint>
  <joint name="mount" type="fixed">
    <parent link="lower"/><child link="tool"/><origin xyz="0.5 0 0"/></joint>
  <joint name="slide" type="prismatic">
    <parent link="tool"/><child link="finger"/><axis xyz="0 0 1"/>
    <limit lower="0" upper="1" effort="1" velocity="1"/></joint>
</robot>"""


def test_pose_follows_the_joints_in_the_given_order() -> None:
    fk = ForwardKinematics(URDF, ["elbow", "shoulder"], "tool")
    xyz, rotation = fk.pose([math.pi / 2, math.pi / 2])
    np.testing.assert_allclose(xyz, [-0.5, 1.0, 0.0], atol=1e-12)
    np.testing.assert_allclose(rotation, np.diag([-1.0, -1.0, 1.0]), atol=1e-12)


def test_prismatic_joints_move_along_their_axis() -> None:
    fk = ForwardKinematics(URDF, ["shoulder", "elbow", "slide"], "finger")
    np.testing.assert_allclose(fk.pose([0, 0, 0.3])[0], [1.5, 0, 0.3], atol=1e-12)


def test_frame_defaults_to_the_last_link_that_the_named_joints_move() -> None:
    assert ForwardKinematics(URDF, ["shoulder", "elbow"]).frame == "tool"
    assert ForwardKinematics(URDF, ["shoulder", "elbow", "slide"]).frame == "finger"


def test_names_that_the_urdf_lacks_are_ignored() -> None:
    fk = ForwardKinematics(URDF, ["gripper", "shoulder", "elbow"], "tool")
    np.testing.assert_allclose(fk.pose([9, 0, 0])[0], [1.5, 0, 0], atol=1e-12)


@pytest.mark.parametrize(
    ("urdf", "names", "frame", "text"),
    [
        (URDF, ["shoulder"], "tool", "joint 'elbow' moves 'tool'"),
        (URDF, ["shoulder", "elbow"], "hand", "no link 'hand'"),
        (URDF, ["j1"], None, "no joint of j1"),
        ("<robot", ["j1"], None, "not a readable URDF"),
    ],
)
def test_misfit_is_an_error_that_names_it(
    urdf: str, names: list[str], frame: str | None, text: str
) -> None:
    with pytest.raises(ValueError, match=text):
        ForwardKinematics(urdf, names, frame)


def test_missing_pinocchio_names_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pinocchio", None)
    with pytest.raises(ImportError, match="source: joint"):
        ForwardKinematics(URDF, ["shoulder", "elbow"])
