"""Sets the activation width of the policy from the robot's motion (DyQ-VLA, arXiv:2603.07904)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from std_msgs.msg import String

from ros_vla_accel.contracts import SCHEMA_VERSION
from ros_vla_accel.control.robot_config import RobotConfig
from ros_vla_accel.kinematics.action_motion import ActionMotion
from ros_vla_accel.kinematics.joints import JointSample
from ros_vla_accel.msg import ActionChunk, ExecutorState, PrecisionCommand
from ros_vla_accel.nodes.base import CHUNK_QOS, STATE_QOS, STEADY, AccelNode, run_nodes
from ros_vla_accel.nodes.convert import chunk_from_msg, to_ns, to_stamp
from ros_vla_accel.precision import (
    Calibration,
    MotionPrecision,
    PrecisionConfig,
    PrecisionDecision,
)
from ros_vla_accel.precision.motion_precision import Decided
from ros_vla_accel.resources import existing_path

_SETTINGS = [item for item in fields(PrecisionConfig) if item.name not in ("table", "calibrated")]
RENEW_S = 0.25
"""A width that is not renewed counts as unknown after a few times this: see precision.width."""


class QuantizationController(AccelNode):
    """Subscribes joint_states, robot_description, executor_state and action_chunk; publishes
    precision.

    A width is published when it changes and every ``RENEW_S``, and 16 bits when the node stops.
    With a calibration its thresholds and its source of motion count, and the command names the
    policy that it was made for.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("quantization_controller", **kwargs)
        table = PrecisionConfig().table
        for item in _SETTINGS:
            self.declare(item.name.rstrip("_"), item.default, "see config/edge.yaml")
        self.declare("table_sensitivity", [s for s, _ in table], "upper ends of the table's rows")
        self.declare("table_bits", [bits for _, bits in table], "bits of the table's rows")
        self.declare("source", "auto", "motion from fk (robot_description), action, joint or auto")
        self.declare("calibration", "", "YAML of `calibrate`: a path, or a name in the package")

    def _setup(self) -> None:
        config, source = self._read_config(), self.get_parameter("source").value
        calibration = self.get_parameter("calibration").value
        self._policy_identity = ""
        if calibration:
            found = Calibration.load(existing_path(calibration, "config/calibration"))
            config, source = found.settings(config, source)
            self._policy_identity = found.identity
        self._robot = self.load_robot()
        self._precision = MotionPrecision(
            config, source, self._action_motion(self._robot, config), self._robot.tip_frame
        )
        self._problem = ""
        self._decision = self._precision.controller.unknown("start")
        self._stamp_ns = 0
        self._commands = self.publisher(PrecisionCommand, "precision", STATE_QOS)
        self.subscribe(String, "robot_description", self._on_description, STATE_QOS)
        self.subscribe(ActionChunk, "action_chunk", self._on_chunk, CHUNK_QOS)
        self.subscribe(ExecutorState, "executor_state", self._on_executor_state, 10)
        self._joints = self.joint_input(self._robot)
        self.listen(self._joints, self._on_sample)
        self.every(0.1, self._watch, clock=STEADY)
        self.every(RENEW_S, self._publish, clock=STEADY)

    def _stop(self) -> None:
        """Nobody watches the motion any more."""
        self._take(self._precision.controller.unknown("controller stopped"), self.now_ns())

    def _read_config(self) -> PrecisionConfig:
        settings = {
            item.name: self.get_parameter(item.name.rstrip("_")).value for item in _SETTINGS
        }
        rows = (self.get_parameter(name).value for name in ("table_sensitivity", "table_bits"))
        return PrecisionConfig.from_dict({**settings, "table": list(zip(*rows, strict=True))})

    def _action_motion(self, robot: RobotConfig, config: PrecisionConfig) -> ActionMotion | None:
        try:
            return robot.action_motion(config.period_s)
        except ValueError as error:
            self.get_logger().info(f"no look-ahead: {error}")
            return None

    def _on_description(self, msg: String) -> None:
        before = self._precision.source
        self._problem = self._precision.describe(msg.data, self._robot.joint_names)
        if self._precision.source != before:
            self.get_logger().info(f"motion by {self._precision.source}")

    def _on_sample(self, sample: JointSample) -> None:
        if self.active:
            self._take_all(self._precision.on_sample(sample))

    def _on_chunk(self, msg: ActionChunk) -> None:
        try:
            chunk = chunk_from_msg(msg)
        except ValueError:
            return  # The executor plays none that it cannot read, and vla_policy says so.
        self._precision.on_chunk(chunk.request_id, chunk.actions, chunk.period_s)

    def _on_executor_state(self, msg: ExecutorState) -> None:
        if not self.active or msg.schema_version != SCHEMA_VERSION:
            return
        self._take_all(
            self._precision.on_executor_state(
                to_ns(msg.header.stamp),
                msg.state == ExecutorState.PLAYING,
                int(msg.request_id),
                int(msg.row),
                msg.command,
            )
        )

    def _watch(self) -> None:
        """Silence: the width must not stay where the last motion left it."""
        if not self.active:
            return
        now_ns = self.now_ns()
        decision = self._precision.stale(now_ns)
        if decision is not None and decision.reason != self._decision.reason:
            self._take(decision, now_ns)

    def _on_failure(self, text: str) -> None:
        """A callback failed: what the motion asks for is not known. The timer publishes it."""
        self._decision = self._precision.controller.unknown("controller failed")

    def _take_all(self, decided: Decided) -> None:
        for stamp_ns, decision in decided:
            self._take(decision, stamp_ns)

    def _take(self, decision: PrecisionDecision, stamp_ns: int) -> None:
        changed = decision.bits != self._decision.bits
        self._decision, self._stamp_ns = decision, stamp_ns
        if changed:
            self._publish()

    def _publish(self) -> None:
        if not self.active:
            return
        decision = self._decision
        msg = PrecisionCommand(
            schema_version=SCHEMA_VERSION,
            activation_bits=decision.bits,
            sensitivity=decision.sensitivity,
            motion_fineness=decision.fineness,
            angular_jerk=decision.jerk,
            calibrated=self._precision.config.calibrated,
            policy=self._policy_identity,
            reason=decision.reason,
        )
        msg.header.stamp = to_stamp(self._stamp_ns)
        msg.needed_from = to_stamp(decision.needed_ns)
        self._commands.publish(msg)

    def diagnosis(self) -> tuple[int, str, dict[str, Any]]:
        decision = self._decision
        values = {
            "bits": decision.bits,
            "sensitivity": decision.sensitivity,
            "source": self._precision.source,
            "looks_ahead": self._precision.looks_ahead,
            "calibrated": self._precision.config.calibrated,
            "calibrated_for": self._policy_identity[:12] or "any policy",
        }
        if self._problem:
            return self.WARN, self._problem, values
        if self._precision.source == "none":
            return self.WARN, "16 bits until a robot_description comes", values
        return self.OK, f"{decision.bits} bits: {decision.reason}", values


def main(args: Sequence[str] | None = None) -> int:
    return run_nodes(lambda: [QuantizationController()], args)
