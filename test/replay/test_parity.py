"""What the live nodes decide while a recording plays is what replay decides on it."""

import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import rclpy
from bags import STEP_NS, motion, write2
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from sensor_msgs.msg import JointState

from ros_vla_accel.msg import PartitionDecision
from ros_vla_accel.nodes.convert import to_ns, to_stamp
from ros_vla_accel.nodes.partition_manager import PartitionManager
from ros_vla_accel.nodes.quantization_controller import QuantizationController
from ros_vla_accel.partition.route import RouteConfig
from ros_vla_accel.replay.pipeline import ReplayConfig, replay

DOMAIN = "77"
ROBOT = """
align_clock: true  # the recording is played long after it was made
name: test_arm
joint_states: joint_states
joint_names: [j0, j1, j2, j3]
commands: {arm: {topic: command/arm, type: std_msgs/msg/Float64}}
actions: {v: {command: arm, field: data, max_abs: 1.0, max_step: 1.0}}
"""


class Listening(QuantizationController):
    """Keeps every decision, not only those that are worth publishing."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.decisions = []

    def _take(self, decision, stamp_ns):
        super()._take(decision, stamp_ns)
        self.decisions.append((stamp_ns, decision))


def ugly_recording():
    """Motion with a NaN, a repeated and a backward stamp, a burst, a gap and late messages."""
    rng = np.random.default_rng(1)
    messages = []
    for index, message in enumerate(motion(6.0, seed=3)):
        late_ns = int(rng.integers(0, 3_000_000))
        message = replace(message, received_ns=message.received_ns + late_ns)
        if index == 160:
            message = replace(message, position=[np.nan] * 4)
        if index in (210, 215):
            message = replace(message, header_ns=message.header_ns - (index - 209) * STEP_NS)
        if 300 <= index < 305:
            message = replace(message, received_ns=message.header_ns + (305 - index) * STEP_NS)
        if not 400 <= index < 436:
            messages.append(message)
    return sorted(messages, key=lambda message: message.received_ns)


def play(node, messages):
    """Publishes at the recorded pace; a late publisher catches up at once."""
    publisher = node.create_publisher(JointState, "joint_states", QoSProfile(depth=100))
    until_s = time.monotonic() + 10
    while publisher.get_subscription_count() < 2:
        assert time.monotonic() < until_s
        time.sleep(0.02)
    time.sleep(0.5)  # The other side matches later, and says nothing of it.
    start_s = time.monotonic() - messages[0].received_ns * 1e-9
    for message in messages:
        time.sleep(max(0.0, start_s + message.received_ns * 1e-9 - time.monotonic()))
        msg = JointState(
            name=list(message.name),
            position=np.asarray(message.position, float),
            velocity=np.asarray(message.velocity, float),
            effort=np.asarray(message.effort, float),
        )
        msg.header.stamp = to_stamp(message.header_ns)
        publisher.publish(msg)


def live(messages, robot_yaml):
    """Every decision of quantization_controller and every preemption, from DDS; each with the
    offset by which the node moved the stamps."""
    rclpy.init(args=[])
    executor = SingleThreadedExecutor()
    stop = threading.Event()
    overrides = [Parameter("robot", value=str(robot_yaml))]
    precision = Listening(namespace="/vla", parameter_overrides=overrides)
    partition = PartitionManager(
        namespace="/vla",
        parameter_overrides=[
            *overrides,
            Parameter("route", value="cloud"),
            Parameter("cloud_endpoint", value="tcp://127.0.0.1:1"),
        ],
    )
    probe = Node("player", namespace="/vla")
    heard = []
    probe.create_subscription(
        PartitionDecision, "partition_decision", heard.append, QoSProfile(depth=200)
    )
    for node in (precision, partition, probe):
        executor.add_node(node)

    def spin():
        while not stop.is_set():
            executor.spin_once(timeout_sec=0.05)

    spinner = threading.Thread(target=spin, daemon=True)
    try:
        spinner.start()
        assert precision.autostart()
        assert partition.autostart()
        play(probe, messages)
        last_ns = messages[-1].header_ns
        until_s = time.monotonic() + 5
        while time.monotonic() < until_s:
            newest = [node._joints.buffer.newest for node in (precision, partition)]
            offsets = [n._joints.intake.alignment.offset_ns for n in (precision, partition)]
            if all(s.stamp_ns - o >= last_ns for s, o in zip(newest, offsets, strict=True)):
                break
            time.sleep(0.02)
        time.sleep(0.3)  # For the last decision to arrive.
        return precision.decisions, offsets[0], heard, offsets[1]
    finally:
        stop.set()
        spinner.join()
        for node in (precision, partition):
            node.close()
        probe.destroy_node()
        rclpy.try_shutdown()


@pytest.fixture
def domain(monkeypatch):
    monkeypatch.setenv("ROS_DOMAIN_ID", DOMAIN)


def test_live_nodes_decide_what_replay_decides(tmp_path, domain):
    messages = ugly_recording()
    robot = tmp_path / "arm.yaml"
    robot.write_text(ROBOT)
    decided, precision_offset_ns, heard, partition_offset_ns = live(messages, robot)
    lines = []
    run = replay(
        write2(tmp_path / "bag", messages),
        ReplayConfig(joints=("j0", "j1", "j2", "j3"), route=RouteConfig(mode="cloud")),
        lines.append,
    )
    assert run.quality.refused == 3
    assert run.quality.counts["gap"] == 1
    periods = [line for line in lines if line["kind"] == "period"]
    assert len({line["bits"] for line in periods}) > 1

    # What follows from silence comes from a timer, and not from samples.
    sampled = [
        (stamp_ns - precision_offset_ns, decision)
        for stamp_ns, decision in decided
        if not decision.reason.startswith(("joint states are", "no joint states"))
    ]
    assert [(stamp_ns, d.bits, d.reason, repr(d.sensitivity)) for stamp_ns, d in sampled] == [
        (line["stamp_ns"], line["bits"], line["bits_reason"], repr(line["sensitivity"]))
        for line in periods
    ]

    preempted = {}
    for msg in heard:
        stamp_ns = to_ns(msg.header.stamp) - partition_offset_ns
        if msg.preempt_seq:
            preempted.setdefault(int(msg.preempt_seq), stamp_ns)
    expected = {
        line["preempt_seq"]: line["stamp_ns"] for line in lines if line["kind"] == "preempt"
    }
    assert len(expected) >= 2
    assert preempted == expected
