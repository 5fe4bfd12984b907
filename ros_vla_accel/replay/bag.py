"""Opens a recording, whatever it is: ROS 1 or 2, split, compressed, unfinished."""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from ros_vla_accel.replay.channel import Channel, Source, decoder
from ros_vla_accel.replay.damaged import DamagedMcap, DamagedSqlite
from ros_vla_accel.replay.ros1 import Ros1File
from ros_vla_accel.replay.ros2 import Ros2Bag

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

FOREVER_NS = 2**63 - 1
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


class BagError(ValueError):
    """The path holds no recording that can be read at all."""


class Bag:
    """The messages of a recording in the order of their receive stamps; a context manager.

    path: a ``.bag``, ``.mcap`` or ``.db3`` (also ``.zstd`` of the latter two), or a folder of
    such files with or without metadata.yaml. msg_folder: .msg files for types that the bag does
    not define. Raises FileNotFoundError or BagError.

    topics: name -> message type. start_ns, end_ns: first and last receive stamp. damage: files
    that could not be read to their end and why; complete once ``messages`` is exhausted.
    """

    def __init__(self, path: str | Path, msg_folder: Path | None = None) -> None:
        self.path = Path(path)
        self.damage: list[str] = []
        self._msg_folder = msg_folder
        self._stack = ExitStack()
        self._decoders: dict[Channel, Callable[[bytes], Any]] = {}
        if not self.path.exists():
            raise FileNotFoundError(f"no recording at '{self.path}'")
        try:
            self._sources = self._open()
        except BaseException:
            self._stack.close()
            raise
        self._sources.sort(key=lambda source: source.start_ns)
        self.damage += [source.damage for source in self._sources if source.damage]
        channels = [channel for source in self._sources for channel in source.channels]
        self.topics = {channel.topic: channel.msgtype for channel in channels}
        self.start_ns = min((s.start_ns for s in self._sources if s.start_ns), default=0)
        self.end_ns = max((s.end_ns for s in self._sources), default=0)

    def __enter__(self) -> Bag:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def messages(
        self, topics: Iterable[str], start_ns: int = 0, stop_ns: int = FOREVER_NS
    ) -> Iterator[tuple[Channel, int, bytes]]:
        """(channel, receive stamp in ns, bytes) of these topics, up to any damage."""
        wanted = frozenset(topics)
        for source in self._sources:
            yield from source.messages(wanted, start_ns, stop_ns)
            if source.damage and source.damage not in self.damage:
                self.damage.append(source.damage)

    def decode(self, channel: Channel, data: bytes) -> Any:
        """The message. Raises DefinitionError, or anything for bytes that do not fit."""
        read = self._decoders.get(channel)
        if read is None:
            read = self._decoders[channel] = decoder(channel, self._msg_folder)
        if data[:4] == _ZSTD_MAGIC and not channel.ros1:
            data = zstd.decompress(data)  # Compressed by message, in a bag without metadata.
        return read(data)

    def _open(self) -> list[Source]:
        if self.path.is_dir() and (self.path / "metadata.yaml").is_file():
            with suppress(Exception):  # Unfinished or damaged: file by file, below.
                return [self._keep(Ros2Bag(self.path))]
        files = self._files()
        if not files:
            raise BagError(f"'{self.path}' holds no .bag, .mcap or .db3 file")
        sources = []
        for file in files:
            try:
                sources.append(self._keep(self._open_file(self._inflated(file))))
            except (ValueError, OSError) as error:
                self.damage.append(f"'{file.name}' cannot be read: {error}")
        if not sources:
            raise BagError(f"nothing readable at '{self.path}': {'; '.join(self.damage)}")
        return sources

    def _keep(self, source: Source) -> Source:
        self._stack.callback(source.close)
        return source

    def _files(self) -> list[Path]:
        if self.path.is_file():
            return [self.path]
        kinds = (".bag", ".mcap", ".db3", ".mcap.zstd", ".db3.zstd", ".bag.active")
        found = [file for file in self.path.iterdir() if file.name.endswith(kinds)]
        return sorted(found, key=lambda file: [int(n) for n in re.findall(r"\d+", file.name)])

    def _inflated(self, file: Path) -> Path:
        if file.suffix not in (".zstd", ".zst"):
            return file
        folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="replay-"))
        plain = Path(folder) / file.stem
        with file.open("rb") as packed, plain.open("wb") as out:
            try:
                with zstd.open(packed, "rb") as inflated:
                    shutil.copyfileobj(inflated, out)
            except (EOFError, zstd.ZstdError) as error:
                self.damage.append(f"'{file.name}' is damaged: {error}")
        return plain

    @staticmethod
    def _open_file(file: Path) -> Source:
        if file.suffix in (".bag", ".active"):
            return Ros1File(file)
        if file.suffix not in (".mcap", ".db3"):
            raise ValueError(f"'{file.suffix}' is no suffix of a bag (.bag, .mcap, .db3)")
        try:
            return Ros2Bag(file)
        except Exception:  # rosbags raises as the bytes please; the damaged kind says why.
            return DamagedMcap(file) if file.suffix == ".mcap" else DamagedSqlite(file)
