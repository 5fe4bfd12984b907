"""ROS 1 bags (format 2.0), record by record from the front: whole ones and cut-off ones alike.

Format: https://wiki.ros.org/Bags/Format/2.0. The index at the end is used only to know topics and
times beforehand, so that memory does not grow with the number of messages.
"""

from __future__ import annotations

import bz2
import struct
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from lz4.frame import LZ4FrameDecompressor
from rosbags.typesys.msg import normalize_msgtype

from ros_vla_accel.replay.channel import Channel

MAGIC = b"#ROSBAG V2.0\n"
_MESSAGE, _CHUNK, _CONNECTION = 2, 5, 7
_LONGEST = 1 << 28
"""Bytes; a longer record is a broken length."""
_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_TIME = struct.Struct("<II")


class Ros1File:
    """A ``.bag`` file. Raises ValueError if it is none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connections: dict[int, Channel] = {}
        self.start_ns = self.end_ns = 0
        self.damage = ""
        self._file = path.open("rb")
        if self._file.read(len(MAGIC)) != MAGIC:
            raise ValueError(f"'{path.name}' is no ROS bag of version 2.0")
        try:
            self._read_index()
        except (EOFError, struct.error, KeyError, ValueError):
            self._scan()

    @property
    def channels(self) -> list[Channel]:
        return list(self._connections.values())

    def close(self) -> None:
        self._file.close()

    def messages(
        self, topics: frozenset[str], start_ns: int, stop_ns: int
    ) -> Iterator[tuple[Channel, int, bytes]]:
        wanted = {
            number: channel
            for number, channel in self._connections.items()
            if channel.topic in topics
        }
        for number, time_ns, data in self._all():
            channel = wanted.get(number)
            if channel is not None and start_ns <= time_ns < stop_ns:
                yield channel, time_ns, data

    def _read_index(self) -> None:
        """Connections and times from the end of the file, where a finished recording has them."""
        header, _ = _record(self._file)
        (index_at,) = _U64.unpack(header[b"index_pos"])
        if index_at == 0:
            raise ValueError("never finished")
        self._file.seek(index_at)
        starts, ends = [], []
        for _ in range(_U32.unpack(header[b"conn_count"])[0]):
            self._connect(*_record(self._file))
        for _ in range(_U32.unpack(header[b"chunk_count"])[0]):
            info, _ = _record(self._file)
            starts.append(_time_ns(info[b"start_time"]))
            ends.append(_time_ns(info[b"end_time"]))
        if not starts:
            raise ValueError("no index")
        self.start_ns, self.end_ns = min(starts), max(ends)

    def _scan(self) -> None:
        """The same from the messages themselves, for a recording that never came to its end."""
        self._connections.clear()
        self.start_ns = self.end_ns = 0
        for _, time_ns, _ in self._all():
            self.start_ns = min(self.start_ns or time_ns, time_ns)
            self.end_ns = max(self.end_ns, time_ns)

    def _connect(self, header: dict[bytes, bytes], data: bytes) -> None:
        about = _fields(data)
        self._connections[_U32.unpack(header[b"conn"])[0]] = Channel(
            topic=header[b"topic"].decode(),
            msgtype=normalize_msgtype(about[b"type"].decode()),
            definition=about[b"message_definition"].decode(errors="replace"),
            ros1=True,
        )

    def _all(self) -> Iterator[tuple[int, int, bytes]]:
        """Connection, receive stamp and data of each message, up to the damage."""
        self._file.seek(len(MAGIC))
        self.damage = ""
        start = 0
        try:
            while True:
                start = self._file.tell()
                header, data = _record(self._file, whole=False)
                if header[b"op"][0] == _CHUNK:
                    chunk = BytesIO(_inflate(header[b"compression"], data))
                    (size,) = _U32.unpack(header[b"size"])
                    while chunk.tell() < size:
                        yield from self._take(*_record(chunk))
                else:
                    yield from self._take(header, data)
        except EOFError:
            if start != self._path.stat().st_size:
                self.damage = f"'{self._path.name}' ends in a record at byte {start}"
        except (struct.error, KeyError, ValueError, OSError, RuntimeError, IndexError) as error:
            self.damage = f"'{self._path.name}' is damaged at byte {start}: {error!r}"

    def _take(self, header: dict[bytes, bytes], data: bytes) -> Iterator[tuple[int, int, bytes]]:
        if header[b"op"][0] == _MESSAGE:
            yield _U32.unpack(header[b"conn"])[0], _time_ns(header[b"time"]), data
        elif header[b"op"][0] == _CONNECTION:
            self._connect(header, data)


def _inflate(compression: bytes, data: bytes) -> bytes:
    """As much of a chunk as there is."""
    if compression == b"none":
        return data
    if compression == b"bz2":
        return bz2.BZ2Decompressor().decompress(data)
    if compression == b"lz4":
        return bytes(LZ4FrameDecompressor().decompress(data))
    raise ValueError(f"compression '{compression.decode(errors='replace')}' is not known")


def _record(file: BinaryIO, whole: bool = True) -> tuple[dict[bytes, bytes], bytes]:
    """The next record; EOFError where the file ends. whole: its data must be complete too."""
    header = _fields(_sized(file))
    return header, _sized(file, whole or header[b"op"][0] != _CHUNK)


def _sized(file: BinaryIO, whole: bool = True) -> bytes:
    length = file.read(4)
    if len(length) < 4:
        raise EOFError
    (size,) = _U32.unpack(length)
    if size > _LONGEST:
        raise ValueError(f"a record of {size} bytes")
    data = file.read(size)
    if len(data) < size and (whole or not data):
        raise EOFError
    return data


def _fields(data: bytes) -> dict[bytes, bytes]:
    fields: dict[bytes, bytes] = {}
    at = 0
    while at < len(data):
        (size,) = _U32.unpack_from(data, at)
        name, _, value = data[at + 4 : at + 4 + size].partition(b"=")
        fields[name] = value
        at += 4 + size
    return fields


def _time_ns(value: bytes) -> int:
    seconds, nanoseconds = _TIME.unpack(value)
    return int(seconds) * 1_000_000_000 + int(nanoseconds)
