"""Services, with the request header that rmw_cyclonedds puts before each sample."""

from __future__ import annotations

import inspect
import struct
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from ..dds import library
from ..dds.types import service_type
from ..interfaces.cdr import CdrError, decoder, encoder
from ..interfaces.type_hash import type_hash
from .exceptions import InvalidHandle
from .qos import QoSProfile

if TYPE_CHECKING:
    from ..dds.participant import Endpoint
    from .node import Node

HEADER = struct.Struct("<Qq")
"""Handle of the client's writer and a sequence number, between encapsulation and message."""

MESSAGE_OFFSET = 4 + HEADER.size

_MATCH_TIMEOUT_S = 0.1
"""How long a reply waits until its client's reader is known, as rmw_cyclonedds does."""


class ServiceEndpoints:
    """The writer and the reader of one side of a service."""

    def __init__(
        self, node: Node, srv_type: Any, full_name: str, qos_profile: QoSProfile, server: bool
    ) -> None:
        name = getattr(srv_type, "_service_name", None)
        if name is None:
            raise TypeError(f"{srv_type!r} is no service class")
        core = node._rclpy_core
        participant = core.participant
        self.key = "serviceid" if server else "clientid"
        self.identity = participant.service_id()
        request, reply = f"{name}_Request", f"{name}_Response"
        writes, reads = (reply, request) if server else (request, reply)
        topics = {request: f"rq{full_name}Request", reply: f"rr{full_name}Reply"}

        def qos(half: str) -> Any:
            mark = f"{self.key}={self.identity};typehash={type_hash(half)};"
            return qos_profile.to_dds(mark)

        self.writer: Endpoint = participant.writer(
            topics[writes], service_type(writes), qos(writes)
        )
        self.reader: Endpoint = participant.reader(topics[reads], service_type(reads), qos(reads))
        self.condition = library.read_condition(self.reader.handle)
        self.encode, self.decode = encoder(writes), decoder(reads)
        self.alive = True
        core.graph.add_writer(core.full_name, self.writer.gid)
        core.graph.add_reader(core.full_name, self.reader.gid)

    def take(self) -> tuple[int, int, Any, Any] | None:
        """Client's handle, sequence number, message and sample info; None if there is none."""
        taken = library.take(self.reader.handle)
        if taken is None:
            return None
        data, info = taken
        if len(data) < MESSAGE_OFFSET:
            raise CdrError(f"a service sample of {len(data)} bytes has no header")
        client, sequence = HEADER.unpack_from(data, 4)
        return client, sequence, self.decode(data, MESSAGE_OFFSET), info

    def send(self, client: int, sequence: int, message: Any) -> None:
        data = self.encode(message, HEADER.pack(client, sequence))
        library.check(library.write(self.writer.handle, data), "writing a service sample")

    def delete(self) -> tuple[bytes, ...]:
        self.alive = False
        library.delete(self.condition)
        self.writer.delete()
        self.reader.delete()
        return self.writer.gid, self.reader.gid


class Service:
    """Answers requests; made by `Node.create_service`."""

    def __init__(
        self,
        node: Node,
        srv_type: Any,
        srv_name: str,
        callback: Callable[[Any, Any], Any],
        callback_group: Any,
        qos_profile: QoSProfile,
    ) -> None:
        self._node = node
        self.service_name = node.resolve_service_name(srv_name)
        self._endpoints = ServiceEndpoints(
            node, srv_type, self.service_name, qos_profile, server=True
        )
        self._ready_clients: set[int] = set()
        self.wait_handle = self._endpoints.condition
        self.srv_type = srv_type
        self.srv_name = srv_name
        self.callback = callback
        self.callback_group = callback_group
        self.qos_profile = qos_profile

    def _take(self) -> Callable[[], Any] | None:
        try:
            taken = self._endpoints.take()
        except CdrError as error:
            self._node.get_logger().error(f"dropped a request to '{self.service_name}': {error}")
            return None
        if taken is None:
            return None
        client, sequence, request, info = taken
        return partial(self._answer, (client, sequence, info.publication_handle), request)

    def _answer(self, header: tuple[int, int, int], request: Any) -> Any:
        response = self.callback(request, self.srv_type.Response())
        if inspect.iscoroutine(response):
            return self._answer_later(header, response)
        self.send_response(response, header)
        return None

    async def _answer_later(self, header: tuple[int, int, int], response: Any) -> None:
        self.send_response(await response, header)

    def send_response(self, response: Any, header: tuple[int, int, int]) -> None:
        """Raises TypeError if ``response`` is not of this service's response type."""
        if not isinstance(response, self.srv_type.Response):
            raise TypeError(
                f"the callback of service '{self.service_name}' returned {type(response)}, "
                f"not {self.srv_type.Response}"
            )
        if not self._endpoints.alive:
            raise InvalidHandle(f"service '{self.service_name}' is destroyed")
        client, sequence, writer = header
        if self._client_listens(writer):
            self._endpoints.send(client, sequence, response)
        else:
            self._node.get_logger().warning(
                f"failed to send a response of '{self.service_name}': the client is gone"
            )

    def _client_listens(self, request_writer: int) -> bool:
        """Whether the reader beside the writer of a request is matched; waits for it shortly.

        Discovery may tell of a client's writer before its reader: a reply sent now were lost.
        """
        if request_writer in self._ready_clients:
            return True
        reader, writer = self._endpoints.reader.entity, self._endpoints.writer.entity
        deadline = time.monotonic() + _MATCH_TIMEOUT_S
        while True:
            peer = reader.get_matched_publication_data(request_writer)
            if peer is None:
                return False
            identity = library.user_data(peer.qos).get("clientid")
            if identity is None:
                return True
            listening = library.matched_readers(writer)
            if any(library.user_data(p.qos).get("clientid") == identity for p in listening):
                self._ready_clients.add(request_writer)
                return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.005)

    def destroy(self) -> None:
        self._node.destroy_service(self)

    def _delete(self) -> tuple[bytes, ...]:
        return self._endpoints.delete()

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *error: object) -> None:
        self.destroy()
