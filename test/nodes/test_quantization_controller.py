"""The width follows the motion of the arm: few bits in fast transit, all of them at rest."""

import math
from dataclasses import replace
from itertools import count

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, KeyValue
from rclpy.parameter import Parameter
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import JointState
from std_msgs.msg import String

from ros_vla_accel.contracts import ActionChunk as Chunk
from ros_vla_accel.msg import ActionChunk, ExecutorState, PrecisionCommand
from ros_vla_accel.nodes.base import CHUNK_QOS, STATE_QOS
from ros_vla_accel.nodes.convert import chunk_to_msg, to_stamp
from ros_vla_accel.nodes.quantization_controller import QuantizationController
from ros_vla_accel.precision import Calibration, PrecisionConfig

NAMES = [f"right_j{i}" for i in range(7)] + ["r_close", "l_close"]


class Arm:
    """Turns its first joint at ``speed`` rad/s; joint states at 100 Hz."""

    def __init__(self, bench) -> None:
        self._bench = bench
        self.speed, self.sending = 0.0, True
        self._angle, self._last_ns = 0.0, 0
        self._joints = bench.probe.create_publisher(
            JointState, "joint_states", qos_profile_sensor_data
        )
        self.widths = bench.listen(PrecisionCommand, "precision", STATE_QOS)
        bench.every(0.01, self._publish)

    def _publish(self) -> None:
        now_ns = int(self._bench.probe.get_clock().now().nanoseconds)
        if self._last_ns:
            self._angle += self.speed * (now_ns - self._last_ns) * 1e-9
        self._last_ns = now_ns
        if self.sending:
            msg = JointState(name=NAMES, position=[self._angle, *[0.0] * 8])
            msg.header.stamp = to_stamp(now_ns)
            self._joints.publish(msg)

    def until_bits(self, condition):
        self._bench.until(lambda: self.widths and condition(self.widths[-1].activation_bits))
        return self.widths[-1]


def test_transit_lowers_the_width_and_rest_or_silence_restores_it(bench):
    arm = Arm(bench)
    bench.start(QuantizationController, source="joint", mu95=0.02, nu95=1.0)
    at_rest = arm.until_bits(lambda bits: bits == 16)
    arm.speed = 0.4
    moving = arm.until_bits(lambda bits: bits <= 4)
    assert moving.sensitivity < 0.25
    assert not moving.calibrated
    arm.speed = 0.0
    arm.until_bits(lambda bits: bits == 16)
    arm.speed = 0.4
    arm.until_bits(lambda bits: bits <= 4)
    arm.sending = False
    silent = arm.until_bits(lambda bits: bits == 16)
    assert "old" in silent.reason
    assert math.isnan(silent.sensitivity)
    assert at_rest.activation_bits == 16


CALIBRATION = Calibration(
    policy="arm_policy",
    identity="ab" * 32,
    source="joint",
    precision=PrecisionConfig(mu95=0.02, nu95=1.0, table=((0.3, 4), (0.5, 8))),
)


def saved(tmp_path, **changes) -> str:
    path = tmp_path / "calibration.yaml"
    replace(CALIBRATION, **changes).save(path)
    return str(path)


def test_a_calibration_replaces_the_parameters_and_names_its_policy(bench, tmp_path):
    arm = Arm(bench)
    arm.speed = 0.4
    # Parameters by which this motion would be too fine for anything but 16 bits.
    bench.start(QuantizationController, calibration=saved(tmp_path), mu95=9.0)
    moving = arm.until_bits(lambda bits: bits == 4)
    assert moving.calibrated
    assert moving.policy == "ab" * 32


def test_a_calibration_for_fk_keeps_full_precision_until_a_description_comes(bench, tmp_path):
    pytest.importorskip("pinocchio")
    from ros_vla_accel.sim.urdf import sawyer_urdf

    arm = Arm(bench)
    arm.speed = 0.4
    node = bench.start(QuantizationController, calibration=saved(tmp_path, source="fk"))
    bench.until(lambda: arm.widths and "no robot_description" in arm.widths[-1].reason)
    assert {msg.activation_bits for msg in arm.widths} == {16}
    assert node.diagnosis()[0] == node.WARN
    description = bench.probe.create_publisher(String, "robot_description", STATE_QOS)
    description.publish(String(data=sawyer_urdf()))
    arm.until_bits(lambda bits: bits == 4)
    assert node.diagnosis()[0] == node.OK


