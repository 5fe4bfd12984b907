"""What the live nodes decide while a recording plays is what replay decides on it."""

import json
import threading
import time
from array import array
from bisect import bisect
from dataclasses import replace

import numpy as np
import pytest
import rclpy
from bags import STEP_NS, STORE2, Extra, motion, write2
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from rosbags.interfaces import Nodetype
from sensor_msgs.msg import JointState

from ros_vla_accel.msg import ActionChunk, ExecutorState, PartitionDecision
from ros_vla_accel.nodes.convert import to_ns, to_stamp
from ros_vla_accel.nodes.partition_manager import PartitionManager
from ros_vla_accel.nodes.quantization_controller import QuantizationController
from ros_vla_accel.partition.route import RouteConfig
from ros_vla_accel.precision import Calibration, PrecisionConfig
from ros_vla_accel.replay.command import main
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
    """Keeps every decision, not only those that are worth publishing, and counts its inputs."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.decisions = []
        self.chunks = self.states = 0

    def _on_chunk(self, msg):
        super()._on_chunk(msg)
        self.chunks += 1

    def _on_executor_state(self, msg):
        super()._on_executor_state(msg)
        self.states += 1

    def taken(self):
        """Changes with each input; joint states are used only after the first twenty."""
        return self.chunks, self.states, self._joints.received_steady_s

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


def play(node, messages, precision):
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
        publisher.publish(joint_state(message))


def joint_state(message):
    msg = JointState(
        name=list(message.name),
        position=np.asarray(message.position, float),
        velocity=np.asarray(message.velocity, float),
        effort=np.asarray(message.effort, float),
    )
    msg.header.stamp = to_stamp(message.header_ns)
    return msg


def live(messages, robot_yaml, calibration="", play=play):
    """Every decision of quantization_controller and every preemption, from DDS; each with the
    offset by which the node moved the stamps. play: sends the messages."""
    rclpy.init(args=[])
    executor = SingleThreadedExecutor()
    stop = threading.Event()
    overrides = [
        Parameter("robot", value=str(robot_yaml)),
        Parameter("calibration", value=str(calibration)),
    ]
    precision = Listening(namespace="/vla", parameter_overrides=overrides)
    partition = PartitionManager(
        namespace="/vla",
        parameter_overrides=[
            *overrides,
            Parameter("route", value="cloud"),
            Parameter("reuse", value=True),
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
        play(probe, messages, precision)
        last_ns = messages[-1].header_ns
        until_s = time.monotonic() + 5
        while time.monotonic() < until_s:
            newest = [node._joints.buffer.newest for node in (precision, partition)]
            offsets = [n._joints.intake.alignment.offset_ns for n in (precision, partition)]
            if all(s.stamp_ns - o >= last_ns for s, o in zip(newest, offsets, strict=True)):
                break
            time.sleep(0.02)
        time.sleep(0.3)  # For the last decision to arrive.
        return list(precision.decisions), offsets[0], heard, offsets[1]
    finally:
        stop.set()
        spinner.join()
        for node in (precision, partition):
            node.close()
        probe.destroy_node()
        rclpy.try_shutdown()


def from_samples(decided):
    """What follows from silence comes from a timer, and not from samples."""
    silent = ("joint states are", "no joint states")
    return [item for item in decided if not item[1].reason.startswith(silent)]


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
        ReplayConfig(joints=("j0", "j1", "j2", "j3"), route=RouteConfig(mode="cloud", reuse=True)),
        lines.append,
    )
    assert run.quality.refused == 3
    assert run.quality.counts["gap"] == 1
    periods = [line for line in lines if line["kind"] == "period"]
    assert len({line["bits"] for line in periods}) > 1

    sampled = from_samples(decided)
    assert [
        (stamp_ns - precision_offset_ns, d.bits, d.reason, repr(d.sensitivity))
        for stamp_ns, d in sampled
    ] == [
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

    # The node's timer and the recording's periods decide at other samples: compared in between.
    stamps = [line["stamp_ns"] for line in periods]
    both = []
    for msg in heard:
        after = bisect(stamps, to_ns(msg.header.stamp) - partition_offset_ns)
        around = {line["reuse"] for line in periods[max(0, after - 1) : after + 1]}
        if 0 < after < len(stamps) and len(around) == 1:
            both.append((bool(msg.reuse), around.pop()))
    assert all(heard_reuse == replayed for heard_reuse, replayed in both)
    assert {replayed for _, replayed in both} == {False, True}


PLAN_ROBOT = """
align_clock: true
name: test_arm
joint_states: joint_states
joint_names: [j0, j1, j2, j3]
action_kind: joint_velocity
commands: {arm: {topic: command/arm, type: std_msgs/msg/Float64MultiArray}}
actions:
  j0: {command: arm, field: "data[0]", max_abs: 2.0, max_step: 2.0}
  j1: {command: arm, field: "data[1]", max_abs: 2.0, max_step: 2.0}
  second: {command: arm, field: "data[2]", joint: j2, max_abs: 2.0, max_step: 2.0}
  j3: {command: arm, field: "data[3]", max_abs: 2.0, max_step: 2.0}
