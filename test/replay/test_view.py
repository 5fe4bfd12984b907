"""The live view, over a real WebSocket on loopback, from real topics."""

import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import JointState

from ros_vla_accel.contracts import SCHEMA_VERSION
from ros_vla_accel.control.robot_config import load_robot
from ros_vla_accel.msg import ActionChunk, ExecutorState, PrecisionCommand
from ros_vla_accel.nodes.base import CHUNK_QOS, STATE_QOS
from ros_vla_accel.precision import PrecisionConfig
from ros_vla_accel.replay.live_signals import LiveSignals
from ros_vla_accel.replay.pipeline import ReplayConfig
from ros_vla_accel.resources import share_path

pytest.importorskip(
    "foxglove", reason="foxglove-sdk is not installed: pip install 'ros_vla_accel[view]'"
)
websockets = pytest.importorskip("websockets.sync.client", reason="pip install websockets")

from ros_vla_accel.nodes.view import View  # noqa: E402 - it imports foxglove

ROOT = Path(__file__).parents[2]
DOMAIN = "75"
MESSAGE_DATA = 1  # opcode of the Foxglove WebSocket protocol, version 1
FAST_ARM = PrecisionConfig(mu95=0.01, nu95=1.0, look_ahead=8)
LAYOUT = json.loads(share_path("config/foxglove_layout.json").read_text())


def signals(robot):
    return LiveSignals(ReplayConfig(robot=robot, source="joint"))


def by_commands(robot):
    return LiveSignals(ReplayConfig(robot=robot, precision=FAST_ARM, source="action"))


class Viewer:
    """A client of the Foxglove WebSocket protocol."""

    def __init__(self, link):
        self._link = link
        self.channels = {}
        self._next = 0

    def until(self, condition, timeout_s=10.0):
        """Reads until a message (dict, or (subscription, bytes)) makes condition(it) true."""
        end_s = time.monotonic() + timeout_s
        while True:
            raw = self._link.recv(timeout=max(end_s - time.monotonic(), 0.01))
            if isinstance(raw, str):
                item = json.loads(raw)
                if item["op"] == "advertise":
                    self.channels |= {c["topic"]: c for c in item["channels"]}
            elif raw[0] == MESSAGE_DATA:
                item = (struct.unpack_from("<I", raw, 1)[0], raw[13:])
            else:
                continue
            if condition(item):
                return item

    def subscribe(self, topic):
        if topic not in self.channels:
            self.until(lambda _: topic in self.channels)
        self._next += 1
        wanted = {"id": self._next, "channelId": self.channels[topic]["id"]}
        self._link.send(json.dumps({"op": "subscribe", "subscriptions": [wanted]}))
        return self._next

    def next(self, subscription):
        return self.until(lambda i: isinstance(i, tuple) and i[0] == subscription)[1]


@contextmanager
def viewer(port):
    address = f"ws://127.0.0.1:{port}"
    with websockets.connect(address, subprotocols=["foxglove.sdk.v1"]) as link:
        yield Viewer(link)


class Robot(Node):
    """Publishes what an arm and its nodes would."""

    def __init__(self):
        super().__init__("robot", namespace="/vla")
        self.joints = self.create_publisher(JointState, "joint_states", qos_profile_sensor_data)
        self.states = self.create_publisher(ExecutorState, "executor_state", 10)
        self.chunks = self.create_publisher(ActionChunk, "action_chunk", CHUNK_QOS)
        self.precision = self.create_publisher(PrecisionCommand, "precision", STATE_QOS)
        self.names = list(
            load_robot(share_path("config/robots/metaworld_sawyer.yaml")).joint_names
        )
        self.create_timer(0.01, self.tick)
        self.count = 0

    def tick(self):
        self.count += 1
        speed = 0.1 * (1 + self.count % 7)
        state = JointState(
            name=self.names,
            position=[0.001 * self.count] * len(self.names),
            velocity=[speed] * len(self.names),
        )
        stamp_ns = 10_000_000 * self.count
        state.header.stamp.sec, state.header.stamp.nanosec = divmod(stamp_ns, 10**9)
        self.joints.publish(state)
        if self.count % 5 == 0:
            state = ExecutorState(
                schema_version=SCHEMA_VERSION,
                ticks=self.count,
                source="edge",
                state=ExecutorState.PLAYING,
                request_id=7,
                command=[0.2, 0.0, 0.0, 0.0],
            )
            state.header.stamp.sec, state.header.stamp.nanosec = divmod(stamp_ns, 10**9)
            self.states.publish(state)


@pytest.fixture
def view(monkeypatch, request):
    monkeypatch.setenv("ROS_DOMAIN_ID", DOMAIN)
    rclpy.init(args=[])
    robot = Robot()
    port = Parameter("port", value=0)
    make_signals = getattr(request, "param", signals)
    view = View(make_signals, namespace="/vla", parameter_overrides=[port])
    executor = SingleThreadedExecutor()
    for node in (robot, view):
        executor.add_node(node)
    assert view.autostart()
    stop = threading.Event()

    def spin():
        while not stop.is_set():
            executor.spin_once(timeout_sec=0.05)

    thread = threading.Thread(target=spin)
    thread.start()
    yield view, robot
    stop.set()
    thread.join()
    view.close()
    robot.destroy_node()
    rclpy.try_shutdown()


