"""What all nodes share: lifecycle hooks, autostart, diagnostics, and the main function."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rcl_interfaces.msg import ParameterDescriptor, SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import ParameterException
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.logging import get_logger
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions

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

FAILURE_SHOWN_S = 5.0
"""How long /diagnostics shows that a callback failed."""


class AccelNode(LifecycleNode):
    """A lifecycle node with ``_setup``, ``_start``, ``_stop`` and ``_teardown`` hooks.

    ``_setup`` creates everything (configure), ``_start`` and ``_stop`` run at (de)activation and
    ``_teardown`` undoes ``_setup``. Whatever ``_setup`` raises fails the transition with its text
    as the error, and the node stays unconfigured. Whatever a callback raises is logged and
    reported, and ``_on_failure`` is called: in a composed process one node's defect must not end
    the executor.

    Parameters are read at configure; a change while configured is refused, except of those in
    ``changeable``. joints: the process's own reader of joint_states, if nodes are composed.
    """

    changeable: tuple[str, ...] = ()

    def __init__(self, name: str, joints: JointInput | None = None, **kwargs: Any) -> None:
        super().__init__(name, **kwargs)
        self.active = False
        self._shared_joints = joints
        self._declared: set[str] = set()
        self._entities: list[tuple[Callable[[Any], object], Any]] = []
        self.declare("autostart", True, "configure and activate at start")
        self.declare("robot", "metaworld_sawyer", "robot YAML: a path, or a name in config/robots")
        self._configured = False
        self.failure: tuple[float, str] | None = None
        self.add_on_set_parameters_callback(self._check_parameters)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._reported: tuple[int, str] | None = None
        self.create_timer(1.0, self._report, clock=STEADY)

    def declare(self, name: str, default: Any, description: str) -> Any:
        """Declares a parameter once and returns its value."""
        self._declared.add(name)
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
        """The one shared in this process, or one of this node's own.

        Raises ValueError when the shared one reads other joints than ``robot`` names.
        """
        shared = self._shared_joints
        if shared is not None:
            for key in ("joint_states", "joint_names"):
                if getattr(shared.robot, key) != getattr(robot, key):
                    raise ValueError(
                        f"this process reads the joints of robot '{shared.robot.name}', but "
                        f"'{robot.name}' has other {key}; give all nodes one robot and restart"
                    )
            return shared
        joints = JointInput(self, robot)
        self._keep(self.destroy_subscription, joints.subscription)
        return joints

    # What _setup creates through these is destroyed before _teardown.

    def subscribe(self, kind: type, topic: str, callback: Callable[[Any], None], qos: Any) -> None:
        subscription = self.create_subscription(kind, topic, self.guarded(callback), qos)
        self._keep(self.destroy_subscription, subscription)

    def publisher(self, kind: type, topic: str, qos: Any) -> Any:
        """A lifecycle publisher: silent while the node is inactive."""
        return self._keep(
            self.destroy_publisher, self.create_lifecycle_publisher(kind, topic, qos)
        )

    def every(self, period_s: float, callback: Callable[[], None], clock: Any = None) -> None:
        """A timer on the node's clock, or on the given one."""
        timer = self.create_timer(period_s, self.guarded(callback), clock=clock)
        self._keep(self.destroy_timer, timer)

    def listen(self, joints: JointInput, listener: Callable[[Any], None]) -> None:
        """Calls ``listener`` with each sample of ``joints``."""
        guarded = self.guarded(listener)
        joints.listen(guarded)
        self._keep(joints.forget, guarded)

    def guarded(self, callback: Callable[..., None]) -> Callable[..., None]:
        """The callback, with what it raises reported instead of ending the process."""

        def call(*args: Any) -> None:
            try:
                callback(*args)
            except Exception as error:
                text = f"{type(error).__name__}: {error}"
                self.failure = (time.monotonic(), text)
                self.get_logger().error(
                    f"{callback.__name__} failed: {text}", throttle_duration_sec=5.0
                )
                self._on_failure(text)

        return call

    def _on_failure(self, text: str) -> None:
        """Called after a callback raised."""

    def _on_change(self, name: str, value: Any) -> None:
        """Called when a parameter in ``changeable`` was set."""

    def _check_parameters(self, parameters: Sequence[Any]) -> SetParametersResult:
        for parameter in parameters:
            name = parameter.name
            if self._configured and name in self._declared and name not in self.changeable:
                return SetParametersResult(
                    successful=False,
                    reason=f"'{name}' is read at configure; deactivate and clean up first",
                )
        if self._configured:
            for parameter in parameters:
                if parameter.name in self.changeable:
                    self._on_change(parameter.name, parameter.value)
        return SetParametersResult(successful=True)

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
        except Exception as error:  # Parameters and robot YAMLs are a user's; any may be wrong.
            self.get_logger().error(f"configure failed: {error}")
            self._release()
            return TransitionCallbackReturn.FAILURE
        self._configured = True
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

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._halt()
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def _halt(self) -> None:
        if self.active:
            self.guarded(self._stop)()
            self.active = False

    def _release(self) -> None:
        while self._entities:
            destroy, entity = self._entities.pop()
            destroy(entity)
        self._teardown()
        self._configured = False

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
        if self.failure is not None and time.monotonic() - self.failure[0] < FAILURE_SHOWN_S:
            level, message = self.ERROR, f"a callback failed: {self.failure[1]}"
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
        executor = SingleThreadedExecutor()
        for node in nodes:
            executor.add_node(node)
        if not all([node.autostart() for node in nodes]):
            return 1
        while not stop.is_set() and rclpy.ok():
            executor.spin_once(timeout_sec=0.1)
    except (ParameterException, ValueError, OSError) as error:
        hint = "; a double is written 1.0" if isinstance(error, ParameterException) else ""
        get_logger("ros_vla_accel").fatal(f"{error}{hint}")
        return 1
    finally:
        for node in nodes:
            node.close()
        rclpy.try_shutdown()
    return 0
