"""A policy is asked on recorded images, at the recorded times, with the recorded joints."""

from dataclasses import replace

import numpy as np
import pytest
from bags import START_NS, STEP_NS, STORE2, Extra, motion, write2

from ros_vla_accel.control.robot_config import load_robot
from ros_vla_accel.partition.route import RouteConfig
from ros_vla_accel.replay.pipeline import ReplayConfig, replay
from ros_vla_accel.replay.topics import TopicError
from ros_vla_accel.resources import existing_path

ROBOT = load_robot(existing_path("metaworld_sawyer", "config/robots"))
IMAGE = "sensor_msgs/msg/Image"


def images(offset_ns=0):
    """One each 100 ms, the n-th of them in the shade n."""
    types, result = STORE2.types, []
    for index in range(60):
        stamp_ns = START_NS + index * 10 * STEP_NS
        stamp = types["builtin_interfaces/msg/Time"](*divmod(stamp_ns - offset_ns, 10**9))
        header = types["std_msgs/msg/Header"](stamp=stamp, frame_id="")
        pixels = np.full(8 * 8 * 3, index, np.uint8)
        msg = types[IMAGE](header, 8, 8, "rgb8", 0, 24, pixels)
        result.append((stamp_ns + 2_000_000, msg))
    return Extra("/vla/camera/corner2/image_raw", IMAGE, result)


def arm(seconds=6.0):
    """Motion of all of the robot's joints; the first one's position is the time."""
    names = ROBOT.joint_names
    return [
        replace(
            message,
            name=names,
            position=np.full(len(names), index * 0.01),
            velocity=np.ones(len(names)),
            effort=np.resize(message.effort, len(names)),
        )
        for index, message in enumerate(motion(seconds))
    ]


def infer(folder, *extras, **settings):
    lines = []
    run = replay(
        write2(folder, arm(), extras=extras),
        ReplayConfig(robot=ROBOT, policy="replay_policy:make", **settings),
        lines.append,
    )
    return run, [line for line in lines if line["kind"] == "inference"]


def test_it_is_asked_every_replan_rows_and_sees_what_was_recorded(tmp_path):
    calm = RouteConfig(preempt=False)
    run, lines = infer(tmp_path / "bag", images(), instruction="open it", route=calm)
    stamps_s = [(line["stamp_ns"] - START_NS) * 1e-9 for line in lines]
    assert np.diff(stamps_s) == pytest.approx(0.4)
    assert len(lines) >= 13
    shades, positions, executed, seeds = np.array([line["actions"] for line in lines]).T
    assert shades * 0.1 == pytest.approx(stamps_s, abs=1e-6)
    assert positions == pytest.approx(stamps_s, abs=0.011)
    assert executed.tolist() == [0, *[8] * (len(lines) - 1)]
    assert len(set(seeds)) == len(seeds)
    assert all(line["bits_executed"] == line["bits"] for line in lines)
    assert len(run.inferences["duration_s"]) == len(lines)
    assert infer(tmp_path / "again", images(), instruction="open it", route=calm)[1] == lines


def test_a_camera_with_another_clock_is_aligned(tmp_path):
    run, lines = infer(tmp_path / "bag", images(offset_ns=-3 * 10**9), instruction="open it")
    assert run.quality.offsets_s == {
        "/vla/camera/corner2/image_raw": pytest.approx(-3.0, abs=0.01)
    }
    late = [line for line in lines if line["stamp_ns"] > START_NS + 25 * 10**8]
    shades, positions, *_ = np.array([line["actions"] for line in late]).T
    assert positions == pytest.approx(shades * 0.1, abs=0.02)


def test_the_recorded_instruction_is_used_and_without_one_nothing_is_asked(tmp_path):
    assert infer(tmp_path / "silent", images())[1] == []
    text = STORE2.types["std_msgs/msg/String"]("close it")
    told = Extra("/vla/instruction", "std_msgs/msg/String", [(START_NS + 3 * 10**9, text)])
    _, lines = infer(tmp_path / "told", images(), told)
    assert lines[0]["stamp_ns"] >= START_NS + 29 * 10**8


def test_a_missing_camera_is_named(tmp_path):
    with pytest.raises(TopicError, match="no images for camera 'corner2'"):
        infer(tmp_path / "bag", instruction="open it")
