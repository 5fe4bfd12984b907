"""Writes topics to an MCAP bag as they come, without ever holding up who listens."""

from __future__ import annotations

import queue
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from ros_vla_accel.resources import share_path

if TYPE_CHECKING:
    from rclpy.qos import QoSProfile

WAITING_MESSAGES = 4096
WAITING_BYTES = 64 << 20
"""What may wait for the disk; what comes on top is dropped and counted."""


def typestore() -> Any:
    """ROS 2's standard messages and ours, for rosbags."""
    store = get_typestore(Stores.ROS2_JAZZY)
    types: dict[str, Any] = {}
    for path in share_path("msg").glob("*.msg"):
        types |= get_types_from_msg(path.read_text(), f"ros_vla_accel/msg/{path.stem}")
    store.register(types)
    return store


class Recorder:
    """Records (topic, message class, QoS) subscriptions of ``node`` into a new bag folder.

    Messages are written undecoded, by a thread of its own, stamped with the node's time at which
    they arrived. An executor that takes them is never made to wait: when the disk does not keep
    up or fails, messages are dropped and counted in ``dropped``, and ``error`` says why. The file
    can be read up to the end even if the process is killed, but for the newest second or so.
    Raises FileExistsError when the folder is there already: no recording is overwritten.
    """

    def __init__(self, node: Any, folder: Path, topics: list[tuple[str, Any, QoSProfile]]) -> None:
        if folder.exists():
            raise FileExistsError(f"recording folder '{folder}' exists; name a new one")
        folder.parent.mkdir(parents=True, exist_ok=True)
        self.dropped = 0
        self.written = 0
        self.error = ""
        self.subscriptions: list[Any] = []
        self._node = node
        self._waiting: queue.Queue[tuple[Any, int, bytes] | None] = queue.Queue()
        self._waiting_bytes = 0
        self._lock = threading.Lock()
        self._writer = Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP)
        self._writer.open()
        store = typestore()
        for topic, kind, qos in topics:
            name = f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}"
            connection = self._writer.add_connection(
                node.resolve_topic_name(topic),
                name,
                typestore=store,
                offered_qos_profiles=[_offered(qos)],
            )
            self.subscriptions.append(
                node.create_subscription(kind, topic, self._taker(connection), qos, raw=True)
            )
        self._thread = threading.Thread(target=self._write, name="recorder", daemon=True)
        self._thread.start()

    def _taker(self, connection: Any) -> Any:
        def take(data: bytes) -> None:
            with self._lock:
                full = (
                    self._waiting.qsize() >= WAITING_MESSAGES
                    or self._waiting_bytes + len(data) > WAITING_BYTES
                )
                if full or self.error:
                    self.dropped += 1
                    return
                self._waiting_bytes += len(data)
            received_ns = int(self._node.get_clock().now().nanoseconds)
            self._waiting.put((connection, received_ns, bytes(data)))

        return take

    def _write(self) -> None:
        while (item := self._waiting.get()) is not None:
            with self._lock:
                self._waiting_bytes -= len(item[2])
            if self.error:
                self.dropped += 1
                continue
            try:
                self._writer.write(*item)
            except (OSError, ValueError) as error:
                self.error = f"recording stopped: {error}"
                self.dropped += 1
            else:
                self.written += 1

    def close(self) -> None:
        """Writes what waits, and the bag's metadata. Raises OSError if the disk refuses."""
        self._waiting.put(None)
        self._thread.join()
        if self.error:
            self._writer.abort()
            return
        self._writer.close()


def _offered(qos: QoSProfile) -> Qos:
    """The profile as players of the bag should offer it."""
    forever = QosTime(2147483647, 4294967295)
    return Qos(
        QosHistory.KEEP_LAST,
        max(1, int(qos.depth)),
        # Names are the same in both; a topic that was taken with less may be offered with more.
        QosReliability[qos.reliability.name],
        QosDurability[qos.durability.name],
        forever,
        forever,
        QosLiveliness.AUTOMATIC,
        forever,
        False,
    )
