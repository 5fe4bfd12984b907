"""Plays action chunks in time at the control rate, and holds safely when none is valid."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from rclpy.duration import Duration

from ros_vla_accel.contracts import SCHEMA_VERSION, ExecutorCode
from ros_vla_accel.control.executor import Executor, ExecutorConfig, Tick
from ros_vla_accel.control.robot_config import RobotConfig
from ros_vla_accel.control.watchdog import Watchdog
from ros_vla_accel.msg import ActionChunk, ExecutorState
from ros_vla_accel.nodes.base import CHUNK_QOS, STEADY, AccelNode, run_nodes
from ros_vla_accel.nodes.convert import chunk_from_msg, message_class, set_field, to_stamp


class CommandWriter:
    """Publishes a command row on the topics that the robot YAML names."""

    def __init__(self, node: AccelNode, robot: RobotConfig) -> None:
        self._node = node
        self._robot = robot
        self._types = {}
        self._publishers = {}
        for name, command in robot.commands.items():
            try:
                kind = message_class(command.type)
            except ValueError as error:
                raise ValueError(f"robot '{robot.name}': command '{name}': {error}") from None
            self._types[name] = kind
            self._publishers[name] = node.publisher(kind, command.topic, 10)
        # A wrong field path shall fail at configure, not at the first command.
        self._messages(np.zeros(len(robot.actions)))

    def _messages(self, command: np.ndarray) -> dict[str, Any]:
        messages = {name: kind() for name, kind in self._types.items()}
        for target, value in zip(self._robot.actions.values(), command, strict=True):
            set_field(messages[target.command], target.field, float(value))
        return messages

    def write(self, command: np.ndarray) -> None:
        """command: (A,) in the order of the robot's ``actions``."""
        stamp = self._node.get_clock().now().to_msg()
        for name, message in self._messages(command).items():
            if hasattr(message, "header"):
                message.header.stamp = stamp
                message.header.frame_id = self._robot.commands[name].frame_id
            self._publishers[name].publish(message)

    def flush(self) -> None:
        """Waits shortly until the robot has what was written."""
        for publisher in self._publishers.values():
            publisher.wait_for_all_acked(Duration(seconds=0.2))


