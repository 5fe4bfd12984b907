"""Lifecycle nodes: ROS 2's state machine, its services, and managed publishers."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from functools import wraps
from typing import Any, NamedTuple

from ..interfaces.classes import message_class, service_class
from .exceptions import RCLError
from .node import Node as _PlainNode
from .publisher import Publisher as _PlainPublisher


class TransitionCallbackReturn(IntEnum):
    """What a transition callback answers (ids of rcl_lifecycle)."""

    SUCCESS = 97
    FAILURE = 98
    ERROR = 99

    def to_label(self) -> str:
        return f"transition_{self.name.lower()}"


class LifecycleState(NamedTuple):
    label: str
    state_id: int


STATES = {
    0: "unknown",
    1: "unconfigured",
    2: "inactive",
    3: "active",
    4: "finalized",
    10: "configuring",
    11: "cleaningup",
    12: "shuttingdown",
    13: "activating",
    14: "deactivating",
    15: "errorprocessing",
}
_SUCCESS, _FAILURE, _ERROR = (code.to_label() for code in TransitionCallbackReturn)
TRANSITIONS: tuple[tuple[int, str, int, int], ...] = (
    (1, "configure", 1, 10),
    (10, _SUCCESS, 10, 2),
    (11, _FAILURE, 10, 1),
    (12, _ERROR, 10, 15),
    (2, "cleanup", 2, 11),
    (20, _SUCCESS, 11, 1),
    (21, _FAILURE, 11, 2),
    (22, _ERROR, 11, 15),
    (3, "activate", 2, 13),
    (30, _SUCCESS, 13, 3),
    (31, _FAILURE, 13, 2),
    (32, _ERROR, 13, 15),
    (4, "deactivate", 3, 14),
    (40, _SUCCESS, 14, 2),
    (41, _FAILURE, 14, 3),
    (42, _ERROR, 14, 15),
    (5, "shutdown", 1, 12),
    (6, "shutdown", 2, 12),
    (7, "shutdown", 3, 12),
    (50, _SUCCESS, 12, 4),
    (51, _FAILURE, 12, 4),
    (52, _ERROR, 12, 15),
    (60, _SUCCESS, 15, 1),
    (61, _FAILURE, 15, 4),
    (62, _ERROR, 15, 4),
)
"""Transition id, label, start state, goal state: the default machine of rcl_lifecycle."""

_CALLBACKS = {
    10: "on_configure",
    11: "on_cleanup",
    12: "on_shutdown",
    13: "on_activate",
    14: "on_deactivate",
    15: "on_error",
}


class ManagedEntity:
    """Something that follows its node's transitions; all callbacks succeed by default."""

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        return TransitionCallbackReturn.SUCCESS

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        return TransitionCallbackReturn.SUCCESS

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        return TransitionCallbackReturn.SUCCESS


class SimpleManagedEntity(ManagedEntity):
    """Knows whether its node is active."""

    def __init__(self) -> None:
        self._enabled = False

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._enabled = True
        return TransitionCallbackReturn.SUCCESS

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._enabled = False
        return TransitionCallbackReturn.SUCCESS

    @property
    def is_activated(self) -> bool:
        return self._enabled

    @staticmethod
    def when_enabled(
        wrapped: Callable[..., Any] | None = None,
        *,
        when_not_enabled: Callable[..., Any] | None = None,
    ) -> Any:
        """Decorator: the method does nothing (or ``when_not_enabled()``) while inactive."""

        def decorate(method: Callable[..., Any]) -> Callable[..., Any]:
            @wraps(method)
            def call(self: SimpleManagedEntity, *args: Any, **kwargs: Any) -> None:
                if self._enabled:
                    method(self, *args, **kwargs)
                elif when_not_enabled is not None:
                    when_not_enabled()

            return call

        return decorate if wrapped is None else decorate(wrapped)


