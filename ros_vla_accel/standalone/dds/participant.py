"""One DDS participant with ROS 2's naming, and the endpoints it creates."""

from __future__ import annotations

import threading
from typing import Any

from cyclonedds.core import Policy, Qos
from cyclonedds.domain import Domain, DomainParticipant
from cyclonedds.pub import DataWriter
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic

from . import library
from .config import configuration
from .memory import keep_freed_memory

_domains: dict[int, Domain] = {}
_domains_lock = threading.Lock()


def _domain(number: int) -> None:
    """Creates the DDS domain of this process once; its configuration is that of the first use."""
    with _domains_lock:
        if not _domains:
            keep_freed_memory()
        if number not in _domains:
            _domains[number] = Domain(number, configuration())


class Endpoint:
    """A writer or a reader with its gid (16 bytes) and C handle."""

    def __init__(self, entity: DataWriter[Any] | DataReader[Any]) -> None:
        self.entity: Any = entity
        self.handle: int = entity._ref
        self.gid: bytes = entity.guid.bytes

    def delete(self) -> None:
        # The wrapper deletes the C entity when collected; deleting it here makes it happen now.
        self.entity.__del__()


class Participant:
    """Creates and deletes endpoints in one DDS domain."""

    def __init__(self, domain: int, enclave: str = "/") -> None:
        _domain(domain)
        self.domain = domain
        self.entity = DomainParticipant(
            domain, Qos(Policy.Userdata(f"enclave={enclave};".encode()))
        )
        self.handle: int = self.entity._ref
        self.gid: bytes = self.entity.guid.bytes
        self._topics: dict[tuple[str, type], Topic[Any]] = {}
        self._lock = threading.Lock()
        self._next_service = 0

    def _topic(self, name: str, idl_type: type) -> Topic[Any]:
        with self._lock:
            key = (name, idl_type)
            if key not in self._topics:
                self._topics[key] = Topic(self.entity, name, idl_type)
            return self._topics[key]

    def writer(self, topic: str, idl_type: type, qos: Qos) -> Endpoint:
        return Endpoint(DataWriter(self.entity, self._topic(topic, idl_type), qos))

    def reader(self, topic: str, idl_type: type, qos: Qos) -> Endpoint:
        return Endpoint(DataReader(self.entity, self._topic(topic, idl_type), qos))

    def service_id(self) -> str:
        """A new identifier that ties the reader and the writer of one client or service."""
        with self._lock:
            self._next_service += 1
            number = self._next_service
        octets = self.gid[:12] + number.to_bytes(4, "big")
        return ".".join(f"{octet:02x}" for octet in octets)

    def guard(self) -> library.Guard:
        return library.Guard(self.handle)

    def wait_set(self) -> library.WaitSet:
        return library.WaitSet(self.handle)

    def close(self) -> None:
        """Deletes the participant and all it holds, so that peers see it leave at once."""
        self._topics.clear()
        library.delete(self.handle)