class ActionExecutor(AccelNode):
    """Subscribes action_chunk and joint_states; publishes the robot's commands and executor_state.

    The control timer runs on the node's clock, so that it keeps pace with a simulator. A second
    timer on the steady clock notices when the first no longer fires, and holds.
    """

    changeable = ("armed",)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("action_executor", **kwargs)
        defaults = ExecutorConfig()
        self.declare("period_s", defaults.period_s, "control period, s")
        self.declare(
            "joint_timeout_s", defaults.joint_timeout_s, "older joint states stop the arm, s"
        )
        self.declare(
            "blend_rows", defaults.blend_rows, "rows over which a new chunk is blended in"
        )
        self.declare(
            "hold_ticks", defaults.hold_ticks, "a hold stops every velocity within so many periods"
        )
        self.declare(
            "tick_timeout_s",
            0.5,
            "steady time without a control tick after which the arm holds, s",
        )
        self.core: Executor | None = None
        self._tick: Tick | None = None
        self._bad_chunks = 0

    def _setup(self) -> None:
        robot = self.load_robot()
        config = ExecutorConfig(
            **{
                name: self.get_parameter(name).value
                for name in ("period_s", "joint_timeout_s", "blend_rows", "hold_ticks")
            },
            armed=self.declare("armed", robot.armed, "false: everything runs, no command leaves"),
        )
        self._joints = self.joint_input(robot)
        self.core = Executor(config, robot.action_limits())
        self._writer = CommandWriter(self, robot)
        self._watchdog = Watchdog(self.get_parameter("tick_timeout_s").value)
        self._state = self.publisher(ExecutorState, "executor_state", 10)
        self.subscribe(ActionChunk, "action_chunk", self._on_chunk, CHUNK_QOS)
        self.every(config.period_s, self._on_tick)
        self.every(config.period_s, self._on_steady, clock=STEADY)

    def _start(self) -> None:
        self._watchdog.feed(time.monotonic_ns())
        self._arm(bool(self.get_parameter("armed").value))

    def _stop(self) -> None:
        """Brings the arm to rest before the node falls silent."""
        self.core.arm(False)
        for _ in range(self.core.config.hold_ticks):
            self._publish(self.core.tick(self.now_ns(), self._joints.buffer.newest))
            time.sleep(self.core.config.period_s)
        self._writer.flush()

    def _teardown(self) -> None:
        # Its default is the robot's, and the next configure may name another robot.
        if self.has_parameter("armed"):
            self.undeclare_parameter("armed")

    def _on_failure(self, text: str) -> None:
        if self.active:
            tick = self.core.halt(self.now_ns(), text)
            if tick.send:
                self._writer.write(tick.command)

    def _on_change(self, name: str, value: Any) -> None:
        if self.active:
            self._arm(bool(value))

    def _arm(self, armed: bool) -> None:
        self.core.arm(armed)
        self.get_logger().info(
            "armed" if armed else "disarmed: no command leaves; set armed:=true"
        )

    def _on_chunk(self, msg: ActionChunk) -> None:
        if not self.active:
            return
        try:
            verdict = self.core.offer(chunk_from_msg(msg), self.now_ns())
        except ValueError as error:
            self._bad_chunks += 1
            self.get_logger().warning(f"chunk dropped: {error}", throttle_duration_sec=5.0)
            return
        if not verdict.accepted:
            self.get_logger().info(
                f"chunk {msg.request_id} from {msg.source} dropped: {verdict.reason}",
                throttle_duration_sec=5.0,
            )

    def _on_tick(self) -> None:
        if not self.active:
            return
        self._watchdog.feed(time.monotonic_ns())
        self._publish(self.core.tick(self.now_ns(), self._joints.buffer.newest))

    def _on_steady(self) -> None:
        if self.active and self._watchdog.expired(time.monotonic_ns()):
            reason = f"no control tick for {self._watchdog.timeout_s} s; has /clock stopped?"
            self._publish(self.core.halt(self.now_ns(), reason))

    def _publish(self, tick: Tick) -> None:
        if tick.send:
            self._writer.write(tick.command)
        self._tick = tick
        msg = ExecutorState(
            schema_version=SCHEMA_VERSION,
            state=int(tick.state),
            armed=tick.armed,
            episode_id=tick.episode_id,
            request_id=tick.request_id,
            chunk_stamp=to_stamp(tick.chunk_stamp_ns),
            source=tick.source,
            row=tick.row,
            executed_rows=tick.executed_rows,
            remaining_rows=tick.remaining_rows,
            ticks=tick.ticks,
            starved_ticks=tick.starved_ticks,
            chunks_accepted=tick.chunks_accepted,
            chunks_dropped=tick.chunks_dropped + self._bad_chunks,
            limited_ticks=tick.limited_ticks,
            command=np.asarray(tick.command, np.float32),
            reason=tick.reason,
        )
        msg.header.stamp = to_stamp(tick.stamp_ns)
        self._state.publish(msg)

    def diagnosis(self) -> tuple[int, str, dict[str, Any]]:
        tick = self._tick
        if tick is None:
            return self.WARN, "no control tick yet; is the clock running?", {}
        level = self.ERROR if tick.state == ExecutorCode.FAULT else self.OK
        reason = tick.reason
        if tick.state == ExecutorCode.FAULT and self._joints.error:
            reason = f"{reason} ({self._joints.error})"
        values = {
            "armed": tick.armed,
            "ticks": tick.ticks,
            "late_ticks": tick.late_ticks,
            "starved_ticks": tick.starved_ticks,
            "limited_ticks": tick.limited_ticks,
            **{f"dropped_{code}": count for code, count in tick.drops.items()},
            **{
                f"joint_states_{code}": count
                for code, count in self._joints.reader.rejected.items()
            },
        }
        if tick.state == ExecutorCode.STARVED:
            level = self.WARN
        return level, f"{tick.state.name}: {reason}", values


def main(args: Sequence[str] | None = None) -> int:
    return run_nodes(lambda: [ActionExecutor()], args)
