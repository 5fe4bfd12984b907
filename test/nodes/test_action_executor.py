"""The executor node commands the robot from chunks, and brings it to rest whatever happens."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import TwistStamped
from rclpy.parameter import Parameter
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64

from ros_vla_accel.contracts import ActionChunk as Chunk
from ros_vla_accel.control.robot_config import load_robot
from ros_vla_accel.msg import ActionChunk, ExecutorState
from ros_vla_accel.nodes.action_executor import ActionExecutor
from ros_vla_accel.nodes.base import CHUNK_QOS
from ros_vla_accel.nodes.convert import chunk_to_msg, to_stamp
from ros_vla_accel.nodes.joint_input import JointInput

SHIPPED = Path(__file__).parents[2] / "config" / "robots" / "metaworld_sawyer.yaml"
NAMES = [f"right_j{i}" for i in range(7)] + ["r_close", "l_close"]
ROW = np.array([0.1, 0.0, -0.05, 1.0], np.float32)


class Driver:
    """A robot at rest: joint states at 50 Hz, and what is commanded."""

    def __init__(self, bench) -> None:
        self._bench = bench
        self.position = np.zeros(len(NAMES))
        self.names = list(NAMES)
        self.sending, self.lag_s = True, 0.0
        probe = bench.probe
        self._joints = probe.create_publisher(JointState, "joint_states", qos_profile_sensor_data)
        self._chunks = probe.create_publisher(ActionChunk, "action_chunk", CHUNK_QOS)
        self.twists = bench.listen(TwistStamped, "command/twist")
        self.grippers = bench.listen(Float64, "command/gripper")
        self.states = bench.listen(ExecutorState, "executor_state")
        self._ids = 0
        bench.every(0.02, self._publish)

    def now_ns(self) -> int:
        return int(self._bench.probe.get_clock().now().nanoseconds)

    def _publish(self) -> None:
        if self.sending:
            msg = JointState(name=self.names, position=self.position.tolist())
            msg.header.stamp = to_stamp(self.now_ns() - round(self.lag_s * 1e9))
            self._joints.publish(msg)

    def send_chunk(self, rows=np.tile(ROW, (40, 1)), episode: int = 1, **changes) -> None:  # noqa: B008
        self._ids += 1
        fields = {"period_s": 0.05, "stamp_ns": self.now_ns(), "request_id": self._ids}
        self._chunks.publish(
            chunk_to_msg(Chunk(rows, episode_id=episode, source="edge", **{**fields, **changes}))
        )

    def until_state(self, state: int):
        self._bench.until(lambda: self.states and self.states[-1].state == state)
        return self.states[-1]

    def is_at_rest(self) -> bool:
        linear = self.twists[-1].twist.linear
        return (linear.x, linear.y, linear.z) == (0.0, 0.0, 0.0)


@pytest.fixture
def driver(bench):
    driver = Driver(bench)
    driver.node = bench.start(ActionExecutor)
    driver.until_state(ExecutorState.IDLE)
    return driver


def test_a_chunk_becomes_stamped_commands_on_the_robots_topics(bench, driver):
    driver.send_chunk()
    driver.until_state(ExecutorState.PLAYING)
    bench.until(lambda: driver.twists and abs(driver.twists[-1].twist.linear.x - 0.1) < 1e-6)
    twist = driver.twists[-1]
    assert twist.twist.linear.z == pytest.approx(-0.05)
    assert twist.header.frame_id == "base"
    assert twist.header.stamp.sec > 0
    bench.until(lambda: driver.grippers and driver.grippers[-1].data == 1.0)


def test_a_chunk_that_runs_out_leaves_the_arm_at_rest_and_the_gripper_closed(bench, driver):
    driver.send_chunk(np.tile(ROW, (4, 1)))
    driver.until_state(ExecutorState.STARVED)
    bench.until(driver.is_at_rest)
    assert driver.grippers[-1].data == 1.0
    assert driver.states[-1].starved_ticks >= 1


def test_silent_joint_states_stop_the_arm(bench, driver):
    driver.send_chunk()
    driver.until_state(ExecutorState.PLAYING)
    driver.sending = False
    assert "joint states are" in driver.until_state(ExecutorState.FAULT).reason
    bench.until(driver.is_at_rest)
    assert driver.is_at_rest()


def test_joint_states_that_always_come_late_are_stale_and_not_another_clock(bench, driver):
    driver.lag_s = 5.0
    driver.until_state(ExecutorState.FAULT)
    driver.send_chunk()
    rejoined = len(driver.states) + 40
    bench.until(lambda: len(driver.states) > rejoined)
    assert driver.states[-1].state == ExecutorState.FAULT
    assert driver.twists == []


def test_joint_states_with_nan_stop_the_arm_and_are_named_in_diagnostics(bench, driver):
    diagnostics = bench.listen(DiagnosticArray, "/diagnostics")
    driver.send_chunk()
    driver.until_state(ExecutorState.PLAYING)
    driver.position = np.array([np.nan, *np.zeros(8)])
    driver.until_state(ExecutorState.FAULT)
    bench.until(driver.is_at_rest)
    bench.until(lambda: any("right_j0" in s.message for a in diagnostics for s in a.status))


def test_shuffled_names_and_extra_joints_are_read_by_name(bench, driver):
    driver.names = [*reversed(NAMES), "torso"]
    driver.position = np.zeros(10)
    driver.send_chunk()
    driver.until_state(ExecutorState.PLAYING)
    bench.until(lambda: driver.twists and driver.twists[-1].twist.linear.x > 0)


def test_a_joint_past_its_limit_stops_the_arm_until_a_person_arms_it_again(bench, driver):
    driver.send_chunk()
    driver.until_state(ExecutorState.PLAYING)
    driver.position = np.array([3.2, *np.zeros(8)])
    assert "right_j0" in driver.until_state(ExecutorState.FAULT).reason
    bench.until(driver.is_at_rest)
    driver.position = np.zeros(9)
    driver.send_chunk(episode=2)
    driver.until_state(ExecutorState.FAULT)
    for armed in (False, True):
        (result,) = driver.node.set_parameters([Parameter("armed", value=armed)])
        assert result.successful
    driver.send_chunk(episode=2)
    driver.until_state(ExecutorState.PLAYING)


def test_chunks_of_nan_or_of_another_width_are_dropped_and_the_old_one_goes_on(bench, driver):
    driver.send_chunk()
    driver.until_state(ExecutorState.PLAYING)
    driver.send_chunk(np.full((4, 4), np.nan, np.float32))
    driver.send_chunk(np.zeros((4, 7), np.float32))
    bench.until(lambda: driver.states[-1].chunks_dropped == 2)
    assert driver.states[-1].state == ExecutorState.PLAYING
    assert driver.states[-1].chunks_accepted == 1


def test_speed_is_limited_to_what_the_robot_yaml_allows(bench, driver):
    driver.send_chunk(np.tile(np.array([5.0, 0, 0, 0], np.float32), (40, 1)))
    bench.until(lambda: driver.states[-1].limited_ticks >= 3)
    assert max(twist.twist.linear.x for twist in driver.twists) == pytest.approx(0.2)


def test_a_disarmed_executor_shows_its_command_and_sends_none(bench):
    driver = Driver(bench)
    bench.start(ActionExecutor, armed=False)
    driver.until_state(ExecutorState.IDLE)
    driver.send_chunk()
    state = driver.until_state(ExecutorState.PLAYING)
    bench.until(lambda: driver.states[-1].command[0] > 0.09)
    assert not state.armed
    assert driver.twists == []


def test_ending_the_node_in_motion_leaves_the_arm_at_rest(bench):
    driver = Driver(bench)
    node = bench.start(ActionExecutor)
    driver.until_state(ExecutorState.IDLE)
    driver.send_chunk()
    bench.until(lambda: driver.twists and driver.twists[-1].twist.linear.x > 0)
    node.trigger_deactivate()
    bench.until(driver.is_at_rest)
    count = len(driver.twists)
    driver.send_chunk()
    bench.until(lambda: driver.states, 1.0)
    assert len(driver.twists) == count


def test_activating_again_obeys_the_armed_parameter(bench, driver):
    driver.node.trigger_deactivate()
    driver.node.trigger_activate()
    driver.send_chunk()
    bench.until(lambda: driver.twists and driver.twists[-1].twist.linear.x > 0)


def test_a_callback_that_raises_holds_the_arm_and_the_node_goes_on(bench, driver, monkeypatch):
    driver.send_chunk()
    bench.until(lambda: driver.twists and driver.twists[-1].twist.linear.x > 0)
    with monkeypatch.context() as broken:
        broken.setattr(driver.node.core, "tick", lambda *_: 1 / 0)
        bench.until(driver.is_at_rest)
        assert "division" in driver.node.failure[1]
    driver.send_chunk()
    driver.until_state(ExecutorState.PLAYING)


def test_a_robot_with_other_joints_than_the_process_reads_is_refused(bench, tmp_path):
    content = yaml.safe_load(SHIPPED.read_text())
    content["joint_names"] = content["joint_names"][:7]
    path = tmp_path / "robot.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    joints = JointInput(bench.probe, load_robot(SHIPPED))
    overrides = [Parameter("robot", value=str(path))]
    node = bench.add(
        ActionExecutor(namespace="/vla", joints=joints, parameter_overrides=overrides)
    )
    assert not node.autostart()


@pytest.mark.parametrize("field", ["twist.linear", "header.frame_id", "twist.linear.w"])
def test_a_command_field_that_takes_no_number_fails_the_configuration(bench, tmp_path, field):
    content = yaml.safe_load(SHIPPED.read_text())
    content["actions"]["vx"]["field"] = field
    path = tmp_path / "robot.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    overrides = [Parameter("robot", value=str(path))]
    node = bench.add(ActionExecutor(namespace="/vla", parameter_overrides=overrides))
    assert not node.autostart()