"""
PERIOD = 5  # joint states in a control period
CALIBRATION = Calibration(
    policy="p",
    identity="ab" * 32,
    source="joint",
    precision=PrecisionConfig(lambda_=0.7, mu95=0.03, nu95=0.01, fall_steps=2),
    triggers={"theta_compat": 1.2},
)


def plan(messages):
    """(received_ns, chunk or state): the plan is what the arm then does. The executor speaks
    half a control period away from the grid of the decisions."""
    velocity = np.array([message.velocity for message in messages], np.float32)
    said = []
    for index in range(2, len(messages), PERIOD):
        number, row = divmod(index // PERIOD, 8)
        stamp = to_stamp(messages[index].header_ns)
        received_ns = messages[index].received_ns
        if row == 0:
            rows = velocity[index : index + 16 * PERIOD : PERIOD]
            chunk = ActionChunk(schema_version=1, request_id=number + 1, episode_id=1)
            chunk.horizon, chunk.action_size, chunk.period_s = len(rows), 4, 0.05
            chunk.header.stamp, chunk.actions, chunk.source = stamp, rows.ravel(), "edge"
            said.append((received_ns + 2_000_000, chunk))
        state = ExecutorState(schema_version=1, request_id=number + 1, row=row)
        state.state, state.header.stamp = ExecutorState.PLAYING, stamp
        state.command = velocity[index]
        said.append((received_ns + 4_000_000, state))
    return said


def in_step(said):
    """A ``play`` that sends each message when the node has taken the one before, so that the
    order is that of the recording."""

    def play(probe, messages, precision):
        qos = QoSProfile(depth=100)
        senders = {
            JointState: probe.create_publisher(JointState, "joint_states", qos),
            ActionChunk: probe.create_publisher(ActionChunk, "action_chunk", qos),
            ExecutorState: probe.create_publisher(ExecutorState, "executor_state", qos),
        }
        wait_for(lambda: all(sender.get_subscription_count() for sender in senders.values()))
        time.sleep(0.5)  # The other side matches later, and says nothing of it.
        items = [(message.received_ns, joint_state(message)) for message in messages]
        start_s = time.monotonic() - items[0][0] * 1e-9
        for received_ns, msg in sorted([*items, *said], key=lambda item: item[0]):
            time.sleep(max(0.0, start_s + received_ns * 1e-9 - time.monotonic()))
            before = precision.taken()
            senders[type(msg)].publish(msg)
            wait_for(lambda before=before: precision.taken() != before)

    return play


def wait_for(condition):
    until_s = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < until_s
        time.sleep(0.0005)


def recorded(msg, name):
    """The message as rosbags writes it."""
    values = {}
    for field, (kind, detail) in STORE2.fielddefs[name][1]:
        value = getattr(msg, field)
        if kind is Nodetype.NAME:
            value = recorded(value, detail)
        elif isinstance(value, array):
            value = np.array(value)
        values[field] = value
    return STORE2.types[name](**values)


def test_with_a_calibration_and_the_plan_live_nodes_decide_what_replay_decides(tmp_path, domain):
    messages, robot = motion(4.0, seed=3), tmp_path / "arm.yaml"
    robot.write_text(PLAN_ROBOT)
    calibration = tmp_path / "calibration.yaml"
    CALIBRATION.save(calibration)
    said = plan(messages)
    decided, offset_ns, _, _ = live(messages, robot, calibration, play=in_step(said))

    extras = []
    for kind, topic in ((ActionChunk, "action_chunk"), (ExecutorState, "executor_state")):
        name = f"ros_vla_accel/msg/{kind.__name__}"
        rows = [(at_ns, recorded(msg, name)) for at_ns, msg in said if type(msg) is kind]
        extras.append(Extra(f"/vla/{topic}", name, rows))
    bag = write2(tmp_path / "bag", messages, extras=tuple(extras))
    out = tmp_path / "decisions.jsonl"
    arguments = [bag, "--robot", robot, "--calibration", calibration, "--out", out]
    assert main([str(argument) for argument in arguments]) == 0
    periods = [line for line in map(json.loads, out.open()) if line["kind"] == "period"]
    assert any("needed in" in line["bits_reason"] for line in periods)
    assert len({line["bits"] for line in periods}) > 2
    sampled = from_samples(decided)
    assert [(stamp_ns - offset_ns, d.bits, d.reason) for stamp_ns, d in sampled] == [
        (line["stamp_ns"], line["bits"], line["bits_reason"]) for line in periods
    ]
