"""Subscriptions."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from ..dds import library
from ..dds.participant import Endpoint
from ..interfaces.cdr import CdrError, decoder
from .qos import QoSProfile

if TYPE_CHECKING:
    from .event_handler import QosEvents
    from .node import Node


class Subscription:
    """Receives messages of one type on one topic; made by `Node.create_subscription`."""

    def __init__(
        self,
        node: Node,
        endpoint: Endpoint,
        msg_type: Any,
        topic: str,
        callback: Callable[..., Any],
        callback_group: Any,
        qos_profile: QoSProfile,
        raw: bool,
        events: QosEvents | None,
    ) -> None:
        self._node = node
        self._endpoint: Endpoint | None = endpoint
        self._reader = endpoint.handle
        self._events = events
        self._decode = decoder(msg_type._definition.name)
        self.wait_handle = library.read_condition(endpoint.handle)
        self.msg_type = msg_type
        self.topic = topic
        self.qos_profile = qos_profile
        self.callback_group = callback_group
        self.raw = raw
        self.callback = callback

    @property
    def topic_name(self) -> str:
        return self.topic

    @property
    def callback(self) -> Callable[..., Any]:
        return self._callback

    @callback.setter
    def callback(self, value: Callable[..., Any]) -> None:
        self._callback = value
        self._with_info = _takes_two(value)

    def get_publisher_count(self) -> int:
        if self._endpoint is None:
            return 0
        return len(self._endpoint.entity.get_matched_publications())

    def _take(self) -> Callable[[], Any] | None:
        """The callback with the oldest sample; None if there is no readable one."""
        taken = library.take(self._reader)
        if taken is None:
            return None
        data, info = taken
        message: Any = data
        if not self.raw:
            try:
                message = self._decode(data)
            except CdrError as error:
                self._node.get_logger().error(
                    f"dropped a message on '{self.topic}': {error}", throttle_duration_sec=5.0
                )
                return None
        if self._with_info:
            stamps = {
                "source_timestamp": info.source_timestamp,
                "received_timestamp": 0,
                "publication_sequence_number": None,
                "reception_sequence_number": None,
            }
            return partial(self._callback, message, stamps)
        return partial(self._callback, message)

    def destroy(self) -> None:
        self._node.destroy_subscription(self)

    def _delete(self) -> tuple[bytes, ...]:
        endpoint, self._endpoint = self._endpoint, None
        if endpoint is None:
            return ()
        library.delete(self.wait_handle)
        endpoint.delete()
        return (endpoint.gid,)

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, *error: object) -> None:
        self.destroy()


def _takes_two(callback: Callable[..., Any]) -> bool:
    """Whether a callback wants the message info, too. Raises RuntimeError as rclpy does."""
    try:
        inspect.signature(callback).bind(object())
        return False
    except TypeError:
        pass
    try:
        inspect.signature(callback).bind(object(), object())
        return True
    except TypeError:
        raise RuntimeError(
            "Subscription.__init__(): callback should be either be callable with one argument"
            "(to get only the message) or two (to get message and message info)"
        ) from None
