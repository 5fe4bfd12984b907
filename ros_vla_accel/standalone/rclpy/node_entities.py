"""The half of a node that makes publishers, subscriptions, services, clients and timers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, cast

from ..dds import library
from ..dds.types import message_type
from ..interfaces.type_hash import type_hash
from .callback_groups import CallbackGroup
from .client import Client
from .clock import Clock
from .event_handler import PublisherEventCallbacks, QosEvents, SubscriptionEventCallbacks
from .exceptions import NotOffered
from .guard_condition import GuardCondition
from .node_core import NodeCore
from .publisher import Publisher
from .qos import QoSProfile, as_profile, qos_profile_services_default
from .service import Service
from .subscription import Subscription
from .timer import Rate, Timer

if TYPE_CHECKING:
    from .node import Node


class EntitiesOfNode:
    """Creates and destroys what a node is made of."""

    _rclpy_core: NodeCore

    def __of_kind(self, kind: type) -> Iterator[Any]:
        return iter([one for one in self._rclpy_core.entities if isinstance(one, kind)])

    @property
    def publishers(self) -> Iterator[Publisher]:
        return self.__of_kind(Publisher)

    @property
    def subscriptions(self) -> Iterator[Subscription]:
        return self.__of_kind(Subscription)

    @property
    def clients(self) -> Iterator[Client]:
        return self.__of_kind(Client)

    @property
    def services(self) -> Iterator[Service]:
        return self.__of_kind(Service)

    @property
    def timers(self) -> Iterator[Timer]:
        return self.__of_kind(Timer)

    @property
    def guards(self) -> Iterator[GuardCondition]:
        return self.__of_kind(GuardCondition)

    def create_publisher(
        self,
        msg_type: Any,
        topic: str,
        qos_profile: QoSProfile | int,
        *,
        callback_group: CallbackGroup | None = None,
        event_callbacks: PublisherEventCallbacks | None = None,
        qos_overriding_options: Any = None,
        publisher_class: Any = Publisher,
    ) -> Any:
        """A publisher; ``qos_profile`` may be a depth.

        Raises InvalidTopicNameException, and TypeError if ``msg_type`` is no message class.
        """
        core = self._rclpy_core
        core.check_alive()
        if qos_overriding_options is not None:
            raise NotOffered("create_publisher(qos_overriding_options=...)")
        profile, name = as_profile(qos_profile), _message_name(msg_type)
        full = core.resolve(topic, service=False)
        endpoint = core.participant.writer(
            _dds_topic(full, profile), message_type(name), profile.to_dds(_typehash(name))
        )
        events = QosEvents(
            endpoint.handle,
            library.OFFERED_INCOMPATIBLE_QOS,
            full,
            _node(self).get_logger(),
            event_callbacks or PublisherEventCallbacks(),
        )
        group = callback_group or core.default_group
        publisher = publisher_class(_node(self), endpoint, msg_type, full, profile, group, events)
        core.graph.add_writer(core.full_name, endpoint.gid)
        core.add(publisher)
        core.add(events)
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
        content_filter_options: Any = None,
    ) -> Subscription:
        """A subscription; ``raw`` gives the callback undecoded bytes.

        Raises InvalidTopicNameException, TypeError if ``msg_type`` is no message class and
        RuntimeError if the callback takes neither one nor two arguments.
        """
        core = self._rclpy_core
        core.check_alive()
        if qos_overriding_options is not None or content_filter_options is not None:
            raise NotOffered(
                "create_subscription(qos_overriding_options=..., content_filter_options=...)"
            )
        profile, name = as_profile(qos_profile), _message_name(msg_type)
        full = core.resolve(topic, service=False)
        endpoint = core.participant.reader(
            _dds_topic(full, profile), message_type(name), profile.to_dds(_typehash(name))
        )
        events = QosEvents(
            endpoint.handle,
            library.REQUESTED_INCOMPATIBLE_QOS,
            full,
            _node(self).get_logger(),
            event_callbacks or SubscriptionEventCallbacks(),
        )
        group = callback_group or core.default_group
        subscription = Subscription(
            _node(self), endpoint, msg_type, full, callback, group, profile, raw, events
        )
        core.graph.add_reader(core.full_name, endpoint.gid)
        core.add(subscription)
        core.add(events)
        return subscription

    def create_service(
        self,
        srv_type: Any,
        srv_name: str,
        callback: Callable[[Any, Any], Any],
        *,
        qos_profile: QoSProfile = qos_profile_services_default,
        callback_group: CallbackGroup | None = None,
    ) -> Service:
        """A service; ``callback(request, response)`` returns the response."""
        core = self._rclpy_core
        core.check_alive()
        group = callback_group or core.default_group
        service = Service(_node(self), srv_type, srv_name, callback, group, qos_profile)
        core.add(service)
        return service

    def create_client(
        self,
        srv_type: Any,
        srv_name: str,
        *,
        qos_profile: QoSProfile = qos_profile_services_default,
        callback_group: CallbackGroup | None = None,
    ) -> Client:
        """A client of a service."""
        core = self._rclpy_core
        core.check_alive()
        group = callback_group or core.default_group
        client = Client(_node(self), srv_type, srv_name, group, qos_profile)
        core.add(client)
        return client

    def create_timer(
        self,
        timer_period_sec: float,
        callback: Callable[[], Any],
        callback_group: CallbackGroup | None = None,
        clock: Clock | None = None,
        autostart: bool = True,
    ) -> Timer:
        """A timer on the node's clock, or on ``clock`` (a steady one runs while /clock stands)."""
        core = self._rclpy_core
        core.check_alive()
        timer = Timer(
            callback,
            callback_group or core.default_group,
            int(float(timer_period_sec) * 1e9),
            clock or _node(self).get_clock(),
            autostart=autostart,
            node=_node(self),
        )
        core.add(timer)
        return timer

    def create_guard_condition(
        self, callback: Callable[[], Any], callback_group: CallbackGroup | None = None
    ) -> GuardCondition:
        """A condition that any thread may trigger; the executor then runs ``callback``."""
        core = self._rclpy_core
        core.check_alive()
        guard = GuardCondition(core.participant, callback, callback_group or core.default_group)
        core.add(guard)
        return guard

    def create_rate(self, frequency: float, clock: Clock | None = None) -> Rate:
        """Raises ValueError unless ``frequency`` (Hz) is positive."""
        if frequency <= 0:
            raise ValueError("frequency must be > 0")
        timer = self.create_timer(1.0 / frequency, lambda: None, clock=clock)
        return Rate(timer, context=self._rclpy_core.context)

    def destroy_publisher(self, publisher: Publisher) -> bool:
        return self.__destroy(publisher)

    def destroy_subscription(self, subscription: Subscription) -> bool:
        return self.__destroy(subscription)

    def destroy_service(self, service: Service) -> bool:
        return self.__destroy(service)

    def destroy_client(self, client: Client) -> bool:
        return self.__destroy(client)

    def destroy_guard_condition(self, guard: GuardCondition) -> bool:
        return self.__destroy(guard)

    def destroy_timer(self, timer: Timer) -> bool:
        return self.__destroy(timer)

    def destroy_rate(self, rate: Rate) -> bool:
        rate.destroy()
        return self._rclpy_core.remove(rate._timer)

    def __destroy(self, entity: Any) -> bool:
        """True if the entity was this node's and is gone now."""
        core = self._rclpy_core
        if not core.remove(entity):
            return False
        events = getattr(entity, "_events", None)
        if events is not None:
            core.remove(events)
        for gid in entity._delete():
            core.graph.remove_endpoint(core.full_name, gid)
        return True


def _node(part: EntitiesOfNode) -> Node:
    """The node that ``part`` is a half of."""
    return cast("Node", part)


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
