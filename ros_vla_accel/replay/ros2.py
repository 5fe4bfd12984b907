"""ROS 2 bags that are whole, through ``rosbags``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from rosbags.interfaces import MessageDefinitionFormat
from rosbags.rosbag2 import Reader

from ros_vla_accel.replay.channel import Channel


class Ros2Bag:
    """A bag folder with metadata.yaml, or a single ``.mcap`` or ``.db3``.

    Raises whatever ``rosbags`` raises if it is damaged; ``damaged.py`` reads it then.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reader = Reader(path)
        self._reader.open()
        self.damage = ""
        self.start_ns = self._reader.start_time if self._reader.message_count else 0
        self.end_ns = max(0, self._reader.end_time - 1)
        self._channels = {
            item.id: Channel(
                topic=item.topic,
                msgtype=item.msgtype,
                definition=item.msgdef.data,
                idl=item.msgdef.format is MessageDefinitionFormat.IDL,
            )
            for item in self._reader.connections
        }
        self.channels = list(self._channels.values())

    def close(self) -> None:
        with suppress(Exception):
            self._reader.close()

    def messages(
        self, topics: frozenset[str], start_ns: int, stop_ns: int
    ) -> Iterator[tuple[Channel, int, bytes]]:
        wanted = [item for item in self._reader.connections if item.topic in topics]
        if not wanted:
            return
        try:
            for item, time_ns, data in self._reader.messages(wanted, start_ns, stop_ns):
                yield self._channels[item.id], time_ns, data
        except GeneratorExit:
            raise
        except Exception as error:  # Broken bytes break any decoder, each in its own way.
            self.damage = f"'{self._path.name}' is damaged: {error}"