class LifecyclePublisher(SimpleManagedEntity, _PlainPublisher):
    """Publishes only while its node is active."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        SimpleManagedEntity.__init__(self)
        _PlainPublisher.__init__(self, *args, **kwargs)

    def publish(self, msg: Any) -> None:
        if self._enabled:
            _PlainPublisher.publish(self, msg)


class _StateMachine:
    """Where a node is, and where it may go."""

    def __init__(self, changed: Callable[[tuple[int, str, int, int]], None]) -> None:
        self.state = 1
        self._changed = changed

    @property
    def current(self) -> LifecycleState:
        return LifecycleState(STATES[self.state], self.state)

    def available(self) -> list[tuple[int, str, int, int]]:
        return [transition for transition in TRANSITIONS if transition[2] == self.state]

    def trigger(self, *, number: int | None = None, label: str = "") -> None:
        """Raises RCLError if no such transition starts here."""
        for transition in self.available():
            if transition[0] == number or transition[1] == label:
                self.state = transition[3]
                self._changed(transition)
                return
        raise RCLError(f"no transition '{label or number}' from state {self.current.label}")


class LifecycleNodeMixin(ManagedEntity):
    """Adds the life cycle to a node; see `LifecycleNode`."""

    def __init__(
        self, *, enable_communication_interface: bool = True, callback_group: Any = None
    ) -> None:
        node: Any = self
        self.__managed: list[ManagedEntity] = []
        self.__event_publisher: Any = None
        self._state_machine = _StateMachine(self.__publish_event)
        if not enable_communication_interface:
            return
        self.__event_publisher = _PlainNode.create_publisher(
            node, message_class("lifecycle_msgs/msg/TransitionEvent"), "~/transition_event", 1
        )
        for kind, name, answer in (
            ("ChangeState", "change_state", self.__on_change_state),
            ("GetState", "get_state", self.__on_get_state),
            ("GetAvailableStates", "get_available_states", self.__on_get_states),
            ("GetAvailableTransitions", "get_available_transitions", self.__on_get_transitions),
            ("GetAvailableTransitions", "get_transition_graph", self.__on_get_graph),
        ):
            service = service_class(f"lifecycle_msgs/srv/{kind}")
            node.create_service(service, f"~/{name}", answer, callback_group=callback_group)

    def trigger_configure(self) -> TransitionCallbackReturn:
        return self.__change_state(label="configure")

    def trigger_cleanup(self) -> TransitionCallbackReturn:
        return self.__change_state(label="cleanup")

    def trigger_activate(self) -> TransitionCallbackReturn:
        return self.__change_state(label="activate")

    def trigger_deactivate(self) -> TransitionCallbackReturn:
        return self.__change_state(label="deactivate")

    def trigger_shutdown(self) -> TransitionCallbackReturn:
        """Raises RCLError if the node is finalized or in a transition."""
        if self._state_machine.state not in (1, 2, 3):
            raise RCLError("Shutdown transtion not possible")
        return self.__change_state(label="shutdown")

    def add_managed_entity(self, entity: ManagedEntity) -> None:
        if not isinstance(entity, ManagedEntity):
            raise TypeError("Expected a rclpy.lifecycle.ManagedEntity instance.")
        self.__managed.append(entity)

    def create_lifecycle_publisher(
        self, msg_type: Any, topic: str, qos_profile: Any, **options: Any
    ) -> Any:
        """A publisher that is silent unless the node is active."""
        node: Any = self
        publisher = _PlainNode.create_publisher(
            node, msg_type, topic, qos_profile, publisher_class=LifecyclePublisher, **options
        )
        self.__managed.append(publisher)
        return publisher

    def destroy_lifecycle_publisher(self, publisher: LifecyclePublisher) -> bool:
        self.__managed = [entity for entity in self.__managed if entity is not publisher]
        node: Any = self
        return bool(node.destroy_publisher(publisher))

    # The default callbacks pass each transition on to the managed entities.

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self.__pass_on("on_configure", state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self.__pass_on("on_cleanup", state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self.__pass_on("on_shutdown", state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self.__pass_on("on_activate", state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self.__pass_on("on_deactivate", state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self.__pass_on("on_error", state)

    def __pass_on(self, callback: str, state: LifecycleState) -> TransitionCallbackReturn:
        for entity in list(self.__managed):
            result: TransitionCallbackReturn = getattr(entity, callback)(state)
            if not isinstance(result, TransitionCallbackReturn):
                raise TypeError(
                    f"{callback}() of {entity} returned {result!r}, "
                    "which is no TransitionCallbackReturn"
                )
            if result != TransitionCallbackReturn.SUCCESS:
                return result
        return TransitionCallbackReturn.SUCCESS

    def __execute(self, previous: LifecycleState) -> TransitionCallbackReturn:
        node: Any = self
        name = _CALLBACKS[self._state_machine.state]
        try:
            return TransitionCallbackReturn(getattr(self, name)(previous))
        except Exception as error:
            node.get_logger().error(f"{name} raised {type(error).__name__}: {error}")
            return TransitionCallbackReturn.ERROR

    def __change_state(
        self, *, number: int | None = None, label: str = ""
    ) -> TransitionCallbackReturn:
        node: Any = self
        machine = self._state_machine
        previous = machine.current
        try:
            machine.trigger(number=number, label=label)
        except RCLError as error:
            node.get_logger().error(f"Unable to start transition: {error}")
            return TransitionCallbackReturn.ERROR
        result = self.__execute(previous)
        machine.trigger(label=result.to_label())
        if result == TransitionCallbackReturn.ERROR:
            machine.trigger(label=self.__execute(previous).to_label())
        return result

    def __publish_event(self, transition: tuple[int, str, int, int]) -> None:
        if self.__event_publisher is None:
            return
        event = message_class("lifecycle_msgs/msg/TransitionEvent")()
        described = _describe(transition)
        event.transition = described.transition
        event.start_state, event.goal_state = described.start_state, described.goal_state
        node: Any = self
        event.timestamp = node.get_clock().now().nanoseconds
        if node.context.ok():
            self.__event_publisher.publish(event)

    def __on_change_state(self, request: Any, response: Any) -> Any:
        wanted = request.transition
        if wanted.label:
            result = self.__change_state(label=wanted.label)
        else:
            result = self.__change_state(number=wanted.id)
        response.success = result == TransitionCallbackReturn.SUCCESS
        return response

    def __on_get_state(self, request: Any, response: Any) -> Any:
        response.current_state = _state(self._state_machine.state)
        return response

    def __on_get_states(self, request: Any, response: Any) -> Any:
        response.available_states = [_state(number) for number in STATES]
        return response

    def __on_get_transitions(self, request: Any, response: Any) -> Any:
        response.available_transitions = [_describe(t) for t in self._state_machine.available()]
        return response

    def __on_get_graph(self, request: Any, response: Any) -> Any:
        response.available_transitions = [_describe(transition) for transition in TRANSITIONS]
        return response


def _state(number: int) -> Any:
    return message_class("lifecycle_msgs/msg/State")(id=number, label=STATES[number])


def _describe(transition: tuple[int, str, int, int]) -> Any:
    number, label, start, goal = transition
    described = message_class("lifecycle_msgs/msg/TransitionDescription")()
    described.transition.id, described.transition.label = number, label
    described.start_state, described.goal_state = _state(start), _state(goal)
    return described


class LifecycleNode(LifecycleNodeMixin, _PlainNode):
    """A node that is configured, activated, deactivated and cleaned up from outside."""

    def __init__(
        self, node_name: str, *, enable_communication_interface: bool = True, **options: Any
    ) -> None:
        _PlainNode.__init__(self, node_name, **options)
        LifecycleNodeMixin.__init__(
            self, enable_communication_interface=enable_communication_interface
        )


# rclpy.lifecycle exports these names as well.
Node = LifecycleNode
NodeMixin = LifecycleNodeMixin
State = LifecycleState
Publisher = LifecyclePublisher