class Executor:
    """Plays one chunk of Cartesian rows at 20 Hz, as executor_state says; never moves an arm."""

    def __init__(self, bench) -> None:
        self._bench = bench
        self._states = bench.probe.create_publisher(ExecutorState, "executor_state", 10)
        self._chunks = bench.probe.create_publisher(ActionChunk, "action_chunk", CHUNK_QOS)
        self.rows, self.state, self._ticks = [], ExecutorState.IDLE, count()

    def play(self, rows) -> None:
        self.rows = np.array(rows, np.float32)
        chunk = Chunk(self.rows, 0.05, 0, request_id=9, episode_id=1, source="edge")
        self._chunks.publish(chunk_to_msg(chunk))
        self.state, self._ticks = ExecutorState.PLAYING, count()
        self._bench.every(0.05, self._tick)

    def _tick(self) -> None:
        row = min(next(self._ticks), len(self.rows) - 1)
        msg = ExecutorState(schema_version=1, state=self.state, request_id=9, row=row)
        msg.command = self.rows[row]
        msg.header.stamp = self._bench.probe.get_clock().now().to_msg()
        self._states.publish(msg)


def test_what_is_commanded_sets_the_width_and_a_hold_restores_it(bench):
    executor = Executor(bench)
    widths = bench.listen(PrecisionCommand, "precision", STATE_QOS)
    node = bench.start(QuantizationController, source="action", mu95=0.01, nu95=1.0)
    executor.play([[0.2, 0, 0, 1]] * 2)
    bench.until(lambda: widths and widths[-1].activation_bits == 2)
    executor.state = ExecutorState.STARVED
    bench.until(lambda: widths[-1].reason == "executor holds")
    assert widths[-1].activation_bits == 16
    assert node.diagnosis()[2]["source"] == "action"


def test_rows_to_come_raise_the_width_before_the_motion_does(bench):
    executor = Executor(bench)
    widths = bench.listen(PrecisionCommand, "precision", STATE_QOS)
    bench.start(QuantizationController, source="action", mu95=0.01, nu95=1.0, look_ahead=8)
    # The stop is far behind the periods that fill the windows and let the width fall.
    executor.play([[0.2, 0, 0, 1]] * 60 + [[0.0, 0, 0, 1]] * 20)
    bench.until(lambda: any("needed in" in msg.reason for msg in widths), 12)
    rise = next(msg for msg in widths if "needed in" in msg.reason)
    assert rise.activation_bits > 2
    assert rise.motion_fineness < 0.1, "the motion alone asks for little"


def test_a_controller_that_stops_leaves_full_precision_behind(bench):
    arm = Arm(bench)
    arm.speed = 0.4
    node = bench.start(QuantizationController, source="joint", mu95=0.02, nu95=1.0)
    arm.until_bits(lambda bits: bits <= 4)
    node.trigger_deactivate()
    stopped = arm.until_bits(lambda bits: bits == 16)
    assert stopped.reason == "controller stopped"


def test_a_robot_description_switches_to_forward_kinematics(bench):
    pytest.importorskip("pinocchio")
    from ros_vla_accel.sim.urdf import sawyer_urdf

    description = bench.probe.create_publisher(String, "robot_description", STATE_QOS)
    description.publish(String(data=sawyer_urdf()))
    diagnostics = bench.listen(DiagnosticArray, "/diagnostics")
    bench.start(QuantizationController)
    source = KeyValue(key="source", value="fk")
    bench.until(lambda: any(source in s.values for array in diagnostics for s in array.status))


def test_a_robot_description_that_is_no_urdf_is_reported_and_joint_space_serves(bench):
    pytest.importorskip("pinocchio")
    description = bench.probe.create_publisher(String, "robot_description", STATE_QOS)
    description.publish(String(data="<robot"))
    arm = Arm(bench)
    node = bench.start(QuantizationController, mu95=0.02, nu95=1.0)
    arm.speed = 0.4
    arm.until_bits(lambda bits: bits <= 4)
    assert "not used" in node.diagnosis()[1]


@pytest.mark.parametrize(
    "wrong",
    [
        {"source": "eyes"},
        {"mu95": 0.0},
        {"table_bits": [2, 3, 8]},
        {"robot": "nobody"},
        {"calibration": "nobody"},
    ],
)
def test_a_wrong_parameter_fails_the_configuration(bench, wrong):
    overrides = [Parameter(name, value=value) for name, value in wrong.items()]
    node = bench.add(QuantizationController(namespace="/vla", parameter_overrides=overrides))
    assert not node.autostart()


@pytest.mark.parametrize("given", [{"source": "fk"}, {"period_s": 0.1}])
def test_a_calibration_of_other_motion_fails_the_configuration(bench, tmp_path, given):
    given = {"calibration": saved(tmp_path), **given}
    overrides = [Parameter(name, value=value) for name, value in given.items()]
    node = bench.add(QuantizationController(namespace="/vla", parameter_overrides=overrides))
    assert not node.autostart()


def test_a_damaged_calibration_fails_the_configuration(bench, tmp_path):
    (tmp_path / "c.yaml").write_text("schema: 1")
    overrides = [Parameter("calibration", value=str(tmp_path / "c.yaml"))]
    node = bench.add(QuantizationController(namespace="/vla", parameter_overrides=overrides))
    assert not node.autostart()
