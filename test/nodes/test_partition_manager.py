"""The partition manager relays requests to a real worker, and falls back to the edge without."""

import arm_policy
import numpy as np
import pytest
from policy_robot import Robot
from rclpy.parameter import Parameter
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import JointState

from ros_vla_accel.cloud.codec import encode_observation, request_header
from ros_vla_accel.cloud.keys import KeyFolder
from ros_vla_accel.cloud.worker import Worker
from ros_vla_accel.contracts import InferenceRequest as Request
from ros_vla_accel.contracts import Observation
from ros_vla_accel.control.robot_config import load_robot
from ros_vla_accel.msg import ActionChunk, InferenceRequest, LinkStats, PartitionDecision
from ros_vla_accel.nodes.base import CHUNK_QOS, STATE_QOS
from ros_vla_accel.nodes.convert import chunk_from_msg, request_to_msg, to_ns
from ros_vla_accel.nodes.partition_manager import PartitionManager
from ros_vla_accel.nodes.vla_policy import VlaPolicy
from ros_vla_accel.precision import Calibration, PrecisionConfig
from ros_vla_accel.resources import existing_path

ROBOT = load_robot(existing_path("metaworld_sawyer", "config/robots"))
PLAIN = {"cloud_security": "insecure"}
EDGE, CLOUD = PartitionDecision.EDGE, PartitionDecision.CLOUD


class Policy:
    """What vla_policy sends and hears."""

    def __init__(self, bench) -> None:
        self._bench = bench
        self._publisher = bench.probe.create_publisher(
            InferenceRequest, "inference_request", CHUNK_QOS
        )
        self.decisions = bench.listen(PartitionDecision, "partition_decision", STATE_QOS)
        self.chunks = bench.listen(ActionChunk, "action_chunk", CHUNK_QOS)
        self.links = bench.listen(LinkStats, "link_stats")

    def until_route(self, route: int) -> None:
        self._bench.until(lambda: self.decisions and self.decisions[-1].route == route)

    def until_triggers_are_warm(self) -> None:
        """Even the noise of a sensor has an importance, once the triggers' window is filled."""
        self._bench.until(lambda: self.decisions and self.decisions[-1].importance > 0)

    def message(self, request_id: int, timeout_s: float = 5.0) -> InferenceRequest:
        now_ns = int(self._bench.probe.get_clock().now().nanoseconds)
        images = {
            camera: np.full((64, 64, 3), 255, np.uint8) for camera in ("corner2", "gripperPOV")
        }
        observation = Observation(images, np.ones(7, np.float32), "close it", now_ns)
        tensors, data = encode_observation(observation, "jpeg")
        header = request_header(
            Request(observation, request_id, episode_id=5),
            tensors,
            arm_policy.make().spec.identity,
        )
        return request_to_msg(header, now_ns + round(timeout_s * 1e9), data)

    def send(self, message: InferenceRequest) -> None:
        self._publisher.publish(message)


@pytest.fixture
def worker():
    worker = Worker(arm_policy.make(), keys=None)
    worker.start()
    yield worker
    worker.stop()


def test_a_request_comes_back_as_a_chunk_from_the_cloud(bench, worker):
    policy = Policy(bench)
    bench.start(PartitionManager, cloud_endpoint=worker.endpoint, **PLAIN)
    policy.until_route(CLOUD)
    policy.send(policy.message(request_id=77))
    bench.until(lambda: policy.chunks)
    chunk = chunk_from_msg(policy.chunks[0])
    assert (chunk.source, chunk.request_id, chunk.episode_id) == ("cloud", 77, 5)
    np.testing.assert_allclose(chunk.actions[0], [0.1, 0.1, 0.01, 1.0], atol=1e-3)
    bench.until(lambda: policy.links and policy.links[-1].replies == 1)
    assert policy.links[-1].health == LinkStats.HEALTHY


def test_a_lost_worker_means_edge_and_its_return_is_noticed(bench, worker):
    policy = Policy(bench)
    bench.start(PartitionManager, cloud_endpoint=worker.endpoint, **PLAIN)
    policy.until_route(CLOUD)
    worker.stop()
    policy.until_route(EDGE)
    again = Worker(arm_policy.make(), worker.endpoint, keys=None)
    again.start()
    try:
        policy.until_route(CLOUD)
        policy.send(policy.message(request_id=78))
        bench.until(lambda: policy.chunks)
    finally:
        again.stop()


