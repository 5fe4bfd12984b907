"""Writes topics to an MCAP bag as they come, without ever holding up who listens."""

from __future__ import annotations

import queue
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from ros_vla_accel.resources import share_path

if TYPE_CHECKING:
    from rclpy.qos import QoSProfile

QUEUE_LENGTH = 512
"""Messages that wait for the disk; what comes on top is dropped and counted."""


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

    Messages are written undecoded, by a thread of its own, stamped with the time they arrived.
    Raises FileExistsError when the folder is there already: no recording is overwritten.
    """

    def __init__(self, node: Any, folder: Path, topics: list[tuple[str, Any, QoSProfile]]) -> None:
        if folder.exists():
            raise FileExistsError(f"recording folder '{folder}' exists; name a new one")
        folder.parent.mkdir(parents=True, exist_ok=True)
        self.dropped = 0
        self.written = 0
        self._queue: queue.Queue[tuple[Any, int, bytes] | None] = queue.Queue(QUEUE_LENGTH)
        self._writer = Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP)
        self._writer.open()
        store = typestore()
        for topic, kind, qos in topics:
            name = f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}"
            connection = self._writer.add_connection(
                node.resolve_topic_name(topic), name, typestore=store
            )
            node.create_subscription(kind, topic, self._taker(connection), qos, raw=True)
        self._thread = threading.Thread(target=self._write, name="recorder", daemon=True)
        self._thread.start()

    def _taker(self, connection: Any) -> Any:
        def take(data: bytes) -> None:
            try:
                self._queue.put_nowait((connection, time.time_ns(), data))
            except queue.Full:
                self.dropped += 1

        return take

    def _write(self) -> None:
        while (item := self._queue.get()) is not None:
            self._writer.write(*item)
            self.written += 1

    def close(self) -> None:
        """Writes what waits, and the bag's metadata."""
        self._queue.put(None)
        self._thread.join()
        self._writer.close()
