"""Nodes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from ..dds import library
from ..dds.types import message_type
from ..interfaces.type_hash import type_hash
from . import names
from .arguments import Arguments, parse
from .callback_groups import CallbackGroup, MutuallyExclusiveCallbackGroup
from .clock import Clock, ROSClock
from .context import Context
from .event_handler import PublisherEventCallbacks, QosEvents, SubscriptionEventCallbacks
from .exceptions import InvalidHandle, NotInitializedException
from .logging import RcutilsLogger, get_logger
from .node_parameters import ParametersOfNode
from .parameter import Parameter
from .publisher import Publisher
from .qos import QoSProfile, as_profile
from .subscription import Subscription
from .timer import Rate, Timer
from .utilities import get_default_context

if TYPE_CHECKING:
    from .executors import Executor


class Node(ParametersOfNode):
    """A named participant in the graph with topics, timers, services and parameters."""

    def __init__(
        self,
        node_name: str,
        *,
        context: Context | None = None,
        cli_args: list[str] | None = None,
        namespace: str | None = None,
        use_global_arguments: bool = True,
        enable_rosout: bool = True,
        start_parameter_services: bool = True,
        parameter_overrides: list[Parameter] | None = None,
        allow_undeclared_parameters: bool = False,
        automatically_declare_parameters_from_overrides: bool = False,
        enable_logger_service: bool = False,
    ) -> None:
        self._context = context or get_default_context()
        if not self._context.ok():
            raise NotInitializedException("cannot create node")
        own = parse(["--ros-args", *cli_args]) if cli_args else Arguments()
        shared = self._context.arguments if use_global_arguments else Arguments()
        self._remaps = own.remaps + shared.remaps
        namespace = namespace or "/"
        namespace = namespace if namespace.startswith("/") else f"/{namespace}"
        names.validate_node_name(node_name)
        names.validate_namespace(namespace)
        self._name, self._namespace = names.remap_node(node_name, namespace, self._remaps)
        names.validate_node_name(self._name)
        names.validate_namespace(self._namespace)
        self._logger = get_logger(self.get_fully_qualified_name()[1:].replace("/", "."))
        values = names.overrides_for(
            self.get_fully_qualified_name(), shared.overrides + own.overrides
        )
        overrides = {name: Parameter(name, None, value) for name, value in values.items()}
        overrides.update({given.name: given for given in parameter_overrides or ()})
        super().__init__(overrides, allow_undeclared_parameters)

        self._graph = self._context.graph
        self._participant = self._graph.participant
        self._executor: Executor | None = None
        self._lock = threading.Lock()
        self._entities: list[Any] = []
        self._default_callback_group = MutuallyExclusiveCallbackGroup()
        self._clock = ROSClock()
        self._destroyed = False
        if automatically_declare_parameters_from_overrides:
            for name, parameter in overrides.items():
                descriptor = self._dynamic_descriptor()
                self.declare_parameter(name, parameter.value, descriptor, ignore_override=True)

    @staticmethod
    def _dynamic_descriptor() -> Any:
        from ..interfaces.classes import message_class

        return message_class("rcl_interfaces/msg/ParameterDescriptor")(dynamic_typing=True)

    # -- who it is

    def get_name(self) -> str:
        return self._name

    def get_namespace(self) -> str:
        return self._namespace

    def get_fully_qualified_name(self) -> str:
        return f"{self._namespace.rstrip('/')}/{self._name}"

    def get_logger(self) -> RcutilsLogger:
        return self._logger

    def get_clock(self) -> Clock:
        return self._clock

    @property
    def context(self) -> Context:
        return self._context

    @property
    def default_callback_group(self) -> CallbackGroup:
        return self._default_callback_group

    def _of_kind(self, kind: type) -> Iterator[Any]:
        return iter([entity for entity in self._entities if isinstance(entity, kind)])

    @property
    def publishers(self) -> Iterator[Publisher]:
        return self._of_kind(Publisher)

    @property
    def subscriptions(self) -> Iterator[Subscription]:
        return self._of_kind(Subscription)

    @property
    def timers(self) -> Iterator[Timer]:
        return self._of_kind(Timer)

    # -- executor

    @property
    def executor(self) -> Executor | None:
        return self._executor

    @executor.setter
    def executor(self, new_executor: Executor) -> None:
        """Moves the node to an executor; it leaves the one it was in."""
        old = self._executor
        if old is new_executor:
            return
        if old is not None:
            old.remove_node(self)
        self._executor = new_executor
        if new_executor is not None:
            new_executor.add_node(self)
            for entity in list(self._entities):
                if hasattr(entity, "wait_handle"):
                    new_executor._attach(entity)

    def _left_executor(self, executor: Executor) -> None:
        if self._executor is executor:
            self._executor = None
        for entity in list(self._entities):
            if hasattr(entity, "wait_handle"):
                executor._detach(entity)

    def _add(self, entity: Any) -> None:
        with self._lock:
            self._entities.append(entity)
        if hasattr(entity, "wait_handle"):
            entity.callback_group.add_entity(entity)
            if self._executor is not None:
                self._executor._attach(entity)

    def _remove(self, entity: Any) -> bool:
        with self._lock:
            if entity not in self._entities:
                return False
            self._entities.remove(entity)
        if hasattr(entity, "wait_handle"):
            entity.callback_group.remove_entity(entity)
            if self._executor is not None:
                self._executor._detach(entity)
        return True

    # -- topics

    def resolve_topic_name(self, topic: str, *, only_expand: bool = False) -> str:
        full = names.expand(topic, self._name, self._namespace)
        if only_expand:
            return full
        return names.remap_name(full, self._name, self._namespace, self._remaps)

    def resolve_service_name(self, service: str, *, only_expand: bool = False) -> str:
        full = names.expand(service, self._name, self._namespace, service=True)
        if only_expand:
            return full
        return names.remap_name(full, self._name, self._namespace, self._remaps, service=True)

    def _check_alive(self) -> None:
        if self._destroyed:
            raise InvalidHandle(f"node '{self._name}' is destroyed")

    def create_publisher(
        self,
        msg_type: Any,
        topic: str,
        qos_profile: QoSProfile | int,
        *,
        callback_group: CallbackGroup | None = None,
        event_callbacks: PublisherEventCallbacks | None = None,
        qos_overriding_options: Any = None,
        publisher_class: type[Publisher] = Publisher,
    ) -> Any:
        """A publisher; ``qos_profile`` may be a depth. Raises on wrong names and types."""
        self._check_alive()
        if qos_overriding_options is not None:
            raise NotImplementedError("create_publisher(qos_overriding_options=...)")
        profile, name = as_profile(qos_profile), _message_name(msg_type)
        full = self.resolve_topic_name(topic)
        endpoint = self._participant.writer(
            _dds_topic(full, profile), message_type(name), profile.to_dds(_typehash(name))
        )
        events = QosEvents(
            endpoint.handle,
            library.OFFERED_INCOMPATIBLE_QOS,
            full,
            self._logger,
            event_callbacks or PublisherEventCallbacks(),
        )
        group = callback_group or self._default_callback_group
        publisher = publisher_class(self, endpoint, msg_type, full, profile, group, events)
        self._add(publisher)
        self._add(events)
        return publisher

    def create_subscription(
        self,
        msg_type: Any,
        topic: str,
        callback: Callable[..., Any],
        qos_profile: QoSProfile | int,
        *,
        callback_group: CallbackGroup | None = None,
        event_callbacks: SubscriptionEventCallbacks | None = None,
        qos_overriding_options: Any = None,
        raw: bool = False,
    ) -> Subscription:
        """A subscription; ``raw`` gives the callback undecoded bytes."""
        self._check_alive()
        if qos_overriding_options is not None:
            raise NotImplementedError("create_subscription(qos_overriding_options=...)")
        profile, name = as_profile(qos_profile), _message_name(msg_type)
        full = self.resolve_topic_name(topic)
        endpoint = self._participant.reader(
            _dds_topic(full, profile), message_type(name), profile.to_dds(_typehash(name))
        )
        events = QosEvents(
            endpoint.handle,
            library.REQUESTED_INCOMPATIBLE_QOS,
            full,
            self._logger,
            event_callbacks or SubscriptionEventCallbacks(),
        )
        group = callback_group or self._default_callback_group
        subscription = Subscription(
            self, endpoint, msg_type, full, callback, group, profile, raw, events
        )
        self._add(subscription)
        self._add(events)
        return subscription

    def destroy_publisher(self, publisher: Publisher) -> bool:
        return self._destroy_endpoint(publisher)

    def destroy_subscription(self, subscription: Subscription) -> bool:
        return self._destroy_endpoint(subscription)

    def _destroy_endpoint(self, entity: Any) -> bool:
        if not self._remove(entity):
            return False
        if entity._events is not None:
            self._remove(entity._events)
        entity._delete()
        return True

    # -- time

    def create_timer(
        self,
        timer_period_sec: float,
        callback: Callable[[], Any],
        callback_group: CallbackGroup | None = None,
        clock: Clock | None = None,
        autostart: bool = True,
    ) -> Timer:
        """A timer on the node's clock, or on ``clock`` (a steady one runs while /clock stands)."""
        self._check_alive()
        timer = Timer(
            callback,
            callback_group or self._default_callback_group,
            int(float(timer_period_sec) * 1e9),
            clock or self._clock,
            autostart=autostart,
            node=self,
        )
        self._add(timer)
        return timer

    def create_rate(self, frequency: float, clock: Clock | None = None) -> Rate:
        if frequency <= 0:
            raise ValueError("frequency must be > 0")
        timer = self.create_timer(1.0 / frequency, lambda: None, clock=clock)
        return Rate(timer, context=self._context)

    def destroy_timer(self, timer: Timer) -> bool:
        if not self._remove(timer):
            return False
        timer.destroy()
        return True

    def destroy_rate(self, rate: Rate) -> bool:
        rate.destroy()
        return self._remove(rate._timer)

    # -- the end

    def destroy_node(self) -> None:
        """Deletes all entities; the node leaves its executor."""
        if self._destroyed:
            return
        self._destroyed = True
        if self._executor is not None:
            self._executor.remove_node(self)
        for entity in list(self._entities):
            if isinstance(entity, Timer):
                self.destroy_timer(entity)
            elif hasattr(entity, "_delete"):
                self._destroy_endpoint(entity)
        self._entities.clear()

    def __enter__(self) -> Node:
        return self

    def __exit__(self, *error: object) -> None:
        self.destroy_node()


def _message_name(msg_type: Any) -> str:
    """Raises TypeError for anything but a message class."""
    described = getattr(msg_type, "_definition", None)
    if described is None:
        raise TypeError(f"{msg_type!r} is no message class")
    return str(described.name)


def _dds_topic(full: str, profile: QoSProfile) -> str:
    return full if profile.avoid_ros_namespace_conventions else f"rt{full}"


def _typehash(name: str) -> str:
    return f"typehash={type_hash(name)};"
