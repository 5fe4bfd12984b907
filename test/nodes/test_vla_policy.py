"""The policy node infers from whole, fresh inputs, and says what is wrong with the others."""

import numpy as np
import pytest
import yaml
from policy_robot import OURS, ROBOT, Robot
from rclpy.parameter import Parameter

from ros_vla_accel.nodes.convert import to_ns
from ros_vla_accel.nodes.vla_policy import VlaPolicy


@pytest.fixture
def robot(bench):
    return Robot(bench)


def start(bench, **parameters):
    return bench.start(VlaPolicy, **{"policy": "arm_policy:make", **parameters})


def test_a_chunk_answers_the_newest_images_joints_and_instruction(bench, robot):
    start(bench)
    robot.until_status("no instruction")
    assert robot.chunks == []
    robot.instruct("close it")
    chunk = robot.until_chunk()
    np.testing.assert_allclose(chunk.actions[0], [0.1, 0.0, 0.005, 1.0], atol=1e-6)
    assert chunk.source == "edge"
    assert abs(robot.now_ns() - chunk.stamp_ns) < 5e8


def test_ids_rise_and_a_new_instruction_is_a_new_episode(bench, robot):
    start(bench)
    robot.instruct("close it")
    first = robot.until_chunk()
    robot.instruct("now open it")
    second = robot.until_chunk(lambda c: c.episode_id > first.episode_id and c.horizon)
    assert second.request_id > first.request_id
    assert second.actions[0, 3] == 0.0


def test_an_empty_instruction_sends_a_chunk_of_zero_rows(bench, robot):
    start(bench)
    robot.instruct("close it")
    first = robot.until_chunk()
    robot.instruct("")
    stop = robot.until_chunk(lambda c: c.source == "stop")
    assert stop.horizon == 0
    assert stop.episode_id > first.episode_id


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ({"encoding": "yuv422"}, "camera 'corner2': encoding 'yuv422'"),
        ({"cut_bytes": 7}, "do not hold 64x64"),
        ({"age_s": 2.0}, "camera 'corner2': newest image is"),
    ],
)
def test_a_bad_image_stops_inference_with_a_diagnostic_and_a_good_one_resumes_it(
    bench, robot, fault, text
):
    good = {key: getattr(robot, key) for key in fault}
    vars(robot).update(fault)
    start(bench)
    robot.instruct("close it")
    robot.until_status(text)
    assert robot.chunks == []
    vars(robot).update(good)
    robot.until_chunk()
    robot.until_status("ok")


def test_a_camera_that_never_spoke_is_named_with_its_topic(bench, robot):
    del robot.grey["gripperPOV"]
    start(bench)
    robot.instruct("close it")
    robot.until_status("camera 'gripperPOV': no image on 'camera/gripperPOV/image_raw' yet")


def test_joint_states_with_nan_stop_inference_without_a_crash(bench, robot):
    robot.position = [float("nan"), *[0.5] * 8]
    start(bench)
    robot.instruct("close it")
    robot.until_status("no joint state within")
    robot.position = [0.5] * 9
    robot.until_chunk()


def test_images_of_any_size_are_taken(bench, robot):
    robot.size = 200
    start(bench)
    robot.instruct("close it")
    np.testing.assert_allclose(robot.until_chunk().actions[0, 0], 0.1, atol=1e-6)


def test_a_camera_may_be_compressed(bench, robot, tmp_path):
    content = yaml.safe_load(ROBOT.read_text())
    content["cameras"]["corner2"] = "corner2/compressed"
    path = tmp_path / "robot.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    robot.compressed = True
    start(bench, robot=str(path))
    robot.instruct("close it")
    np.testing.assert_allclose(robot.until_chunk().actions[0, 0], 0.1, atol=1e-3)