def test_signals_of_the_joints_arrive_while_the_arm_moves(view):
    with viewer(view[0].port) as client:
        subscription = client.subscribe("/vla/view/signals")
        numbers = json.loads(client.next(subscription))
        assert numbers["speed"] > 0
        assert {"importance", "theta_compat", "theta_redundancy"} <= set(numbers)
        assert "torque" not in numbers  # this arm publishes no effort

        subscription = client.subscribe("/vla/view/scores")
        scores = client.until(
            lambda i: isinstance(i, tuple) and i[0] == subscription and b"sensitivity" in i[1]
        )
        assert json.loads(scores[1])["bits"] in (2, 4, 8, 16)


@pytest.mark.parametrize("view", [by_commands], indirect=True)
def test_commands_and_the_plan_count_in_the_scores(view):
    node, robot = view

    def until(condition):
        end_s = time.monotonic() + 10
        while not condition(numbers := json.loads(client.next(subscription))):
            assert time.monotonic() < end_s, numbers

    with viewer(node.port) as client:
        subscription = client.subscribe("/vla/view/scores")
        until(lambda now: now["bits"] == 2)  # a fast transit, as commanded, and no plan yet
        rows = np.zeros((8, 4), np.float32)  # it will stand still
        chunk = ActionChunk(
            schema_version=SCHEMA_VERSION,
            request_id=7,
            horizon=8,
            action_size=4,
            period_s=0.05,
            actions=rows.ravel(),
        )
        robot.chunks.publish(chunk)
        until(lambda now: now["bits"] > 2 and now["fineness"] < 0.1)


def test_ros_messages_pass_unchanged_with_their_definition(view):
    from ros_vla_accel.nodes.recorder import typestore

    with viewer(view[0].port) as client:
        subscription = client.subscribe("/vla/executor_state")
        data = client.next(subscription)
        channel = client.channels["/vla/executor_state"]
    assert (channel["encoding"], channel["schemaEncoding"]) == ("cdr", "ros2msg")
    assert "MSG: std_msgs/Header" in channel["schema"]
    message = typestore().deserialize_cdr(data, channel["schemaName"])
    assert (message.source, message.state) == ("edge", 1)


def test_who_connects_late_is_told_the_state(view):
    node, robot = view
    robot.precision.publish(PrecisionCommand(activation_bits=4))
    for _ in range(2):
        with viewer(node.port) as client:
            subscription = client.subscribe("/vla/precision")
            assert client.until(lambda i: isinstance(i, tuple), 5)[0] == subscription


def test_every_path_of_the_layout_is_served(view):
    with viewer(view[0].port) as client:
        client.until(lambda _: len(client.channels) >= 12)
        served = client.channels
    topics = set()
    for panel in LAYOUT["configById"].values():
        for series in panel.get("paths", ()):
            topic, _, field = series["value"].partition(".")
            topics.add(topic)
            schema = served[topic]["schema"]
            known = (
                json.loads(schema)["properties"]
                if served[topic]["schemaEncoding"] == "jsonschema"
                else {
                    line.split()[1].partition("=")[0]
                    for line in schema.splitlines()
                    if " " in line
                }
            )
            assert field in known, series["value"]
        if "imageMode" in panel:
            assert panel["imageMode"]["imageTopic"] in served
    assert len(topics) >= 6


def test_the_layout_places_every_panel_once():
    def leaves(part):
        if isinstance(part, str):
            return [part]
        return leaves(part["first"]) + leaves(part["second"])

    assert sorted(leaves(LAYOUT["layout"])) == sorted(LAYOUT["configById"])


def test_the_layout_names_every_panel_in_foxglove_and_in_lichtblick():
    for panel in LAYOUT["configById"].values():
        assert panel["foxglovePanelTitle"] == panel["lichtblickPanelTitle"] != ""


def test_the_plots_follow_the_newest_half_minute_together():
    panels = LAYOUT["configById"].items()
    plots = [panel for name, panel in panels if name.startswith("Plot!")]
    assert all(plot["isSynced"] and plot["followingViewWidth"] == 30 for plot in plots)
    # A synced state transitions panel shows all that was received, and makes the plots do so too.
    assert not LAYOUT["configById"]["StateTransitions!states"]["isSynced"]


def test_a_taken_port_is_named_and_the_node_stays_unconfigured(view):
    port = Parameter("port", value=view[0].port)
    second = View(signals, namespace="/vla", parameter_overrides=[port])
    assert not second.autostart()
    second.destroy_node()


def test_the_command_serves_on_loopback_only_and_ends_on_a_signal(monkeypatch):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "ros_vla_accel.cli", "view", "--port", str(port)]
    process = subprocess.Popen(
        command,
        env={**os.environ, "ROS_DOMAIN_ID": "76"},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "Foxglove WebSocket on" in line:
                break
        assert f"ws://127.0.0.1:{port}" in lines[-1]
        with viewer(port) as client:
            client.until(lambda _: "/vla/view/signals" in client.channels)
        listening = Path("/proc/net/tcp").read_text().split("\n")
        assert any(f"0100007F:{port:04X} 00000000:0000 0A" in line for line in listening)
        assert not any(f"00000000:{port:04X} " in line for line in listening)
    finally:
        process.terminate()
        assert process.wait(15) == 0
