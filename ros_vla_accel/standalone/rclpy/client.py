"""Clients of services."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from ..dds import library
from ..interfaces.cdr import CdrError
from .exceptions import InvalidHandle
from .qos import QoSProfile
from .service import ServiceEndpoints
from .task import Future

if TYPE_CHECKING:
    from .node import Node

_LOOK_AGAIN_S = 0.5
"""How often a waiting client looks whether its context has ended."""


class Client:
    """Calls a service; made by `Node.create_client`."""

    def __init__(
        self,
        node: Node,
        srv_type: Any,
        srv_name: str,
        callback_group: Any,
        qos_profile: QoSProfile,
    ) -> None:
        self._node = node
        self.service_name = node.resolve_service_name(srv_name)
        self._endpoints = ServiceEndpoints(
            node, srv_type, self.service_name, qos_profile, server=False
        )
        self._identity = library.instance_handle(self._endpoints.writer.handle)
        self._pending: dict[int, Future] = {}
        self._sequence = 0
        self._lock = threading.Lock()
        self.wait_handle = self._endpoints.condition
        self.srv_type = srv_type
        self.srv_name = srv_name
        self.callback_group = callback_group
        self.qos_profile = qos_profile
        self._matches = (
            (self._endpoints.writer.handle, library.PUBLICATION_MATCHED),
            (self._endpoints.reader.handle, library.SUBSCRIPTION_MATCHED),
        )
        for endpoint, status in self._matches:
            library.watch_status(endpoint, status)

    def call_async(self, request: Any) -> Future:
        """Sends a request; the future becomes done while an executor spins the node.

        Raises TypeError if ``request`` is not of this service's request type.
        """
        if not isinstance(request, self.srv_type.Request):
            raise TypeError(f"expected {self.srv_type.Request}, got {type(request)}")
        if not self._endpoints.alive:
            raise InvalidHandle(f"client of '{self.service_name}' is destroyed")
        future = Future(executor=self._node.executor)
        with self._lock:
            self._sequence += 1
            sequence = self._sequence
            self._pending[sequence] = future
        future.add_done_callback(self.remove_pending_request)
        self._endpoints.send(self._identity, sequence, request)
        return future

    def call(self, request: Any, timeout_sec: float | None = None) -> Any:
        """Sends a request and waits; another thread must spin.

        Raises TimeoutError after ``timeout_sec``.
        """
        done = threading.Event()
        future = self.call_async(request)
        future._when_done(done.set)
        if not done.wait(timeout_sec if timeout_sec is None or timeout_sec >= 0 else None):
            self.remove_pending_request(future)
            raise TimeoutError(f"no answer of '{self.service_name}' in {timeout_sec} s")
        return future.result()

    def remove_pending_request(self, future: Future) -> None:
        """Forgets a request; a late answer is dropped."""
        with self._lock:
            for sequence, pending in list(self._pending.items()):
                if pending is future:
                    del self._pending[sequence]
                    future._set_executor(None)

    def _take(self) -> Callable[[], Any] | None:
        try:
            taken = self._endpoints.take()
        except CdrError as error:
            self._node.get_logger().error(f"dropped an answer of '{self.service_name}': {error}")
            return None
        if taken is None:
            return None
        client, sequence, response, _ = taken
        if client != self._identity:
            return None  # All clients of a service read all answers.
        with self._lock:
            future = self._pending.get(sequence)
        return None if future is None else partial(future.set_result, response)

    def service_is_ready(self) -> bool:
        """Whether one server has matched both our writer and our reader."""
        if not self._endpoints.alive:
            raise InvalidHandle(f"client of '{self.service_name}' is destroyed")
        readers = library.matched_readers(self._endpoints.writer.entity)
        writers = library.matched_writers(self._endpoints.reader.entity).values()
        served = {library.user_data(peer.qos).get("serviceid") for peer in readers}
        answering = {library.user_data(peer.qos).get("serviceid") for peer in writers}
        if served - {None}:
            return bool((served & answering) - {None})
        return bool(readers and writers)

    def wait_for_service(self, timeout_sec: float | None = None) -> bool:
        """Waits for discovery; False if no server came in time or the context ended."""
        deadline = None if timeout_sec is None or timeout_sec < 0 else timeout_sec
        end = None if deadline is None else time.monotonic() + deadline
        waits = self._node._rclpy_core.participant.wait_set()
        try:
            for endpoint, _ in self._matches:
                waits.attach(endpoint, 0)
            while self._node.context.ok():
                for endpoint, status in self._matches:
                    library.clear_status(endpoint, status)
                if self.service_is_ready():
                    return True
                left = _LOOK_AGAIN_S if end is None else min(_LOOK_AGAIN_S, end - time.monotonic())
                if left <= 0:
                    return False
                waits.wait(int(left * 1e9))
        finally:
            waits.delete()
        return False

    def destroy(self) -> None:
        self._node.destroy_client(self)

    def _delete(self) -> tuple[bytes, ...]:
        with self._lock:
            pending, self._pending = self._pending, {}
        for future in pending.values():
            future.cancel()
        return self._endpoints.delete()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        self.destroy()
