"""Serves what the edge sees and decides, live, to Foxglove over a WebSocket."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import foxglove
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String

from ros_vla_accel.contracts import SCHEMA_VERSION
from ros_vla_accel.kinematics.joints import JointSample
from ros_vla_accel.msg import (
    ActionChunk,
    ExecutorState,
    InferenceStats,
    LinkStats,
    PartitionDecision,
    PrecisionCommand,
)
from ros_vla_accel.nodes.base import STATE_QOS, STEADY, AccelNode, run_nodes
from ros_vla_accel.nodes.convert import chunk_from_msg, to_ns
from ros_vla_accel.nodes.recorder import typestore

DEFAULT_PORT = 8765
LOOPBACK = ("127.0.0.1", "::1", "localhost")
Numbers = list[tuple[str, dict[str, float]]]
"""(topic below ``view/``, numbers by name)."""


class LiveSignals(Protocol):
    """Joint samples to the plotted signals."""

    topics: Mapping[str, Sequence[str]]
    """Topic below ``view/`` -> names of its numbers."""

    def describe(self, urdf: str) -> str:
        """Takes the robot description; returns why it is not used, or nothing."""

    def on_chunk(self, request_id: int, actions: Any, period_s: float) -> None:
        """Takes an action_chunk."""

    def on_executor_state(
        self, stamp_ns: int, playing: bool, request_id: int, row: int, command: Any
    ) -> Numbers:
        """Takes an executor_state; what it completes."""

    def update(self, sample: JointSample) -> Numbers:
        """What the sample completes."""


class View(AccelNode):
    """A Foxglove WebSocket server (subprotocol ``foxglove.sdk.v1``) on ``host``:``port``.

    ROS messages are passed on as they come, undecoded: cameras, chunks, states and statistics.
    Joint states and the plan become ``view/signals`` and ``view/scores`` in JSON, by
    ``make_signals`` (called with the robot's configuration at every configure). Subscriptions are
    best effort wherever the topic is not state, so a slow viewer never holds up the robot; the
    server drops what a client does not fetch in time. State is sent again every second, for who
    connects late.
    There is no authentication, hence the loopback interface.
    """

    def __init__(self, make_signals: Callable[[Any], LiveSignals], **kwargs: Any) -> None:
        super().__init__("view", **kwargs)
        self.declare("host", LOOPBACK[0], "interface to listen on; there is no authentication")
        self.declare("port", DEFAULT_PORT, "TCP port; 0 takes a free one")
        self._make_signals = make_signals
        self._server: Any = None
        self._problem = ""

    @property
    def port(self) -> int:
        """The port listened on."""
        return int(self._server.port)

    def _setup(self) -> None:
        robot = self.load_robot()
        host, port = self.get_parameter("host").value, self.get_parameter("port").value
        self._sinks = foxglove.Context()
        self._store = typestore()
        self._state: dict[Any, bytes] = {}
        try:
            self._server = foxglove.start_server(
                name="ros_vla_accel", host=host, port=port, context=self._sinks
            )
        except Exception as error:  # foxglove raises its own types, all of them meaning this
            raise OSError(f"cannot serve on {host}:{port} ({error}); set host or port") from None
        sensor = qos_profile_sensor_data
        for kind, topic, qos in (
            (ExecutorState, "executor_state", sensor),
            (InferenceStats, "inference_stats", sensor),
            (LinkStats, "link_stats", sensor),
            (ActionChunk, "action_chunk", sensor),
            (PrecisionCommand, "precision", STATE_QOS),
            (PartitionDecision, "partition_decision", STATE_QOS),
            (String, "instruction", STATE_QOS),
            (String, "task_status", sensor),
        ):
            self._pass_on(kind, topic, qos)
        for topic in robot.cameras.values():
            kind = CompressedImage if topic.endswith("compressed") else Image
            self._pass_on(kind, topic, sensor)
        self._signals = self._make_signals(robot)
        self._channels = {
            topic: foxglove.Channel(
                self.resolve_topic_name(f"view/{topic}"),
                schema=_schema(topic, names),
                context=self._sinks,
            )
            for topic, names in self._signals.topics.items()
        }
        self.subscribe(String, "robot_description", self._on_description, STATE_QOS)
        self.subscribe(ActionChunk, "action_chunk", self._on_chunk, sensor)
        self.subscribe(ExecutorState, "executor_state", self._on_executor_state, sensor)
        self._joints = self.joint_input(robot)
        self._joints.listen(self._on_sample)
        self.every(1.0, self._repeat_state, clock=STEADY)
        self.get_logger().info(
            f"Foxglove WebSocket on ws://{host}:{self.port}; open it with config/"
            "foxglove_layout.json"
        )
        if host not in LOOPBACK:
            self.get_logger().warning(f"anyone who reaches {host}:{self.port} sees the cameras")

    def _teardown(self) -> None:
        if hasattr(self, "_joints"):
            self._joints.forget(self._on_sample)
            del self._joints
        if self._server is not None:
            self._server.stop()
            self._server = None

    def _pass_on(self, kind: Any, topic: str, qos: Any) -> None:
        name = f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}"
        definition, _ = self._store.generate_msgdef(name, ros_version=2)
        channel = foxglove.Channel(
            self.resolve_topic_name(topic),
            message_encoding="cdr",
            schema=foxglove.Schema(name=name, encoding="ros2msg", data=definition.encode()),
            context=self._sinks,
        )

        def take(data: bytes) -> None:
            channel.log(bytes(data))
            if qos is STATE_QOS:
                self._state[channel] = bytes(data)

        subscription = self.create_subscription(kind, topic, take, qos, raw=True)
        self._keep(self.destroy_subscription, subscription)

    def _repeat_state(self) -> None:
        for channel, data in self._state.items():
            channel.log(data)

    def _on_description(self, msg: String) -> None:
        self._problem = self._signals.describe(msg.data)

    def _on_chunk(self, msg: ActionChunk) -> None:
        try:
            chunk = chunk_from_msg(msg)
        except ValueError:
            return  # As in quantization_controller: the executor plays none that it cannot read.
        self._signals.on_chunk(chunk.request_id, chunk.actions, chunk.period_s)

    def _on_executor_state(self, msg: ExecutorState) -> None:
        if msg.schema_version == SCHEMA_VERSION:
            playing = msg.state == ExecutorState.PLAYING
            self._show(
                self._signals.on_executor_state(
                    to_ns(msg.header.stamp), playing, msg.request_id, msg.row, msg.command
                )
            )

    def _on_sample(self, sample: JointSample) -> None:
        self._show(self._signals.update(sample))

    def _show(self, found: Numbers) -> None:
        for topic, numbers in found:
            channel = self._channels[topic]
            if channel.has_sinks():
                # JSON has no NaN; a number that is not known is left out, and its line ends.
                channel.log(json.dumps({k: v for k, v in numbers.items() if math.isfinite(v)}))

    def diagnosis(self) -> tuple[int, str, dict[str, Any]]:
        values = {"port": self.port}
        return (self.WARN, self._problem, values) if self._problem else (self.OK, "ok", values)


def _schema(topic: str, names: Sequence[str]) -> dict[str, Any]:
    return {
        "title": f"ros_vla_accel.{topic}",
        "type": "object",
        "properties": {name: {"type": "number"} for name in names},
    }


def run(make_signals: Callable[[Any], LiveSignals], args: Sequence[str]) -> int:
    """Runs the node until SIGINT or SIGTERM; args as of any node, ``--ros-args`` and all."""
    return run_nodes(lambda: [View(make_signals)], args)
