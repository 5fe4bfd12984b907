"""Connects a node's clock to ``/clock`` while its parameter ``use_sim_time`` is true."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..interfaces.classes import message_class
from .callback_groups import MutuallyExclusiveCallbackGroup
from .clock import ROSClock
from .clock_type import ClockType
from .parameter import Parameter
from .qos import QoSProfile, ReliabilityPolicy
from .time import Time

if TYPE_CHECKING:
    from .node import Node
    from .subscription import Subscription

USE_SIM_TIME_NAME = "use_sim_time"
CLOCK_TOPIC = "/clock"


class TimeSource:
    """Owned by a node; follows changes of ``use_sim_time``."""

    def __init__(self, node: Node, clock: ROSClock) -> None:
        self._node, self._clock = node, clock
        self._subscription: Subscription | None = None
        # A group of its own: a long callback of the node must not stop its clock.
        self._group = MutuallyExclusiveCallbackGroup()
        if not node.has_parameter(USE_SIM_TIME_NAME):
            node.declare_parameter(USE_SIM_TIME_NAME, False)
        value = node.get_parameter(USE_SIM_TIME_NAME).value
        if not isinstance(value, bool):
            node.get_logger().error(f"{USE_SIM_TIME_NAME} must be a bool, not {value!r}")
            value = False
        self._follow(value)
        node.add_on_set_parameters_callback(self._check)
        node.add_post_set_parameters_callback(self._changed)

    def _check(self, parameters: list[Parameter]) -> Any:
        wrong = [
            p for p in parameters if p.name == USE_SIM_TIME_NAME and p.type_ != Parameter.Type.BOOL
        ]
        return message_class("rcl_interfaces/msg/SetParametersResult")(
            successful=not wrong,
            reason=f"{USE_SIM_TIME_NAME} parameter set to something besides a bool"
            if wrong
            else "",
        )

    def _changed(self, parameters: list[Parameter]) -> None:
        for parameter in parameters:
            if parameter.name == USE_SIM_TIME_NAME:
                self._follow(parameter.value)

    def _follow(self, simulated: bool) -> None:
        self._clock._set_ros_time_is_active(simulated)
        if simulated and self._subscription is None:
            self._subscription = self._node.create_subscription(
                message_class("rosgraph_msgs/msg/Clock"),
                CLOCK_TOPIC,
                self._on_clock,
                QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT),
                callback_group=self._group,
            )
        elif not simulated and self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._subscription = None

    def _on_clock(self, message: Any) -> None:
        self._clock.set_ros_time_override(
            Time.from_msg(message.clock, clock_type=ClockType.ROS_TIME)
        )