def test_requests_that_are_unreadable_or_too_late_go_nowhere_and_later_ones_are_served(
    bench, worker
):
    policy = Policy(bench)
    bench.start(PartitionManager, cloud_endpoint=worker.endpoint, **PLAIN)
    policy.until_route(CLOUD)
    foreign = policy.message(1)
    foreign.schema_version = 99
    garbled = policy.message(2)
    garbled.tensors[0].dtype = "complex128"
    short = policy.message(3)
    short.data = bytes(short.data)[:100]
    for message in (foreign, garbled, short, policy.message(4, timeout_s=-1.0)):
        policy.send(message)
    policy.send(policy.message(5))
    bench.until(lambda: policy.chunks)
    assert [chunk.request_id for chunk in policy.chunks] == [5]


@pytest.mark.parametrize(("route", "expected"), [("edge", EDGE), ("cloud", CLOUD)])
def test_a_fixed_route_does_not_depend_on_the_link(bench, route, expected):
    policy = Policy(bench)
    bench.start(PartitionManager, route=route, cloud_endpoint="tcp://127.0.0.1:9")
    policy.until_route(expected)


class Arm:
    """A driver that publishes joint states at 100 Hz: an arm at rest, until it is touched."""

    def __init__(self, bench) -> None:
        self._probe = bench.probe
        self._publisher = bench.probe.create_publisher(
            JointState, "joint_states", qos_profile_sensor_data
        )
        self._rng = np.random.default_rng(0)
        self._force = 0.0
        self.touched_ns = 0
        bench.every(0.01, self._publish)

    def touch(self) -> None:
        self._force = 50.0

    def _publish(self) -> None:
        velocity, effort = self._rng.normal(0, 0.001, (2, len(ROBOT.joint_names)))
        msg = JointState(name=list(ROBOT.joint_names))
        msg.position = [0.0] * len(velocity)
        msg.velocity = velocity.tolist()
        msg.effort = (effort + self._force).tolist()
        now = self._probe.get_clock().now()
        msg.header.stamp = now.to_msg()
        if self._force and not self.touched_ns:
            self.touched_ns = now.nanoseconds
        self._publisher.publish(msg)


def test_a_touch_preempts_the_running_chunk_with_the_very_sample_that_shows_it(bench, worker):
    policy, arm = Policy(bench), Arm(bench)
    bench.start(PartitionManager, cloud_endpoint=worker.endpoint, **PLAIN)
    policy.until_route(CLOUD)
    policy.until_triggers_are_warm()
    before = policy.decisions[-1]
    assert "critical" not in before.reason
    arm.touch()
    bench.until(lambda: policy.decisions[-1].preempt_seq == before.preempt_seq + 1)
    first = next(d for d in policy.decisions if d.preempt_seq != before.preempt_seq)
    assert first.route == CLOUD
    assert first.reason == "cloud healthy, critical torque"
    assert first.importance > 1.0
    assert abs(to_ns(first.header.stamp) - arm.touched_ns) < 35e6, "three samples of slack"


@pytest.mark.parametrize("settings", [{"route": "edge"}, {"route": "cloud", "preempt": False}])
def test_a_touch_is_reported_but_preempts_nothing_where_that_is_not_wanted(bench, settings):
    policy, arm = Policy(bench), Arm(bench)
    bench.start(PartitionManager, cloud_endpoint="tcp://127.0.0.1:9", **settings)
    policy.until_triggers_are_warm()
    before = policy.decisions[-1].preempt_seq
    arm.touch()
    bench.until(lambda: policy.decisions[-1].importance > 1.0)
    bench.until(lambda: policy.decisions[-1].importance < 0.1)
    assert {decision.preempt_seq for decision in policy.decisions} == {before}


