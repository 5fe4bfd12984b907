"""ROS 2 files that were cut off or never finished, read as far as they go."""

from __future__ import annotations

import sqlite3
import struct
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from lz4.frame import LZ4FrameDecompressor

from ros_vla_accel.replay.channel import Channel

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_MCAP_MAGIC = b"\x89MCAP0\r\n"
_SCHEMA, _CHANNEL, _MESSAGE, _CHUNK = 3, 4, 5, 6
_RECORD = struct.Struct("<BQ")
_MESSAGE_HEAD = struct.Struct("<HIQQ")


class DamagedMcap:
    """An MCAP file without its index, record by record. Format: https://mcap.dev/spec."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._schemas: dict[int, tuple[str, str, str]] = {}
        self._channels: dict[int, Channel] = {}
        self.damage = ""
        self._file = path.open("rb")
        if self._file.read(8) != _MCAP_MAGIC:
            raise ValueError(f"'{path.name}' is no MCAP file")
        self.start_ns = self.end_ns = 0
        for _, time_ns, _ in self._all():
            self.start_ns = min(self.start_ns or time_ns, time_ns)
            self.end_ns = max(self.end_ns, time_ns)

    @property
    def channels(self) -> list[Channel]:
        return list(self._channels.values())

    def close(self) -> None:
        self._file.close()

    def messages(
        self, topics: frozenset[str], start_ns: int, stop_ns: int
    ) -> Iterator[tuple[Channel, int, bytes]]:
        for number, time_ns, data in self._all():
            channel = self._channels.get(number)
            if channel and channel.topic in topics and start_ns <= time_ns < stop_ns:
                yield channel, time_ns, data

    def _all(self) -> Iterator[tuple[int, int, bytes]]:
        self._file.seek(8)
        try:
            yield from self._records(self._file)
        except GeneratorExit:
            raise
        except Exception as error:  # Broken bytes break any decoder, each in its own way.
            self.damage = f"'{self._path.name}' is damaged at byte {self._file.tell()}: {error}"

    def _records(self, file: BinaryIO) -> Iterator[tuple[int, int, bytes]]:
        while head := file.read(_RECORD.size):
            kind, size = _RECORD.unpack(head)
            if kind == _CHUNK:
                yield from self._records(BytesIO(self._inflate(file, size)))
                continue
            data = file.read(size)
            if len(data) < size:
                raise EOFError("it ends in the middle of a record")
            if kind == _MESSAGE:
                number, _, time_ns, _ = _MESSAGE_HEAD.unpack_from(data)
                yield number, time_ns, data[_MESSAGE_HEAD.size :]
            elif kind == _SCHEMA:
                (number,) = struct.unpack_from("<H", data)
                self._schemas[number] = tuple(_strings(data, 2, 3))  # type: ignore[assignment]
            elif kind == _CHANNEL:
                number, schema = struct.unpack_from("<HH", data)
                msgtype, encoding, definition = self._schemas.get(schema, ("", "", ""))
                (topic,) = _strings(data, 4, 1)
                self._channels[number] = Channel(topic, msgtype, definition, "idl" in encoding)

    @staticmethod
    def _inflate(file: BinaryIO, size: int) -> bytes:
        """As much of a chunk's records as there is."""
        data = file.read(size)
        (length,) = struct.unpack_from("<I", data, 28)
        compression = data[32 : 32 + length].decode()
        body = data[32 + length + 8 :]
        if compression == "zstd":
            return bytes(zstd.ZstdDecompressor().decompress(body))
        if compression == "lz4":
            return bytes(LZ4FrameDecompressor().decompress(body))
        return body


def _strings(data: bytes, at: int, count: int) -> list[str]:
    texts = []
    for _ in range(count):
        (size,) = struct.unpack_from("<I", data, at)
        texts.append(data[at + 4 : at + 4 + size].decode())
        at += 4 + size
    return texts


class DamagedSqlite:
    """A ``.db3`` that SQLite calls malformed, row by row in the order of recording."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.damage = ""
        self._database = sqlite3.connect(f"file:{path}?immutable=1", uri=True)
        # Without it, SQLite refuses a file that is shorter than its header says.
        self._database.execute("PRAGMA writable_schema=ON")
        try:
            rows = self._database.execute("SELECT id, name, type FROM topics").fetchall()
        except sqlite3.Error as error:
            raise ValueError(f"'{path.name}' has no readable topics: {error}") from None
        definitions = self._definitions()
        self._channels = {
            number: Channel(topic, msgtype, *definitions.get(msgtype, ("", False)))
            for number, topic, msgtype in rows
            if _texts((topic, msgtype))
        }
        self.channels = list(self._channels.values())
        self.start_ns = self.end_ns = 0
        for _, time_ns in self._rows("topic_id, timestamp"):
            self.start_ns = min(self.start_ns or time_ns, time_ns)
            self.end_ns = max(self.end_ns, time_ns)

    def close(self) -> None:
        self._database.close()

    def messages(
        self, topics: frozenset[str], start_ns: int, stop_ns: int
    ) -> Iterator[tuple[Channel, int, bytes]]:
        for number, time_ns, data in self._rows("topic_id, timestamp, data"):
            channel = self._channels.get(number)
            if channel and channel.topic in topics and start_ns <= time_ns < stop_ns:
                yield channel, time_ns, data

    def _definitions(self) -> dict[str, tuple[str, bool]]:
        try:
            rows = self._database.execute(
                "SELECT topic_type, encoded_message_definition, encoding FROM message_definitions"
            ).fetchall()
        except sqlite3.Error:
            return {}
        return {row[0]: (row[1], "idl" in row[2]) for row in rows if _texts(row)}

    def _rows(self, columns: str) -> Iterator[tuple[Any, ...]]:
        try:
            for row in self._database.execute(f"SELECT {columns} FROM messages NOT INDEXED"):
                if not (
                    isinstance(row[0], int) and isinstance(row[1], int) and row[-1] is not None
                ):
                    raise sqlite3.DataError("a row is torn")
                yield row
        except sqlite3.Error as error:
            self.damage = f"'{self._path.name}' is damaged: {error}"


def _texts(row: tuple[Any, ...]) -> bool:
    """Whether the bytes of a row were left in peace: SQLite gives back whatever it finds."""
    return all(isinstance(value, str) for value in row)
