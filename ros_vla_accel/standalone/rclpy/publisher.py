"""Publishers."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from cyclonedds.core import DDSException

from ..dds import library
from ..dds.participant import Endpoint
from ..interfaces.cdr import encoder
from .duration import Duration
from .exceptions import InvalidHandle, NotOffered, RCLError
from .qos import QoSProfile

if TYPE_CHECKING:
    from .event_handler import QosEvents
    from .node import Node


_FOREVER = Duration(seconds=-1)


class Publisher:
    """Sends messages of one type on one topic; made by `Node.create_publisher`."""

    def __init__(
        self,
        node: Node,
        endpoint: Endpoint,
        msg_type: Any,
        topic: str,
        qos_profile: QoSProfile,
        callback_group: Any,
        events: QosEvents | None,
    ) -> None:
        self._node = node
        self._endpoint: Endpoint | None = endpoint
        self._events = events
        self._encode = encoder(msg_type._definition.name)
        self._lock = threading.Lock()
        self.msg_type = msg_type
        self.topic = topic
        self.qos_profile = qos_profile
        self.callback_group = callback_group

    @property
    def topic_name(self) -> str:
        return self.topic

    @property
    def _writer(self) -> Endpoint:
        if self._endpoint is None:
            raise InvalidHandle(f"publisher of '{self.topic}' is destroyed")
        return self._endpoint

    def publish(self, msg: Any) -> None:
        """Sends a message, or bytes that are already encoded (with their 4-byte header).

        Raises TypeError for another type, RCLError once the context has ended.
        """
        if type(msg) is self.msg_type:
            data = self._encode(msg)
        elif isinstance(msg, bytes):
            data = bytearray(msg) + b"\0" * (-len(msg) & 3)
        else:
            raise TypeError(f"Expected {self.msg_type}, got {type(msg)}")
        if not self._node.context.ok():
            raise RCLError("Failed to publish: publisher's context is invalid")
        with self._lock:
            code = library.write(self._writer.handle, data)
        if code < 0:
            raise RCLError(f"Failed to publish on '{self.topic}': {DDSException(code)}")

    def get_subscription_count(self) -> int:
        return len(self._writer.entity.get_matched_subscriptions())

    def assert_liveliness(self) -> None:
        raise NotOffered("Publisher.assert_liveliness")

    def wait_for_all_acked(self, timeout: Duration = _FOREVER) -> bool:
        """True if every reader has confirmed all messages in time (negative: no limit)."""
        limit = timeout.nanoseconds
        return library.wait_for_acks(self._writer.handle, library.INFINITY if limit < 0 else limit)

    def destroy(self) -> None:
        self._node.destroy_publisher(self)

    def _delete(self) -> tuple[bytes, ...]:
        with self._lock:
            endpoint, self._endpoint = self._endpoint, None
        if endpoint is None:
            return ()
        endpoint.delete()
        return (endpoint.gid,)

    def __enter__(self) -> Publisher:
        return self

    def __exit__(self, *error: object) -> None:
        self.destroy()
