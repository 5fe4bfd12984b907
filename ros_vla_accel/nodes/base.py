"""What all nodes share: lifecycle hooks, autostart, diagnostics, and the main function."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.clock import Clock, ClockType
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions

from ros_vla_accel import middleware
from ros_vla_accel.control.robot_config import RobotConfig, load_robot
from ros_vla_accel.nodes.joint_input import JointInput
from ros_vla_accel.resources import existing_path

STATE_QOS = QoSProfile(
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
"""For topics that are state: who joins late gets the newest value at once."""

CHUNK_QOS = QoSProfile(depth=2, reliability=ReliabilityPolicy.RELIABLE)

STEADY = Clock(clock_type=ClockType.STEADY_TIME)
"""Liveness is measured on this clock: a stopped /clock cannot freeze it."""


class AccelNode(LifecycleNode):
    """A lifecycle node with ``_setup``, ``_start``, ``_stop`` and ``_teardown`` hooks.

    ``_setup`` creates everything (configure), ``_start`` and ``_stop`` run at (de)activation and
    ``_teardown`` undoes ``_setup``. A hook that raises ValueError, OSError or ImportError fails
    the transition with its text as the error, and the node stays where it was.

    joints: the process's own reader of joint_states, if nodes are composed.
    """

    def __init__(self, name: str, joints: JointInput | None = None, **kwargs: Any) -> None:
        super().__init__(name, **kwargs)
        self.active = False
        self._shared_joints = joints
        self._entities: list[tuple[Callable[[Any], object], Any]] = []
        self.declare("autostart", True, "configure and activate at start")
        self.declare("robot", "metaworld_sawyer", "robot YAML: a path, or a name in config/robots")
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._reported: tuple[int, str] | None = None
        self.create_timer(1.0, self._report, clock=STEADY)

    def declare(self, name: str, default: Any, description: str) -> Any:
        """Declares a parameter once and returns its value."""
        if not self.has_parameter(name):
            self.declare_parameter(name, default, ParameterDescriptor(description=description))
        return self.get_parameter(name).value

    def now_ns(self) -> int:
        """The node's clock, simulated under ``use_sim_time``: stamps and chunks live on it."""
        return int(self.get_clock().now().nanoseconds)

    def load_robot(self) -> RobotConfig:
        return load_robot(existing_path(self.get_parameter("robot").value, "config/robots"))

    def share(self, joints: JointInput) -> None:
        """Uses the process's own reader of joint_states from the next configure on."""
        self._shared_joints = joints

    def joint_input(self, robot: RobotConfig) -> JointInput:
        """The one shared in this process, or one of this node's own."""
        if self._shared_joints is not None:
            return self._shared_joints
        joints = JointInput(self, robot)
        self._keep(self.destroy_subscription, joints.subscription)
        return joints

    # What _setup creates through these is destroyed before _teardown.

    def subscribe(self, kind: type, topic: str, callback: Callable[[Any], None], qos: Any) -> None:
        self._keep(self.destroy_subscription, self.create_subscription(kind, topic, callback, qos))

    def publisher(self, kind: type, topic: str, qos: Any) -> Any:
        """A lifecycle publisher: silent while the node is inactive."""
        return self._keep(
            self.destroy_publisher, self.create_lifecycle_publisher(kind, topic, qos)
        )

    def every(self, period_s: float, callback: Callable[[], None], clock: Any = None) -> None:
        """A timer on the node's clock, or on the given one."""
        self._keep(self.destroy_timer, self.create_timer(period_s, callback, clock=clock))

    def _keep(self, destroy: Callable[[Any], object], entity: Any) -> Any:
        self._entities.append((destroy, entity))
        return entity

    def _setup(self) -> None:
        """Creates what the node needs, from its parameters."""

    def _start(self) -> None:
        """Called when the node becomes active."""

    def _stop(self) -> None:
        """Called when the node becomes inactive, and before ``_teardown``."""

    def _teardown(self) -> None:
        """Releases what ``_setup`` made."""

    def diagnosis(self) -> tuple[int, str, dict[str, Any]]:
        """Level, message and values for /diagnostics."""
        return self.OK, "inactive", {}

    OK, WARN, ERROR = 0, 1, 2

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            self._setup()
        except (ValueError, OSError, ImportError, AttributeError) as error:
            self.get_logger().error(f"configure failed: {error}")
            self._release()
            return TransitionCallbackReturn.FAILURE
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        result = super().on_activate(state)
        self.active = True
        self._start()
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._halt()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._release()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._halt()
        self._release()
        return super().on_shutdown(state)

    def _halt(self) -> None:
        if self.active:
            self._stop()
            self.active = False

    def _release(self) -> None:
        while self._entities:
            destroy, entity = self._entities.pop()
            destroy(entity)
        self._teardown()

    def autostart(self) -> bool:
        """Configures and activates if the parameter says so; False when a transition failed."""
        if not self.get_parameter("autostart").value:
            return True
        success = TransitionCallbackReturn.SUCCESS
        return self.trigger_configure() == success and self.trigger_activate() == success

    def close(self) -> None:
        """Stops before the process ends, so that the last thing sent is a safe one."""
        if rclpy.ok():
            self._halt()
        self._release()
        self.destroy_node()

    def _report(self) -> None:
        level, message, values = self.diagnosis() if self.active else (self.OK, "inactive", {})
        if (level, message) != self._reported:
            # rclpy ties a severity to the line of the call, so each has a line of its own.
            if level == self.ERROR:
                self.get_logger().error(message)
            elif level == self.WARN:
                self.get_logger().warning(message)
        self._reported = (level, message)
        status = DiagnosticStatus(
            level=bytes([level]),
            name=self.get_fully_qualified_name(),
            message=message,
            hardware_id="ros_vla_accel",
            values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
        )
        array = DiagnosticArray(status=[status])
        array.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(array)


def run_nodes(make: Callable[[], Sequence[AccelNode]], args: Sequence[str] | None = None) -> int:
    """Runs the nodes in one executor until SIGINT or SIGTERM; 1 if start-up failed, else 0."""
    stop = threading.Event()
    # rclpy's own handlers shut the context down first, and then nothing can tell the arm to rest.
    rclpy.init(
        args=list(sys.argv if args is None else args),
        signal_handler_options=SignalHandlerOptions.NO,
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    nodes: Sequence[AccelNode] = []
    try:
        nodes = make()
        nodes[0].get_logger().info(f"middleware: {middleware.selected() or 'ros'}")
        executor = SingleThreadedExecutor()
        for node in nodes:
            executor.add_node(node)
        if not all([node.autostart() for node in nodes]):
            return 1
        while not stop.is_set() and rclpy.ok():
            executor.spin_once(timeout_sec=0.1)
    finally:
        for node in nodes:
            node.close()
        rclpy.try_shutdown()
    return 0
