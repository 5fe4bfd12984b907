"""A robot YAML either fits, or says which key is wrong and what would be right."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from ros_vla_accel.contracts import CameraSpec, PolicySpec
from ros_vla_accel.control.robot_config import RobotConfigError, load_robot

SHIPPED = Path(__file__).parents[2] / "config" / "robots" / "metaworld_sawyer.yaml"

VX = {"command": "twist", "field": "twist.linear.x", "max_abs": 0.2, "max_step": 0.1}


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
        ({"actions": {"vx": {**VX, "command": "twst"}}}, "'twst' not in"),
        ({"actions": {"vx": {**VX, "field": "a b"}}}, "is no path"),
        ({"actions": {"vx": {**VX, "hold": "stay"}}}, "'stay'"),
        ({"actions": {"vx": {**VX, "max_abs": 0}}}, "positive"),
        ({"actions": {"vx": {**VX, "max_abs": "0.2"}}}, "vx.max_abs: '0.2' is no number"),
        ({"actions": {"vx": {**VX, "max_abs": None}}}, "vx: no bound"),
        ({"actions": {"vx": {"field": "x", "max_step": 1}}}, "['command'] is missing"),
        ({"actions": {"vx": {"command": "twist", "field": "x"}}}, "['max_step'] is missing"),
        ({"action_kind": "joint_position", "actions": {"vx": VX | {"hold": "zero"}}}, "to 0"),
        (
            {"action_kind": "joint_position", "actions": {"vx": VX | {"joint": "elbow"}}},
            "joint: 'elbow'",
        ),
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


def position_robot(tmp_path, **actions):
    content = document()
    content["action_kind"] = "joint_position"
    content["commands"] = {"arm": {"topic": "arm", "type": "std_msgs/msg/Float64MultiArray"}}
    content["actions"] = {
        name: {"command": "arm", "field": f"data[{at}]", "max_step": 0.05, **entry}
        for at, (name, entry) in enumerate(actions.items())
    }
    return load(tmp_path, content)


def test_position_actions_keep_on_hold_and_start_from_the_measured_joint(tmp_path):
    limits = position_robot(tmp_path, right_j1={"lower": -1}, elbow={"joint": "right_j0"})
    limits = limits.action_limits()
    assert limits.hold == ("keep", "keep")
    assert limits.lower == (-1.0, -3.0503)
    assert limits.upper == (2.2824, 3.0503)
    assert limits.measured_joint == (1, 0)


def test_a_position_action_that_names_no_joint_must_be_bounded_itself(tmp_path):
    with pytest.raises(RobotConfigError, match="needs `joint: NAME`"):
        position_robot(tmp_path, a_cmd={})
    limits = position_robot(tmp_path, gripper={"lower": 0.0, "upper": 0.08}).action_limits()
    assert limits.measured_joint == (-1,)
    assert (limits.lower, limits.upper) == ((0.0,), (0.08,))


@pytest.mark.parametrize("path", sorted(SHIPPED.parent.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_robot_loads_and_only_the_simulated_one_is_armed(path):
    robot = load_robot(path)
    assert robot.action_limits().size == len(robot.actions)
    assert robot.armed == (robot.name == "metaworld_sawyer")
    assert robot.name == path.stem


def test_the_columns_that_move_the_arm_are_named_and_grippers_left_out():
    sawyer = load_robot(SHIPPED)
    assert sawyer.motion_columns() == {0: "linear.x", 1: "linear.y", 2: "linear.z"}
    assert not sawyer.action_motion(0.05).turns
    arm = load_robot(SHIPPED.parent / "ur5e_forward_position.yaml")
    assert arm.motion_columns() == dict(enumerate(arm.joint_names))
    assert arm.action_motion(0.05).kind == "joint_position"


def test_a_joint_action_under_another_name_says_which_joint_it_moves(tmp_path):
    robot = position_robot(tmp_path, a_cmd={"joint": "right_j1"}, right_j0={})
    assert robot.motion_columns() == {0: "right_j1", 1: "right_j0"}


def test_actions_that_move_nothing_have_no_motion(tmp_path):
    content = document()
    content["actions"] = {"gripper": content["actions"]["gripper"]}
    with pytest.raises(ValueError, match="no action column moves the arm"):
        load(tmp_path, content).action_motion(0.05)
