"""The simulated Sawyer as a ROS 2 robot: joint states, cameras, clock and task status."""

from __future__ import annotations

import json
import signal
import sys
import threading
from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
import rclpy
from builtin_interfaces.msg import Time
from geometry_msgs.msg import TwistStamped
from rcl_interfaces.msg import ParameterDescriptor, SetParametersResult
from rclpy.executors import SingleThreadedExecutor
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from rclpy.signals import SignalHandlerOptions
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Float64, String
from std_srvs.srv import Trigger

from ros_vla_accel.sim.env import TICK_S, full_task_name
from ros_vla_accel.sim.loop import SimConfig, SimLoop, Tick
from ros_vla_accel.sim.pacing import Pacer
from ros_vla_accel.sim.urdf import sawyer_urdf

LATCHED_QOS = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
STATUS_PERIOD_S = 0.1
RESET_TIMEOUT_S = 30.0
SLOW_FACTOR = 0.8
"""Below this share of ``max_real_time_factor`` the node says that the machine is too slow."""


class SimRobot(Node):
    """Runs ``SimLoop`` in a thread of its own, which also publishes; callbacks only hand over.

    All stamps are simulated time, which starts at zero with the node and rises across resets.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("sim_robot", **kwargs)
        defaults = SimConfig()
        self._declare("task", defaults.task, "Meta-World task; takes effect at the next reset")
        self._declare("seed", defaults.seed, "scene of the next reset; later ones count up")
        self._declare("image_size", defaults.image_size, "width and height, pixels", True)
        self._declare("image_rate_hz", defaults.image_rate_hz, "per simulated second", True)
        self._declare(
            "command_timeout_s",
            defaults.command_timeout_s,
            "an older velocity command counts as zero, simulated s",
            True,
        )
        self._declare("max_real_time_factor", 1.0, "simulated seconds per second at most")
        self._config = SimConfig(
            **{
                name: self.get_parameter(name).value
                for name in ("task", "seed", "image_size", "image_rate_hz", "command_timeout_s")
            }
        )
        self._pacer = Pacer(self._positive(self.get_parameter("max_real_time_factor").value))
        self._next: dict[str, Any] = {}
        self._loop: SimLoop | None = None
        self._stopping = threading.Event()
        self._reset_wanted = threading.Event()
        self._reset_done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="simulation", daemon=True)
        self.failure: Exception | None = None

        self._joints = self.create_publisher(JointState, "joint_states", qos_profile_sensor_data)
        self._images = {
            camera: self.create_publisher(
                Image, f"camera/{camera}/image_raw", qos_profile_sensor_data
            )
            for camera in self._config.cameras
        }
        self._clock_out = self.create_publisher(Clock, "/clock", 10)
        self._status = self.create_publisher(String, "task_status", 10)
        self._description = self.create_publisher(String, "robot_description", LATCHED_QOS)
        self._description.publish(String(data=sawyer_urdf()))
        self.create_subscription(TwistStamped, "command/twist", self._on_twist, 10)
        self.create_subscription(Float64, "command/gripper", self._on_gripper, 10)
        self.create_service(Trigger, "~/reset", self._on_reset)
        self.add_on_set_parameters_callback(self._on_parameters)

    def _declare(self, name: str, default: Any, text: str, read_only: bool = False) -> None:
        descriptor = ParameterDescriptor(description=text, read_only=read_only)
        self.declare_parameter(name, default, descriptor)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Ends the simulation thread, then the node."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        self.destroy_node()

    # Callbacks, on the executor's thread.

    def _on_twist(self, msg: TwistStamped) -> None:
        linear, stamp = msg.twist.linear, msg.header.stamp
        self._command(
            "command_velocity",
            np.array([linear.x, linear.y, linear.z]),
            stamp.sec * 1_000_000_000 + stamp.nanosec,
        )

    def _on_gripper(self, msg: Float64) -> None:
        self._command("command_gripper", msg.data)

    def _command(self, method: str, *arguments: Any) -> None:
        if self._loop is None:
            return
        try:
            getattr(self._loop, method)(*arguments)
        except ValueError as error:
            self.get_logger().warning(f"command refused: {error}", throttle_duration_sec=5.0)

    def _on_reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._reset_done.clear()
        self._reset_wanted.set()
        response.success = self._reset_done.wait(RESET_TIMEOUT_S) and self.failure is None
        if response.success and self._loop is not None:
            response.message = f"{self._loop.task}, seed {self._loop.seed}"
        else:
            response.message = f"the simulation did not answer within {RESET_TIMEOUT_S:.0f} s"
        return response

    def _on_parameters(self, parameters: Sequence[Any]) -> SetParametersResult:
        changes: dict[str, Any] = {}
        for parameter in parameters:
            try:
                if parameter.name == "task":
                    changes["task"] = full_task_name(parameter.value)
                elif parameter.name == "seed":
                    changes["seed"] = int(parameter.value)
                elif parameter.name == "max_real_time_factor":
                    self._pacer.max_factor = self._positive(parameter.value)
            except ValueError as error:
                return SetParametersResult(successful=False, reason=str(error))
        self._next.update(changes)
        return SetParametersResult(successful=True)

    @staticmethod
    def _positive(factor: float) -> float:
        if not factor > 0:
            raise ValueError(f"max_real_time_factor {factor} must be positive")
        return float(factor)

    # The simulation thread.

    def _run(self) -> None:
        try:
            self._loop = loop = SimLoop(self._config)
            self.get_logger().info(f"{loop.task}, seed {loop.seed}")
            try:
                self._simulate(loop)
            finally:
                loop.close()
        except Exception as error:
            if rclpy.ok():  # else a publisher was shut down under it, and all is well
                self.failure = error
                self.get_logger().fatal(f"simulation ended: {type(error).__name__}: {error}")
        self._reset_done.set()

    def _simulate(self, loop: SimLoop) -> None:
        solved = False
        while not self._stopping.is_set() and rclpy.ok():
            if self._reset_wanted.is_set():
                self._reset_wanted.clear()
                loop.reset(**{key: self._next.pop(key) for key in list(self._next)})
                self._pacer.restart()
                self.get_logger().info(f"reset: {loop.task}, seed {loop.seed}")
                self._publish_status(loop)
                self._reset_done.set()
            tick = loop.tick()
            self._publish(loop, tick)
            if loop.success != solved or tick.stamp_ns % round(STATUS_PERIOD_S * 1e9) == 0:
                solved = loop.success
                self._publish_status(loop)
            self._pacer.pace(TICK_S)

    def _publish(self, loop: SimLoop, tick: Tick) -> None:
        seconds, nanoseconds = divmod(tick.stamp_ns, 1_000_000_000)
        stamp = Time(sec=seconds, nanosec=nanoseconds)
        self._clock_out.publish(Clock(clock=stamp))
        joints = JointState(
            name=list(loop.joint_names),
            position=array("d", tick.joints.position.tobytes()),
            velocity=array("d", tick.joints.velocity.tobytes()),
            effort=array("d", tick.joints.effort.tobytes()),
        )
        joints.header.stamp = stamp
        self._joints.publish(joints)
        for camera, pixels in tick.images.items():
            height, width, _ = pixels.shape
            image = Image(height=height, width=width, encoding="rgb8", step=3 * width)
            image.data = array("B", pixels.tobytes())
            image.header.stamp = stamp
            image.header.frame_id = camera
            self._images[camera].publish(image)

    def _publish_status(self, loop: SimLoop) -> None:
        factor = self._pacer.factor
        status = {
            "task": loop.task,
            "seed": loop.seed,
            "episode": loop.episode,
            "success": loop.success,
            "time_s": loop.now_ns * 1e-9,
            "episode_time_s": loop.episode_time_s,
            "real_time_factor": round(factor, 3),
        }
        self._status.publish(String(data=json.dumps(status)))
        if factor < SLOW_FACTOR * self._pacer.max_factor:
            self.get_logger().warning(
                f"this machine is too slow: simulated time runs at {factor:.2f} of real time; "
                "lower image_rate_hz or image_size to gain some",
                throttle_duration_sec=10.0,
            )


def main(args: Sequence[str] | None = None) -> int:
    """Runs until SIGINT or SIGTERM; 1 if a parameter is wrong or the simulation failed, else 0."""
    stop = threading.Event()
    # rclpy's own handler may shut the context down in the middle of a spin, which then raises.
    rclpy.init(
        args=list(sys.argv if args is None else args),
        signal_handler_options=SignalHandlerOptions.NO,
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    node = None
    try:
        node = SimRobot()
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        node.start()
        while not stop.is_set() and node.failure is None:
            executor.spin_once(timeout_sec=0.1)
    except ValueError as error:
        get_logger("sim_robot").fatal(str(error))
        return 1
    finally:
        if node is not None:
            node.close()
        rclpy.try_shutdown()
    return 1 if node is not None and node.failure is not None else 0