def test_a_robot_without_keys_stays_on_the_edge_and_says_which_file_is_missing(bench, tmp_path):
    keys = KeyFolder(tmp_path / "keys")
    keys.create("worker")
    worker = Worker(arm_policy.make(), keys=keys)
    worker.start()
    try:
        policy = Policy(bench)
        robot = KeyFolder(tmp_path / "robot")
        parameters = {"cloud_endpoint": worker.endpoint, "cloud_keys": str(robot.path)}
        node = bench.start(PartitionManager, **parameters)
        bench.until(lambda: policy.links and "robot.key is missing" in policy.links[-1].reason)
        assert policy.decisions[-1].route == EDGE
        assert "robot.key is missing; `ros-vla-accel keys new robot`" in node.diagnosis()[1]

        public = robot.create("robot").public
        (keys.path / "worker.pub").rename(robot.path / "worker.pub")
        bench.until(lambda: "does not allow this robot's key" in policy.links[-1].reason)
        keys.allow("arm7", public)
        policy.until_route(CLOUD)
        keys.revoke("arm7")
        policy.until_route(EDGE)
    finally:
        worker.stop()


@pytest.mark.parametrize("security", ["none", "insecure"])
def test_a_wrong_security_fails_the_configuration(bench, security):
    from rclpy.parameter import Parameter

    parameters = {"cloud_security": security, "cloud_endpoint": "tcp://192.168.7.7:5555"}
    overrides = [Parameter(name, value=value) for name, value in parameters.items()]
    node = bench.add(PartitionManager(namespace="/vla", parameter_overrides=overrides))
    assert not node.autostart()


def test_a_malformed_endpoint_fails_the_configuration(bench):
    overrides = [Parameter("cloud_endpoint", value="127.0.0.1")]
    node = bench.add(PartitionManager(namespace="/vla", parameter_overrides=overrides))
    assert not node.autostart()


def calibration(path, triggers) -> str:
    Calibration("arm_policy", "ab" * 32, "fk", PrecisionConfig(), triggers).save(path)
    return str(path)


def test_a_calibration_replaces_trigger_settings(bench, worker, tmp_path):
    policy, arm = Policy(bench), Arm(bench)
    given = calibration(tmp_path / "c.yaml", {"theta_redundancy": 1e9, "theta_compat": 1e9})
    bench.start(PartitionManager, cloud_endpoint=worker.endpoint, calibration=given)
    policy.until_triggers_are_warm()
    arm.touch()
    bench.until(lambda: policy.decisions[-1].importance > 1.0)
    bench.until(lambda: policy.decisions[-1].importance < 0.1)
    assert not any("critical" in decision.reason for decision in policy.decisions)


def test_a_calibration_with_an_unknown_trigger_fails_the_configuration(bench, tmp_path):
    overrides = [Parameter("calibration", value=calibration(tmp_path / "c.yaml", {"theta": 1.0}))]
    node = bench.add(PartitionManager(namespace="/vla", parameter_overrides=overrides))
    assert not node.autostart()


def test_a_split_request_moves_the_arm_as_a_whole_one_and_the_plan_is_told(bench):
    """Policy, manager and worker together: the edge runs the vision stage, the worker the rest."""
    robot = Robot(bench)
    links = bench.listen(LinkStats, "link_stats")
    worker = Worker(arm_policy.split(), keys=None)
    worker.start()
    bench.start(PartitionManager, cloud_endpoint=worker.endpoint, cut="vision", **PLAIN)
    bench.start(VlaPolicy, policy="arm_policy:split", features_dtype="float32")
    bench.until(lambda: links and links[-1].health == LinkStats.HEALTHY)
    robot.instruct("close it")
    try:
        chunk = robot.until_chunk(lambda c: c.source == "cloud")
        np.testing.assert_allclose(chunk.actions[0], [0.1, 0.0, 0.005, 1.0], atol=1e-6)
        bench.until(lambda: any(r.cut == "vision" for r in robot.requests))
        bench.until(lambda: links[-1].plan.startswith("vision "))
        assert links[-1].worker == "arm_policy"
    finally:
        worker.stop()


def test_a_touch_ends_the_reuse_of_chunks_with_the_very_sample_that_shows_it(bench):
    policy, arm = Policy(bench), Arm(bench)
    bench.start(
        PartitionManager, cloud_endpoint="tcp://127.0.0.1:9", route="edge", reuse=True, **PLAIN
    )
    bench.until(lambda: policy.decisions and policy.decisions[-1].reuse)
    assert not policy.decisions[0].reuse, "cold"
    assert not policy.decisions[-1].critical
    arm.touch()
    bench.until(lambda: policy.decisions[-1].critical)
    first = next(d for d in policy.decisions if d.critical)
    assert abs(to_ns(first.header.stamp) - arm.touched_ns) < 35e6, "three samples of slack"
    assert first.preempt_seq == 0