@pytest.mark.parametrize(
    ("fail", "text"),
    [
        ("raise", "policy raised RuntimeError: out of memory"),
        ("reset", "policy raised RuntimeError: out of memory"),
        ("shape", "actions have shape (16, 2), the spec says (16, 4)"),
        ("list", "expected an ActionChunk with an array of actions"),
        ("hang", "an edge inference has been running for"),
    ],
)
def test_a_policy_that_misbehaves_is_reported_and_the_node_lives(
    bench, robot, tmp_path, fail, text
):
    arguments = tmp_path / "args.yaml"
    arguments.write_text(f"fail: {fail}")
    node = start(bench, policy_args=str(arguments))
    robot.instruct("close it")
    robot.until_status(text)
    assert node.active
    assert robot.chunks == []


def test_after_an_image_that_opencv_refuses_inference_goes_on(bench, robot, tmp_path):
    content = yaml.safe_load(ROBOT.read_text())
    content["cameras"]["corner2"] = "corner2/compressed"
    path = tmp_path / "robot.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    robot.compressed, robot.giant = True, True
    start(bench, robot=str(path))
    robot.instruct("close it")
    robot.until_status("camera 'corner2'")
    robot.giant = False
    robot.until_chunk()


def test_deactivating_the_policy_stops_the_arm(bench, robot):
    node = start(bench)
    robot.instruct("close it")
    robot.until_chunk(lambda c: c.horizon > 0)
    node.trigger_deactivate()
    assert robot.until_chunk(lambda c: c.source == "stop").horizon == 0


def test_decisions_that_make_no_sense_are_reported_and_the_node_goes_on(bench, robot):
    node = start(bench)
    robot.until_status("no instruction")
    robot.decide_cloud(deadline_s=float("inf"))
    bench.until(lambda: node.failure and "deadline_s inf" in node.failure[1])
    robot.instruct("close it")
    robot.until_chunk(lambda c: c.horizon > 0)


def test_a_parameter_that_is_read_at_configure_cannot_change_later(bench, robot):
    node = start(bench)
    (result,) = node.set_parameters([Parameter("policy", value="other:make")])
    assert not result.successful
    assert "clean up first" in result.reason


def test_the_commanded_width_is_latched_and_a_dead_controller_means_16_bits(bench, robot):
    start(bench)
    robot.command_width(4)
    robot.until_status("no instruction")
    bench.until(lambda: robot.stats[-1].activation_bits_commanded == 4)
    robot.instruct("close it")
    robot.until_chunk(lambda c: c.activation_bits == 4)
    robot._widths.clear()  # The controller falls silent.
    robot.until_status("no precision command for")
    robot.until_chunk(lambda c: c.activation_bits == 16)
    robot.command_width(4, policy="")  # Without a calibration.
    robot.until_chunk(lambda c: c.activation_bits == 8)


def test_thresholds_of_another_policy_are_refused_and_both_are_named(bench, robot):
    node = start(bench)
    robot.command_width(4, policy="cd" * 32)
    robot.instruct("close it")
    robot.until_status(
        "precision was calibrated for policy cdcdcdcdcdcd, this one is " + OURS[:12]
    )
    level, text, _ = node.diagnosis()
    assert level == node.ERROR
    assert "`ros-vla-accel calibrate`" in text
    assert robot.until_chunk().activation_bits == 16
    robot.command_width(4, policy=OURS)
    robot.until_chunk(lambda c: c.activation_bits == 4)
    robot.until_status("ok")


def test_a_rising_width_brings_a_new_chunk_at_once(bench, robot, tmp_path):
    arguments = tmp_path / "args.yaml"
    arguments.write_text("widths: [4, 8, 16]")
    node = start(bench, policy_args=str(arguments))
    robot.command_width(4)
    robot.until_status("no instruction")
    bench.until(lambda: robot.stats[-1].activation_bits_commanded == 4)
    robot.instruct("close it")
    robot.playing = robot.until_chunk(lambda c: c.activation_bits == 4)
    robot.command_width(8)
    robot.until_chunk(lambda c: c.activation_bits == 8)
    assert node._scheduler.counts["width_rises"] == 1


def test_a_policy_that_cannot_be_loaded_is_named(bench, robot):
    start(bench, policy="arm_policy:nothing")
    robot.until_status("has no function 'nothing'")


