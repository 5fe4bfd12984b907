"""A robot YAML either fits, or says which key is wrong and what would be right."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from ros_vla_accel.contracts import CameraSpec, PolicySpec
from ros_vla_accel.control.robot_config import RobotConfigError, load_robot

SHIPPED = Path(__file__).parents[2] / "config" / "robots" / "metaworld_sawyer.yaml"


def document() -> dict:
    return yaml.safe_load(SHIPPED.read_text())


def load(tmp_path, content: dict):
    path = tmp_path / "robot.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return load_robot(path)


def spec(**changes) -> PolicySpec:
    fields = {
        "name": "p",
        "cameras": (CameraSpec("corner2", 64, 64),),
        "state_names": ("right_j0", "right_j1"),
        "action_names": ("vx", "vy", "vz", "gripper"),
        "horizon": 16,
        "period_s": 0.05,
        "action_kind": "cartesian_velocity",
    }
    return PolicySpec(**{**fields, **changes})


def test_the_shipped_robot_loads_and_fits_its_policy():
    robot = load_robot(SHIPPED)
    robot.check(spec())
    limits = robot.action_limits()
    assert limits.names == ("vx", "vy", "vz", "gripper")
    assert limits.hold == ("zero", "zero", "zero", "keep")
    assert limits.joint_upper[0] == pytest.approx(3.0503)
    assert limits.joint_upper[-1] == np.inf


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"armd": True}, "unknown key ['armd']"),
        ({"joint_names": []}, "'joint_names' is empty"),
        ({"joint_names": ["a", "a"]}, "repeats a joint"),
        ({"actions": {"vx": {"command": "twst", "field": "data"}}}, "'twst' not in"),
        ({"actions": {"vx": {"command": "twist", "field": "a b"}}}, "is no path"),
        ({"actions": {"vx": {"command": "twist", "field": "x", "hold": "stay"}}}, "'stay'"),
        ({"actions": {"vx": {"command": "twist", "field": "x", "max_abs": 0}}}, "positive"),
        ({"actions": {"vx": {"field": "x"}}}, "['command'] is missing"),
        ({"joint_limits": {"elbow": [0, 1]}}, "joint_limits.elbow"),
        ({"joint_limits": {"right_j0": [1, 0]}}, "[lower, upper]"),
        ({"state": {"s": {"joint": "right_j0", "field": "torque"}}}, "'torque'"),
        ({"commands": {"twist": {"topic": "t"}}}, "['type'] is missing"),
    ],
)
def test_a_wrong_key_is_named(tmp_path, change, text):
    with pytest.raises(RobotConfigError) as error:
        load(tmp_path, {**document(), **change})
    assert text in str(error.value)
    assert "robot.yaml" in str(error.value)


def test_what_is_no_yaml_is_named_with_its_file(tmp_path):
    path = tmp_path / "broken.yaml"
    path.write_text("name: [")
    with pytest.raises(RobotConfigError, match=r"broken\.yaml"):
        load_robot(path)
    with pytest.raises(RobotConfigError, match=r"nowhere\.yaml"):
        load_robot(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"cameras": (CameraSpec("top", 64, 64),)}, "camera ['top']"),
        ({"state_names": ("elbow",)}, "'elbow' has no joint"),
        ({"action_names": ("vx", "gripper")}, "name the same ones"),
        ({"action_kind": "joint_position"}, "takes 'cartesian_velocity'"),
    ],
)
def test_a_policy_that_does_not_fit_is_refused_with_what_to_add(change, text):
    with pytest.raises(RobotConfigError) as error:
        load_robot(SHIPPED).check(spec(**change))
    assert text in str(error.value)


def test_state_entries_come_from_the_mapped_joint_field(tmp_path):
    content = document()
    content["state"] = {"speed": {"joint": "right_j1", "field": "velocity"}}
    robot = load(tmp_path, content)
    position, velocity = np.arange(9.0), np.arange(9.0) + 100
    state = robot.state_vector(("right_j2", "speed"), position, velocity, None)
    assert state.dtype == np.float32
    assert state.tolist() == [2.0, 101.0]


def test_a_state_of_a_field_that_the_robot_does_not_publish_is_an_error(tmp_path):
    content = document()
    content["state"] = {"load": {"joint": "right_j1", "field": "effort"}}
    robot = load(tmp_path, content)
    with pytest.raises(RobotConfigError, match="carries no effort"):
        robot.state_vector(("load",), np.zeros(9), np.zeros(9), None)


def test_position_actions_are_bounded_and_start_from_the_measured_joint(tmp_path):
    content = document()
    content["action_kind"] = "joint_position"
    content["commands"] = {"arm": {"topic": "arm", "type": "std_msgs/msg/Float64MultiArray"}}
    content["actions"] = {
        "right_j1": {"command": "arm", "field": "data[0]", "lower": -1, "hold": "keep"},
        "right_j0": {"command": "arm", "field": "data[1]", "upper": 2.5, "hold": "keep"},
    }
    limits = load(tmp_path, content).action_limits()
    assert limits.lower == (-1.0, -np.inf)
    assert limits.upper == (np.inf, 2.5)
    assert limits.measured_joint == (1, 0)
