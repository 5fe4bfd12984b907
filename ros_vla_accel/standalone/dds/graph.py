"""What a context shows to others and knows of them, by ROS 2's discovery topic.

Each participant publishes on ``ros_discovery_info`` which nodes it holds and which of its
endpoints belong to them; topics and services come from DDS' own discovery.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

from cyclonedds.builtin import (
    BuiltinDataReader,
    BuiltinTopicDcpsPublication,
    BuiltinTopicDcpsSubscription,
)
from cyclonedds.core import InstanceState, Policy, Qos

from ..interfaces.cdr import decoder, encoder
from ..interfaces.classes import message_class
from ..interfaces.definitions import definition
from ..interfaces.type_hash import type_hash
from . import library
from .participant import Endpoint, Participant
from .types import message_type

INFO = "rmw_dds_common/msg/ParticipantEntitiesInfo"
TOPIC = "ros_discovery_info"
GID_BYTES_VARIABLE = "ROS_VLA_ACCEL_GID_BYTES"
"""Set to 24 to be seen by ROS 2 Humble; later distributions use 16."""

_MANY = 10_000


def wire_name(environment: Mapping[str, str] = os.environ) -> str:
    """Name of the discovery message: that of now, or Humble's with its longer Gid.

    Raises ValueError for a length that no distribution uses.
    """
    size = environment.get(GID_BYTES_VARIABLE, "") or (
        "24" if environment.get("ROS_DISTRO") == "humble" else "16"
    )
    if size not in ("16", "24"):
        raise ValueError(f"{GID_BYTES_VARIABLE} is '{size}'; it must be 16 or 24")
    return INFO if size == "16" else INFO.replace("/msg/", "/msg/Humble")


class Graph:
    """The participant of a context, the nodes on it, and queries about all others."""

    def __init__(self, domain: int) -> None:
        self.participant = Participant(domain)
        self._info = wire_name()
        self._gid_class = message_class(definition(self._info).fields[0].base)
        self._gid_size = definition(self._gid_class._definition.name).fields[0].size
        self._nodes: dict[str, tuple[set[bytes], set[bytes]]] = {}
        self._lock = threading.Lock()
        self._writer: Endpoint = self.participant.writer(
            TOPIC, message_type(self._info), self._qos(Policy.History.KeepLast(1))
        )
        self._others: dict[int, Any] = {}

    def close(self) -> None:
        self.participant.close()

    def _qos(self, history: Any) -> Qos:
        return Qos(
            history,
            Policy.Reliability.Reliable(library.INFINITY),
            Policy.Durability.TransientLocal,
            Policy.DataRepresentation(use_cdrv0_representation=True),
            Policy.Userdata(f"typehash={type_hash(self._info)};".encode()),
        )

    # Readers are made when first asked, so that nothing piles up in nodes that never ask.

    @cached_property
    def _reader(self) -> Endpoint:
        kind = message_type(self._info)
        return self.participant.reader(TOPIC, kind, self._qos(Policy.History.KeepAll))

    @cached_property
    def _publications(self) -> Any:
        return BuiltinDataReader(self.participant.entity, BuiltinTopicDcpsPublication)

    @cached_property
    def _subscriptions(self) -> Any:
        return BuiltinDataReader(self.participant.entity, BuiltinTopicDcpsSubscription)

    # -- telling

    def add_node(self, full_name: str) -> None:
        with self._lock:
            self._nodes.setdefault(full_name, (set(), set()))
            self._publish()

    def remove_node(self, full_name: str) -> None:
        with self._lock:
            if self._nodes.pop(full_name, None) is not None:
                self._publish()

    def add_reader(self, full_name: str, gid: bytes) -> None:
        with self._lock:
            self._nodes[full_name][0].add(gid)
            self._publish()

    def add_writer(self, full_name: str, gid: bytes) -> None:
        with self._lock:
            self._nodes[full_name][1].add(gid)
            self._publish()

    def remove_endpoint(self, full_name: str, gid: bytes) -> None:
        with self._lock:
            for gids in self._nodes.get(full_name, ()):
                gids.discard(gid)
            self._publish()

    def _gids(self, gids: Iterable[bytes]) -> list[Any]:
        return [self._gid_class(data=list(gid.ljust(self._gid_size, b"\0"))) for gid in gids]

    def _publish(self) -> None:
        node_class = message_class(definition(self._info).fields[1].base)
        message = message_class(self._info)(gid=self._gids([self.participant.gid])[0])
        for full_name, (readers, writers) in self._nodes.items():
            namespace, _, name = full_name.rpartition("/")
            message.node_entities_info_seq.append(
                node_class(
                    node_namespace=namespace or "/",
                    node_name=name,
                    reader_gid_seq=self._gids(readers),
                    writer_gid_seq=self._gids(writers),
                )
            )
        library.write(self._writer.handle, encoder(self._info)(message))

    # -- asking

    def nodes(self) -> list[tuple[str, str]]:
        """Name and namespace of every node that is known, those of this process included."""
        decode = decoder(self._info)
        with self._lock:
            while (taken := library.take(self._reader.handle)) is not None:
                message = decode(taken[0])
                self._others[taken[1].publication_handle] = message
            alive = library.matched_writers(self._reader.entity)
            self._others = {k: v for k, v in self._others.items() if k in alive}
            return [
                (node.node_name, node.node_namespace)
                for message in self._others.values()
                for node in message.node_entities_info_seq
            ]

    def _endpoints(self, *, writers: bool) -> list[Any]:
        reader = self._publications if writers else self._subscriptions
        alive = InstanceState.Alive
        return [one for one in reader.read(_MANY) if one.sample_info.instance_state == alive]

    def count(self, dds_topic: str, *, writers: bool) -> int:
        return sum(one.topic_name == dds_topic for one in self._endpoints(writers=writers))

    def names_and_types(
        self, prefix: str, suffix: str, *, raw: bool = False
    ) -> list[tuple[str, list[str]]]:
        """ROS names with their types, e.g. ``("/chatter", ["std_msgs/msg/String"])``."""
        found: dict[str, set[str]] = {}
        for one in self._endpoints(writers=True) + self._endpoints(writers=False):
            name, kind = one.topic_name, one.type_name
            if not raw:
                if not name.startswith(f"{prefix}/") or not name.endswith(suffix):
                    continue
                name = name[len(prefix) : len(name) - len(suffix) or None]
                kind = kind.replace("::dds_::", "::").replace("::", "/").removesuffix("_")
                kind = kind.removesuffix(f"_{suffix}") if suffix else kind
            found.setdefault(name, set()).add(kind)
        return sorted((name, sorted(kinds)) for name, kinds in found.items())