def test_the_cloud_route_sends_the_encoded_observation_and_the_edge_answers_if_nobody_does(
    bench, robot
):
    start(bench)
    robot.decide_cloud(deadline_s=0.4)
    robot.until_status("no instruction")
    robot.decide_cloud(deadline_s=0.4)
    robot.instruct("close it")
    bench.until(lambda: robot.requests)
    request = robot.requests[0]
    assert request.instruction == "close it"
    assert {tensor.name for tensor in request.tensors} == {
        "image/corner2",
        "image/gripperPOV",
        "state",
    }
    assert to_ns(request.deadline) - to_ns(request.header.stamp) == pytest.approx(4e8)
    chunk = robot.until_chunk()
    assert chunk.source == "edge"
    assert chunk.request_id > request.request_id
    bench.until(lambda: robot.stats[-1].fallbacks_edge >= 1)
    bench.until(lambda: {"raw", "jpeg", "png"} == set(robot.stats[-1].form_names))
    assert min(robot.stats[-1].form_bytes) > 100


def decided(bench, robot, policy: str, cut: str) -> None:
    """A policy that is told to ask the cloud, with a request cut after a stage."""
    start(bench, policy=policy)
    robot.until_status("no instruction")
    robot.decide_cloud(deadline_s=0.4, cut=cut)
    robot.instruct("close it")


def test_features_leave_after_the_cut_and_the_edge_takes_over_without_an_answer(bench, robot):
    decided(bench, robot, "arm_policy:split", "vision")
    bench.until(lambda: any(r.cut == "vision" for r in robot.requests))
    request = next(r for r in robot.requests if r.cut == "vision")
    assert [(t.name, t.dtype, list(t.shape)) for t in request.tensors] == [
        ("row", "float16", [2, 4])
    ]
    assert request.instruction == "close it"
    assert robot.until_chunk().source == "edge"
    bench.until(lambda: robot.stats and "vision" in robot.stats[-1].form_names)
    cost = dict(zip(robot.stats[-1].form_names, robot.stats[-1].form_bytes, strict=True))
    assert cost["vision"] == 16


@pytest.mark.parametrize(
    ("policy", "cut"), [("arm_policy:make", "vision"), ("arm_policy:split", "backbone")]
)
def test_a_policy_that_cannot_be_cut_there_sends_the_images(bench, robot, policy, cut):
    decided(bench, robot, policy, cut)
    bench.until(lambda: robot.requests)
    assert {r.cut for r in robot.requests} == {"observation"}
    assert robot.until_chunk().source == "edge"


def test_features_that_cannot_be_made_leave_the_arm_to_the_edge_and_images_go_then(bench, robot):
    decided(bench, robot, "arm_policy:failing_split", "vision")
    assert robot.until_chunk().source == "edge"
    bench.until(lambda: robot.requests)
    assert {r.cut for r in robot.requests} == {"observation"}
    bench.until(lambda: "vision" not in robot.stats[-1].form_names)


@pytest.mark.parametrize(
    "settings", [{"warm_start": 0.2}, {"budget": 0.25}, {"across": 0.3}], ids=str
)
def test_the_action_head_is_cached_where_it_can_be_and_the_reuse_is_told(bench, robot, settings):
    arguments = {f"moeca.{name}": value for name, value in settings.items()}
    arguments["moeca.enabled"] = True
    start(bench, policy="ros_vla_accel.policies:reference", **arguments)
    bench.until(lambda: robot.stats and robot.stats[-1].status == "no instruction", 30.0)
    assert robot.stats[-1].precision == "float32"
    assert {"vision", "backbone"} <= set(robot.stats[-1].form_names)
    robot.instruct("open the drawer")
    bench.until(lambda: robot.stats[-1].cache_reuse > 0.2, 20.0)
    assert robot.stats[-1].head_ms > 0


def test_a_policy_without_such_a_head_is_refused_by_name(bench, robot):
    start(bench, **{"moeca.enabled": True})
    robot.until_status("no action head that can be accelerated; set moeca.enabled: false")
    robot.instruct("close it")
    assert not robot.chunks
